//! The jobs that are measured.

use super::{Bench, INPUT, OUTPUT, bare};
use anyhow::{Result, ensure};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::Checkpointing;
use tidegate::connectors::Generator;
use tidegate::connectors::kafka::source::{Deserializer, KafkaSourceBuilder};
use tidegate::connectors::kafka::{
    ConsumerRecord, DeliveryGuarantee, KafkaSink, KafkaSinkBuilder, KafkaSource,
};
use tidegate::engine::checkpoint::CheckpointSettings;
use tidegate::prelude::{BlackHole, StreamEnv};

/// The key of a record, without a copy of the rest.
pub fn key(record: &ConsumerRecord<'_>) -> Result<u64, &'static str> {
    let bytes = record.value().and_then(|value| value.first_chunk::<8>());
    bytes
        .map(|bytes| u64::from_be_bytes(*bytes))
        .ok_or("no key")
}

/// Has a job take checkpoints each second.
pub fn checkpointed(env: &mut StreamEnv, folder: &Path) {
    let every = Duration::from_secs(1);
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(every));
    let storage = LocalStorage::new(folder);
    env.run_settings_mut().checkpointing = Some(Checkpointing::new(Arc::new(storage)));
}

/// From the topic into nothing.
pub fn read<D: Deserializer>(bench: &Bench, source: KafkaSourceBuilder<D>) -> Result<f64>
where
    D::Item: Send,
{
    let source = source
        .bootstrap_servers(&bench.asked.bootstrap)
        .topic(INPUT);
    let env = StreamEnv::with_parallelism(1);
    env.source("records", source.bounded(true).build()?)
        .sink("nothing", BlackHole);
    let started = Instant::now();
    let result = env.execute("read")?;
    let elapsed = started.elapsed().as_secs_f64();
    let read = result.records_in("records");
    ensure!(read == bench.asked.records, "{read} records came");
    Ok(elapsed)
}

fn sink<T: 'static>(
    bench: &Bench,
    guarantee: DeliveryGuarantee,
    key: impl Fn(&T) -> u64 + Send + Sync + 'static,
) -> KafkaSinkBuilder<T> {
    let size = bench.asked.size;
    let sink = KafkaSink::with_serializer(move |value: &T, into: &mut Vec<u8>| {
        bare::fill(into, key(value), size);
        Ok(())
    });
    let sink = sink.bootstrap_servers(&bench.asked.bootstrap).topic(OUTPUT);
    match guarantee {
        DeliveryGuarantee::ExactlyOnce => {
            // Each run begins with an empty topic, and with the progress of the run before.
            sink.exactly_once(format!("bench-{}", std::process::id()))
                .allow_reemit(true)
        }
        other => sink.delivery_guarantee(other),
    }
}

/// From a generator into a topic.
pub fn write(bench: &Bench, guarantee: DeliveryGuarantee) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut env = StreamEnv::with_parallelism(1);
    if guarantee == DeliveryGuarantee::ExactlyOnce {
        checkpointed(&mut env, folder.path());
    }
    let sink = sink(bench, guarantee, |n: &u64| *n);
    env.source("numbers", Generator::new(bench.asked.records, |n| n))
        .sink("out", sink.build()?);
    let started = Instant::now();
    env.execute("write")?;
    Ok(started.elapsed().as_secs_f64())
}

/// From a topic through a running count per key into another: a record for each record.
pub fn count(bench: &Bench, guarantee: DeliveryGuarantee, parallelism: u32) -> Result<f64> {
    let folder = tempfile::tempdir()?;
    let mut env = StreamEnv::with_parallelism(parallelism);
    checkpointed(&mut env, folder.path());
    let source = KafkaSource::with(key)
        .bootstrap_servers(&bench.asked.bootstrap)
        .topic(INPUT)
        .bounded(true);
    let sink = sink(bench, guarantee, |(_, count): &(u64, u64)| *count)
        .key(|(key, _): &(u64, u64)| key.to_be_bytes());
    env.source("records", source.build()?)
        .map(|key| (key, 1u64))
        .key_by(|(key, _)| *key)
        .reduce(|a, b| (a.0, a.1 + b.1))
        .sink("counts", sink.build()?);
    let started = Instant::now();
    let result = env.execute("count")?;
    let elapsed = started.elapsed().as_secs_f64();
    let read = result.records_in("records");
    ensure!(read == bench.asked.records, "{read} records came");
    Ok(elapsed)
}
