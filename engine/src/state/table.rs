//! A map from keys to values that is told the key's hash instead of computing it again.

use crate::checkpoint::{Entries, Key, KeyedPart, KeyedSection, StateValue};
use crate::fault::Flow;
use crate::hash::key_hash;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::any::type_name;
use std::hash::Hash;

/// State of one operator, by key. The hash is the one that travels with a record.
#[derive(Clone, Debug)]
pub struct KeyTable<K, V> {
    entries: HashTable<(K, V)>,
}

impl<K, V> Default for KeyTable<K, V> {
    fn default() -> Self {
        KeyTable {
            entries: HashTable::new(),
        }
    }
}

impl<K: Hash + Eq, V> KeyTable<K, V> {
    /// An empty table with room for `capacity` keys.
    pub fn with_capacity(capacity: usize) -> Self {
        KeyTable {
            entries: HashTable::with_capacity(capacity),
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
        self.entries
            .find_mut(hash, |(k, _)| k == key)
            .map(|(_, v)| v)
    }

    /// The value of a key, made first where there is none. The key is taken only then.
    #[inline(always)]
    pub fn get_or_insert_with(&mut self, hash: u64, key: K, make: impl FnOnce() -> V) -> &mut V {
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
        match self
            .entries
            .entry(hash, |(k, _)| *k == key, |(k, _)| key_hash(k))
        {
            Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().1, value)),
            Entry::Vacant(entry) => {
                entry.insert((key, value));
                None
            }
        }
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

    /// Stores the value of a key that has none, which the caller has just looked up.
    #[inline]
    pub fn insert_new(&mut self, hash: u64, key: K, value: V) -> &mut V {
        debug_assert!(
            self.get(hash, &key).is_none(),
            "the caller found no value of this key"
        );
        let entry = self
            .entries
            .insert_unique(hash, (key, value), |(k, _)| key_hash(k));
        &mut entry.into_mut().1
    }

    /// Takes a key's value out.
    pub fn remove(&mut self, hash: u64, key: &K) -> Option<V> {
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
        self.entries.clear();
    }

    /// Makes room for `more` keys beyond those that are there.
    pub fn reserve(&mut self, more: usize) {
        self.entries.reserve(more, |(k, _)| key_hash(k));
    }

    /// How many keys it can hold without growing.
    pub fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    /// Takes out all keys and values, in no order, and keeps the memory.
    pub fn drain(&mut self) -> impl ExactSizeIterator<Item = (K, V)> {
        self.entries.drain()
    }

    /// All keys and values, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter().map(|(k, v)| (k, v))
    }

    /// All keys and values, to change the values.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
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
        self.entries.retain(|(k, v)| keep(k, v));
    }
}

impl<K: Key, V: StateValue> KeyedPart for KeyTable<K, V> {
    fn types(&self) -> (&'static str, &'static str) {
        (type_name::<K>(), type_name::<V>())
    }

    fn save(&mut self, into: &mut KeyedSection, _budget: usize) -> Flow<bool> {
        for (key, value) in self.iter() {
            into.put(key_hash(key), &(key, value))?;
        }
        Ok(true)
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        while let Some((key, value)) = entries.next::<(K, V)>()? {
            self.insert(key_hash(&key), key, value);
        }
        Ok(())
    }
}

impl<K, V> IntoIterator for KeyTable<K, V> {
    type Item = (K, V);
    type IntoIter = hashbrown::hash_table::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.entries.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn behaves_like_a_hash_map(ops in prop::collection::vec((0u8..3, 0u16..50, 0u32..9), 0..300)) {
            let mut table = KeyTable::default();
            let mut model = HashMap::new();
            for (op, key, value) in ops {
                let hash = key_hash(&key);
                match op {
                    0 => prop_assert_eq!(table.insert(hash, key, value), model.insert(key, value)),
                    1 => prop_assert_eq!(table.remove(hash, &key), model.remove(&key)),
                    _ => {
                        *table.get_or_insert_with(hash, key, || 0) += value;
                        *model.entry(key).or_insert(0) += value;
                    }
                }
                prop_assert_eq!(table.get(hash, &key), model.get(&key));
            }
            prop_assert_eq!(table.into_iter().collect::<HashMap<_, _>>(), model);
        }
    }
}
