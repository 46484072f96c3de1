//! State that is larger than memory: the databases of all subtasks of a process, their numbers, and
//! who creates and drops them.

mod backend;
mod batch;
mod coordinator;
mod database;
#[cfg(test)]
mod division_tests;
mod export;
mod import;
#[cfg(test)]
mod incremental_tests;
mod layout;
mod merging;
mod scan;
#[cfg(test)]
mod tests;

pub use backend::RocksSpill;
pub use coordinator::{BackendId, BackendReport, StateBoard, StateCoordinator, StateReport};
