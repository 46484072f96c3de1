//! Which subtask a record goes to.
//!
//! A [`Distribution`] is also what turns a record into what the consumer's chain takes: on a keyed
//! edge the key is extracted and hashed once by the producer, the hash travels, and the consumer
//! extracts the key again instead of having it shipped.

use super::EdgeKind;
use super::in_flight::{Codecs, Dealing, RecordCodec};
use crate::hash::{key_group, key_hash, owner_of_group};
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

/// Where an exchange stands: who sends, how many receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// This subtask.
    pub me: u32,
    /// The producers' parallelism.
    pub producers: u32,
    /// The consumers' parallelism.
    pub consumers: u32,
    /// The number of key groups.
    pub max_parallelism: u32,
}

/// The subtasks that take a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// One.
    One(u32),
    /// Every one of them, each a copy.
    All,
}

/// A record with its key, and the key's hash.
#[derive(Clone, Debug, PartialEq)]
pub struct Keyed<K, T> {
    /// [`key_hash`] of the key.
    pub hash: u64,
    /// The key.
    pub key: K,
    /// The record.
    pub value: T,
}

/// Chooses subtasks for records of type `T`.
pub trait Distribution<T>: Clone + Send + 'static {
    /// What the consumer's chain takes.
    type Local: 'static;

    /// What plans and reports call it.
    const KIND: EdgeKind;

    /// How records in flight that a checkpoint kept find their subtask in a later attempt. `None` where only
    /// the old subtasks would be right: barriers stay behind the records there.
    const DEALING: Option<Dealing> = None;

    /// Whether a subtask's own records are gathered and then taken in together, where there are others. Whose a
    /// record is can't be foretold where keys decide, and to branch on it costs more than to put a small record
    /// aside; but its local form is made again then.
    const GATHERS: bool = false;

    /// How records become bytes, where that is known.
    fn codec(codecs: &Codecs) -> Option<Arc<dyn RecordCodec<T>>>
    where
        T: 'static,
    {
        codecs.of::<T>()
    }

    /// Learns its place, once, in each subtask.
    fn place(&mut self, placement: Placement);

    /// The target of a record, its key's hash (0 where there is no key), and its local form.
    fn prepare(&mut self, value: T) -> (Target, u64, Self::Local);

    /// The form in which a record travels.
    fn strip(local: Self::Local) -> T;

    /// The local form of a record that came with this hash.
    fn lift(&self, hash: u64, value: T) -> Self::Local;

    /// A copy, for distributions that choose [`Target::All`].
    fn copy(_value: &T) -> Option<T> {
        None
    }
}

/// Bytes of a record that costs little to move.
const SMALL: usize = 64;

/// By key: all records of a key go to the subtask that owns its key group.
pub struct ByKey<F, K> {
    select: F,
    owners: Vec<u16>,
    max_parallelism: u32,
    key: PhantomData<fn() -> K>,
}

impl<F: Clone, K> Clone for ByKey<F, K> {
    fn clone(&self) -> Self {
        ByKey {
            select: self.select.clone(),
            owners: self.owners.clone(),
            max_parallelism: self.max_parallelism,
            key: PhantomData,
        }
    }
}

impl<F, K> ByKey<F, K> {
    /// By the key that `select` reads from a record.
    pub fn new(select: F) -> Self {
        ByKey {
            select,
            owners: Vec::new(),
            max_parallelism: 1,
            key: PhantomData,
        }
    }
}

impl<T, F, K> Distribution<T> for ByKey<F, K>
where
    T: 'static,
    F: Fn(&T) -> K + Clone + Send + 'static,
    K: Hash + 'static,
{
    type Local = Keyed<K, T>;
    const KIND: EdgeKind = EdgeKind::Hash;
    const DEALING: Option<Dealing> = Some(Dealing::ByHash);
    const GATHERS: bool = !std::mem::needs_drop::<K>() && size_of::<T>() <= SMALL;

    fn place(&mut self, at: Placement) {
        self.max_parallelism = at.max_parallelism;
        self.owners = (0..at.max_parallelism)
            .map(|group| owner_of_group(group, at.max_parallelism, at.consumers) as u16)
            .collect();
    }

    #[inline(always)]
    fn prepare(&mut self, value: T) -> (Target, u64, Keyed<K, T>) {
        let key = (self.select)(&value);
        let hash = key_hash(&key);
        let owner = self.owners[key_group(hash, self.max_parallelism) as usize];
        (
            Target::One(u32::from(owner)),
            hash,
            Keyed { hash, key, value },
        )
    }

    #[inline(always)]
    fn strip(local: Keyed<K, T>) -> T {
        local.value
    }

    #[inline(always)]
    fn lift(&self, hash: u64, value: T) -> Keyed<K, T> {
        Keyed {
            hash,
            key: (self.select)(&value),
            value,
        }
    }
}

macro_rules! plain {
    ($kind:ident) => {
        type Local = T;
        const KIND: EdgeKind = EdgeKind::$kind;
        #[inline(always)]
        fn strip(local: T) -> T {
            local
        }
        #[inline(always)]
        fn lift(&self, _hash: u64, value: T) -> T {
            value
        }
    };
}

/// To the same subtask number; in turn where the consumers are fewer or more.
#[derive(Clone, Debug, Default)]
pub struct Forward(Rebalance, bool, u32);

impl<T: 'static> Distribution<T> for Forward {
    plain!(Forward);
    fn place(&mut self, at: Placement) {
        self.1 = at.producers == at.consumers;
        self.2 = at.me;
        <Rebalance as Distribution<T>>::place(&mut self.0, at);
    }
    #[inline(always)]
    fn prepare(&mut self, value: T) -> (Target, u64, T) {
        if self.1 {
            (Target::One(self.2), 0, value)
        } else {
            self.0.prepare(value)
        }
    }
}

/// To all subtasks in turn, beginning at the producer's own number.
#[derive(Clone, Debug, Default)]
pub struct Rebalance {
    next: u32,
    consumers: u32,
}

impl<T: 'static> Distribution<T> for Rebalance {
    plain!(Rebalance);
    const DEALING: Option<Dealing> = Some(Dealing::InTurn);
    fn place(&mut self, at: Placement) {
        *self = Rebalance {
            next: at.me % at.consumers,
            consumers: at.consumers,
        };
    }
    #[inline(always)]
    fn prepare(&mut self, value: T) -> (Target, u64, T) {
        let target = self.next;
        self.next = if target + 1 == self.consumers {
            0
        } else {
            target + 1
        };
        (Target::One(target), 0, value)
    }
}

/// In turn to a few nearby subtasks: each producer serves its own share of the consumers.
#[derive(Clone, Debug, Default)]
pub struct Rescale {
    next: u32,
    first: u32,
    end: u32,
}

impl<T: 'static> Distribution<T> for Rescale {
    plain!(Rescale);
    fn place(&mut self, at: Placement) {
        let share =
            |i: u32| (u64::from(i) * u64::from(at.consumers) / u64::from(at.producers)) as u32;
        let first = share(at.me).min(at.consumers - 1);
        let end = share(at.me + 1).max(first + 1);
        *self = Rescale {
            next: first,
            first,
            end,
        };
    }
    #[inline(always)]
    fn prepare(&mut self, value: T) -> (Target, u64, T) {
        let target = self.next;
        self.next = if target + 1 == self.end {
            self.first
        } else {
            target + 1
        };
        (Target::One(target), 0, value)
    }
}

/// To a random subtask; the sequence of each producer is the same in every run.
#[derive(Clone, Debug, Default)]
pub struct Shuffle {
    state: u64,
    consumers: u32,
}

impl<T: 'static> Distribution<T> for Shuffle {
    plain!(Shuffle);
    const DEALING: Option<Dealing> = Some(Dealing::InTurn);
    fn place(&mut self, at: Placement) {
        *self = Shuffle {
            state: key_hash(&at.me),
            consumers: at.consumers,
        };
    }
    #[inline(always)]
    fn prepare(&mut self, value: T) -> (Target, u64, T) {
        // Weyl sequence through the key hash: a counter-based generator.
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (
            Target::One(key_group(key_hash(&self.state), self.consumers)),
            0,
            value,
        )
    }
}

/// To subtask 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Global;

impl<T: 'static> Distribution<T> for Global {
    plain!(Global);
    // Its records carry the hash 0, of the first key group, and that is always subtask 0's.
    const DEALING: Option<Dealing> = Some(Dealing::ByHash);
    fn place(&mut self, _at: Placement) {}
    #[inline(always)]
    fn prepare(&mut self, value: T) -> (Target, u64, T) {
        (Target::One(0), 0, value)
    }
}

/// A copy to every subtask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Broadcast;

impl<T: Clone + 'static> Distribution<T> for Broadcast {
    plain!(Broadcast);
    fn place(&mut self, _at: Placement) {}
    #[inline(always)]
    fn prepare(&mut self, value: T) -> (Target, u64, T) {
        (Target::All, 0, value)
    }
    fn copy(value: &T) -> Option<T> {
        Some(value.clone())
    }
}

/// To the subtask that a function chooses: given the record and the number of subtasks, taken
/// modulo that number.
#[derive(Clone, Debug)]
pub struct Custom<F> {
    choose: F,
    consumers: u32,
}

impl<F> Custom<F> {
    /// By `choose(record, subtasks)`.
    pub fn new(choose: F) -> Self {
        Custom {
            choose,
            consumers: 1,
        }
    }
}

impl<T: 'static, F: Fn(&T, u32) -> u32 + Clone + Send + 'static> Distribution<T> for Custom<F> {
    plain!(Custom);
    fn place(&mut self, at: Placement) {
        self.consumers = at.consumers;
    }
    #[inline(always)]
    fn prepare(&mut self, value: T) -> (Target, u64, T) {
        (
            Target::One((self.choose)(&value, self.consumers) % self.consumers),
            0,
            value,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(me: u32, producers: u32, consumers: u32) -> Placement {
        Placement {
            me,
            producers,
            consumers,
            max_parallelism: 128,
        }
    }

    fn targets<D: Distribution<u64>>(mut d: D, place: Placement, n: u64) -> Vec<Target> {
        d.place(place);
        (0..n).map(|v| d.prepare(v).0).collect()
    }

    #[test]
    fn rebalance_begins_at_the_own_number_and_takes_turns() {
        let got = targets(Rebalance::default(), at(1, 2, 3), 4);
        assert_eq!(got, [1, 2, 0, 1].map(Target::One));
    }

    #[test]
    fn forward_keeps_the_number_where_parallelism_is_equal() {
        assert_eq!(
            targets(Forward::default(), at(1, 2, 2), 3),
            [Target::One(1); 3]
        );
        assert_eq!(
            targets(Forward::default(), at(1, 2, 1), 2),
            [Target::One(0); 2]
        );
    }

    proptest! {
        #[test]
        fn every_target_exists(me in 0u32..7, more in 0u32..7, consumers in 1u32..9) {
            let place = at(me, me + 1 + more, consumers);
            let every = [
                targets(Rebalance::default(), place, 20),
                targets(Rescale::default(), place, 20),
                targets(Shuffle::default(), place, 20),
                targets(Custom::new(|v: &u64, _| *v as u32), place, 20),
                targets(ByKey::new(|v: &u64| *v), place, 20),
            ];
            for target in every.concat() {
                prop_assert!(matches!(target, Target::One(t) if t < consumers));
            }
        }

        #[test]
        fn rescale_reaches_every_consumer(producers in 1u32..9, consumers in 1u32..9) {
            let mut hit = vec![false; consumers as usize];
            for me in 0..producers {
                for target in targets(Rescale::default(), at(me, producers, consumers), 9) {
                    if let Target::One(t) = target { hit[t as usize] = true; }
                }
            }
            prop_assert!(hit.iter().all(|h| *h) || producers < consumers || hit.iter().any(|h| *h));
            if producers <= consumers { prop_assert!(hit.iter().all(|h| *h)); }
        }
    }
}
