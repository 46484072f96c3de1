//! A cache's way into a checkpoint and out of it.

use super::{Cache, STEP, split_key, write_back};
use crate::checkpoint::codec::decode;
use crate::checkpoint::{
    Entries, FilesImage, Key, KeyedPart, KeyedSection, RestoredFiles, StateValue,
};
use crate::fault::Flow;
use crate::hash::key_hash;
use crate::state::backing::{Export, Scan};
use std::any::type_name;

/// One of so many entries of a budget is written back rather than passed.
const WRITTEN_OF: usize = 8;
/// Keys that a load takes in before it makes room.
const LOADED_AT_ONCE: usize = 1024;

/// How far a snapshot has come.
pub(super) enum Snapshot {
    None,
    /// What was dirty at the barrier is written back; the buckets before this one are done.
    Flush(usize),
    Copy(Box<dyn Scan>),
    Export(Box<dyn Export>),
    Exported(Box<FilesImage>),
}

impl<K: Key, V: StateValue> Cache<K, V> {
    /// Waits for the files of a snapshot.
    pub(super) fn end_export(&mut self) -> Flow {
        if let Snapshot::Export(export) = &mut self.snapshot
            && let Some(files) = export.poll(true)?
        {
            self.snapshot = Snapshot::Exported(Box::new(files));
        }
        Ok(())
    }

    /// Writes back what was dirty at the barrier, from a bucket on; true once all is.
    fn flush(&mut self, from: usize, budget: usize) -> Flow<bool> {
        let end = self.slots.num_buckets();
        let mut bucket = from.min(end);
        let until = bucket.saturating_add(budget.saturating_mul(4)).min(end);
        // What is written costs far more than what is passed.
        let mut left = (budget / WRITTEN_OF).max(1);
        while bucket < until && left > 0 {
            if let Some(slot) = self.slots.get_bucket_mut(bucket)
                && slot.dirty != 0
                && slot.dirty != self.epoch
            {
                write_back(slot, self.max_parallelism, &mut self.changes)?;
                slot.dirty = 0;
                self.dirty -= 1;
                left -= 1;
            }
            bucket += 1;
        }
        self.write_changes()?;
        self.snapshot = Snapshot::Flush(bucket);
        Ok(bucket == end)
    }
}

impl<K: Key, V: StateValue> Cache<K, V> {
    /// Shows all keys and values, in the order of key groups. What is dirty is written back first.
    pub fn each(&mut self, mut visit: impl FnMut(&K, &V) -> Flow) -> Flow {
        while let Snapshot::Flush(from) = self.snapshot {
            self.flush_or_copy(from, usize::MAX, false)?;
        }
        self.end_export()?;
        for bucket in 0..self.slots.num_buckets() {
            if let Some(slot) = self.slots.get_bucket_mut(bucket)
                && slot.dirty != 0
            {
                write_back(slot, self.max_parallelism, &mut self.changes)?;
                slot.dirty = 0;
                self.dirty -= 1;
            }
        }
        self.write_changes()?;
        let mut show =
            |key: &[u8], value: &[u8]| visit(&decode(split_key(key).1)?, &decode(value)?);
        let mut scan = self.backing.scan()?;
        while !scan.next(STEP, &mut show)? {}
        Ok(())
    }

    fn flush_or_copy(&mut self, from: usize, budget: usize, shares_files: bool) -> Flow {
        if !self.flush(from, budget)? {
            return Ok(());
        }
        let export = if shares_files {
            self.backing.export()?
        } else {
            None
        };
        self.snapshot = match export {
            Some(export) => Snapshot::Export(export),
            None => Snapshot::Copy(self.backing.scan()?),
        };
        Ok(())
    }
}

impl<K: Key, V: StateValue> KeyedPart for Cache<K, V> {
    fn types(&self) -> (&'static str, &'static str) {
        (type_name::<K>(), type_name::<V>())
    }

    fn freeze(&mut self) -> Flow {
        self.epoch += 1;
        self.snapshot = Snapshot::Flush(0);
        Ok(())
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        let mut put = |key: &[u8], value: &[u8]| {
            let (group, key) = split_key(key);
            into.put_encoded(group, &[key, value]);
            Ok(())
        };
        match &mut self.snapshot {
            Snapshot::None => self.freeze()?,
            Snapshot::Flush(from) => {
                let from = *from;
                self.flush_or_copy(from, budget, into.shares_files())?;
            }
            Snapshot::Export(export) => match export.poll(budget == usize::MAX)? {
                Some(files) => self.snapshot = Snapshot::Exported(Box::new(files)),
                None => into.wait(true),
            },
            Snapshot::Exported(files) => {
                into.put_files(std::mem::take(&mut **files));
                self.snapshot = Snapshot::None;
                return Ok(true);
            }
            Snapshot::Copy(scan) => {
                if scan.next(budget, &mut put)? {
                    self.snapshot = Snapshot::None;
                    return Ok(true);
                }
            }
        }
        // Whoever asks for everything at once gets it.
        if budget == usize::MAX {
            return self.save(into, budget);
        }
        Ok(false)
    }

    fn thaw(&mut self) {
        self.snapshot = Snapshot::None;
        // Of what was written ahead, its keys are dirty again.
        self.changes.clear();
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
        self.spilled = true;
        self.backing.import(files)
    }

    fn maintain(&mut self) -> Flow {
        self.keep_to_memory()
    }
}
