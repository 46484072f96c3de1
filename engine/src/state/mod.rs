//! Keyed state in memory.

mod table;

pub use table::KeyTable;
