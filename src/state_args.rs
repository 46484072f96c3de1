//! Command-line options that say where a job keeps its keyed state.

use clap::Args;
use std::path::PathBuf;
use tidegate_engine::state::{RocksDbSettings, StateBackend};

/// Where keyed state is kept.
#[derive(Args, Clone, Debug, Default)]
pub struct StateArgs {
    /// Where keyed state is kept: in memory, or in RocksDB as far as it does not fit [default: memory]
    #[arg(long, value_name = "BACKEND", value_enum)]
    pub state_backend: Option<StateBackendName>,
    /// The folder for RocksDB's files while the job runs [default: /tmp/flink-state]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl StateArgs {
    /// What the options choose.
    pub(crate) fn backend(&self) -> StateBackend {
        match self.state_backend {
            None | Some(StateBackendName::Memory) => StateBackend::default(),
            Some(StateBackendName::Rocksdb) => {
                let mut rocksdb = RocksDbSettings::default();
                if let Some(folder) = &self.state_dir {
                    rocksdb.state_dir.clone_from(folder);
                }
                StateBackend::RocksDb(rocksdb)
            }
        }
    }
}

/// The backends that `--state-backend` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StateBackendName {
    /// Tables of this process.
    Memory,
    /// Tables in front of RocksDB.
    Rocksdb,
}
