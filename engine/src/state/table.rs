//! A map from keys to values that is told the key's hash instead of computing it again.

use super::frozen::Frozen;
use crate::checkpoint::codec::{self, encode_part};
use crate::checkpoint::stored_name;
use crate::checkpoint::{EncodedEntries, Entries, Key, KeyedPart, KeyedSection, StateValue};
use crate::fault::Flow;
use crate::hash::key_hash;
use crate::memory::HugePages;
use hashbrown::hash_table::Entry;
use serde::Serialize;
use std::fmt;
use std::hash::Hash;

/// Keys and values.
pub(super) type Table<K, V> = hashbrown::HashTable<(K, V), HugePages>;

/// State of one operator, by key. The hash is the one that travels with a record.
///
/// From [`KeyedPart::freeze`] until everything is saved, a change first keeps what it is about to
/// change. Whoever takes a frozen table apart asks for that with [`KeyTable::rescue`] before.
pub struct KeyTable<K, V> {
    entries: Table<K, V>,
    /// What is still to be saved, at a checkpoint.
    frozen: Option<Box<Frozen<K, V>>>,
}

impl<K, V> Default for KeyTable<K, V> {
    fn default() -> Self {
        KeyTable {
            entries: Table::new_in(HugePages),
            frozen: None,
        }
    }
}

impl<K: Clone, V: Clone> Clone for KeyTable<K, V> {
    /// The copy has no part in a checkpoint that this table is being saved for.
    fn clone(&self) -> Self {
        KeyTable {
            entries: self.entries.clone(),
            frozen: None,
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for KeyTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries.iter().map(|(k, v)| (k, v));
        f.debug_map().entries(entries).finish()
    }
}

impl<K: Hash + Eq, V> KeyTable<K, V> {
    /// An empty table with room for `capacity` keys.
    pub fn with_capacity(capacity: usize) -> Self {
        KeyTable {
            entries: Table::with_capacity_in(capacity, HugePages),
            frozen: None,
        }
    }

    /// The value of a key.
    #[inline]
    pub fn get(&self, hash: u64, key: &K) -> Option<&V> {
        self.entries.find(hash, |(k, _)| k == key).map(|(_, v)| v)
    }

    /// The value of a key, to change it.
    #[inline]
    pub fn get_mut(&mut self, hash: u64, key: &K) -> Option<&mut V> {
        if self.frozen.is_some() {
            return self.get_mut_frozen(hash, key);
        }
        self.entries
            .find_mut(hash, |(k, _)| k == key)
            .map(|(_, v)| v)
    }

    /// The value of a key, made first where there is none. The key is taken only then.
    #[inline(always)]
    pub fn get_or_insert_with(&mut self, hash: u64, key: K, make: impl FnOnce() -> V) -> &mut V {
        if self.frozen.is_some() {
            return self.get_or_insert_frozen(hash, key, make).0;
        }
        let slot = self
            .entries
            .entry(hash, |(k, _)| *k == key, |(k, _)| key_hash(k));
        match slot {
            Entry::Occupied(entry) => &mut entry.into_mut().1,
            Entry::Vacant(entry) => &mut entry.insert((key, make())).into_mut().1,
        }
    }

    /// Stores a value; returns the one before.
    pub fn insert(&mut self, hash: u64, key: K, value: V) -> Option<V> {
        if let Some(present) = self.get_mut(hash, &key) {
            return Some(std::mem::replace(present, value));
        }
        self.insert_new(hash, key, value);
        None
    }

    /// Changes the value of a key by `change`, or stores what `make` returns where there is none. The
    /// key is cloned only then.
    #[inline]
    pub fn upsert(
        &mut self,
        hash: u64,
        key: &K,
        change: impl FnOnce(&mut V),
        make: impl FnOnce() -> V,
    ) where
        K: Clone,
    {
        if self.frozen.is_some() {
            if let (value, true) = self.get_or_insert_frozen(hash, key.clone(), make) {
                change(value);
            }
            return;
        }
        match self
            .entries
            .entry(hash, |(k, _)| k == key, |(k, _)| key_hash(k))
        {
            Entry::Occupied(mut entry) => change(&mut entry.get_mut().1),
            Entry::Vacant(entry) => {
                entry.insert((key.clone(), make()));
            }
        }
    }

    /// Changes the value of a key by `change`, or stores what `make` returns where there is none: a new value is
    /// not read back, which would be to wait for its memory.
    #[inline(always)]
    pub fn take_in<T>(
        &mut self,
        hash: u64,
        key: K,
        input: T,
        change: impl FnOnce(&mut V, T),
        make: impl FnOnce(T) -> V,
    ) {
        if self.frozen.is_some() {
            match self.get_mut_frozen(hash, &key) {
                Some(value) => change(value, input),
                None => {
                    self.insert_frozen(hash, key, make(input));
                }
            }
            return;
        }
        match self
            .entries
            .entry(hash, |(k, _)| *k == key, |(k, _)| key_hash(k))
        {
            Entry::Occupied(entry) => change(&mut entry.into_mut().1, input),
            Entry::Vacant(entry) => {
                entry.insert((key, make(input)));
            }
        }
    }

    /// Stores the value of a key that has none, which the caller has just looked up.
    #[inline]
    pub fn insert_new(&mut self, hash: u64, key: K, value: V) -> &mut V {
        debug_assert!(
            self.get(hash, &key).is_none(),
            "the caller found no value of this key"
        );
        if self.frozen.is_some() {
            return self.insert_frozen(hash, key, value);
        }
        let entry = self
            .entries
            .insert_unique(hash, (key, value), |(k, _)| key_hash(k));
        &mut entry.into_mut().1
    }

    /// Takes a key's value out.
    pub fn remove(&mut self, hash: u64, key: &K) -> Option<V> {
        if self.frozen.is_some() {
            self.keep(hash, key);
        }
        let found = self.entries.find_entry(hash, |(k, _)| k == key).ok()?;
        Some(found.remove().0.1)
    }

    /// How many keys have a value.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no key has a value.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Forgets all keys and keeps the memory.
    pub fn clear(&mut self) {
        self.keep_all();
        self.entries.clear();
    }

    /// Makes room for `more` keys beyond those that are there.
    pub fn reserve(&mut self, more: usize) {
        if self.frozen.is_some() {
            self.make_room(more);
        }
        self.entries.reserve(more, |(k, _)| key_hash(k));
    }

    /// How many keys it can hold without growing.
    pub fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// Takes out all keys and values, in no order, and keeps the memory.
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = (K, V)> {
        self.keep_all();
        self.entries.drain()
    }

    /// All keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(k, v)| (k, v))
    }

    /// All keys and values, to change the values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.keep_all();
        self.entries.iter_mut().map(|(k, v)| (&*k, v))
    }

    /// Into how many buckets the keys are spread.
    pub(super) fn buckets(&self) -> usize {
        self.entries.num_buckets()
    }

    /// What a bucket holds: for looking through a large table step by step.
    pub(super) fn bucket(&self, bucket: usize) -> Option<(&K, &V)> {
        self.entries.get_bucket(bucket).map(|(k, v)| (k, v))
    }

    /// Keeps those keys for which `keep` says yes.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.keep_all();
        self.entries.retain(|(k, v)| keep(k, v));
    }

    /// Ends the table's part in a snapshot: returns the entries that [`KeyedPart::save`] would still
    /// write. To be called before a table is dropped or turned into an iterator; whoever
    /// holds the entries then adds them to the section by [`KeyedSection::extend`].
    pub fn rescue(&mut self) -> Flow<Option<EncodedEntries>> {
        let Some(mut frozen) = self.frozen.take() else {
            return Ok(None);
        };
        frozen.keep_all(&self.entries);
        frozen.take_early().map(Some)
    }

    /// Keeps the value of a key that is about to change; returns its bucket.
    fn keep(&mut self, hash: u64, key: &K) -> Option<usize> {
        let bucket = self.entries.find_bucket_index(hash, |(k, _)| k == key);
        if let (Some(bucket), Some(frozen)) = (bucket, &mut self.frozen) {
            frozen.keep(bucket, &self.entries);
        }
        bucket
    }

    // The same accesses in a frozen table, apart from the others so that those are as small as they
    // can be.

    #[cold]
    #[inline(never)]
    fn get_mut_frozen(&mut self, hash: u64, key: &K) -> Option<&mut V> {
        let bucket = self.keep(hash, key)?;
        self.entries.get_bucket_mut(bucket).map(|(_, v)| v)
    }

    /// The value, and whether it was there before.
    #[cold]
    #[inline(never)]
    fn get_or_insert_frozen(
        &mut self,
        hash: u64,
        key: K,
        make: impl FnOnce() -> V,
    ) -> (&mut V, bool) {
        let Some(bucket) = self.keep(hash, &key) else {
            return (self.insert_frozen(hash, key, make()), false);
        };
        let entry = self.entries.get_bucket_mut(bucket);
        (&mut entry.expect("a bucket that was found is full").1, true)
    }

    #[cold]
    #[inline(never)]
    fn insert_frozen(&mut self, hash: u64, key: K, value: V) -> &mut V {
        self.make_room(1);
        let entry = self
            .entries
            .insert_unique(hash, (key, value), |(k, _)| key_hash(k));
        if let Some(frozen) = &mut self.frozen {
            frozen.filled(entry.bucket_index());
        }
        &mut entry.into_mut().1
    }

    /// Grows a frozen table, whose entries must not move behind the cursor's back.
    #[cold]
    #[inline(never)]
    fn make_room(&mut self, more: usize) {
        let (len, capacity) = (self.entries.len(), self.entries.capacity());
        if let Some(frozen) = &mut self.frozen
            && capacity - len < more
        {
            // Where removed entries take up the room, a table of the same size has enough of it.
            let larger = Table::with_capacity_in((len + more).max(len * 2), HugePages);
            self.entries = frozen.relocate(&mut self.entries, larger);
        }
    }

    /// Keeps all values, which are about to change.
    fn keep_all(&mut self) {
        if let Some(frozen) = &mut self.frozen {
            frozen.keep_all(&self.entries);
        }
    }
}

/// How an entry is saved.
#[inline(always)]
fn encode_entry<K: Key, V: StateValue>(key: &K, value: &V, bytes: &mut Vec<u8>) -> Flow {
    encode_part(key, bytes)?;
    encode_part(value, bytes)
}

impl<K: Key, V: StateValue> KeyTable<K, V> {
    /// [`KeyedPart::freeze`] for a table that is one of several in a part: each entry that is saved
    /// is `(prefix, key, value)`.
    pub fn freeze_behind(&mut self, prefix: &impl Serialize) -> Flow {
        let prefix = codec::encode(prefix)?;
        self.frozen = Some(Box::new(Frozen::new(&self.entries, encode_entry, prefix)));
        Ok(())
    }

    /// Whether it was frozen and [`KeyedPart::save`] has not written all of it.
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }
}

impl<K: Key, V: StateValue> KeyedPart for KeyTable<K, V> {
    fn types(&self) -> (&'static str, &'static str) {
        (stored_name::<K>(), stored_name::<V>())
    }

    fn freeze(&mut self) -> Flow {
        self.freeze_behind(&())
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        if let Some(frozen) = &mut self.frozen {
            let complete = frozen.save(&self.entries, into, budget, encode_entry)?;
            if complete {
                self.frozen = None;
            }
            return Ok(complete);
        }
        for (key, value) in self.iter() {
            into.put(key_hash(key), &(key, value))?;
        }
        Ok(true)
    }

    fn thaw(&mut self) {
        self.frozen = None;
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        while let Some((key, value)) = entries.take_next::<(K, V)>()? {
            self.insert(key_hash(&key), key, value);
        }
        Ok(())
    }
}

impl<K, V> IntoIterator for KeyTable<K, V> {
    type Item = (K, V);
    type IntoIter = hashbrown::hash_table::IntoIter<(K, V), HugePages>;

    fn into_iter(self) -> Self::IntoIter {
        debug_assert!(self.frozen.is_none(), "a frozen table is rescued first");
        self.entries.into_iter()
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
