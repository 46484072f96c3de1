//! Sources and sinks against the traits of `tidegate-engine`.
//!
//! Each has a folder or file of its own. None of them knows what runs it.

pub mod black_hole;
pub mod collect;
pub mod generator;

pub use black_hole::BlackHole;
pub use collect::Collect;
pub use generator::Generator;
