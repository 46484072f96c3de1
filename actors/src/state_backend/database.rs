//! One subtask's database: a column family for each state, keys in the order of their key groups.
//!
//! It is no truth of its own. A checkpoint holds what a recovery needs, so nothing is logged or synced,
//! and the folder goes with the database. Flushes and compactions run on RocksDB's own threads; the
//! caller asks [`Backing::has_room`] before it writes and so never waits for them.

use super::scan::ThreadScan;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompressionType,
    DBWithThreadMode, MultiThreaded, Options, ReadOptions, WriteBatch, WriteBufferManager,
    WriteOptions,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::state::RocksDbSettings;
use tidegate_engine::state::backing::{Backing, Changes, Scan, Spill, StateMemory};

pub(super) type Db = DBWithThreadMode<MultiThreaded>;

/// Write buffers of one column family, including those that wait to be written to a file.
const WRITE_BUFFERS: i32 = 4;
/// Files of the first level from which writes are slowed down, and stopped.
const SLOWED_AT: i32 = 20;
const STOPPED_AT: i32 = 36;
/// Threads of RocksDB for all databases together.
const BACKGROUND_JOBS: i32 = 2;

/// What the databases of a process share.
pub(super) struct Common {
    pub settings: RocksDbSettings,
    pub blocks: Cache,
    pub buffers: WriteBufferManager,
    pub memory: StateMemory,
}

impl Common {
    pub fn new(settings: RocksDbSettings) -> Self {
        let size = settings.cache_size as usize;
        let blocks = Cache::new_lru_cache(size);
        // Write buffers count as part of the cache, of which they may take half.
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            size / 2,
            false,
            blocks.clone(),
        );
        let memory = StateMemory::new(settings.table_memory);
        Common {
            settings,
            blocks,
            buffers,
            memory,
        }
    }

    fn options(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_write_buffer_size(self.settings.write_buffer_size as usize);
        options.set_max_write_buffer_number(WRITE_BUFFERS);
        options.set_write_buffer_manager(&self.buffers);
        options.set_level_zero_slowdown_writes_trigger(SLOWED_AT);
        options.set_level_zero_stop_writes_trigger(STOPPED_AT);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        options.set_avoid_unnecessary_blocking_io(true);
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_size(self.settings.block_size as usize);
        blocks.set_block_cache(&self.blocks);
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_bloom_filter(f64::from(self.settings.bloom_bits_per_key), false);
        options.set_block_based_table_factory(&blocks);
        options
    }
}

/// A database that is open. Its folder is removed with it.
pub struct Database {
    pub(super) db: Arc<Db>,
    path: PathBuf,
    pub(super) options: Options,
    /// The names of its column families.
    families: Mutex<Vec<String>>,
    common: Arc<Common>,
}

pub(super) fn failed(action: &str, path: &Path, error: impl std::fmt::Display) -> Fault {
    let path = path.display();
    Fault::internal(format_args!("state in {path}: can't {action}: {error}"))
}

impl Database {
    /// Opens an empty database in a folder that does not exist yet.
    pub(super) fn create(common: Arc<Common>, path: PathBuf) -> Flow<Self> {
        fs::create_dir_all(&path).map_err(|error| failed("create the folder", &path, error))?;
        let mut options = common.options();
        if common.settings.statistics {
            options.enable_statistics();
        }
        let mut families = common.settings.column_families.clone();
        families.push("default".to_owned());
        families.sort_unstable();
        families.dedup();
        let names = Mutex::new(families.clone());
        let families = families.into_iter();
        let families = families.map(|name| ColumnFamilyDescriptor::new(name, common.options()));
        let db = Db::open_cf_descriptors(&options, &path, families);
        let db = db.map_err(|error| failed("open the database", &path, error))?;
        Ok(Database {
            db: Arc::new(db),
            path,
            options,
            families: names,
            common,
        })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A number that RocksDB knows of itself, summed over all column families.
    pub fn property(&self, name: &str) -> u64 {
        let names = self.families().clone();
        let families = names.iter().filter_map(|family| self.db.cf_handle(family));
        let values = families.map(|family| self.db.property_int_value_cf(&family, name));
        values.filter_map(|value| value.ok().flatten()).sum()
    }

    fn families(&self) -> MutexGuard<'_, Vec<String>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether writes would be slowed down or stopped soon.
    fn is_stalling(&self, family: &Arc<BoundColumnFamily<'_>>) -> bool {
        let value = |name: &str| {
            let value = self.db.property_int_value_cf(family, name);
            value.ok().flatten().unwrap_or(0)
        };
        value("rocksdb.is-write-stopped") > 0
            || value("rocksdb.actual-delayed-write-rate") > 0
            || value("rocksdb.num-immutable-mem-table") + 2 > WRITE_BUFFERS as u64
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.db.cancel_all_background_work(false);
        // What is left, if this fails, goes with the next process that begins here.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// What the states of one subtask spill to.
pub struct RocksSpill {
    database: Arc<Database>,
}

impl RocksSpill {
    pub(super) fn new(database: Arc<Database>) -> Self {
        RocksSpill { database }
    }
}

impl Spill for RocksSpill {
    fn open(&self, uid: &str, state: &str) -> Flow<Box<dyn Backing>> {
        let (database, family) = (self.database.clone(), format!("{uid}/{state}"));
        let created = database.db.create_cf(&family, &database.common.options());
        created.map_err(|error| failed("create a column family", &database.path, error))?;
        database.families().push(family.clone());
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        Ok(Box::new(RocksBacking {
            database,
            family,
            write,
            read: ReadOptions::default(),
        }))
    }

    fn memory(&self) -> &StateMemory {
        &self.database.common.memory
    }
}

struct RocksBacking {
    database: Arc<Database>,
    family: String,
    write: WriteOptions,
    read: ReadOptions,
}

impl RocksBacking {
    fn family(&self) -> Flow<Arc<BoundColumnFamily<'_>>> {
        let family = self.database.db.cf_handle(&self.family);
        family.ok_or_else(|| failed("find", &self.database.path, &self.family))
    }
}

impl Backing for RocksBacking {
    fn get(&mut self, key: &[u8], into: &mut Vec<u8>) -> Flow<bool> {
        let found = self
            .database
            .db
            .get_pinned_cf_opt(&self.family()?, key, &self.read);
        let found = found.map_err(|error| failed("read", &self.database.path, error))?;
        into.clear();
        into.extend_from_slice(found.as_deref().unwrap_or_default());
        Ok(found.is_some())
    }

    fn write(&mut self, changes: &Changes) -> Flow {
        let family = self.family()?;
        let mut batch = WriteBatch::default();
        for (key, value) in changes.iter() {
            match value {
                Some(value) => batch.put_cf(&family, key, value),
                None => batch.delete_cf(&family, key),
            }
        }
        let written = self.database.db.write_opt(batch, &self.write);
        written.map_err(|error| failed("write", &self.database.path, error))
    }

    fn has_room(&mut self) -> bool {
        self.family()
            .is_ok_and(|family| !self.database.is_stalling(&family))
    }

    fn scan(&mut self) -> Flow<Box<dyn Scan>> {
        let scan = ThreadScan::begin(self.database.clone(), self.family.clone())?;
        Ok(Box::new(scan))
    }
}
