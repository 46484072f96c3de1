//! One state's database: a column family of its name, keys in the order of their key groups; or several, once the
//! state is large (see [`super::layout`]).
//!
//! A database for each state, and not one for all of a subtask, so that the files of a state are its
//! own: a barrier passes the states of a chain at different moments. What databases share is memory.
//!
//! It is no truth of its own. A checkpoint holds what a recovery needs, so nothing is logged or synced,
//! and the folder goes with the database. Flushes and compactions run on RocksDB's own threads; the
//! caller asks [`Database::is_stalling`] before it writes and so never waits for them.

use super::backend::Backend;
use super::layout::{Layout, RECORD, part_number};
use super::merging::Merging;
use rocksdb::{
    BlockBasedOptions, BoundColumnFamily, Cache, ColumnFamilyDescriptor, DBCompactionStyle,
    DBCompressionType, DBWithThreadMode, MultiThreaded, Options, WriteBufferManager,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};
use tidegate_engine::checkpoint::StoredFiles;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::state::RocksDbSettings;
use tidegate_engine::state::backing::StateMemory;

pub(super) type Db = DBWithThreadMode<MultiThreaded>;

/// Write buffers of one column family, including those that wait to be written to a file.
const WRITE_BUFFERS: i32 = 4;
/// Sorted runs of files from which some are merged: a look-up asks the filter of each.
const MERGED_AT: i32 = 8;
/// Sorted runs beyond that from which writes are slowed down, and stopped.
const SLOWED_BEYOND: i32 = 12;
const STOPPED_BEYOND: i32 = 28;
/// The same of a part: [`Merging`] comes first where there are checkpoints. Parts differ, so that they are not all merged
/// for the same checkpoint.
const PART_MERGED_AT: u32 = 24;
const PARTS_DIFFER_BY: u32 = 16;
/// What part of a write buffer that of a part is.
const PART_BUFFER: u64 = 16;
/// The smallest that RocksDB knows.
const SMALLEST_BUFFER: u64 = 64 << 10;
/// The part of a write buffer that is a filter: a key that is not in it, as most that the tables in front
/// have to ask for, costs no search.
const BUFFER_FILTER: f64 = 0.05;
/// A manifest that has grown to this is begun anew: each checkpoint holds a copy of it.
const MANIFEST_SIZE: usize = 256 << 10;
/// Threads of RocksDB for all databases together.
const BACKGROUND_JOBS: i32 = 2;

/// Sorted runs from which RocksDB merges some of a part.
pub(super) fn part_merged_at(part: u32) -> u32 {
    PART_MERGED_AT + part % PARTS_DIFFER_BY
}

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
        self.prepared.call_once(|| {
            allow_files();
            super::coordinator::remove_orphans(below);
        });
        Ok(())
    }

    /// Those of a family of a state: of all of it, or of a part.
    pub(super) fn family_options(&self, part: Option<u32>) -> Options {
        let whole = self.settings.write_buffer_size;
        match part {
            None => self.options(whole, MERGED_AT),
            Some(part) => self.options(
                (whole / PART_BUFFER).max(SMALLEST_BUFFER),
                part_merged_at(part) as i32,
            ),
        }
    }

    fn options(&self, write_buffer: u64, merged_at: i32) -> Options {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_write_buffer_size(write_buffer as usize);
        options.set_max_write_buffer_number(WRITE_BUFFERS);
        options.set_write_buffer_manager(&self.buffers);
        options.set_level_zero_slowdown_writes_trigger(merged_at + SLOWED_BEYOND);
        options.set_level_zero_stop_writes_trigger(merged_at + STOPPED_BEYOND);
        options.set_max_background_jobs(BACKGROUND_JOBS);
        // Tiered: an entry is rewritten as often as files of like size are merged, which is two or three times; levels
        // would rewrite it ten times for each of them. What is rewritten has to be stored by the next checkpoint.
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_level_zero_file_num_compaction_trigger(merged_at);
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
    /// The name of the state, which its column family has too.
    state: String,
    /// All families.
    families: Mutex<BTreeSet<String>>,
    /// Merges of parts after checkpoints.
    pub(super) merging: Merging,
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
    pub(super) fn open(backend: Arc<Backend>, path: PathBuf, state: &str) -> Flow<Arc<Self>> {
        fs::create_dir_all(&path).map_err(|error| failed("create the folder", &path, error))?;
        let common = &backend.common;
        let mut options = common.family_options(None);
        if common.settings.statistics {
            options.enable_statistics();
        }
        let configured = common.settings.column_families.iter().cloned();
        let mut families: BTreeSet<String> = configured.collect();
        if path.join("CURRENT").exists() {
            let there = Db::list_cf(&options, &path);
            families.extend(there.map_err(|error| failed("read the families", &path, error))?);
        }
        families.extend([RECORD.0.to_owned(), state.to_owned()]);
        let options_of = |name: &str| common.family_options(part_number(name, state));
        let descriptors = families.iter();
        let descriptors = descriptors.map(|n| ColumnFamilyDescriptor::new(n, options_of(n)));
        let db = Db::open_cf_descriptors(&options, &path, descriptors);
        let db = db.map_err(|error| failed("open the database", &path, error))?;
        let database = Arc::new(Database {
            db,
            path,
            options,
            state: state.to_owned(),
            families: Mutex::new(families),
            merging: Merging::default(),
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

    /// The name of the state.
    pub(super) fn state(&self) -> &str {
        &self.state
    }

    /// How its entries are spread over families.
    pub(super) fn layout(&self, groups: u32) -> Flow<Layout> {
        let layout = Layout::new(&self.state, groups);
        read_layout(&self.db, layout).map_err(|error| failed("read", &self.path, error))
    }

    /// A family, where there is one of that name.
    pub(super) fn family_to_read(&self, name: &str) -> Option<Arc<BoundColumnFamily<'_>>> {
        self.db.cf_handle(name)
    }

    /// A family, made where there is none of that name.
    pub(super) fn family_to_write(&self, name: &str) -> Flow<Arc<BoundColumnFamily<'_>>> {
        if let Some(family) = self.db.cf_handle(name) {
            return Ok(family);
        }
        let part = part_number(name, &self.state);
        let options = self.backend.common.family_options(part);
        let created = self.db.create_cf(name, &options);
        created.map_err(|error| failed("create a family", &self.path, error))?;
        self.families().insert(name.to_owned());
        let family = self.db.cf_handle(name);
        family.ok_or_else(|| failed("find", &self.path, name))
    }

    /// Drops a family, with all that is in it.
    pub(super) fn drop_family(&self, name: &str) -> Flow {
        self.families().remove(name);
        let dropped = self.db.drop_cf(name);
        dropped.map_err(|error| failed("drop a family", &self.path, error))
    }

    fn families(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.families.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that RocksDB knows of each column family.
    pub(super) fn property_of(&self, family: &str, name: &str) -> u64 {
        let family = self.db.cf_handle(family);
        let value = family.map(|family| self.db.property_int_value_cf(&family, name));
        value.and_then(|value| value.ok().flatten()).unwrap_or(0)
    }

    /// The same, of the family where it is largest.
    fn largest_property(&self, name: &str) -> u64 {
        let families = self.families();
        let values = families.iter().map(|family| self.property_of(family, name));
        values.max().unwrap_or(0)
    }

    /// The same, summed over all column families.
    pub fn property(&self, name: &str) -> u64 {
        let families = self.families();
        let values = families.iter().map(|family| self.property_of(family, name));
        values.sum()
    }

    /// Whether writes would be slowed down or stopped soon.
    pub(super) fn is_stalling(&self) -> bool {
        // The first two are of the whole database.
        self.property_of(RECORD.0, "rocksdb.is-write-stopped") > 0
            || self.property_of(RECORD.0, "rocksdb.actual-delayed-write-rate") > 0
            || self.largest_property("rocksdb.num-immutable-mem-table") + 2 > WRITE_BUFFERS as u64
    }
}

/// How the entries of a state are spread over families, given how they would be if it were not divided.
pub(super) fn read_layout(db: &Db, undivided: Layout) -> Result<Layout, String> {
    let Some(family) = db.cf_handle(RECORD.0) else {
        return Ok(undivided);
    };
    match db.get_cf(&family, RECORD.1).map_err(String::from)? {
        None => Ok(undivided),
        Some(record) => {
            let recorded = undivided.recorded(&record);
            recorded.ok_or_else(|| "the record of how it is divided is damaged".to_owned())
        }
    }
}

/// Lets this process have as many files open as the system allows it: a large state may have more than a thousand,
/// and what a process may have at first is often 1024.
fn allow_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some() && limit.current != limit.maximum {
        let current = limit.maximum;
        // What it had stays where this fails.
        let _ = setrlimit(Resource::Nofile, Rlimit { current, ..limit });
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.db.cancel_all_background_work(false);
        // What is left, if this fails, goes with the next process that begins here.
        drop(fs::remove_dir_all(&self.path));
    }
}
