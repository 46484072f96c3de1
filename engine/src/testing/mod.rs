//! Testing streams without a runtime: drive one operator by hand, check a stream's grammar.

mod grammar;
mod harness;
mod memory_spill;

pub use grammar::GrammarCheck;
pub use harness::{Collected, OperatorHarness};
pub use memory_spill::{MapBacking, MemorySpill};
