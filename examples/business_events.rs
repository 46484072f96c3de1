//! How does a pipeline of a business look? Events from Kafka are validated, gathered per customer in windows,
//! enriched, and go back into Kafka twice: exactly once for who bills, at least once for who looks at trends.
//!
//! ```text
//! make kafka
//! cargo run --release --example business_events -- --produce 200000
//! cargo run --release --example business_events -- --bounded --parallelism 2
//! ```
//!
//! Without `--bounded` it begins with what comes from now on, and runs until it is stopped (Ctrl-C).

use anyhow::{Context, Result};
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;
use tidegate::connectors::kafka::{
    ClientSettings, ConsumerPreset, DeliveryGuarantee, KafkaAdmin, KafkaSink, KafkaSource,
    StartingOffsets,
};
use tidegate::prelude::*;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const EVENTS: &str = "business-events";
const ENRICHED: &str = "enriched-events";
const ANALYTICS: &str = "analytics-events";
/// Where it is written down how far the enriched events are committed.
const PROGRESS: &str = "business-enriched-progress";
/// The first event that `--produce` makes: 2025-01-01, 00:00 UTC.
const BEGIN: i64 = 1_735_689_600_000;

/// Business events, validated, gathered per customer and enriched.
#[derive(Parser)]
struct Arguments {
    /// Empty the topics and write so many events, instead of running the job
    #[arg(long, value_name = "N")]
    produce: Option<u64>,
    /// Read what is in the topic now, from its beginning, and end there
    #[arg(long)]
    bounded: bool,
    /// Comes before the names of the topics and of the transactions, so that several may run side by side
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Where Kafka is
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092")]
    bootstrap: String,
    #[command(flatten)]
    env: EnvArgs,
}

impl Arguments {
    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct BusinessEvent {
    #[serde(default)]
    customer_id: String,
    /// In cents; a negative one is a mistake.
    value: i64,
    /// Milliseconds since the epoch.
    event_time: i64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct ValidatedEvent {
    customer_id: String,
    value: i64,
    is_valid: bool,
}

/// What a customer did in five minutes.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct AggregatedEvent {
    customer_id: String,
    window_start: i64,
    total_value: i64,
    largest: i64,
    event_count: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct EnrichedEvent {
    #[serde(flatten)]
    totals: AggregatedEvent,
    segment: String,
}

#[derive(Clone, Debug, Serialize)]
struct AnalyticsEvent {
    customer_id: String,
    total_value: i64,
    event_count: u64,
}

/// Sees all events of a customer's window at once.
#[derive(Clone)]
struct CustomerAggregation;

impl ProcessWindowFunction<String, ValidatedEvent> for CustomerAggregation {
    type Out = AggregatedEvent;

    fn process(
        &mut self,
        context: &WindowContext<'_, String>,
        events: &Elements<ValidatedEvent>,
        out: &mut WindowOutput<AggregatedEvent>,
    ) -> Flow {
        let values = || events.iter().map(|(_, event)| event.value);
        out.emit(AggregatedEvent {
            customer_id: context.key.clone(),
            window_start: context.window.start.millis(),
            total_value: values().sum(),
            largest: values().max().unwrap_or(0),
            event_count: events.len() as u64,
        });
        Ok(())
    }
}

fn validated(event: BusinessEvent) -> ValidatedEvent {
    let is_valid = (0..10_000_000).contains(&event.value);
    ValidatedEvent {
        customer_id: event.customer_id,
        value: event.value,
        is_valid,
    }
}

fn enriched(totals: AggregatedEvent) -> EnrichedEvent {
    let segment = if totals.total_value > 100_000 {
        "key account"
    } else {
        "standard"
    };
    EnrichedEvent {
        totals,
        segment: segment.to_owned(),
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.produce {
        Some(events) => produce(&arguments, events),
        None => run(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<()> {
    // What is committed belongs to a checkpoint, so there have to be some.
    let folder = tempfile::tempdir().context("can't make a folder for checkpoints")?;
    let checkpoints = &mut arguments.env.checkpoints;
    if checkpoints.checkpoint_dir.is_none() {
        checkpoints.checkpoint_dir = Some(folder.path().to_owned());
        checkpoints.checkpoint_interval.get_or_insert(1000);
    }
    let env = StreamEnv::new(arguments.env.clone());
    let starting = if arguments.bounded {
        StartingOffsets::Earliest
    } else {
        StartingOffsets::Latest
    };
    let events = KafkaSource::json::<BusinessEvent>()
        .bootstrap_servers(&arguments.bootstrap)
        .topics([arguments.named(EVENTS)])
        .group_id("flink-business-processor")
        .starting_offsets(starting)
        .bounded(arguments.bounded)
        .preset(ConsumerPreset::Balanced)
        .on_error(OnError::Skip)
        .build()?;
    let (billed, trends) = env
        .source("kafka-business-events", events)
        .watermarks(
            WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(30))
                .timestamps(|event: &BusinessEvent| event.event_time)
                .idle_after(Duration::from_secs(60)),
        )
        .filter(|event| !event.customer_id.is_empty())
        .map(validated)
        .filter(|event| event.is_valid)
        .name("validation-stage")
        // Elsewhere a stage of its own, "partitioning-by-customer"; here it is how records go to the next one.
        .key_by(|event| event.customer_id.clone())
        .window(Tumbling::event_time(Duration::from_secs(5 * 60)))
        .process_with(CustomerAggregation)
        .name("customer-aggregation")
        .map(enriched)
        .name("customer-enrichment")
        .fork();
    let enriched = KafkaSink::json()
        .bootstrap_servers(&arguments.bootstrap)
        .topic(arguments.named(ENRICHED))
        .key(|event: &EnrichedEvent| event.totals.customer_id.clone())
        .delivery_guarantee(DeliveryGuarantee::ExactlyOnce)
        .exactly_once(arguments.named("business-enriched"))
        .progress_topic(arguments.named(PROGRESS))
        .transaction_timeout(Duration::from_secs(15 * 60));
    billed.sink("kafka-enriched-events", enriched.build()?);
    let analytics = KafkaSink::json()
        .bootstrap_servers(&arguments.bootstrap)
        .topic(arguments.named(ANALYTICS))
        .key(|event: &AnalyticsEvent| event.customer_id.clone())
        .at_least_once()
        .high_throughput();
    trends
        .map(|event| AnalyticsEvent {
            customer_id: event.totals.customer_id,
            total_value: event.totals.total_value,
            event_count: event.totals.event_count,
        })
        .sink("kafka-analytics-events", analytics.build()?);
    let result = env.execute("kafka-optimized-business-pipeline")?;
    if !arguments.env.plan {
        println!(
            "{} events in {:.3} s, {} of them valid; totals are in '{}' and '{}'",
            result.records_in("kafka-business-events"),
            result.elapsed.as_secs_f64(),
            result.records_in("customer-aggregation"),
            arguments.named(ENRICHED),
            arguments.named(ANALYTICS)
        );
    }
    Ok(())
}

/// The events come out of a job too: a generator in front of a sink.
fn produce(arguments: &Arguments, events: u64) -> Result<()> {
    let mut settings = ClientSettings::new();
    settings.bootstrap_servers(&arguments.bootstrap);
    let admin = KafkaAdmin::new(&settings)?;
    for (topic, retention) in [
        (EVENTS, "604800000"),
        (ENRICHED, "2592000000"),
        (ANALYTICS, "86400000"),
    ] {
        admin.recreate(&arguments.named(topic), 8, &[("retention.ms", retention)])?;
    }
    let compacted = [("cleanup.policy", "compact")];
    admin.recreate(&arguments.named(PROGRESS), 1, &compacted)?;
    let sink = KafkaSink::json()
        .bootstrap_servers(&arguments.bootstrap)
        .topic(arguments.named(EVENTS))
        .key(|event: &BusinessEvent| event.customer_id.clone())
        .at_least_once()
        .high_throughput();
    let env = StreamEnv::new(arguments.env.clone());
    env.source("generator", Generator::new(events, event))
        .sink(EVENTS, sink.build()?);
    env.execute("business-events")?;
    println!(
        "{events} events are in the topic '{}' of {}",
        arguments.named(EVENTS),
        arguments.bootstrap
    );
    Ok(())
}

/// One in a hundred is of nobody, one in a hundred is a mistake.
fn event(n: u64) -> BusinessEvent {
    let random = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    let customer_id = match random % 100 {
        7 => String::new(),
        _ => format!("customer-{}", random % 500),
    };
    BusinessEvent {
        customer_id,
        value: if random % 100 == 8 {
            -1
        } else {
            (random % 20_000) as i64
        },
        event_time: BEGIN + n as i64 * 20 - (random % 10_000) as i64,
    }
}
