//! What a state keeps for one key: a value, a list or a map, each element with its own age.

use super::migration::Format;
use super::ttl::Lifetime;
use crate::checkpoint::stored_name;
use crate::checkpoint::{Entries, Key, StateValue};
use crate::fault::Flow;
use crate::hash::key_hash;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::hash::Hash;
use std::ops::Range;

/// What is kept for a key.
pub(super) trait Content: StateValue {
    /// What it consists of.
    type Element: StateValue;
    /// How long an element stays.
    type Life: Lifetime;
    /// Whether what has expired is cheap to remove before each change.
    const PRUNED_BY_CHANGES: bool;

    /// Under what name it is saved, if this is the name of its elements.
    fn name(element: &str) -> String;

    /// Into how many steps looking for what has expired can be cut.
    fn slots(&self, life: &Self::Life) -> usize;

    /// Whether something has expired there.
    fn stale(&self, life: &Self::Life, slots: Range<usize>) -> bool;

    /// Removes what has expired there.
    fn clean(&mut self, life: &Self::Life, slots: Range<usize>);

    /// Whether nothing is left.
    fn is_spent(&self, life: &Self::Life) -> bool;

    /// Reads what was saved in another format.
    fn read(
        entries: &mut Entries<'_>,
        format: &Format<Self::Element>,
        life: &Self::Life,
    ) -> Flow<Self>;
}

/// One value.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub(super) struct One<V: StateValue, L: Lifetime>(pub L::Kept<V>);

impl<V: StateValue, L: Lifetime> Content for One<V, L> {
    type Element = V;
    type Life = L;
    const PRUNED_BY_CHANGES: bool = true;

    fn name(element: &str) -> String {
        element.to_owned()
    }

    fn slots(&self, _: &L) -> usize {
        1
    }

    fn stale(&self, life: &L, _: Range<usize>) -> bool {
        self.is_spent(life)
    }

    fn clean(&mut self, _: &L, _: Range<usize>) {}

    fn is_spent(&self, life: &L) -> bool {
        life.live(&self.0).is_none()
    }

    fn read(entries: &mut Entries<'_>, format: &Format<V>, life: &L) -> Flow<Self> {
        let (since, value) = format.element(entries)?;
        Ok(One(life.keep(value, since)))
    }
}

/// A list.
#[derive(Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub(super) struct Many<V: StateValue, L: Lifetime>(pub L::List<V>);

impl<V: StateValue, L: Lifetime> Default for Many<V, L> {
    fn default() -> Self {
        Many(Default::default())
    }
}

impl<V: StateValue, L: Lifetime> Content for Many<V, L> {
    type Element = V;
    type Life = L;
    const PRUNED_BY_CHANGES: bool = true;

    fn name(element: &str) -> String {
        format!("list of {element}")
    }

    fn slots(&self, life: &L) -> usize {
        life.expired(&self.0).max(1)
    }

    fn stale(&self, life: &L, _: Range<usize>) -> bool {
        life.expired(&self.0) > 0
    }

    fn clean(&mut self, life: &L, slots: Range<usize>) {
        let expired = life.expired(&self.0);
        life.drop_first(&mut self.0, expired.min(slots.len()));
    }

    fn is_spent(&self, life: &L) -> bool {
        life.elements(&self.0).is_empty()
    }

    fn read(entries: &mut Entries<'_>, format: &Format<V>, life: &L) -> Flow<Self> {
        let mut list = L::List::default();
        for _ in 0..entries.read::<u64>()? {
            let (since, value) = format.element(entries)?;
            life.push(&mut list, value, since);
        }
        Ok(Many(list))
    }
}

/// A map.
pub(super) struct Mapped<UK, V: StateValue, L: Lifetime>(HashTable<(UK, L::Kept<V>)>);

impl<UK, V: StateValue, L: Lifetime> Default for Mapped<UK, V, L> {
    fn default() -> Self {
        Mapped(HashTable::new())
    }
}

impl<UK: Hash + Eq, V: StateValue, L: Lifetime> Mapped<UK, V, L> {
    #[inline]
    pub fn get(&self, entry: &UK) -> Option<&L::Kept<V>> {
        let found = self.0.find(key_hash(entry), |(k, _)| k == entry);
        found.map(|(_, kept)| kept)
    }

    #[inline]
    pub fn get_mut(&mut self, entry: &UK) -> Option<&mut L::Kept<V>> {
        let found = self.0.find_mut(key_hash(entry), |(k, _)| k == entry);
        found.map(|(_, kept)| kept)
    }

    #[inline]
    pub fn insert(&mut self, entry: UK, kept: L::Kept<V>) -> Option<L::Kept<V>> {
        let is = |(k, _): &(UK, _)| *k == entry;
        match self.0.entry(key_hash(&entry), is, |(k, _)| key_hash(k)) {
            Entry::Occupied(mut old) => Some(std::mem::replace(&mut old.get_mut().1, kept)),
            Entry::Vacant(vacant) => {
                vacant.insert((entry, kept));
                None
            }
        }
    }

    #[inline]
    pub fn get_or_insert_with(
        &mut self,
        entry: UK,
        make: impl FnOnce() -> L::Kept<V>,
    ) -> &mut L::Kept<V> {
        let is = |(k, _): &(UK, _)| *k == entry;
        match self.0.entry(key_hash(&entry), is, |(k, _)| key_hash(k)) {
            Entry::Occupied(old) => &mut old.into_mut().1,
            Entry::Vacant(vacant) => &mut vacant.insert((entry, make())).into_mut().1,
        }
    }

    pub fn remove(&mut self, entry: &UK) -> Option<L::Kept<V>> {
        let found = self.0.find_entry(key_hash(entry), |(k, _)| k == entry);
        Some(found.ok()?.remove().0.1)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&UK, &L::Kept<V>)> {
        self.0.iter().map(|(k, kept)| (k, kept))
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&UK, &mut L::Kept<V>) -> bool) {
        self.0.retain(|(k, kept)| keep(k, kept));
    }

    pub fn into_entries(self) -> impl Iterator<Item = (UK, L::Kept<V>)> {
        self.0.into_iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<UK: Key, V: StateValue, L: Lifetime> Serialize for Mapped<UK, V, L> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter())
    }
}

impl<'de, UK: Key, V: StateValue, L: Lifetime> Deserialize<'de> for Mapped<UK, V, L> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut map = Mapped::default();
        for (entry, kept) in Vec::<(UK, L::Kept<V>)>::deserialize(deserializer)? {
            map.insert(entry, kept);
        }
        Ok(map)
    }
}

impl<UK: Key, V: StateValue, L: Lifetime> Content for Mapped<UK, V, L> {
    type Element = V;
    type Life = L;
    const PRUNED_BY_CHANGES: bool = false;

    fn name(element: &str) -> String {
        format!("map of {} to {element}", stored_name::<UK>())
    }

    fn slots(&self, _: &L) -> usize {
        self.0.num_buckets()
    }

    fn stale(&self, life: &L, mut slots: Range<usize>) -> bool {
        slots.any(|slot| {
            let bucket = self.0.get_bucket(slot);
            bucket.is_some_and(|(_, kept)| life.live(kept).is_none())
        })
    }

    fn clean(&mut self, life: &L, slots: Range<usize>) {
        for slot in slots {
            if let Ok(entry) = self.0.get_bucket_entry(slot)
                && life.live(&entry.get().1).is_none()
            {
                entry.remove();
            }
        }
    }

    fn is_spent(&self, _: &L) -> bool {
        self.0.is_empty()
    }

    fn read(entries: &mut Entries<'_>, format: &Format<V>, life: &L) -> Flow<Self> {
        let mut map = Mapped::default();
        for _ in 0..entries.read::<u64>()? {
            let entry = entries.read::<UK>()?;
            let (since, value) = format.element(entries)?;
            map.insert(entry, life.keep(value, since));
        }
        Ok(map)
    }
}
