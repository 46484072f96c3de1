//! The stores that checkpoints can be kept in.
//!
//! They do the reading and writing for [`tidegate_engine::checkpoint::CheckpointStorage`]; what is
//! written, and when it may be deleted, is decided there.

mod local;

pub use local::LocalStorage;
