//! A cache's way into a checkpoint and out of it.

use super::slots::split_group;
use super::{Cache, STEP, Transform};
use crate::checkpoint::codec::{decode, encode_into};
use crate::checkpoint::stored_name;
use crate::checkpoint::{Entries, Key, KeyedPart, KeyedSection, RestoredFiles, StateValue};
use crate::fault::Flow;
use crate::hash::key_hash;

/// Keys that a load takes in before it makes room.
const LOADED_AT_ONCE: usize = 1024;

/// Entries are saved behind a table as they are in one.
struct AsTheyAre;

impl Transform for AsTheyAre {
    fn put(&mut self, into: &mut KeyedSection, key: &[u8], value: &[u8]) -> Flow {
        let (group, key) = split_group(key);
        into.put_encoded(group, &[key, value]);
        Ok(())
    }
}

impl<K: Key, V: StateValue> Cache<K, V> {
    /// Writes back what was dirty at the barrier, as much as the budget allows; true where nothing is left
    /// to do.
    fn flush(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        let behind = &mut self.behind;
        if self.slots.flush(behind, &mut budget.clone())? {
            return behind.flushed(into, || Box::new(AsTheyAre));
        }
        behind.write_changes()?;
        Ok(false)
    }

    /// Shows all keys and values, in the order of key groups. What is dirty is written back first.
    pub fn each(&mut self, mut visit: impl FnMut(&K, &V) -> Flow) -> Flow {
        if self.behind.flushes() {
            // The snapshot goes on from here on its own.
            self.slots.rescue(&mut self.behind)?;
            self.behind
                .flushed(&mut KeyedSection::default(), || Box::new(AsTheyAre))?;
        }
        self.behind.end_export()?;
        self.slots.write_all(&mut self.behind)?;
        self.behind.write_changes()?;
        let mut show =
            |key: &[u8], value: &[u8]| visit(&decode(split_group(key).1)?, &decode(value)?);
        let mut scan = self.behind.scan()?;
        while !scan.next(STEP, &mut show)? {}
        Ok(())
    }
}

impl<K: Key, V: StateValue> Cache<K, V> {
    /// Begins with what was saved as files, in another format: `convert` reads a value of that.
    pub fn load_converted(
        &mut self,
        files: &RestoredFiles<'_>,
        convert: &mut dyn FnMut(&mut Entries<'_>) -> Flow<V>,
    ) -> Flow {
        self.behind.import(files)?;
        let mut scan = self.behind.scan()?;
        let mut ended = false;
        while !ended {
            let changes = &mut self.behind.changes;
            ended = scan.next(STEP, &mut |key, value| {
                let value = convert(&mut Entries::new(value))?;
                changes.put(|bytes| {
                    bytes.extend_from_slice(key);
                    let key_end = bytes.len();
                    encode_into(&value, bytes)?;
                    Ok(key_end)
                })
            })?;
            self.behind.write_changes()?;
        }
        Ok(())
    }
}

impl<K: Key, V: StateValue> KeyedPart for Cache<K, V> {
    fn types(&self) -> (&'static str, &'static str) {
        (stored_name::<K>(), stored_name::<V>())
    }

    fn freeze(&mut self) -> Flow {
        self.slots.freeze();
        self.behind.freeze();
        Ok(())
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        if !self.behind.is_frozen() {
            self.freeze()?;
        }
        loop {
            let whole = match self.behind.flushes() {
                true => self.flush(into, budget)?,
                false => self.behind.save(into, budget, &mut AsTheyAre)?,
            };
            if whole {
                return Ok(true);
            }
            // Whoever asks for everything at once gets it.
            if budget != usize::MAX {
                return Ok(false);
            }
        }
    }

    fn thaw(&mut self) {
        self.behind.thaw();
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        let mut loaded = 0;
        while let Some((key, value)) = entries.take_next::<(K, V)>()? {
            self.set(key_hash(&key), key, value)?;
            loaded += 1;
            if loaded % LOADED_AT_ONCE == 0 {
                self.keep_to_memory()?;
            }
        }
        Ok(())
    }

    fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        self.behind.import(files)
    }

    fn maintain(&mut self) -> Flow {
        self.keep_to_memory()
    }
}
