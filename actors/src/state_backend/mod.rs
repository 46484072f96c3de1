//! State that is larger than memory: the databases of all subtasks of a process, their numbers, and
//! who creates and drops them. Compiled with the feature `rocksdb`.

#[cfg(not(feature = "rocksdb"))]
mod absent;
#[cfg(feature = "rocksdb")]
mod coordinator;
#[cfg(feature = "rocksdb")]
mod database;
#[cfg(feature = "rocksdb")]
mod scan;

#[cfg(not(feature = "rocksdb"))]
pub use absent::StateCoordinator;
#[cfg(feature = "rocksdb")]
pub use coordinator::{BackendId, BackendReport, StateCoordinator, StateReport};
#[cfg(feature = "rocksdb")]
pub use database::{Database, RocksSpill};
