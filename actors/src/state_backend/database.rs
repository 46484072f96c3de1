//! One state's database: a column family of its name, keys in the order of their key groups.
//!
//! A database for each state, and not one for all of a subtask, so that the files of a state are its
//! own: a barrier passes the states of a chain at different moments. What databases share is memory.
//!
//! It is no truth of its own. A checkpoint holds what a recovery needs, so nothing is logged or synced,
//! and the folder goes with the database. Flushes and compactions run on RocksDB's own threads; the
//! caller asks [`Database::is_stalling`] before it writes and so never waits for them.

use super::backend::Backend;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompactionStyle,
    DBCompressionType, DBWithThreadMode, MultiThreaded, Options, WriteBufferManager,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};
use tidegate_engine::checkpoint::StoredFiles;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::state::RocksDbSettings;
use tidegate_engine::state::backing::StateMemory;

pub(super) type Db = DBWithThreadMode<MultiThreaded>;

/// Write buffers of one column family, including those that wait to be written to a file.
const WRITE_BUFFERS: i32 = 4;
/// Sorted runs of files from which some are merged: a look-up asks the filter of each.
const MERGED_AT: i32 = 8;
/// Sorted runs from which writes are slowed down, and stopped.
const SLOWED_AT: i32 = 20;
const STOPPED_AT: i32 = 36;
/// The part of a write buffer that is a filter: a key that is not in it, as most that the tables in front
/// have to ask for, costs no search.
const BUFFER_FILTER: f64 = 0.05;
/// A manifest that has grown to this is begun anew: each checkpoint holds a copy of it.
const MANIFEST_SIZE: usize = 256 << 10;
/// Threads of RocksDB for all databases together.
const BACKGROUND_JOBS: i32 = 2;

/// What the databases of a process share.
pub(super) struct Common {
    pub settings: RocksDbSettings,
    pub blocks: Cache,
    pub buffers: WriteBufferManager,
    pub memory: StateMemory,
    prepared: Once,
}

/// Those that databases of this process use.
static IN_USE: Mutex<Vec<Weak<Common>>> = Mutex::new(Vec::new());

impl Common {
    /// What all jobs of this process with these settings share, so that their memory is one budget.
    pub fn shared(settings: RocksDbSettings) -> Arc<Self> {
        let mut all = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|common| common.strong_count() > 0);
        let mut used = all.iter().filter_map(Weak::upgrade);
        if let Some(common) = used.find(|common| common.settings == settings) {
            return common;
        }
        let common = Arc::new(Common::new(settings));
        all.push(Arc::downgrade(&common));
        common
    }

    fn new(settings: RocksDbSettings) -> Self {
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
            prepared: Once::new(),
        }
    }

    /// Makes the folder that those of processes are in. The first time, those of processes that are gone
    /// are removed.
    pub(super) fn prepare(&self) -> Flow {
        let below = &self.settings.state_dir;
        fs::create_dir_all(below).map_err(|error| failed("create the folder", below, error))?;
        self.prepared
            .call_once(|| super::coordinator::remove_orphans(below));
        Ok(())
    }

    pub(super) fn options(&self) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_write_buffer_size(self.settings.write_buffer_size as usize);
        options.set_max_write_buffer_number(WRITE_BUFFERS);
        options.set_write_buffer_manager(&self.buffers);
        options.set_level_zero_slowdown_writes_trigger(SLOWED_AT);
        options.set_level_zero_stop_writes_trigger(STOPPED_AT);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        // Tiered: an entry is rewritten as often as files of like size are merged, which is two or three times; levels
        // would rewrite it ten times for each of them. What is rewritten has to be stored by the next checkpoint.
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_level_zero_file_num_compaction_trigger(MERGED_AT);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        options.set_avoid_unnecessary_blocking_io(true);
        options.set_max_manifest_file_size(MANIFEST_SIZE);
        options.set_memtable_whole_key_filtering(true);
        options.set_memtable_prefix_bloom_ratio(BUFFER_FILTER);
        options.set_keep_log_file_num(1);
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
    pub(super) db: Db,
    path: PathBuf,
    pub(super) options: Options,
    /// The state's column family.
    pub(super) family: String,
    /// All of them.
    families: Vec<String>,
    /// Which of its files are part of a complete checkpoint.
    pub(super) stored: StoredFiles,
    /// Its folder is in that of the backend.
    pub(super) backend: Arc<Backend>,
}

pub(super) fn failed(action: &str, path: &Path, error: impl std::fmt::Display) -> Fault {
    let (path, error) = (path.display(), error.to_string());
    let advice = match error.contains("No space left on device") {
        true => "; make room on that disk, or name a folder of another by --state-dir",
        false => "",
    };
    Fault::internal(format_args!(
        "state in {path}: can't {action}: {error}{advice}"
    ))
}

impl Database {
    /// Opens the database of a state, in a folder that is empty or holds what an import put there.
    pub(super) fn open(backend: Arc<Backend>, path: PathBuf, family: &str) -> Flow<Arc<Self>> {
        fs::create_dir_all(&path).map_err(|error| failed("create the folder", &path, error))?;
        let common = &backend.common;
        let mut options = common.options();
        if common.settings.statistics {
            options.enable_statistics();
        }
        let mut families = common.settings.column_families.clone();
        if path.join("CURRENT").exists() {
            let there = Db::list_cf(&options, &path);
            families.extend(there.map_err(|error| failed("read the families", &path, error))?);
        }
        families.extend(["default".to_owned(), family.to_owned()]);
        families.sort_unstable();
        families.dedup();
        let descriptors = families.iter();
        let descriptors = descriptors.map(|n| ColumnFamilyDescriptor::new(n, common.options()));
        let db = Db::open_cf_descriptors(&options, &path, descriptors);
        let db = db.map_err(|error| failed("open the database", &path, error))?;
        let database = Arc::new(Database {
            db,
            path,
            options,
            family: family.to_owned(),
            families,
            stored: StoredFiles::default(),
            backend: backend.clone(),
        });
        backend.opened(&database);
        Ok(database)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The state's column family.
    pub(super) fn family(&self) -> Flow<Arc<BoundColumnFamily<'_>>> {
        let family = self.db.cf_handle(&self.family);
        family.ok_or_else(|| failed("find", &self.path, &self.family))
    }

    /// A number that RocksDB knows of itself, summed over all column families.
    pub fn property(&self, name: &str) -> u64 {
        let families = self.families.iter();
        let families = families.filter_map(|family| self.db.cf_handle(family));
        let values = families.map(|family| self.db.property_int_value_cf(&family, name));
        values.filter_map(|value| value.ok().flatten()).sum()
    }

    /// Whether writes would be slowed down or stopped soon.
    pub(super) fn is_stalling(&self) -> bool {
        let Ok(family) = self.family() else {
            return false;
        };
        let value = |name: &str| {
            let value = self.db.property_int_value_cf(&family, name);
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
