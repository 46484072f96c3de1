//! What the tests of whole processes share; the tests themselves are in `tests/`.

pub mod failpoints;
pub mod kafka;
pub mod processes;
pub mod tables;
