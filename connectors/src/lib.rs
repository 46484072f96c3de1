//! Sources and sinks against the traits of `tidegate-engine`.
//!
//! Each has a folder or file of its own. None of them knows what runs it.

mod background;
pub mod black_hole;
pub mod collect;
pub mod dead_letters;
#[cfg(feature = "files")]
pub mod files;
pub mod generator;

pub use black_hole::BlackHole;
pub use collect::Collect;
pub use dead_letters::{DeadLetters, OnError};
#[cfg(feature = "files")]
pub use files::{FileSink, FileSource};
pub use generator::Generator;
