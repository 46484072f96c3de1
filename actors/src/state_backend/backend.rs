//! What the states of one subtask spill to: a folder with a database for each of them.

use super::batch::Batch;
use super::database::{Common, Database, failed};
use super::export::ThreadExport;
use super::import;
use super::layout::{BEHIND_ALL, Layout};
use super::scan::ThreadScan;
use rocksdb::{ReadOptions, WriteOptions};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use tidegate_engine::checkpoint::{Notice, RestoredFiles};
use tidegate_engine::fault::Flow;
use tidegate_engine::state::backing::{Backing, Change, Changes, Export, Scan, Spill, StateMemory};

/// Write buffers that the files of a state are as large as when it is divided.
const DIVIDED_AT: u64 = 16;
/// How often the size of a state is looked at, while as much is written as a write buffer has.
const LOOKED_PER_BUFFER: u64 = 4;
/// Bytes that move to the parts for each byte that is written, while a state is being divided.
const MOVED_PER_WRITTEN: usize = 2;

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
    pub(super) backend: Arc<Backend>,
}

impl RocksSpill {
    pub(super) fn new(backend: Arc<Backend>) -> Self {
        RocksSpill { backend }
    }
}

impl Spill for RocksSpill {
    fn open(&self, uid: &str, state: &str, max_parallelism: u32) -> Flow<Box<dyn Backing>> {
        self.backend.common.prepare()?;
        let path = self.backend.fresh_folder("database");
        let database = Database::open(self.backend.clone(), path, &format!("{uid}/{state}"))?;
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        Ok(Box::new(RocksBacking {
            layout: database.layout(max_parallelism)?,
            database,
            unseen: 0,
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
    /// How its entries are spread over families.
    layout: Layout,
    /// Bytes of changes since its files were looked at.
    unseen: u64,
    write: WriteOptions,
    read: ReadOptions,
    /// Those that put the state into files.
    threads: Vec<JoinHandle<()>>,
}

impl Backing for RocksBacking {
    fn get(&mut self, key: &[u8], into: &mut Vec<u8>) -> Flow<bool> {
        let database = &self.database;
        into.clear();
        let Some(family) = database.family_to_read(self.layout.family_of(key)) else {
            return Ok(false);
        };
        let found = database.db.get_pinned_cf_opt(&family, key, &self.read);
        let found = found.map_err(|error| failed("read", database.path(), error))?;
        into.extend_from_slice(found.as_deref().unwrap_or_default());
        Ok(found.is_some())
    }

    fn estimate(&mut self) -> u64 {
        self.database.property("rocksdb.estimate-num-keys")
    }

    fn write(&mut self, changes: &Changes) -> Flow {
        self.divide(changes.bytes())?;
        let (layout, mut batch) = (&self.layout, Batch::new(&self.database));
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
                Change::Put(key, value) => batch.put(layout.family_of(key), key, value)?,
                Change::Delete(key) => batch.delete(layout.family_of(key), key)?,
                Change::DeleteRange(from, to) => batch.delete_range(layout, from, to),
            }
        }
        batch.write(&self.write)
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
        let mut left = budget;
        for piece in self.layout.pieces(from, until) {
            let Some(family) = database.family_to_read(piece.family) else {
                continue;
            };
            let mut entries = database.db.raw_iterator_cf_opt(&family, piece.range());
            entries.seek_to_first();
            while let (Some((key, value)), true) = (entries.item(), left > 0) {
                visit(key, value)?;
                entries.next();
                left -= 1;
            }
            let status = entries.status();
            status.map_err(|error| failed("read", database.path(), error))?;
            if entries.valid() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn scan(&mut self) -> Flow<Box<dyn Scan>> {
        Ok(Box::new(ThreadScan::begin(
            self.database.clone(),
            self.layout.clone(),
        )?))
    }

    fn export(&mut self) -> Flow<Option<Box<dyn Export>>> {
        self.threads.retain(|thread| !thread.is_finished());
        let (export, thread) = ThreadExport::begin(self.database.clone(), self.layout.clone())?;
        self.threads.push(thread);
        Ok(Some(Box::new(export)))
    }

    fn import(&mut self, files: &RestoredFiles<'_>) -> Flow {
        (self.database, self.layout) =
            import::import((&self.database, &self.layout), files, &self.write)?;
        Ok(())
    }
}

impl RocksBacking {
    /// Begins to divide the state where it has become large, and goes on where that is under way, as so many bytes are
    /// to be written.
    fn divide(&mut self, bytes: usize) -> Flow {
        if self.layout.moving().is_some() {
            return self.move_on(MOVED_PER_WRITTEN * bytes);
        }
        self.unseen += bytes as u64;
        let buffer = self.database.backend.common.settings.write_buffer_size;
        if self.unseen >= buffer / LOOKED_PER_BUFFER && !self.layout.is_divided() {
            self.unseen = 0;
            let whole = &self.layout.whole;
            let size = self
                .database
                .property_of(whole, "rocksdb.live-sst-files-size");
            if size >= DIVIDED_AT.saturating_mul(buffer) {
                self.layout.divide();
            }
        }
        Ok(())
    }

    /// Moves about so many bytes of entries to the parts.
    fn move_on(&mut self, bytes: usize) -> Flow {
        let (database, layout) = (&self.database, &self.layout);
        let Some(from) = layout.moving() else {
            return Ok(());
        };
        let mut batch = Batch::new(database);
        let mut behind = BEHIND_ALL.to_vec();
        if let Some(whole) = database.family_to_read(&layout.whole) {
            let mut entries = database.db.raw_iterator_cf(&whole);
            entries.seek(from);
            while let Some((key, value)) = entries.item() {
                if batch.bytes() >= bytes {
                    behind = key.to_vec();
                    break;
                }
                batch.put(layout.part_of(key), key, value)?;
                entries.next();
            }
            let status = entries.status();
            status.map_err(|error| failed("read", database.path(), error))?;
        }
        let mut moved = layout.clone();
        moved.moved_to(&behind);
        batch.record(&moved)?;
        batch.write(&self.write)?;
        self.layout = moved;
        if self.layout.moving().is_none() {
            self.database.drop_family(&self.layout.whole)?;
        }
        Ok(())
    }
}

impl Drop for RocksBacking {
    fn drop(&mut self) {
        self.database.merging.stop(&self.database);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}
