//! Apache Kafka, through librdkafka.

pub mod sink;

pub use sink::KafkaRecord;
