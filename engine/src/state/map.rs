//! A map a key.

use super::content::Mapped;
use super::registry::{KeyScope, KeyedStates};
use super::store::Table;
use super::ttl::{Expiring, Forever, Lifetime, StateTtl};
use crate::checkpoint::{Key, StateValue};
use crate::fault::Flow;
use std::rc::Rc;

/// Keeps a map from `UK` to `V` for each key. Clones are handles of the same state. In one that
/// expires, each entry does so by itself.
pub struct MapState<K, UK: Key, V: StateValue, L: Lifetime = Forever>(
    Rc<Table<K, Mapped<UK, V, L>>>,
);

impl<K, UK: Key, V: StateValue, L: Lifetime> Clone for MapState<K, UK, V, L> {
    fn clone(&self) -> Self {
        MapState(self.0.clone())
    }
}

impl<K: Key> KeyedStates<K> {
    /// Declares a state of a map a key.
    pub fn map<UK: Key, V: StateValue>(&mut self, name: &str) -> Flow<MapState<K, UK, V>> {
        Ok(MapState(self.declare("map", name, Forever)?))
    }

    /// Declares a state of a map a key whose entries expire.
    pub fn map_with<UK: Key, V: StateValue>(
        &mut self,
        name: &str,
        ttl: StateTtl,
    ) -> Flow<MapState<K, UK, V, Expiring>> {
        let life = self.expiring(ttl);
        Ok(MapState(self.declare("map", name, life)?))
    }
}

impl<K: Key, UK: Key, V: StateValue, L: Lifetime> MapState<K, UK, V, L> {
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
        let life = &self.0.life;
        if self.0.renews_on_read() {
            let renewed = |map: &mut Mapped<UK, V, L>| {
                if let Some(kept) = map.get_mut(entry).filter(|kept| life.live(kept).is_some()) {
                    life.renew(kept);
                }
            };
            self.0.change_existing(cx, renewed);
        }
        self.0.read(cx, |map| {
            let found = map.and_then(|map| map.get(entry));
            look(found.and_then(|kept| life.live(kept)))
        })
    }

    /// Whether the current key's map has an entry.
    pub fn contains(&self, cx: &impl KeyScope<K>, entry: &UK) -> bool {
        self.with(cx, entry, |value| value.is_some())
    }

    /// Stores an entry in the current key's map; returns the value before.
    pub fn insert(&self, cx: &impl KeyScope<K>, entry: UK, value: V) -> Option<V> {
        let life = &self.0.life;
        let kept = life.keep(value, None);
        let insert = |map: &mut Mapped<UK, V, L>| map.insert(entry, kept);
        let before = self.0.change(cx, Mapped::default, insert)?;
        life.unwrap(before)
    }

    /// Changes an entry of the current key's map, which begins with the default, and returns what the
    /// function returns. The function must not use the same state again.
    pub fn update<R>(&self, cx: &impl KeyScope<K>, entry: UK, change: impl FnOnce(&mut V) -> R) -> R
    where
        V: Default,
    {
        let life = &self.0.life;
        self.0.change(cx, Mapped::default, |map| {
            let kept = map.get_or_insert_with(entry, || life.keep(V::default(), None));
            if L::EXPIRES && life.live(kept).is_none() {
                *kept = life.keep(V::default(), None);
            }
            change(life.renew(kept))
        })
    }

    /// Takes an entry out of the current key's map. A map that is left empty is forgotten.
    pub fn remove(&self, cx: &impl KeyScope<K>, entry: &UK) -> Option<V> {
        let (taken, empty) = self.0.change_existing(cx, |map| {
            let taken = map.remove(entry);
            (taken, map.is_empty())
        })?;
        if empty {
            self.clear(cx);
        }
        self.0.life.unwrap(taken?)
    }

    /// Shows all entries of the current key's map to a function, in no order. It must not use the
    /// same state again.
    pub fn for_each(&self, cx: &impl KeyScope<K>, mut look: impl FnMut(&UK, &V)) {
        let life = &self.0.life;
        if self.0.renews_on_read() {
            return self.retain(cx, |entry, value| {
                look(entry, value);
                true
            });
        }
        self.0.read(cx, |map| {
            for (entry, kept) in map.into_iter().flat_map(Mapped::iter) {
                if let Some(value) = life.live(kept) {
                    look(entry, value);
                }
            }
        });
    }

    /// Keeps those entries of the current key's map for which `keep` says yes. Where entries expire,
    /// the time of those begins anew.
    pub fn retain(&self, cx: &impl KeyScope<K>, mut keep: impl FnMut(&UK, &mut V) -> bool) {
        let life = &self.0.life;
        let empty = self.0.change_existing(cx, |map| {
            map.retain(|entry, kept| life.live(kept).is_some() && keep(entry, life.renew(kept)));
            map.is_empty()
        });
        if empty == Some(true) {
            self.clear(cx);
        }
    }

    /// How many entries the current key's map has.
    pub fn len(&self, cx: &impl KeyScope<K>) -> usize {
        let life = &self.0.life;
        let live = |map: &Mapped<UK, V, L>| match L::EXPIRES {
            true => map.iter().filter(|(_, k)| life.live(k).is_some()).count(),
            false => map.len(),
        };
        self.0.read(cx, |map| map.map_or(0, live))
    }

    /// Whether the current key's map has no entry.
    pub fn is_empty(&self, cx: &impl KeyScope<K>) -> bool {
        self.len(cx) == 0
    }

    /// Takes the current key's map out: its entries, in no order.
    pub fn take(&self, cx: &impl KeyScope<K>) -> Vec<(UK, V)> {
        let entries = self.0.take(cx).unwrap_or_default().into_entries();
        let live = entries.filter_map(|(k, kept)| Some((k, self.0.life.unwrap(kept)?)));
        live.collect()
    }

    /// How many entries take up memory.
    #[cfg(test)]
    pub(super) fn in_memory(&self, cx: &impl KeyScope<K>) -> usize {
        self.0.read(cx, |map| map.map_or(0, Mapped::len))
    }

    /// Forgets the current key's map.
    pub fn clear(&self, cx: &impl KeyScope<K>) {
        self.0.take(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::state::registry::At;

    #[test]
    fn a_map_belongs_to_its_key_and_an_empty_one_is_forgotten() {
        let mut states = KeyedStates::new("maps", Clock::System);
        let map = states.map::<u8, u32>("map").expect("a first state");
        let (a, b) = (At::new('a'), At::new('b'));
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
