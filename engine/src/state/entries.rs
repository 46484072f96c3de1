//! The entries of one state of user code: a table in memory, or a cache in front of what it spills to.
//!
//! Handles share them, so they are changed behind a shared reference. What is in memory is reached by
//! one access of one table; the cache's code is kept out of the way of that. Where what is spilled
//! can't be read, user code has no way on: its handles have no room for an error in their answers. The
//! fault unwinds to whoever runs the subtask, as a panic of user code would.

use super::KeyTable;
use super::cache::Cache;
use crate::checkpoint::{Entries, Key, KeyedPart, OpenBacking, RestoredFiles, StateValue};
use crate::fault::Flow;
use crate::hash::key_hash;
use std::cell::{OnceCell, RefCell};

/// See the module.
pub(super) struct EntryTable<K, C> {
    memory: RefCell<KeyTable<K, C>>,
    spilled: OnceCell<RefCell<Box<Cache<K, C>>>>,
}

impl<K, C> Default for EntryTable<K, C> {
    fn default() -> Self {
        EntryTable {
            memory: RefCell::default(),
            spilled: OnceCell::new(),
        }
    }
}

/// What an access of spilled state came to.
fn settled<R>(result: Flow<R>) -> R {
    match result {
        Ok(value) => value,
        Err(fault) => fault.unwind(),
    }
}

type Spilled<K, C> = RefCell<Box<Cache<K, C>>>;

impl<K: Key, C: StateValue> EntryTable<K, C> {
    /// Shows a key's entry.
    #[inline(always)]
    pub fn read<R>(&self, hash: u64, key: &K, look: impl FnOnce(Option<&C>) -> R) -> R {
        match self.spilled.get() {
            None => look(self.memory.borrow().get(hash, key)),
            Some(spilled) => read_spilled(spilled, hash, key, look),
        }
    }

    /// Shows a key's entry to a function that may change it.
    #[inline(always)]
    pub fn edit<R>(&self, hash: u64, key: &K, edit: impl FnOnce(Option<&mut C>) -> R) -> R {
        match self.spilled.get() {
            None => edit(self.memory.borrow_mut().get_mut(hash, key)),
            Some(spilled) => edit_spilled(spilled, hash, key, edit),
        }
    }

    /// Changes a key's entry, made first where there is none.
    #[inline(always)]
    pub fn change<R>(
        &self,
        hash: u64,
        key: &K,
        make: impl FnOnce() -> C,
        change: impl FnOnce(&mut C) -> R,
    ) -> R {
        if let Some(spilled) = self.spilled.get() {
            return make_spilled(spilled, hash, key, make, change);
        }
        let mut entries = self.memory.borrow_mut();
        // A key that is known is not cloned.
        if let Some(content) = entries.get_mut(hash, key) {
            return change(content);
        }
        change(entries.insert_new(hash, key.clone(), make()))
    }

    /// Adds a value to a key's entry, or makes it the entry where there is none.
    #[inline(always)]
    pub fn add<T>(
        &self,
        hash: u64,
        key: &K,
        value: T,
        make: impl FnOnce(T) -> C,
        add: impl FnOnce(&mut C, T),
    ) {
        if let Some(spilled) = self.spilled.get() {
            return add_spilled(spilled, hash, key, value, make, add);
        }
        let mut entries = self.memory.borrow_mut();
        match entries.get_mut(hash, key) {
            Some(content) => add(content, value),
            None => {
                entries.insert_new(hash, key.clone(), make(value));
            }
        }
    }

    /// Stores a key's entry.
    pub fn set(&self, hash: u64, key: K, content: C) -> Flow {
        match self.spilled.get() {
            None => {
                self.memory.borrow_mut().insert(hash, key, content);
                Ok(())
            }
            Some(spilled) => spilled.borrow_mut().set(hash, key, content),
        }
    }

    /// Takes a key's entry out.
    #[inline(always)]
    pub fn take(&self, hash: u64, key: &K) -> Option<C> {
        match self.spilled.get() {
            None => self.memory.borrow_mut().remove(hash, key),
            Some(spilled) => settled(spilled.borrow_mut().remove(hash, key)),
        }
    }

    /// Shows the entry in a bucket to a function, where there is one.
    pub fn bucket<R>(&self, bucket: usize, look: impl FnOnce(&K, &C) -> R) -> Option<R> {
        match self.spilled.get() {
            None => {
                let entries = self.memory.borrow();
                entries
                    .bucket(bucket)
                    .map(|(key, content)| look(key, content))
            }
            Some(spilled) => {
                let cache = spilled.borrow();
                cache
                    .bucket(bucket)
                    .map(|(key, content)| look(key, content))
            }
        }
    }

    /// Makes it spill from now on.
    pub fn spill(&self, open: &mut OpenBacking<'_>) -> Flow {
        let (max_parallelism, backing, claim) = open()?;
        let mut cache = Box::new(Cache::new(backing, claim, max_parallelism));
        for (key, content) in self.memory.borrow_mut().drain() {
            cache.set(key_hash(&key), key, content)?;
        }
        // A second time there is nothing to do.
        let _ = self.spilled.set(RefCell::new(cache));
        Ok(())
    }

    /// Begins with what was saved as files, in another format: `convert` reads an entry of that.
    pub fn load_converted(
        &self,
        files: &RestoredFiles<'_>,
        convert: &mut dyn FnMut(&mut Entries<'_>) -> Flow<C>,
    ) -> Flow {
        match self.spilled.get() {
            None => Err(files.in_memory()),
            Some(spilled) => spilled.borrow_mut().load_converted(files, convert),
        }
    }

    /// Shows itself as what takes part in checkpoints.
    pub fn with_part<R>(&self, show: impl FnOnce(&mut dyn KeyedPart) -> R) -> R {
        match self.spilled.get() {
            None => show(&mut *self.memory.borrow_mut()),
            Some(spilled) => show(&mut **spilled.borrow_mut()),
        }
    }

    /// About how many entries [`EntryTable::walk`] comes by.
    pub fn estimate(&self) -> u64 {
        let spilled = self.spilled.get();
        spilled.map_or(0, |spilled| spilled.borrow_mut().estimate())
    }

    /// Shows entries that are not in memory, from a key on and about `budget` of them; where to go on, or
    /// `None` at the end.
    pub fn walk(
        &self,
        from: &[u8],
        budget: usize,
        mut look: impl FnMut(K, C),
    ) -> Flow<Option<Vec<u8>>> {
        match self.spilled.get() {
            None => Ok(None),
            Some(spilled) => spilled.borrow_mut().walk(from, budget, &mut look),
        }
    }
}

impl<K: Key, C: StateValue> EntryTable<K, C> {
    /// How many entries there are in memory.
    pub fn len(&self) -> usize {
        match self.spilled.get() {
            None => self.memory.borrow().len(),
            Some(spilled) => spilled.borrow().len(),
        }
    }

    /// Whether there may be entries that are not in memory.
    pub fn spills(&self) -> bool {
        self.spilled
            .get()
            .is_some_and(|spilled| spilled.borrow().has_spilled())
    }

    /// How many buckets there are for those in memory.
    pub fn buckets(&self) -> usize {
        match self.spilled.get() {
            None => self.memory.borrow().buckets(),
            Some(spilled) => spilled.borrow().buckets(),
        }
    }
}

#[cold]
#[inline(never)]
fn read_spilled<K: Key, C: StateValue, R>(
    spilled: &Spilled<K, C>,
    hash: u64,
    key: &K,
    look: impl FnOnce(Option<&C>) -> R,
) -> R {
    look(settled(spilled.borrow_mut().get(hash, key)))
}

#[cold]
#[inline(never)]
fn edit_spilled<K: Key, C: StateValue, R>(
    spilled: &Spilled<K, C>,
    hash: u64,
    key: &K,
    edit: impl FnOnce(Option<&mut C>) -> R,
) -> R {
    edit(settled(spilled.borrow_mut().get_mut(hash, key)))
}

#[cold]
#[inline(never)]
fn make_spilled<K: Key, C: StateValue, R>(
    spilled: &Spilled<K, C>,
    hash: u64,
    key: &K,
    make: impl FnOnce() -> C,
    change: impl FnOnce(&mut C) -> R,
) -> R {
    let mut cache = spilled.borrow_mut();
    change(settled(cache.get_or_insert_with(hash, key.clone(), make)))
}

#[cold]
#[inline(never)]
fn add_spilled<K: Key, C: StateValue, T>(
    spilled: &Spilled<K, C>,
    hash: u64,
    key: &K,
    value: T,
    make: impl FnOnce(T) -> C,
    add: impl FnOnce(&mut C, T),
) {
    let mut cache = spilled.borrow_mut();
    if let Some(content) = settled(cache.get_mut(hash, key)) {
        return add(content, value);
    }
    settled(cache.insert_new(hash, key.clone(), make(value)));
}
