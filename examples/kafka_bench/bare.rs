//! Loops over librdkafka's consumer and producer, as one writes them by hand.

use super::{Bench, INPUT, KEYS};
use anyhow::{Context, Result};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// A record: its key first, then as many bytes as there are to be.
pub fn fill(into: &mut Vec<u8>, key: u64, size: u64) {
    into.extend_from_slice(&key.to_be_bytes());
    into.resize(into.len() + size as usize - 8, b'x');
}

/// The settings of the sink.
pub fn producer(
    bootstrap: &str,
) -> Result<ThreadedProducer<rdkafka::producer::DefaultProducerContext>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("linger.ms", "5")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("delivery.report.only.error", "true")
        .set("queue.buffering.max.kbytes", "65536")
        .set("partitioner", "murmur2_random");
    Ok(config.create()?)
}

/// Writes all records; how long it takes until the last is acknowledged.
pub fn produce(bench: &Bench, topic: &str) -> Result<f64> {
    let started = Instant::now();
    let producer = producer(&bench.asked.bootstrap)?;
    let mut payload = Vec::new();
    for n in 0..bench.asked.records {
        payload.clear();
        fill(&mut payload, n % KEYS, bench.asked.size);
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("can't fill the topic");
            }
            producer.poll(Duration::from_millis(1));
            record = back;
        }
    }
    producer
        .flush(Bench::PATIENCE)
        .context("can't fill the topic")?;
    Ok(started.elapsed().as_secs_f64())
}

/// A consumer of all partitions of a topic, from their beginning or behind their present end.
pub fn consumer(
    bench: &Bench,
    topic: &str,
    from: Offset,
    settings: &[(&str, &str)],
) -> Result<BaseConsumer> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &bench.asked.bootstrap)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed");
    for (name, value) in settings {
        config.set(*name, *value);
    }
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..bench.asked.partitions {
        list.add_partition_offset(topic, partition, from)?;
    }
    consumer.assign(&list)?;
    Ok(consumer)
}

/// Reads all records.
pub fn consume(bench: &Bench) -> Result<f64> {
    let started = Instant::now();
    let consumer = consumer(bench, INPUT, Offset::Beginning, &[])?;
    let mut bytes = 0;
    for _ in 0..bench.asked.records {
        let message = consumer.poll(Bench::PATIENCE);
        let message = message.context("the broker is silent")??;
        bytes += message.payload().map_or(0, <[u8]>::len);
    }
    black_box(bytes);
    Ok(started.elapsed().as_secs_f64())
}
