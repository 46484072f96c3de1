//! What the states of one subtask spill to: a folder with a database for each of them.

use super::database::{Common, Database, failed};
use super::export::ThreadExport;
use super::import;
use super::scan::ThreadScan;
use rocksdb::{ReadOptions, WriteBatch, WriteOptions};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use tidegate_engine::checkpoint::{Notice, RestoredFiles};
use tidegate_engine::fault::Flow;
use tidegate_engine::state::backing::{Backing, Change, Changes, Export, Scan, Spill, StateMemory};

/// The databases of a subtask. Its folder is removed with it.
pub struct Backend {
    pub(super) common: Arc<Common>,
    path: PathBuf,
    folders: AtomicU64,
    databases: Mutex<Vec<Weak<Database>>>,
}

impl Backend {
    /// In a folder of its own, which is made when something comes into it.
    pub(super) fn new(common: Arc<Common>, path: PathBuf) -> Self {
        Backend {
            common,
            path,
            folders: AtomicU64::new(0),
            databases: Mutex::default(),
        }
    }

    /// A folder in it that nobody else has; it does not exist yet.
    pub(super) fn fresh_folder(&self, what: &str) -> PathBuf {
        let number = self.folders.fetch_add(1, Ordering::Relaxed);
        self.path.join(format!("{what}-{number}"))
    }

    pub(super) fn opened(&self, database: &Arc<Database>) {
        self.list().push(Arc::downgrade(database));
    }

    fn list(&self) -> MutexGuard<'_, Vec<Weak<Database>>> {
        self.databases
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The databases that are open.
    pub(super) fn databases(&self) -> Vec<Arc<Database>> {
        let mut list = self.list();
        list.retain(|database| database.strong_count() > 0);
        list.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        // Only when it is empty: what is in it removes itself.
        drop(fs::remove_dir(&self.path));
    }
}

/// What the states of one subtask spill to.
pub struct RocksSpill {
    backend: Arc<Backend>,
}

impl RocksSpill {
    pub(super) fn new(backend: Arc<Backend>) -> Self {
        RocksSpill { backend }
    }
}

impl Spill for RocksSpill {
    fn open(&self, uid: &str, state: &str) -> Flow<Box<dyn Backing>> {
        self.backend.common.prepare()?;
        let path = self.backend.fresh_folder("database");
        let database = Database::open(self.backend.clone(), path, &format!("{uid}/{state}"))?;
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        Ok(Box::new(RocksBacking {
            database,
            write,
            read: ReadOptions::default(),
            threads: Vec::new(),
        }))
    }

    fn memory(&self) -> &StateMemory {
        &self.backend.common.memory
    }

    fn settled(&self, notice: Notice) {
        for database in self.backend.databases() {
            database.stored.settled(notice);
        }
    }
}

struct RocksBacking {
    database: Arc<Database>,
    write: WriteOptions,
    read: ReadOptions,
    /// Those that put the state into files.
    threads: Vec<JoinHandle<()>>,
}

impl Backing for RocksBacking {
    fn get(&mut self, key: &[u8], into: &mut Vec<u8>) -> Flow<bool> {
        let database = &self.database;
        let found = database
            .db
            .get_pinned_cf_opt(&database.family()?, key, &self.read);
        let found = found.map_err(|error| failed("read", database.path(), error))?;
        into.clear();
        into.extend_from_slice(found.as_deref().unwrap_or_default());
        Ok(found.is_some())
    }

    fn estimate(&mut self) -> u64 {
        self.database.property("rocksdb.estimate-num-keys")
    }

    fn write(&mut self, changes: &Changes) -> Flow {
        let family = self.database.family()?;
        let mut batch = WriteBatch::default();
        // A write buffer finds the place of a key from that of the one before, the faster the nearer it
        // is. The sort keeps the order of changes of one key; a range stands in the way of others.
        let mut changes: Vec<_> = changes.iter().collect();
        let is_range = |change: &Change<'_>| matches!(change, Change::DeleteRange(..));
        if !changes.iter().any(is_range) {
            changes.sort_by_key(|change| match change {
                Change::Put(key, _) | Change::Delete(key) | Change::DeleteRange(key, _) => *key,
            });
        }
        for change in changes {
            match change {
                Change::Put(key, value) => batch.put_cf(&family, key, value),
                Change::Delete(key) => batch.delete_cf(&family, key),
                Change::DeleteRange(from, to) => batch.delete_range_cf(&family, from, to),
            }
        }
        let written = self.database.db.write_opt(batch, &self.write);
        written.map_err(|error| failed("write", self.database.path(), error))
    }

    fn has_room(&mut self) -> bool {
        !self.database.is_stalling()
    }

    fn walk(
        &mut self,
        from: &[u8],
        until: &[u8],
        budget: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Flow,
    ) -> Flow<bool> {
        let database = &self.database;
        let mut range = ReadOptions::default();
        if !until.is_empty() {
            range.set_iterate_upper_bound(until);
        }
        let mut entries = database.db.raw_iterator_cf_opt(&database.family()?, range);
        entries.seek(from);
        let mut left = budget;
        while let (Some((key, value)), true) = (entries.item(), left > 0) {
            visit(key, value)?;
            entries.next();
            left -= 1;
        }
        let status = entries.status();
        status.map_err(|error| failed("read", database.path(), error))?;
        Ok(!entries.valid())
    }

    fn scan(&mut self) -> Flow<Box<dyn Scan>> {
        Ok(Box::new(ThreadScan::begin(self.database.clone())?))
    }

    fn export(&mut self) -> Flow<Option<Box<dyn Export>>> {
        self.threads.retain(|thread| !thread.is_finished());
        let (export, thread) = ThreadExport::begin(self.database.clone())?;
        self.threads.push(thread);
        Ok(Some(Box::new(export)))
    }

    fn import(&mut self, files: &RestoredFiles<'_>) -> Flow {
        self.database = import::import(&self.database, files, &self.write)?;
        Ok(())
    }
}

impl Drop for RocksBacking {
    fn drop(&mut self) {
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}
