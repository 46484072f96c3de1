//! What does the engine cost between librdkafka and the stream? The source beside a bare loop over librdkafka's
//! consumer, on the same topic, turn by turn in one process. The loop polls one queue with librdkafka's own settings, the
//! source a queue per partition with those that it sets: what is compared is what one gets without asking.
//!
//! ```text
//! make kafka
//! cargo run --release --example kafka_bench
//! ```

use anyhow::{Context, Result};
use clap::Parser;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::hint::black_box;
use std::time::Instant;
use tidegate::connectors::kafka::source::{Deserializer, KafkaSourceBuilder};
use tidegate::connectors::kafka::{ClientSettings, ConsumerRecord, KafkaAdmin, KafkaSource};
use tidegate::prelude::*;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures Kafka's source beside a bare consumer.
#[derive(Parser)]
struct Arguments {
    /// Records in the topic
    #[arg(long, value_name = "N", default_value_t = 3_000_000)]
    records: usize,
    /// Bytes of each
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    size: usize,
    /// Partitions of the topic
    #[arg(long, value_name = "N", default_value_t = 8)]
    partitions: i32,
    /// How often each is measured; the best counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Where Kafka is
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092")]
    bootstrap: String,
}

const TOPIC: &str = "tidegate-bench";
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut settings = ClientSettings::new();
    settings.bootstrap_servers(&arguments.bootstrap);
    let admin = KafkaAdmin::new(&settings)?;
    admin.recreate(TOPIC, arguments.partitions, &[])?;
    fill(&arguments)?;
    let mut best = [f64::MAX; 3];
    for _ in 0..arguments.rounds {
        let times = [
            bare(&arguments)?,
            job(&arguments, KafkaSource::bytes())?,
            job(&arguments, KafkaSource::with(looked_at))?,
        ];
        for (best, time) in best.iter_mut().zip(times) {
            *best = best.min(time);
        }
    }
    println!(
        "| reads {} records of {} bytes | records/s | of bare |",
        arguments.records, arguments.size
    );
    println!("|---|---|---|");
    let names = [
        "bare librdkafka consumer",
        "source, each record a Vec<u8>",
        "source, records looked at only",
    ];
    for (name, time) in names.iter().zip(best) {
        let rate = arguments.records as f64 / time;
        println!("| {name} | {rate:.0} | {:.2} |", best[0] / time);
    }
    admin.remove(TOPIC)?;
    Ok(())
}

fn looked_at(record: &ConsumerRecord<'_>) -> Result<usize, &'static str> {
    record.value().map(<[u8]>::len).ok_or("null")
}

fn fill(arguments: &Arguments) -> Result<()> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &arguments.bootstrap)
        .set("linger.ms", "50");
    config.set("queue.buffering.max.messages", "1000000");
    let producer: ThreadedProducer<_> = config.create()?;
    let payload = vec![b'x'; arguments.size];
    for n in 0..arguments.records {
        let partition = n as i32 % arguments.partitions;
        let mut record = BaseRecord::<(), [u8]>::to(TOPIC)
            .partition(partition)
            .payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("can't fill the topic");
            }
            std::thread::park_timeout(Duration::from_millis(2));
            record = back;
        }
    }
    producer.flush(PATIENCE).context("can't fill the topic")
}

fn bare(arguments: &Arguments) -> Result<f64> {
    let started = Instant::now();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &arguments.bootstrap)
        .set("group.id", "bench");
    config
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..arguments.partitions {
        list.add_partition_offset(TOPIC, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let mut bytes = 0;
    for _ in 0..arguments.records {
        let message = consumer.poll(PATIENCE).context("the broker is silent")??;
        bytes += message.payload().map_or(0, <[u8]>::len);
    }
    black_box(bytes);
    Ok(started.elapsed().as_secs_f64())
}

fn job<D: Deserializer>(arguments: &Arguments, source: KafkaSourceBuilder<D>) -> Result<f64>
where
    D::Item: Send,
{
    let source = source
        .bootstrap_servers(&arguments.bootstrap)
        .topic(TOPIC)
        .bounded(true);
    let env = StreamEnv::with_parallelism(1);
    env.source("records", source.build()?)
        .sink("nothing", BlackHole);
    let started = Instant::now();
    let result = env.execute("bench")?;
    let elapsed = started.elapsed().as_secs_f64();
    anyhow::ensure!(
        result.records_in("records") == arguments.records as u64,
        "not all records came"
    );
    Ok(elapsed)
}
