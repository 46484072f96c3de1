//! State that is larger than memory: the databases of all subtasks of a process, their numbers, and
//! who creates and drops them.

mod coordinator;
mod database;
mod scan;

pub use coordinator::{BackendId, BackendReport, StateCoordinator, StateReport};
pub use database::{Database, RocksSpill};
