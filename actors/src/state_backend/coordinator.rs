//! The backends of all subtasks of a process: created, tracked, measured and dropped in one place.

use super::backend::{Backend, RocksSpill};
use super::database::{Common, Database, failed};
use rocksdb::statistics::Ticker;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tidegate_engine::fault::Flow;
use tidegate_engine::metrics::MetricRegistry;
use tidegate_engine::state::RocksDbSettings;
use tidegate_engine::state::backing::StateMemory;

/// Begins the name of a process's folder; its number follows.
const FOLDER: &str = "tidegate-";

/// Names one backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BackendId(pub String);

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One backend at one moment. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendReport {
    /// Its name.
    pub id: BackendId,
    /// The process that it is in.
    pub task_manager: String,
    /// The job whose state it holds.
    pub job: String,
    /// Files that are in use.
    pub live_files: u64,
    /// Write buffers, written or waiting to be.
    pub write_buffers: u64,
    /// Entries, as RocksDB estimates them.
    pub keys: u64,
    /// What compaction still has to rewrite.
    pub pending_compaction: u64,
}

/// All backends of a process at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateReport {
    /// Each backend, in the order of their names.
    pub backends: Vec<BackendReport>,
    /// Bytes that the typed tables use.
    pub table_bytes: u64,
    /// Bytes that they may use.
    pub table_limit: u64,
    /// Bytes of the block cache in use, with write buffers.
    pub cache_bytes: u64,
    /// The part of the tables' memory in use; above 1 while they are written back.
    pub pressure: f64,
}

struct Tracked {
    task_manager: String,
    job: String,
    backend: Weak<Backend>,
}

/// See the module. Shared by all jobs of a process.
pub struct StateCoordinator {
    common: Arc<Common>,
    folder: PathBuf,
    tracked: Mutex<(u64, HashMap<BackendId, Tracked>)>,
}

impl StateCoordinator {
    /// With a folder of its own below the settings' state folder. Folders of processes that are gone
    /// are removed.
    pub fn new(settings: RocksDbSettings) -> Flow<Self> {
        let below = settings.state_dir.clone();
        fs::create_dir_all(&below).map_err(|error| failed("create the folder", &below, error))?;
        remove_orphans(&below);
        let random = RandomState::new().build_hasher().finish();
        let folder = below.join(format!("{FOLDER}{}-{random:016x}", std::process::id()));
        Ok(StateCoordinator {
            common: Arc::new(Common::new(settings)),
            folder,
            tracked: Mutex::default(),
        })
    }

    /// Creates an empty backend for a subtask of a job, and what the subtask's states spill to. It lives as
    /// long as they do.
    pub fn create(&self, task_manager: &str, job: &str) -> Flow<(BackendId, RocksSpill)> {
        let number = {
            let mut tracked = self.tracked();
            tracked.0 += 1;
            tracked.0
        };
        let id = BackendId(format!("state-{number}"));
        let path = self.folder.join(&id.0);
        let backend = Arc::new(Backend::create(self.common.clone(), path)?);
        let tracked = Tracked {
            task_manager: task_manager.to_owned(),
            job: job.to_owned(),
            backend: Arc::downgrade(&backend),
        };
        self.tracked().1.insert(id.clone(), tracked);
        Ok((id, RocksSpill::new(backend)))
    }

    fn tracked(&self) -> MutexGuard<'_, (u64, HashMap<BackendId, Tracked>)> {
        self.tracked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory of the tables in front of all backends.
    pub fn memory(&self) -> &StateMemory {
        &self.common.memory
    }

    /// The backends that are alive, with their numbers.
    pub fn report(&self) -> StateReport {
        let mut tracked = self.tracked();
        tracked
            .1
            .retain(|_, tracked| tracked.backend.strong_count() > 0);
        let alive = tracked.1.iter().filter_map(|(id, tracked)| {
            let databases = tracked.backend.upgrade()?.databases();
            let sum = |name: &str| databases.iter().map(|d| d.property(name)).sum();
            Some(BackendReport {
                id: id.clone(),
                task_manager: tracked.task_manager.clone(),
                job: tracked.job.clone(),
                live_files: sum("rocksdb.live-sst-files-size"),
                write_buffers: sum("rocksdb.size-all-mem-tables"),
                keys: sum("rocksdb.estimate-num-keys"),
                pending_compaction: sum("rocksdb.estimate-pending-compaction-bytes"),
            })
        });
        let mut backends: Vec<BackendReport> = alive.collect();
        backends.sort_by(|a, b| a.id.cmp(&b.id));
        let memory = &self.common.memory;
        StateReport {
            backends,
            table_bytes: memory.used(),
            table_limit: memory.limit(),
            cache_bytes: self.common.blocks.get_usage() as u64,
            pressure: memory.pressure(),
        }
    }

    /// Shows the numbers of all backends as metrics.
    pub fn publish(&self, metrics: &MetricRegistry) {
        let report = self.report();
        let group = metrics.root().add_group("state");
        let totals = [
            ("table_bytes", report.table_bytes as f64),
            ("table_limit_bytes", report.table_limit as f64),
            ("cache_bytes", report.cache_bytes as f64),
            ("pressure", report.pressure),
        ];
        for (name, value) in totals {
            group.gauge(name).set(value);
        }
        for backend in &report.backends {
            let group = group.add_label("job", &backend.job);
            let group = group.add_label("backend", &backend.id);
            group
                .gauge("live_file_bytes")
                .set(backend.live_files as f64);
            group
                .gauge("write_buffer_bytes")
                .set(backend.write_buffers as f64);
            group.gauge("estimated_keys").set(backend.keys as f64);
            group
                .gauge("pending_compaction_bytes")
                .set(backend.pending_compaction as f64);
        }
        let databases: Vec<Arc<Database>> = {
            let tracked = self.tracked();
            let backends = tracked.1.values().filter_map(|t| t.backend.upgrade());
            backends.flat_map(|backend| backend.databases()).collect()
        };
        for (name, ticker) in TICKERS {
            let counts = databases.iter().map(|d| d.options.get_ticker_count(ticker));
            group.gauge(name).set(counts.sum::<u64>() as f64);
        }
    }
}

/// What RocksDB counts, summed over the databases that are open.
const TICKERS: [(&str, Ticker); 8] = [
    ("block_cache_hits", Ticker::BlockCacheHit),
    ("block_cache_misses", Ticker::BlockCacheMiss),
    ("bloom_filter_useful", Ticker::BloomFilterUseful),
    ("memtable_hits", Ticker::MemtableHit),
    ("memtable_misses", Ticker::MemtableMiss),
    ("written_bytes", Ticker::BytesWritten),
    ("read_bytes", Ticker::BytesRead),
    ("stall_micros", Ticker::StallMicros),
];

impl Drop for StateCoordinator {
    fn drop(&mut self) {
        // Only when it is empty: the databases that are still open remove their own folders.
        drop(fs::remove_dir(&self.folder));
    }
}

/// Removes what processes left behind that ended without a chance to. Where the system does not tell
/// which processes there are, everything stays.
fn remove_orphans(below: &Path) {
    let processes = Path::new("/proc/self");
    let Ok(folders) = fs::read_dir(below) else {
        return;
    };
    if !processes.exists() {
        return;
    }
    for folder in folders.flatten() {
        let name = folder.file_name();
        let name = name.to_string_lossy();
        let process = name
            .strip_prefix(FOLDER)
            .and_then(|rest| rest.split_once('-'));
        let Some((process, _)) = process else {
            continue;
        };
        let is_number = process.parse::<u32>().is_ok();
        if is_number && !Path::new("/proc").join(process).exists() {
            drop(fs::remove_dir_all(folder.path()));
        }
    }
}
