//! A table by key that is in memory, or a cache in front of what it spills to.

use super::KeyTable;
use super::cache::Cache;
use crate::checkpoint::stored_name;
use crate::checkpoint::{
    Entries, Key, KeyedPart, KeyedSection, OpenBacking, RestoredFiles, StateValue,
};
use crate::fault::Flow;
use crate::hash::key_hash;

/// State of one operator, by key, which may be larger than memory where the job says so. It offers what
/// needs no more than one key at a time; every access may fail with what it spills to.
pub struct BackedTable<K, V>(Kind<K, V>);

enum Kind<K, V> {
    Memory(KeyTable<K, V>),
    Cache(Box<Cache<K, V>>),
}

impl<K, V> Default for BackedTable<K, V> {
    fn default() -> Self {
        BackedTable(Kind::Memory(KeyTable::default()))
    }
}

impl<K: Key, V: StateValue> BackedTable<K, V> {
    /// The value of a key.
    #[inline(always)]
    pub fn get(&mut self, hash: u64, key: &K) -> Flow<Option<&V>> {
        match &mut self.0 {
            Kind::Memory(table) => Ok(table.get(hash, key)),
            Kind::Cache(cache) => cache.get(hash, key),
        }
    }

    /// The value of a key, to change it.
    #[inline(always)]
    pub fn get_mut(&mut self, hash: u64, key: &K) -> Flow<Option<&mut V>> {
        match &mut self.0 {
            Kind::Memory(table) => Ok(table.get_mut(hash, key)),
            Kind::Cache(cache) => cache.get_mut(hash, key),
        }
    }

    /// The value of a key, made first where there is none. The key is taken only then.
    #[inline(always)]
    pub fn get_or_insert_with(
        &mut self,
        hash: u64,
        key: K,
        make: impl FnOnce() -> V,
    ) -> Flow<&mut V> {
        match &mut self.0 {
            Kind::Memory(table) => Ok(table.get_or_insert_with(hash, key, make)),
            Kind::Cache(cache) => cache.get_or_insert_with(hash, key, make),
        }
    }

    /// Stores the value of a key that has none, which the caller has just looked up.
    #[inline(always)]
    pub fn insert_new(&mut self, hash: u64, key: K, value: V) -> Flow<&mut V> {
        match &mut self.0 {
            Kind::Memory(table) => Ok(table.insert_new(hash, key, value)),
            Kind::Cache(cache) => cache.insert_new(hash, key, value),
        }
    }

    /// Stores a value, whatever was there.
    #[inline(always)]
    pub fn set(&mut self, hash: u64, key: K, value: V) -> Flow {
        match &mut self.0 {
            Kind::Memory(table) => {
                table.insert(hash, key, value);
                Ok(())
            }
            Kind::Cache(cache) => cache.set(hash, key, value),
        }
    }

    /// Takes a key's value out.
    pub fn remove(&mut self, hash: u64, key: &K) -> Flow<Option<V>> {
        match &mut self.0 {
            Kind::Memory(table) => Ok(table.remove(hash, key)),
            Kind::Cache(cache) => cache.remove(hash, key),
        }
    }

    /// Whether it keeps to a memory, and the rest elsewhere.
    pub fn spills(&self) -> bool {
        matches!(self.0, Kind::Cache(_))
    }

    /// Shows all keys and values. It reads all that there is.
    pub fn each(&mut self, mut visit: impl FnMut(&K, &V) -> Flow) -> Flow {
        match &mut self.0 {
            Kind::Memory(table) => table.iter().try_for_each(|(key, value)| visit(key, value)),
            Kind::Cache(cache) => cache.each(visit),
        }
    }

    fn part(&mut self) -> &mut dyn KeyedPart {
        match &mut self.0 {
            Kind::Memory(table) => table,
            Kind::Cache(cache) => &mut **cache,
        }
    }
}

impl<K: Key, V: StateValue> KeyedPart for BackedTable<K, V> {
    fn types(&self) -> (&'static str, &'static str) {
        (stored_name::<K>(), stored_name::<V>())
    }

    fn freeze(&mut self) -> Flow {
        self.part().freeze()
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        self.part().save(into, budget)
    }

    fn thaw(&mut self) {
        self.part().thaw();
    }

    fn spill(&mut self, open: &mut OpenBacking<'_>) -> Flow {
        let (max_parallelism, backing, claim) = open()?;
        let mut cache = Box::new(Cache::new(backing, claim, max_parallelism));
        if let Kind::Memory(table) = &mut self.0 {
            for (key, value) in table.drain() {
                cache.set(key_hash(&key), key, value)?;
            }
        }
        self.0 = Kind::Cache(cache);
        Ok(())
    }

    fn maintain(&mut self) -> Flow {
        self.part().maintain()
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        self.part().load(entries)
    }

    fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        self.part().load_files(files)
    }
}
