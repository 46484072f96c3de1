//! A table in front of what it spills to: typed, written back in small steps between turns.
//!
//! The table is the truth for the keys in it; what is behind it is looked at for the others. A change
//! makes a key *dirty*; a hand walks round the buckets, writes back what is dirty, and drops what is
//! clean and was not used since it last came by. A key that was removed stays as an empty slot until
//! that is written back too.
//!
//! A snapshot first writes back what was dirty at the barrier: each slot knows the epoch in which it
//! became dirty, and one that is changed before the walk comes to it is written as it was. Until then
//! nothing newer is written back, so that what is behind the table becomes, key by key, the state at
//! the barrier. From there it is copied, out of a view that later writes don't touch, or put into files
//! that other checkpoints share; until those are there nothing is written back either.

mod behind;
mod slots;
mod snapshot;

pub(crate) use self::behind::{Behind, Room, Transform};
pub(crate) use self::slots::{GroupSet, Place, Slots, behind_key, split_group, split_number};

use super::backing::{Backing, Claim};
use crate::checkpoint::codec::decode;
use crate::checkpoint::{Key, StateValue};
use crate::fault::Flow;
use crate::hash::key_hash;

/// Buckets that the hand passes in one turn at least when memory is short.
pub(crate) const STEP: usize = 8192;

/// See the module. What is called per record is kept out of the way of tables in memory, which are
/// reached through the same code.
pub struct Cache<K, V> {
    slots: Slots<K, V>,
    behind: Behind,
}

impl<K: Key, V: StateValue> Cache<K, V> {
    pub fn new(backing: Box<dyn Backing>, claim: Claim, max_parallelism: u32) -> Self {
        Cache {
            slots: Slots::new(Place::Plain),
            behind: Behind::new(backing, claim, max_parallelism),
        }
    }

    /// The bucket of a key that has or had a value.
    #[inline]
    fn find(&mut self, hash: u64, key: &K) -> Flow<Option<usize>> {
        match self.slots.find(hash, key) {
            Some(bucket) => Ok(Some(bucket)),
            None if self.behind.spilled => self.slots.fetch(&mut self.behind, hash, key),
            None => Ok(None),
        }
    }

    fn make_new(&mut self, hash: u64, key: K, value: V) -> Flow<&mut V> {
        let Behind { epoch, spilled, .. } = self.behind;
        let bucket = self.slots.make_new(epoch, hash, key, value, spilled);
        let slot = self.slots.table.get_bucket_mut(bucket);
        let value = slot.and_then(|slot| slot.value.as_mut());
        Ok(value.expect("it was just made"))
    }

    #[cold]
    #[inline(never)]
    pub fn get(&mut self, hash: u64, key: &K) -> Flow<Option<&V>> {
        let bucket = self.find(hash, key)?;
        let slot = bucket.and_then(|bucket| self.slots.table.get_bucket_mut(bucket));
        Ok(slot.and_then(|slot| {
            slot.used = true;
            slot.value.as_ref()
        }))
    }

    #[cold]
    #[inline(never)]
    pub fn get_mut(&mut self, hash: u64, key: &K) -> Flow<Option<&mut V>> {
        match self.find(hash, key)? {
            Some(bucket) if self.slots.has_value(bucket) => {
                let slot = self.slots.changing(&mut self.behind, bucket)?;
                Ok(slot.value.as_mut())
            }
            _ => Ok(None),
        }
    }

    #[cold]
    #[inline(never)]
    pub fn get_or_insert_with(
        &mut self,
        hash: u64,
        key: K,
        make: impl FnOnce() -> V,
    ) -> Flow<&mut V> {
        match self.find(hash, &key)? {
            Some(bucket) => {
                let slot = self.slots.changing(&mut self.behind, bucket)?;
                Ok(slot.value.get_or_insert_with(make))
            }
            None => self.make_new(hash, key, make()),
        }
    }

    /// Stores a value without asking for the one before.
    #[cold]
    #[inline(never)]
    pub fn set(&mut self, hash: u64, key: K, value: V) -> Flow {
        self.insert_new(hash, key, value).map(|_| ())
    }

    /// The same; returns where it is.
    #[cold]
    #[inline(never)]
    pub fn insert_new(&mut self, hash: u64, key: K, value: V) -> Flow<&mut V> {
        match self.slots.find(hash, &key) {
            Some(bucket) => {
                let slot = self.slots.changing(&mut self.behind, bucket)?;
                Ok(slot.value.insert(value))
            }
            None => self.make_new(hash, key, value),
        }
    }

    #[cold]
    #[inline(never)]
    pub fn remove(&mut self, hash: u64, key: &K) -> Flow<Option<V>> {
        let Some(bucket) = self.find(hash, key)? else {
            return Ok(None);
        };
        if !self.slots.has_value(bucket) {
            return Ok(None);
        }
        let slot = self.slots.changing(&mut self.behind, bucket)?;
        let value = slot.value.take();
        if !slot.stored {
            self.slots.forget(bucket);
        }
        Ok(value)
    }

    /// How many slots there are, those of removed keys among them.
    pub fn len(&self) -> usize {
        self.slots.table.len()
    }

    /// Whether there may be entries behind it.
    pub fn has_spilled(&self) -> bool {
        self.behind.spilled
    }

    /// How many buckets the slots are in.
    pub fn buckets(&self) -> usize {
        self.slots.table.num_buckets()
    }

    /// The key and the value in a bucket.
    pub fn bucket(&self, bucket: usize) -> Option<(&K, &V)> {
        let slot = self.slots.table.get_bucket(bucket)?;
        Some((&slot.key, slot.value.as_ref()?))
    }

    /// About how many entries are behind the table.
    pub fn estimate(&mut self) -> u64 {
        self.behind.estimate()
    }

    /// Shows entries behind the table that are not in it, from a key on; where to go on, or `None` at the
    /// end.
    pub fn walk(
        &mut self,
        from: &[u8],
        budget: usize,
        look: &mut dyn FnMut(K, V),
    ) -> Flow<Option<Vec<u8>>> {
        let (slots, mut last) = (&self.slots, Vec::new());
        let mut visit = |bytes: &[u8], value: &[u8]| {
            last.clear();
            last.extend_from_slice(bytes);
            let key: K = decode(split_group(bytes).1)?;
            if slots.find(key_hash(&key), &key).is_none() {
                look(key, decode(value)?);
            }
            Ok(())
        };
        let ended = self.behind.walk(from, &[], budget, &mut visit)?;
        Ok((!ended).then(|| behind_key(last)))
    }

    /// What its slots use, with what values keep elsewhere taken to be as long as their encoding.
    fn bytes(&self) -> u64 {
        self.slots.table.len() as u64 * Slots::<K, V>::slot_bytes(&self.behind)
    }

    /// Called between turns: keeps to the memory there is.
    pub fn keep_to_memory(&mut self) -> Flow {
        self.behind.claim.set(self.bytes());
        let made = std::mem::take(&mut self.slots.made);
        let over = match self.behind.room()? {
            Room::Over(over) if !self.slots.table.is_empty() => over,
            Room::Stalled => {
                self.slots.made = made;
                return Ok(());
            }
            _ => return self.behind.write_gathered(),
        };
        let steps = STEP.max(made * 8);
        let mut steps = steps.min(self.slots.table.num_buckets() * 2);
        let mut evict = over.div_ceil(Slots::<K, V>::slot_bytes(&self.behind));
        let behind = &mut self.behind;
        while self.slots.turn_hand(behind, &mut steps, &mut evict)? {}
        if !behind.holds_back() {
            behind.write_changes()?;
        }
        self.behind.claim.set(self.bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests;
