//! Testing streams without a runtime: drive one operator by hand, save and restore it, check a stream's
//! grammar.

mod attempt;
mod collected;
#[cfg(test)]
pub(crate) mod cut;
mod grammar;
mod harness;
mod memory_spill;
mod memory_storage;

pub use attempt::Attempt;
pub use collected::Collected;
pub use grammar::GrammarCheck;
pub use harness::OperatorHarness;
pub use memory_spill::{MapBacking, MemorySpill};
pub use memory_storage::MemoryStorage;
