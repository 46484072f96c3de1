//! The backends of all subtasks of a process: created, tracked, measured and dropped in one place.

use super::backend::{Backend, RocksSpill};
use super::database::{Common, Database};
use rocksdb::statistics::Ticker;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs;
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use tidegate_engine::fault::Flow;
use tidegate_engine::metrics::{MetricSample, MetricValue};
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

/// See the module. Each job has one; those of a process with the same settings share the memory for tables and the
/// cache of blocks.
pub struct StateCoordinator {
    common: Arc<Common>,
    folder: PathBuf,
    tracked: Mutex<(u64, HashMap<BackendId, Tracked>)>,
}

impl StateCoordinator {
    /// With a folder of its own below the settings' state folder, which is made when the first state needs
    /// it, or by [`StateCoordinator::prepare`].
    pub fn new(settings: RocksDbSettings) -> Self {
        let random = RandomState::new().build_hasher().finish();
        let name = format!("{FOLDER}{}-{random:016x}", std::process::id());
        let folder = settings.state_dir.join(name);
        StateCoordinator {
            common: Common::shared(settings),
            folder,
            tracked: Mutex::default(),
        }
    }

    /// Makes the folder that its own is to be in, so that one that can't be used is told at once.
    pub fn prepare(&self) -> Flow {
        self.common.prepare()
    }

    /// Creates an empty backend for a subtask of a job, and what the subtask's states spill to. It lives as
    /// long as they do.
    pub fn create(&self, task_manager: &str, job: &str) -> (BackendId, RocksSpill) {
        let number = {
            let mut tracked = self.tracked();
            tracked.0 += 1;
            tracked.0
        };
        let id = BackendId(format!("state-{number}"));
        let path = self.folder.join(&id.0);
        let backend = Arc::new(Backend::new(self.common.clone(), path));
        let tracked = Tracked {
            task_manager: task_manager.to_owned(),
            job: job.to_owned(),
            backend: Arc::downgrade(&backend),
        };
        self.tracked().1.insert(id.clone(), tracked);
        (id, RocksSpill::new(backend))
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

    /// The same as metrics, with what RocksDB counts.
    pub fn samples(&self) -> Vec<MetricSample> {
        let report = self.report();
        let totals = [
            ("table_bytes", report.table_bytes as f64),
            ("table_limit_bytes", report.table_limit as f64),
            ("cache_bytes", report.cache_bytes as f64),
            ("pressure", report.pressure),
            ("backends", report.backends.len() as f64),
        ];
        let mut samples: Vec<_> = totals.map(|(name, v)| sample(&[], name, v)).into();
        for backend in &report.backends {
            let labels = [
                ("job", &backend.job),
                ("task_manager", &backend.task_manager),
                ("backend", &backend.id.0),
            ];
            let figures = [
                ("live_file_bytes", backend.live_files),
                ("write_buffer_bytes", backend.write_buffers),
                ("estimated_keys", backend.keys),
                ("pending_compaction_bytes", backend.pending_compaction),
            ];
            samples.extend(figures.map(|(name, value)| sample(&labels, name, value as f64)));
        }
        let databases: Vec<Arc<Database>> = {
            let tracked = self.tracked();
            let backends = tracked.1.values().filter_map(|t| t.backend.upgrade());
            backends.flat_map(|backend| backend.databases()).collect()
        };
        samples.extend(TICKERS.map(|(name, ticker)| {
            let counts = databases.iter().map(|d| d.options.get_ticker_count(ticker));
            sample(&[], name, counts.sum::<u64>() as f64)
        }));
        samples
    }
}

fn sample(labels: &[(&str, &String)], name: &str, value: f64) -> MetricSample {
    let labels = labels.iter().map(|(n, v)| ((*n).to_owned(), (*v).clone()));
    MetricSample {
        scope: vec!["state".to_owned()],
        labels: labels.collect(),
        name: name.to_owned(),
        value: MetricValue::Gauge(value),
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

/// Shows the backends of a job's process to readers of its numbers, from the moment when there are any.
/// Clones show the same.
#[derive(Clone, Default)]
pub struct StateBoard(Arc<OnceLock<Arc<StateCoordinator>>>);

impl StateBoard {
    /// The coordinator of the backends, where the job's state spills.
    pub fn coordinator(&self) -> Option<&Arc<StateCoordinator>> {
        self.0.get()
    }

    /// Shows this one. Where one is shown already, that stays.
    pub(crate) fn show(&self, coordinator: Arc<StateCoordinator>) {
        let _ = self.0.set(coordinator);
    }
}

impl fmt::Debug for StateBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StateBoard").finish_non_exhaustive()
    }
}

impl Drop for StateCoordinator {
    fn drop(&mut self) {
        // Only when it is empty: the databases that are still open remove their own folders.
        drop(fs::remove_dir(&self.folder));
    }
}

/// Removes what processes left behind that ended without a chance to. Where the system does not tell
/// which processes there are, everything stays.
pub(super) fn remove_orphans(below: &Path) {
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
