//! What does the engine cost between the stream and librdkafka? The sink beside a bare loop over librdkafka's
//! producer, with the same settings, turn by turn in one process; and what exactly-once costs beside that.
//!
//! ```text
//! make kafka
//! cargo run --release --example kafka_sink_bench
//! ```

use anyhow::{Context, Result};
use clap::Parser;
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::Checkpointing;
use tidegate::connectors::Generator;
use tidegate::connectors::kafka::{
    ClientSettings, DeliveryGuarantee, KafkaAdmin, KafkaSink, KafkaSinkBuilder,
};
use tidegate::engine::checkpoint::CheckpointSettings;
use tidegate::prelude::*;

const TOPIC: &str = "tidegate-sink-bench";
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes a topic by hand and through the sink.
#[derive(Parser)]
struct Arguments {
    /// The brokers
    #[arg(long, default_value = "localhost:9092")]
    bootstrap: String,
    /// Records in each round
    #[arg(long, default_value_t = 2_000_000)]
    records: u64,
    /// Bytes of each
    #[arg(long, default_value_t = 100)]
    size: usize,
    /// Partitions of the topic
    #[arg(long, default_value_t = 8)]
    partitions: i32,
    /// How often; the best of each counts
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut settings = ClientSettings::new();
    settings.bootstrap_servers(&arguments.bootstrap);
    let admin = KafkaAdmin::new(&settings)?;
    let names = [
        "bare librdkafka producer",
        "sink, at least once",
        "sink, no guarantee",
        "sink, exactly once, checkpoints each second",
    ];
    let mut best = [f64::MAX; 4];
    for _ in 0..arguments.rounds {
        for (place, best) in best.iter_mut().enumerate() {
            admin.recreate(TOPIC, arguments.partitions, &[])?;
            let time = match place {
                0 => bare(&arguments)?,
                1 => job(&arguments, DeliveryGuarantee::AtLeastOnce)?,
                2 => job(&arguments, DeliveryGuarantee::None)?,
                _ => job(&arguments, DeliveryGuarantee::ExactlyOnce)?,
            };
            *best = best.min(time);
        }
    }
    let (records, size) = (arguments.records, arguments.size);
    println!("| writes {records} records of {size} bytes | records/s | of bare |");
    println!("|---|---|---|");
    for (name, time) in names.iter().zip(best) {
        let rate = records as f64 / time;
        println!("| {name} | {rate:.0} | {:.2} |", best[0] / time);
    }
    admin.remove(TOPIC)?;
    Ok(())
}

fn bare(arguments: &Arguments) -> Result<f64> {
    let started = Instant::now();
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", &arguments.bootstrap)
        .set("linger.ms", "5")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("delivery.report.only.error", "true")
        .set("queue.buffering.max.kbytes", "65536")
        .set("partitioner", "murmur2_random")
        .create()?;
    let payload = vec![b'x'; arguments.size];
    for _ in 0..arguments.records {
        let mut record = BaseRecord::<(), [u8]>::to(TOPIC).payload(&payload);
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("can't fill the topic");
            }
            producer.poll(Duration::from_millis(1));
            record = back;
        }
    }
    producer.flush(PATIENCE).context("can't fill the topic")?;
    Ok(started.elapsed().as_secs_f64())
}

fn job(arguments: &Arguments, guarantee: DeliveryGuarantee) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut env = StreamEnv::with_parallelism(1);
    let size = arguments.size;
    let sink: KafkaSinkBuilder<u64> =
        KafkaSink::with_serializer(move |_: &u64, into: &mut Vec<u8>| {
            into.resize(into.len() + size, b'x');
            Ok(())
        });
    let mut sink = sink.bootstrap_servers(&arguments.bootstrap).topic(TOPIC);
    if guarantee == DeliveryGuarantee::ExactlyOnce {
        sink = sink.exactly_once(format!("bench-{}", std::process::id()));
        let every = Duration::from_secs(1);
        env.settings_mut().checkpoints = Some(CheckpointSettings::every(every));
        let storage = LocalStorage::new(folder.path());
        env.run_settings_mut().checkpointing = Some(Checkpointing::new(Arc::new(storage)));
    } else {
        sink = sink.delivery_guarantee(guarantee);
    }
    env.source("numbers", Generator::new(arguments.records, |n| n))
        .sink("bench", sink.build()?);
    let started = Instant::now();
    env.execute("bench")?;
    Ok(started.elapsed().as_secs_f64())
}
