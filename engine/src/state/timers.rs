//! Timers of keys: each key and timestamp at most once, taken out in the order of time.
//!
//! A heap orders them, a hash set of slots finds a timer again, to drop a second one or to delete it.
//! A deleted timer leaves its entry in the heap; these are swept when they outnumber the live ones.
//!
//! From a barrier until all is saved, a cursor walks over the slots; a timer that leaves before the
//! cursor has come to it is put aside, and one that was set after the barrier is passed over.

mod queue;
mod spilled;

pub(crate) use self::queue::TimerQueue;

use crate::checkpoint::stored_name;
use crate::checkpoint::{Entries, Key, KeyedPart, KeyedSection};
use crate::fault::Flow;
use crate::hash::key_hash;
use crate::time::Timestamp;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hash;

/// A timer that has come due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timer<K> {
    /// When it was due.
    pub at: Timestamp,
    /// The hash of its key.
    pub hash: u64,
    /// Its key.
    pub key: K,
}

/// Timers of one domain of time. Timers of the same time come out in the order of their registration.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    /// `(at, registration, slot)`, earliest first.
    heap: BinaryHeap<Reverse<(Timestamp, u64, u32)>>,
    slots: Vec<Option<Slot<K>>>,
    free: Vec<u32>,
    live: HashTable<u32>,
    registered: u64,
    frozen: Option<Frozen<K>>,
}

#[derive(Clone, Debug)]
struct Slot<K> {
    timer: Timer<K>,
    registration: u64,
}

/// What is still to be saved, at a checkpoint.
#[derive(Clone, Debug)]
struct Frozen<K> {
    /// The slots before it are saved.
    cursor: usize,
    /// The first registration after the barrier.
    limit: u64,
    /// Timers that left before the cursor came.
    left: Vec<Slot<K>>,
}

/// Fewer deleted entries than this in the heap are not worth a sweep.
const SWEEP_AT_LEAST: usize = 64;

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Timers {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            live: HashTable::new(),
            registered: 0,
            frozen: None,
        }
    }
}

/// The hash under which a timer is found: that of its key, mixed with its time.
fn place(hash: u64, at: Timestamp) -> u64 {
    key_hash(&(hash, at.0))
}

fn is<K: Eq>(slot: Option<&Slot<K>>, at: Timestamp, key: &K) -> bool {
    slot.is_some_and(|Slot { timer, .. }| timer.at == at && timer.key == *key)
}

impl<K: Hash + Eq> Timers<K> {
    /// Sets a timer; false if it was set already. The key is cloned only where it was not.
    pub fn register(&mut self, at: Timestamp, hash: u64, key: &K) -> bool
    where
        K: Clone,
    {
        self.insert(at, hash, key, self.registered)
    }

    fn insert(&mut self, at: Timestamp, hash: u64, key: &K, registration: u64) -> bool
    where
        K: Clone,
    {
        let slots = &mut self.slots;
        let found = self.live.entry(
            place(hash, at),
            |slot| is(slots[*slot as usize].as_ref(), at, key),
            |slot| {
                slots[*slot as usize]
                    .as_ref()
                    .map_or(0, |s| place(s.timer.hash, s.timer.at))
            },
        );
        let Entry::Vacant(vacant) = found else {
            return false;
        };
        let slot = self.free.pop().unwrap_or(slots.len() as u32);
        vacant.insert(slot);
        let timer = Timer {
            at,
            hash,
            key: key.clone(),
        };
        let filled = Some(Slot {
            timer,
            registration,
        });
        match slots.get_mut(slot as usize) {
            Some(free) => *free = filled,
            None => slots.push(filled),
        }
        self.heap.push(Reverse((at, registration, slot)));
        self.registered = self.registered.max(registration + 1);
        true
    }

    /// Unsets a timer; false if it was not set.
    pub fn delete(&mut self, at: Timestamp, hash: u64, key: &K) -> bool
    where
        K: Clone,
    {
        let slots = &self.slots;
        let found = self.live.find_entry(place(hash, at), |slot| {
            is(slots[*slot as usize].as_ref(), at, key)
        });
        let Ok(entry) = found else { return false };
        let (slot, _) = entry.remove();
        self.vacate(slot);
        let deleted = self.heap.len() - self.live.len();
        if deleted > SWEEP_AT_LEAST.max(self.live.len()) {
            self.sweep();
        } else {
            self.skip_deleted();
        }
        true
    }

    /// Takes out the earliest timer that is due at `now`.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<Timer<K>>
    where
        K: Clone,
    {
        let Reverse((at, _, slot)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        let timer = self.vacate(slot)?;
        self.free.push(slot);
        if let Ok(entry) = self.live.find_entry(place(timer.hash, at), |s| *s == slot) {
            entry.remove();
        }
        self.skip_deleted();
        Some(timer)
    }

    /// When the earliest timer is due.
    pub fn next(&self) -> Option<Timestamp> {
        self.heap.peek().map(|Reverse((at, _, _))| *at)
    }

    /// How many timers are set.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether no timer is set.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// All timers, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Timer<K>> {
        self.slots.iter().flatten().map(|slot| &slot.timer)
    }

    /// Takes a timer out of its slot.
    fn vacate(&mut self, slot: u32) -> Option<Timer<K>>
    where
        K: Clone,
    {
        let left = self.slots[slot as usize].take()?;
        if let Some(frozen) = &mut self.frozen
            && slot as usize >= frozen.cursor
            && left.registration < frozen.limit
        {
            frozen.left.push(left.clone());
        }
        Some(left.timer)
    }

    /// Keeps the top of the heap a live timer. A slot becomes free when its entry leaves the heap.
    fn skip_deleted(&mut self) {
        while let Some(Reverse((_, _, slot))) = self.heap.peek() {
            if self.slots[*slot as usize].is_some() {
                return;
            }
            self.free.push(*slot);
            self.heap.pop();
        }
    }

    #[cold]
    fn sweep(&mut self) {
        let (slots, free) = (&self.slots, &mut self.free);
        self.heap.retain(|Reverse((_, _, slot))| {
            let live = slots[*slot as usize].is_some();
            if !live {
                free.push(*slot);
            }
            live
        });
    }
}

impl<K: Key> KeyedPart for Timers<K> {
    fn types(&self) -> (&'static str, &'static str) {
        (stored_name::<K>(), "timer")
    }

    fn freeze(&mut self) -> Flow {
        self.frozen = Some(Frozen {
            cursor: 0,
            limit: self.registered,
            left: Vec::new(),
        });
        Ok(())
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        let Some(frozen) = &mut self.frozen else {
            return Ok(true);
        };
        let end = frozen.cursor.saturating_add(budget).min(self.slots.len());
        let reached = self.slots[frozen.cursor..end].iter().flatten();
        let mine = reached.filter(|slot| slot.registration < frozen.limit);
        for Slot {
            timer,
            registration,
        } in mine.chain(&frozen.left)
        {
            into.put(timer.hash, &(timer.at, registration, &timer.key))?;
        }
        frozen.left.clear();
        frozen.cursor = end;
        let complete = end == self.slots.len();
        if complete {
            self.frozen = None;
        }
        Ok(complete)
    }

    fn thaw(&mut self) {
        self.frozen = None;
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        while let Some((at, registration, key)) = entries.take_next::<(Timestamp, u64, K)>()? {
            self.insert(at, key_hash(&key), &key, registration);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn equal_times_come_out_as_they_were_registered() {
        let mut timers = Timers::default();
        for key in ["b", "a", "b", "c"] {
            timers.register(Timestamp(5), key_hash(&key), &key);
        }
        let order: Vec<_> = std::iter::from_fn(|| timers.pop_due(Timestamp(5))).collect();
        assert_eq!(
            order.iter().map(|t| t.key).collect::<Vec<_>>(),
            ["b", "a", "c"]
        );
    }

    #[test]
    fn deleted_timers_do_not_pile_up() {
        let mut timers = Timers::default();
        timers.register(Timestamp(0), key_hash(&7u64), &7u64);
        for at in 1..10_000 {
            timers.register(Timestamp(at), key_hash(&7u64), &7);
            timers.delete(Timestamp(at), key_hash(&7u64), &7);
        }
        assert_eq!(timers.len(), 1);
        assert!(timers.heap.len() < 200 && timers.slots.len() < 200);
    }

    proptest! {
        #[test]
        fn behaves_like_an_ordered_set(
            ops in prop::collection::vec((0u8..5, 0u16..6, 0i64..40), 0..800),
        ) {
            let (mut timers, mut model) = (Timers::default(), BTreeSet::new());
            for (op, key, at) in ops {
                let (hash, time) = (key_hash(&key), Timestamp(at));
                match op {
                    0..=2 => {
                        prop_assert_eq!(timers.register(time, hash, &key), model.insert((at, key)));
                    }
                    3 => prop_assert_eq!(timers.delete(time, hash, &key), model.remove(&(at, key))),
                    _ => {
                        let later = model.split_off(&(at - 20, 0));
                        let mut due = BTreeSet::new();
                        let mut last = Timestamp::MIN;
                        while let Some(timer) = timers.pop_due(Timestamp(at - 21)) {
                            prop_assert!(timer.at >= last && timer.hash == key_hash(&timer.key));
                            last = timer.at;
                            due.insert((timer.at.0, timer.key));
                        }
                        prop_assert_eq!(due, std::mem::replace(&mut model, later));
                    }
                }
                prop_assert_eq!(timers.len(), model.len());
                prop_assert_eq!(timers.next(), model.first().map(|(at, _)| Timestamp(*at)));
            }
            let left: BTreeSet<_> = timers.iter().map(|t| (t.at.0, t.key)).collect();
            prop_assert_eq!(left, model);
        }

        #[test]
        fn what_is_saved_is_what_was_there_at_the_barrier(
            before in prop::collection::vec((0u16..9, 0i64..60), 0..60),
            after in prop::collection::vec((0u8..4, 0u16..9, 0i64..60), 0..60),
            budget in 1usize..9,
        ) {
            let mut timers = Timers::default();
            for (key, at) in &before {
                timers.register(Timestamp(*at), key_hash(key), key);
            }
            let drain = |timers: &mut Timers<u16>| {
                let due = std::iter::from_fn(|| timers.pop_due(Timestamp::MAX));
                due.map(|t| (t.at, t.key)).collect::<Vec<_>>()
            };
            let expected = drain(&mut timers.clone());
            timers.freeze().expect("freezes");
            let mut section = KeyedSection::new(1);
            let mut complete = false;
            for (op, key, at) in after {
                let (hash, time) = (key_hash(&key), Timestamp(at));
                match op {
                    0 => drop(timers.register(time, hash, &key)),
                    1 => drop(timers.delete(time, hash, &key)),
                    2 => drop(timers.pop_due(time)),
                    _ if complete => {}
                    _ => complete = timers.save(&mut section, budget).expect("saves"),
                }
            }
            while !complete {
                complete = timers.save(&mut section, budget).expect("saves");
            }
            let mut restored = Timers::default();
            let crate::checkpoint::StateData::Groups(groups) = section.into_data() else {
                unreachable!("keyed state has groups");
            };
            for group in &groups {
                restored.load(&mut Entries::new(&group.bytes.joined())).expect("loads");
            }
            prop_assert_eq!(groups.iter().map(|g| g.entries).sum::<u64>(), expected.len() as u64);
            prop_assert_eq!(drain(&mut restored), expected);
        }
    }
}
