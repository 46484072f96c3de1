//! Sources and sinks against the traits of `tidegate-engine`.
//!
//! Each has a folder or file of its own. None of them knows what runs it.

#[cfg(feature = "async")]
pub mod async_source;
mod background;
pub mod black_hole;
pub mod collect;
#[cfg(any(feature = "files", feature = "kafka", feature = "socket"))]
pub mod dead_letters;
mod emitted;
mod failpoints;
#[cfg(feature = "files")]
pub mod files;
pub mod function;
pub mod generator;
#[cfg(feature = "kafka")]
pub mod kafka;
mod lanes;
pub mod print;
#[cfg(feature = "socket")]
pub mod socket;
#[cfg(test)]
mod testing;
pub mod transactional;
pub mod values;

#[cfg(feature = "async")]
pub use async_source::{AsyncSource, AsyncSourceContext};
pub use black_hole::BlackHole;
pub use collect::Collect;
#[cfg(any(feature = "files", feature = "kafka", feature = "socket"))]
pub use dead_letters::{DeadLetters, OnError};
#[cfg(feature = "files")]
pub use files::{FileSink, FileSource};
pub use function::{FunctionSource, SourceContext, SourceStatus};
pub use generator::{Generator, GeneratorReader};
#[cfg(feature = "kafka")]
pub use kafka::{KafkaSink, KafkaSource};
pub use print::Print;
#[cfg(feature = "socket")]
pub use socket::{Reconnect, SocketLines, SocketSink};
pub use transactional::{TransactionId, Transactional, TransactionalSink};
pub use values::Values;
