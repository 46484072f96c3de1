//! What does the engine cost between librdkafka and the stream? Source, sink and whole jobs beside bare loops over
//! librdkafka's consumer and producer: on the same topics of the same broker, turn by turn in one process.
//!
//! ```text
//! make kafka
//! cargo run --release --example kafka_bench              # all of it, or some: source sink pipeline latency
//! ```
//!
//! The bare consumer polls one queue with librdkafka's own settings, the source a queue per partition with those that
//! it sets; the bare producer has the settings of the sink. What is compared is what one gets.

mod bare;
mod jobs;
mod latency;
#[path = "../nexmark/bench/quantiles.rs"]
mod quantiles;
#[path = "../nexmark/bench/table.rs"]
#[allow(dead_code, reason = "some of it is for other tables")]
mod table;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use std::process::ExitCode;
use std::time::Duration;
use table::{Score, Table, Target, ratio};
use tidegate::connectors::kafka::{ClientSettings, DeliveryGuarantee, KafkaAdmin, KafkaSource};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Measures Kafka's source, its sink, and a job between two topics beside bare loops.
#[derive(Parser)]
struct Arguments {
    /// What to measure: all of it, or these parts
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Records in a topic
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    records: u64,
    /// Bytes of each
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u64).range(16..))]
    size: u64,
    /// Partitions of the topics
    #[arg(long, value_name = "N", default_value_t = 8)]
    partitions: i32,
    /// How often each is measured; the best counts
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
    /// How long latency is measured
    #[arg(long, value_name = "S", default_value_t = 20)]
    seconds: u64,
    /// Where Kafka is
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092")]
    bootstrap: String,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// From a topic into nothing
    Source,
    /// From a generator into a topic
    Sink,
    /// From a topic through a count per key into a topic, exactly once
    Pipeline,
    /// Of one record, from a producer over a job to a consumer
    Latency,
}

const INPUT: &str = "tidegate-bench";
const OUTPUT: &str = "tidegate-bench-output";

/// Records per second that the design was to reach, whatever a bare loop does.
const FLOOR: f64 = 100_000.0;

/// Keys that are counted.
const KEYS: u64 = 10_000;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut settings = ClientSettings::new();
    settings.bootstrap_servers(&arguments.bootstrap);
    let bench = Bench {
        admin: KafkaAdmin::new(&settings)?,
        asked: arguments,
    };
    let mut score = Score::default();
    bench.throughput(&mut score)?;
    if bench.measures(Part::Latency) {
        latency::run(&bench, &mut score)?;
    }
    bench.admin.remove(INPUT)?;
    bench.admin.remove(OUTPUT)?;
    println!("\n{score}");
    Ok(ExitCode::SUCCESS)
}

struct Bench {
    asked: Arguments,
    admin: KafkaAdmin,
}

type Measure<'a> = Box<dyn Fn() -> Result<f64> + 'a>;

/// A row: what is measured, in seconds.
struct Row<'a> {
    part: Part,
    name: &'static str,
    measure: Measure<'a>,
    /// The ratio that it should have to the bare loop of its part, of which a whole job has the slower one.
    target: Option<f64>,
}

impl Bench {
    fn measures(&self, part: Part) -> bool {
        self.asked.parts.is_empty() || self.asked.parts.contains(&part)
    }

    /// An empty topic.
    fn fresh(&self, topic: &str) -> Result<()> {
        Ok(self.admin.recreate(topic, self.asked.partitions, &[])?)
    }

    fn rows(&self) -> Vec<Row<'_>> {
        use DeliveryGuarantee::{AtLeastOnce, ExactlyOnce, None as Nothing};
        let row = |part, name, target, measure| Row {
            part,
            name,
            measure,
            target,
        };
        vec![
            row(
                Part::Source,
                "source, each record a Vec<u8>",
                Some(0.8),
                Box::new(|| jobs::read(self, KafkaSource::bytes())),
            ),
            row(
                Part::Source,
                "source, records looked at only",
                Some(0.8),
                Box::new(|| jobs::read(self, KafkaSource::with(jobs::key))),
            ),
            row(
                Part::Sink,
                "sink, at least once",
                Some(0.8),
                Box::new(|| jobs::write(self, AtLeastOnce)),
            ),
            row(
                Part::Sink,
                "sink, no guarantee",
                None,
                Box::new(|| jobs::write(self, Nothing)),
            ),
            row(
                Part::Sink,
                "sink, exactly once, checkpoints each second",
                None,
                Box::new(|| jobs::write(self, ExactlyOnce)),
            ),
            row(
                Part::Pipeline,
                "count per key, at least once, parallelism 1",
                None,
                Box::new(|| jobs::count(self, AtLeastOnce, 1)),
            ),
            row(
                Part::Pipeline,
                "count per key, exactly once, parallelism 1",
                Some(0.5),
                Box::new(|| jobs::count(self, ExactlyOnce, 1)),
            ),
            row(
                Part::Pipeline,
                "count per key, exactly once, parallelism 2",
                Some(0.5),
                Box::new(|| jobs::count(self, ExactlyOnce, 2)),
            ),
        ]
    }

    /// The best times of the bare loops and of the rows.
    fn times(&self, rows: &[Row<'_>]) -> Result<([f64; 2], Vec<f64>)> {
        let (mut loops, mut times) = ([f64::MAX; 2], vec![f64::MAX; rows.len()]);
        for _ in 0..self.asked.rounds {
            loops[0] = loops[0].min(bare::consume(self)?);
            self.fresh(OUTPUT)?;
            loops[1] = loops[1].min(bare::produce(self, OUTPUT)?);
            for (row, best) in rows.iter().zip(&mut times) {
                if row.part != Part::Source {
                    self.fresh(OUTPUT)?;
                }
                *best = best.min((row.measure)()?);
            }
        }
        Ok((loops, times))
    }

    fn throughput(&self, score: &mut Score) -> Result<()> {
        let mut rows = self.rows();
        rows.retain(|row| self.measures(row.part));
        if rows.is_empty() {
            return Ok(());
        }
        self.fresh(INPUT)?;
        bare::produce(self, INPUT)?;
        let ([consumer, producer], times) = self.times(&rows)?;
        let (records, size) = (self.asked.records, self.asked.size);
        let about = format!(
            "{records} records of {size} bytes, {} partitions; the best of {}. Exactly once with a checkpoint each second.",
            self.asked.partitions, self.asked.rounds
        );
        let widest = "sink, exactly once, checkpoints each second";
        let what = format!("{:<1$}", "what", widest.len());
        let table = Table::begin(&about, [&what, "records/s", "of bare", "target", "mark"]);
        let rate = |time: f64| records as f64 / time;
        for (name, time) in [("bare consumer", consumer), ("bare producer", producer)] {
            table.row([
                name.to_owned(),
                format!("{:.0}", rate(time)),
                String::new(),
                String::new(),
                String::new(),
            ]);
        }
        let mut slowest = f64::MAX;
        for (row, time) in rows.iter().zip(times) {
            let bare = match row.part {
                Part::Source => consumer,
                Part::Sink => producer,
                Part::Pipeline | Part::Latency => consumer.max(producer),
            };
            let target = row.target.map(Target::AtLeast);
            let mark = target.map(|target| score.judge(bare / time, target));
            table.row([
                row.name.to_owned(),
                format!("{:.0}", rate(time)),
                ratio(bare / time),
                target.map(|target| target.to_string()).unwrap_or_default(),
                mark.unwrap_or_default(),
            ]);
            if row.part == Part::Pipeline {
                slowest = slowest.min(rate(time));
            }
        }
        if slowest < f64::MAX {
            let target = Target::AtLeast(FLOOR);
            table.row([
                "end to end, the slowest of the counts".to_owned(),
                format!("{slowest:.0}"),
                String::new(),
                target.to_string(),
                score.judge(slowest, target),
            ]);
        }
        Ok(())
    }

    /// How long the longest wait may be.
    const PATIENCE: Duration = Duration::from_secs(60);
}
