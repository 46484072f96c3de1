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

mod snapshot;

use self::snapshot::Snapshot;
use super::backing::{Backing, Changes, Claim};
use crate::checkpoint::codec::{decode, encode_into};
use crate::checkpoint::{Key, StateValue};
use crate::fault::Flow;
use crate::hash::{key_group, key_hash};
use hashbrown::HashTable;

/// Buckets that the hand passes in one turn at least when memory is short.
const STEP: usize = 8192;
/// What is written even if that has to wait: memory has its limit.
const WAIT_ABOVE: f64 = 2.0;
struct Slot<K, V> {
    key: K,
    /// `None` where the key was removed.
    value: Option<V>,
    /// The epoch in which it became different from what is behind; 0 where it is not.
    dirty: u32,
    /// It was used since the hand came by.
    used: bool,
    /// There may be an entry of it behind.
    stored: bool,
}

/// See the module. What is called per record is kept out of the way of tables in memory, which are
/// reached through the same code.
pub struct Cache<K, V> {
    slots: HashTable<Slot<K, V>>,
    backing: Box<dyn Backing>,
    claim: Claim,
    max_parallelism: u32,
    epoch: u32,
    dirty: usize,
    /// Something was written behind.
    spilled: bool,
    snapshot: Snapshot,
    hand: usize,
    /// Slots that were made since room was made last.
    made: usize,
    changes: Changes,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
    /// Encoded bytes of an entry, as far as seen: `(entries, bytes)`.
    sizes: (u64, u64),
}

/// Appends the key under which an entry is stored behind a table.
fn encode_key<K: Key>(key: &K, max_parallelism: u32, into: &mut Vec<u8>) -> Flow {
    let group = key_group(key_hash(key), max_parallelism) as u16;
    into.extend(group.to_be_bytes());
    encode_into(key, into)
}

/// Adds what a slot holds to the changes. It counts as stored even if it is deleted, since the changes
/// may not be made yet when somebody looks behind the table.
fn write_back<K: Key, V: StateValue>(
    slot: &mut Slot<K, V>,
    max_parallelism: u32,
    changes: &mut Changes,
) -> Flow {
    let key = &slot.key;
    match &slot.value {
        None => changes.delete(|bytes| encode_key(key, max_parallelism, bytes))?,
        Some(value) => changes.put(|bytes| {
            encode_key(key, max_parallelism, bytes)?;
            let key_end = bytes.len();
            encode_into(value, bytes)?;
            Ok(key_end)
        })?,
    }
    slot.stored = true;
    Ok(())
}

/// The key group and the encoded key of what [`encode_key`] wrote.
fn split_key(key: &[u8]) -> (u32, &[u8]) {
    let (group, key) = key.split_at(key.len().min(2));
    let group = group.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
    (group, key)
}

impl<K: Key, V: StateValue> Cache<K, V> {
    pub fn new(backing: Box<dyn Backing>, claim: Claim, max_parallelism: u32) -> Self {
        Cache {
            slots: HashTable::new(),
            backing,
            claim,
            max_parallelism,
            epoch: 1,
            dirty: 0,
            spilled: false,
            snapshot: Snapshot::None,
            hand: 0,
            made: 0,
            changes: Changes::default(),
            key_bytes: Vec::new(),
            value_bytes: Vec::new(),
            sizes: (0, 0),
        }
    }

    /// The bucket of a key that has or had a value.
    #[inline]
    fn find(&mut self, hash: u64, key: &K) -> Flow<Option<usize>> {
        match self.slots.find_bucket_index(hash, |slot| slot.key == *key) {
            Some(bucket) => Ok(Some(bucket)),
            None if self.spilled => self.fetch(hash, key),
            None => Ok(None),
        }
    }

    /// Looks behind the table.
    #[inline(never)]
    fn fetch(&mut self, hash: u64, key: &K) -> Flow<Option<usize>> {
        self.key_bytes.clear();
        encode_key(key, self.max_parallelism, &mut self.key_bytes)?;
        if !self.backing.get(&self.key_bytes, &mut self.value_bytes)? {
            return Ok(None);
        }
        self.seen(self.key_bytes.len() + self.value_bytes.len());
        let value = decode(&self.value_bytes)?;
        Ok(Some(self.make(
            hash,
            Slot {
                key: key.clone(),
                value: Some(value),
                dirty: 0,
                used: true,
                stored: true,
            },
        )))
    }

    fn seen(&mut self, bytes: usize) {
        self.sizes.0 += 1;
        self.sizes.1 += bytes as u64;
    }

    fn make(&mut self, hash: u64, slot: Slot<K, V>) -> usize {
        self.made += 1;
        if self.slots.len() == self.slots.capacity()
            && let Snapshot::Flush(bucket) = &mut self.snapshot
        {
            // Slots move; those that are done are clean or of this epoch.
            *bucket = 0;
        }
        let entry = self
            .slots
            .insert_unique(hash, slot, |slot| key_hash(&slot.key));
        entry.bucket_index()
    }

    fn make_new(&mut self, hash: u64, key: K, value: V) -> usize {
        self.dirty += 1;
        let slot = Slot {
            key,
            value: Some(value),
            dirty: self.epoch,
            used: true,
            stored: self.spilled,
        };
        self.make(hash, slot)
    }

    /// A slot is about to change. It is written first if the walk of a snapshot is to come to it.
    #[inline]
    fn changing(&mut self, bucket: usize) -> Flow<&mut Slot<K, V>> {
        let flushes = matches!(self.snapshot, Snapshot::Flush(_));
        let slot = self.slots.get_bucket_mut(bucket);
        let slot = slot.expect("a bucket that was found is full");
        slot.used = true;
        if slot.dirty != self.epoch {
            if slot.dirty == 0 {
                self.dirty += 1;
            } else if flushes {
                write_back(slot, self.max_parallelism, &mut self.changes)?;
            }
            slot.dirty = self.epoch;
        }
        Ok(slot)
    }

    #[cold]
    #[inline(never)]
    pub fn get(&mut self, hash: u64, key: &K) -> Flow<Option<&V>> {
        let bucket = self.find(hash, key)?;
        let slot = bucket.and_then(|bucket| self.slots.get_bucket_mut(bucket));
        Ok(slot.and_then(|slot| {
            slot.used = true;
            slot.value.as_ref()
        }))
    }

    #[cold]
    #[inline(never)]
    pub fn get_mut(&mut self, hash: u64, key: &K) -> Flow<Option<&mut V>> {
        match self.find(hash, key)? {
            Some(bucket) if self.has_value(bucket) => Ok(self.changing(bucket)?.value.as_mut()),
            _ => Ok(None),
        }
    }

    fn has_value(&self, bucket: usize) -> bool {
        let slot = self.slots.get_bucket(bucket);
        slot.is_some_and(|slot| slot.value.is_some())
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
            Some(bucket) => Ok(self.changing(bucket)?.value.get_or_insert_with(make)),
            None => {
                let bucket = self.make_new(hash, key, make());
                let value = self.changing(bucket)?.value.as_mut();
                Ok(value.expect("it was just made"))
            }
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
        match self.slots.find_bucket_index(hash, |slot| slot.key == key) {
            Some(bucket) => Ok(self.changing(bucket)?.value.insert(value)),
            None => {
                let bucket = self.make_new(hash, key, value);
                let value = self.changing(bucket)?.value.as_mut();
                Ok(value.expect("it was just made"))
            }
        }
    }

    #[cold]
    #[inline(never)]
    pub fn remove(&mut self, hash: u64, key: &K) -> Flow<Option<V>> {
        let Some(bucket) = self.find(hash, key)? else {
            return Ok(None);
        };
        if !self.has_value(bucket) {
            return Ok(None);
        }
        let slot = self.changing(bucket)?;
        let value = slot.value.take();
        if !slot.stored {
            self.forget(bucket);
        }
        Ok(value)
    }

    /// How many slots there are, those of removed keys among them.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there may be entries behind it.
    pub fn has_spilled(&self) -> bool {
        self.spilled
    }

    /// How many buckets the slots are in.
    pub fn buckets(&self) -> usize {
        self.slots.num_buckets()
    }

    /// The key and the value in a bucket.
    pub fn bucket(&self, bucket: usize) -> Option<(&K, &V)> {
        let slot = self.slots.get_bucket(bucket)?;
        Some((&slot.key, slot.value.as_ref()?))
    }

    /// Shows entries behind the table that are not in it, from behind a key on; the last key that was
    /// looked at, or `None` at the end.
    pub fn walk(
        &mut self,
        after: &[u8],
        budget: usize,
        look: &mut dyn FnMut(K, V),
    ) -> Flow<Option<Vec<u8>>> {
        let (slots, mut last) = (&self.slots, Vec::new());
        let mut visit = |bytes: &[u8], value: &[u8]| {
            last.clear();
            last.extend_from_slice(bytes);
            let key: K = decode(split_key(bytes).1)?;
            let known = slots.find(key_hash(&key), |slot| slot.key == key);
            if known.is_none() {
                look(key, decode(value)?);
            }
            Ok(())
        };
        let ended = self.backing.walk(after, budget, &mut visit)?;
        Ok((!ended).then_some(last))
    }

    /// Drops a slot.
    fn forget(&mut self, bucket: usize) {
        if let Ok(entry) = self.slots.get_bucket_entry(bucket) {
            let (slot, _) = entry.remove();
            self.dirty -= usize::from(slot.dirty != 0);
        }
    }

    /// Nothing that changed since the barrier may be written back now.
    fn holds_back(&self) -> bool {
        matches!(self.snapshot, Snapshot::Flush(_) | Snapshot::Export(_))
    }

    /// What its slots use, with what values keep elsewhere taken to be as long as their encoding.
    fn bytes(&self) -> u64 {
        // A map is between seven sixteenths and seven eighths full.
        let slot = (size_of::<Slot<K, V>>() + 1) as u64 * 3 / 2;
        let elsewhere = match self.sizes {
            (entries, bytes) if std::mem::needs_drop::<(K, V)>() => bytes / entries.max(1),
            _ => 0,
        };
        self.slots.len() as u64 * (slot + elsewhere)
    }

    /// Called between turns: keeps to the memory there is.
    pub fn keep_to_memory(&mut self) -> Flow {
        self.claim.set(self.bytes());
        let made = std::mem::take(&mut self.made);
        let memory = self.claim.memory();
        let over = memory.used().saturating_sub(memory.limit() / 8 * 7);
        if over == 0 || self.slots.is_empty() {
            return Ok(());
        }
        let waits = memory.pressure() >= WAIT_ABOVE;
        if waits {
            self.end_export()?;
        } else if !self.backing.has_room() {
            self.made = made;
            return Ok(());
        }
        let each = self.bytes() / self.slots.len() as u64;
        let steps = STEP.max(made * 8).min(self.slots.num_buckets() * 2);
        self.turn_hand(steps, over.div_ceil(each.max(1)))?;
        if !self.holds_back() {
            self.write_changes()?;
        }
        self.claim.set(self.bytes());
        Ok(())
    }

    /// Drops so many slots that were not used for a whole round, and writes back those of them that are
    /// dirty. What is used all the time is never written before a checkpoint needs it.
    fn turn_hand(&mut self, steps: usize, mut evict: u64) -> Flow {
        let holds_back = self.holds_back();
        for _ in 0..steps {
            if evict == 0 {
                break;
            }
            self.hand = (self.hand + 1) % self.slots.num_buckets();
            let Some(slot) = self.slots.get_bucket_mut(self.hand) else {
                continue;
            };
            if std::mem::take(&mut slot.used) || (slot.dirty != 0 && holds_back) {
                continue;
            }
            if slot.dirty != 0 {
                let before = self.changes.bytes();
                write_back(slot, self.max_parallelism, &mut self.changes)?;
                (slot.dirty, self.spilled) = (0, true);
                self.dirty -= 1;
                let bytes = self.changes.bytes() - before;
                self.seen(bytes);
            }
            self.forget(self.hand);
            evict -= 1;
        }
        Ok(())
    }

    fn write_changes(&mut self) -> Flow {
        if !self.changes.is_empty() {
            self.backing.write(&self.changes)?;
            self.changes.clear();
            self.spilled = true;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
