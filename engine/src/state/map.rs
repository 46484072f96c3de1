//! A map a key.

use super::KeyTable;
use super::registry::{KeyScope, KeyedStates, Table};
use crate::fault::Flow;
use crate::hash::key_hash;
use std::hash::Hash;
use std::rc::Rc;

/// Keeps a map from `UK` to `V` for each key. Clones are handles of the same state.
pub struct MapState<K, UK, V>(Rc<Table<K, KeyTable<UK, V>>>);

impl<K, UK, V> Clone for MapState<K, UK, V> {
    fn clone(&self) -> Self {
        MapState(self.0.clone())
    }
}

impl<K: Hash + Eq + 'static> KeyedStates<K> {
    /// Declares a state of a map a key.
    pub fn map<UK: Hash + Eq + 'static, V: 'static>(
        &mut self,
        name: &str,
    ) -> Flow<MapState<K, UK, V>> {
        Ok(MapState(self.declare("map", name)?))
    }
}

impl<K: Hash + Eq, UK: Hash + Eq, V> MapState<K, UK, V> {
    /// A copy of an entry of the current key's map.
    pub fn get(&self, cx: &impl KeyScope<K>, entry: &UK) -> Option<V>
    where
        V: Clone,
    {
        self.with(cx, entry, |value| value.cloned())
    }

    /// Shows an entry of the current key's map. The function must not use the same state again.
    pub fn with<R>(
        &self,
        cx: &impl KeyScope<K>,
        entry: &UK,
        look: impl FnOnce(Option<&V>) -> R,
    ) -> R {
        self.0.read(cx, |map| {
            look(map.and_then(|map| map.get(key_hash(entry), entry)))
        })
    }

    /// Whether the current key's map has an entry.
    pub fn contains(&self, cx: &impl KeyScope<K>, entry: &UK) -> bool {
        self.with(cx, entry, |value| value.is_some())
    }

    /// Stores an entry in the current key's map; returns the value before.
    pub fn insert(&self, cx: &impl KeyScope<K>, entry: UK, value: V) -> Option<V>
    where
        K: Clone,
    {
        let hash = key_hash(&entry);
        self.0
            .change(cx, KeyTable::default, |map| map.insert(hash, entry, value))
    }

    /// Changes an entry of the current key's map, which begins with the default, and returns what the
    /// function returns. The function must not use the same state again.
    pub fn update<R>(&self, cx: &impl KeyScope<K>, entry: UK, change: impl FnOnce(&mut V) -> R) -> R
    where
        K: Clone,
        V: Default,
    {
        let hash = key_hash(&entry);
        let update =
            |map: &mut KeyTable<UK, V>| change(map.get_or_insert_with(hash, entry, V::default));
        self.0.change(cx, KeyTable::default, update)
    }

    /// Takes an entry out of the current key's map. A map that is left empty is forgotten.
    pub fn remove(&self, cx: &impl KeyScope<K>, entry: &UK) -> Option<V> {
        let (taken, empty) = self.0.change_existing(cx, |map| {
            let taken = map.remove(key_hash(entry), entry);
            (taken, map.is_empty())
        })?;
        if empty {
            self.clear(cx);
        }
        taken
    }

    /// Shows all entries of the current key's map to a function, in no order. It must not use the
    /// same state again.
    pub fn for_each(&self, cx: &impl KeyScope<K>, mut look: impl FnMut(&UK, &V)) {
        self.0.read(cx, |map| {
            for (entry, value) in map.into_iter().flat_map(KeyTable::iter) {
                look(entry, value);
            }
        });
    }

    /// Keeps those entries of the current key's map for which `keep` says yes.
    pub fn retain(&self, cx: &impl KeyScope<K>, keep: impl FnMut(&UK, &mut V) -> bool) {
        let empty = self.0.change_existing(cx, |map| {
            map.retain(keep);
            map.is_empty()
        });
        if empty == Some(true) {
            self.clear(cx);
        }
    }

    /// How many entries the current key's map has.
    pub fn len(&self, cx: &impl KeyScope<K>) -> usize {
        self.0.read(cx, |map| map.map_or(0, KeyTable::len))
    }

    /// Whether the current key's map has no entry.
    pub fn is_empty(&self, cx: &impl KeyScope<K>) -> bool {
        self.len(cx) == 0
    }

    /// Takes the current key's map out: its entries, in no order.
    pub fn take(&self, cx: &impl KeyScope<K>) -> Vec<(UK, V)> {
        self.0.take(cx).unwrap_or_default().into_iter().collect()
    }

    /// Forgets the current key's map.
    pub fn clear(&self, cx: &impl KeyScope<K>) {
        self.0.take(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::registry::At;

    #[test]
    fn a_map_belongs_to_its_key_and_an_empty_one_is_forgotten() {
        let mut states = KeyedStates::new("maps");
        let map = states.map::<u8, u32>("map").expect("a first state");
        let (a, b) = (At::new("a"), At::new("b"));
        assert_eq!(
            (map.insert(&a, 1, 10), map.insert(&a, 1, 11)),
            (None, Some(10))
        );
        map.update(&a, 2, |n| *n += 5);
        map.update(&b, 2, |n| *n += 7);
        assert_eq!(
            (map.get(&a, &2), map.get(&b, &2), map.len(&a)),
            (Some(5), Some(7), 2)
        );
        let mut sum = 0;
        map.for_each(&a, |_, n| sum += n);
        assert_eq!(sum, 16);
        map.retain(&a, |entry, _| *entry == 1);
        assert!(map.contains(&a, &1) && !map.contains(&a, &2));
        assert_eq!(map.remove(&a, &1), Some(11));
        assert_eq!(map.remove(&a, &1), None);
        assert_eq!(map.take(&b), [(2, 7)]);
        assert!(states.tables().all(|t| t.is_empty()));
    }
}
