//! How long does a record take from a producer through the broker, a job and the broker again to a consumer?
//!
//! Records carry the moment at which they were *scheduled* to be sent, so a stall anywhere shows in all records that it
//! delays. All latencies are kept, so quantiles are exact. The same way without a job in it shows what producer,
//! consumer and the broker take for themselves, once.

use super::quantiles::Quantiles;
use super::table::{Score, Table, Target};
use super::{Bench, INPUT, OUTPUT, bare, jobs};
use anyhow::{Context, Result};
use rdkafka::Offset;
use rdkafka::config::ClientConfig;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::connectors::kafka::{ConsumerPreset, KafkaSink, KafkaSource};
use tidegate::prelude::StreamEnv;

/// Records per second.
const RATE: u64 = 10_000;

/// What comes in the first seconds warms up: the job begins, and connections are made.
const WARM_UP: u64 = 5 * RATE;

/// Prints the table.
pub fn run(bench: &Bench, score: &mut Score) -> Result<()> {
    let about = format!(
        "Latency at {RATE} records per second, from producer to consumer, in ms from the scheduled sending, over {} s. \
         Low-latency presets.",
        bench.asked.seconds
    );
    let headings = [
        "what                             ",
        "p50",
        "p99",
        "p99.9",
        "max",
        "target    ",
        "mark",
    ];
    let table = Table::begin(&about, headings);
    for (name, batch, target) in [
        ("no job, one topic", None, None),
        (
            "job, at least once, two topics",
            Some("1024"),
            Some(Target::Below(20.0)),
        ),
        // What waits while five requests are under way may then leave at once.
        ("the same, batch.size 1000000", Some("1000000"), None),
    ] {
        bench.fresh(INPUT)?;
        bench.fresh(OUTPUT)?;
        let found = measure(bench, batch)?;
        let ms = |ms: f64| format!("{ms:.2}");
        table.row([
            name.to_owned(),
            ms(found.p50),
            ms(found.p99),
            ms(found.p999),
            ms(found.max),
            target
                .map(|target| format!("p99 {target}"))
                .unwrap_or_default(),
            target
                .map(|target| score.judge(found.p99, target))
                .unwrap_or_default(),
        ]);
    }
    Ok(())
}

/// With a job in between whose sink has batches of so many bytes, or without one.
fn measure(bench: &Bench, batch: Option<&str>) -> Result<Quantiles> {
    let folder = tempfile::tempdir()?;
    let job = batch.map(|batch| {
        let mut env = StreamEnv::with_parallelism(1);
        jobs::checkpointed(&mut env, folder.path());
        let source = KafkaSource::bytes()
            .bootstrap_servers(&bench.asked.bootstrap)
            .topic(INPUT)
            .preset(ConsumerPreset::LowLatency);
        let sink = KafkaSink::bytes()
            .bootstrap_servers(&bench.asked.bootstrap)
            .topic(OUTPUT)
            .at_least_once()
            .low_latency()
            .property("batch.size", batch);
        env.source("records", source.build()?)
            .sink("out", sink.build()?);
        anyhow::Ok(env.start("latency")?)
    });
    let job = job.transpose()?;
    let read = if batch.is_some() { OUTPUT } else { INPUT };
    let settings = [("fetch.wait.max.ms", "10"), ("fetch.min.bytes", "1")];
    let consumer = bare::consumer(bench, read, Offset::Beginning, &settings)?;
    let (count, began) = (bench.asked.seconds * RATE + WARM_UP, Instant::now());
    let bootstrap = bench.asked.bootstrap.clone();
    let size = bench.asked.size;
    let sending = thread::spawn(move || send(&bootstrap, count, size, began));
    let mut latencies = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let message = consumer.poll(Bench::PATIENCE);
        let message = message.context("the broker is silent")??;
        let at = message.payload().and_then(|value| value.first_chunk::<8>());
        let scheduled = Duration::from_nanos(u64::from_be_bytes(*at.context("no time")?));
        if scheduled >= Duration::from_secs(WARM_UP / RATE) {
            let latency = began.elapsed().saturating_sub(scheduled);
            latencies.push(latency.as_nanos() as u64);
        }
    }
    sending.join().expect("it doesn't panic")?;
    if let Some(job) = job {
        job.cancel();
        // That it was cancelled is no news.
        let _ = job.wait();
    }
    Quantiles::of(latencies).context("no record came")
}

/// Sends so many at the rate, each with when it was to be sent.
fn send(bootstrap: &str, count: u64, size: u64, began: Instant) -> Result<()> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        // A request for each record would be more work for the broker than all else here.
        .set("linger.ms", "1")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .create()?;
    let mut payload = Vec::new();
    for n in 0..count {
        let scheduled = Duration::from_nanos(n * (1_000_000_000 / RATE));
        while let Some(early) = scheduled.checked_sub(began.elapsed()) {
            thread::park_timeout(early.max(Duration::from_micros(200)));
        }
        payload.clear();
        bare::fill(&mut payload, scheduled.as_nanos() as u64, size);
        let record = BaseRecord::<[u8], [u8]>::to(INPUT).payload(&payload);
        producer.send(record).map_err(|(error, _)| error)?;
    }
    Ok(producer.flush(Bench::PATIENCE)?)
}
