//! A sink that writes to Kafka: as fast as it goes, at least once or exactly once.

mod committable;
mod committer;
mod protocol;
mod record;
#[cfg(test)]
mod simulation;
mod takeover;

pub use record::KafkaRecord;
