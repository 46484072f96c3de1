//! Apache Kafka, in and out, through librdkafka.
//!
//! `README.md` in this folder is the guide: topics and partitions, settings, tuning, what to do when it fails.

mod admin;
pub mod client;
mod contact;
mod names;
mod outage;
pub mod sink;
pub mod source;

pub use admin::KafkaAdmin;
pub use client::{ClientSettings, KafkaError, Sasl, Tls};
pub use sink::{
    DeliveryGuarantee, KafkaRecord, KafkaSerializer, KafkaSink, KafkaSinkBuilder, Partitioner,
    RecordSerializer,
};
pub use source::{
    ConsumerPreset, ConsumerRecord, Deserializer, EventTime, KafkaSource, StartingOffsets,
};
