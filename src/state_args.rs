//! Command-line options that say where a job keeps its keyed state.

use clap::Args;
use std::path::PathBuf;
use tidegate_engine::state::{AutoState, RocksDbSettings, StateBackend};

/// Where keyed state is kept.
#[derive(Args, Clone, Debug, Default)]
pub struct StateArgs {
    /// Where keyed state is kept: in memory; in RocksDB as far as it does not fit; or in memory until the
    /// process takes half of what there is, and from then on in RocksDB [default: auto]
    #[arg(long, value_name = "BACKEND", value_enum)]
    pub state_backend: Option<StateBackendName>,
    /// The folder for RocksDB's files while the job runs [default: /tmp/flink-state]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

impl StateArgs {
    /// What the options choose.
    pub(crate) fn backend(&self) -> StateBackend {
        let mut rocksdb = RocksDbSettings::default();
        if let Some(folder) = &self.state_dir {
            rocksdb.state_dir.clone_from(folder);
        }
        match self.state_backend {
            Some(StateBackendName::Memory) => StateBackend::Memory,
            Some(StateBackendName::Rocksdb) => StateBackend::RocksDb(rocksdb),
            None | Some(StateBackendName::Auto) => StateBackend::Auto(AutoState {
                rocksdb,
                ..AutoState::default()
            }),
        }
    }
}

/// The backends that `--state-backend` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum StateBackendName {
    /// The first, and the second once it is needed.
    Auto,
    /// Tables of this process.
    Memory,
    /// Tables in front of RocksDB.
    Rocksdb,
}
