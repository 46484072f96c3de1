//! How do records go through Kafka exactly once? Orders in, totals per customer and quarter of an hour out.
//!
//! ```text
//! make kafka
//! cargo run --release --example orders -- --produce 100000
//! cargo run --release --example orders -- --bounded --parallelism 2
//! cargo run --release --example orders -- --verify
//! ```
//!
//! `--produce` begins anew: it empties the topics and writes orders that are up to 20 s out of their order.
//! The job reads them with the event time that is in them, and writes each total within the transaction of a
//! checkpoint. Kill it whenever you like and start it again with `--restore latest`: `--verify` reads what is
//! committed, computes from the orders what it should be, and says whether each total is there exactly once. Without
//! `--restore` it is refused, as it would write again what is committed.

#[path = "orders/generate.rs"]
mod generate;
#[path = "orders/verify.rs"]
mod verify;

use anyhow::{Context, Result};
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;
use tidegate::connectors::kafka::{ClientSettings, KafkaAdmin, KafkaSink, KafkaSource};
use tidegate::prelude::*;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Records that may come this much behind later ones.
const OUT_OF_ORDERNESS: Duration = Duration::from_secs(30);
/// A partition that brings nothing for so long holds up no window any more. A busy broker may take long, and what comes
/// from it after that is late.
const IDLE_AFTER: Duration = Duration::from_secs(60);
const WINDOW: Duration = Duration::from_secs(15 * 60);

/// Totals of orders, from Kafka into Kafka.
#[derive(Parser)]
struct Arguments {
    /// Empty the topics and write so many orders, instead of running the job
    #[arg(long, value_name = "N", conflicts_with = "verify")]
    produce: Option<u64>,
    /// Compare what the job has written with what the orders give, instead of running it
    #[arg(long)]
    verify: bool,
    /// End at the present end of the orders' topic
    #[arg(long)]
    bounded: bool,
    /// The topic of the orders
    #[arg(long, value_name = "NAME", default_value = "orders")]
    topic: String,
    /// The topic of the totals
    #[arg(long, value_name = "NAME", default_value = "aggregated-orders")]
    output_topic: String,
    /// What names the job's transactions; no two jobs that run may have the same
    #[arg(long, value_name = "NAME", default_value = "order-processor-sink")]
    transactional_id: String,
    /// Where Kafka is
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:9092")]
    bootstrap: String,
    /// Partitions of the topics that --produce makes
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
    #[command(flatten)]
    env: EnvArgs,
}

/// An order, as JSON in the topic.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Order {
    order_id: u64,
    customer_id: u64,
    cents: u64,
    /// Milliseconds since the epoch.
    order_time: i64,
}

/// What a customer ordered in a window, as JSON in the topic.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct AggregatedOrder {
    customer_id: u64,
    window_start: i64,
    orders: u64,
    cents: u64,
}

/// Counts orders and adds up their amounts.
#[derive(Clone)]
struct OrderAggregator;

impl Aggregator<Order> for OrderAggregator {
    type Acc = (u64, u64);
    type Out = (u64, u64);

    fn create(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, (orders, cents): &mut (u64, u64), order: Order) {
        *orders += 1;
        *cents += order.cents;
    }

    fn merge(&self, (orders, cents): &mut (u64, u64), other: &(u64, u64)) {
        *orders += other.0;
        *cents += other.1;
    }

    fn result(&self, totals: &(u64, u64)) -> (u64, u64) {
        *totals
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if let Some(orders) = arguments.produce {
        produce(&arguments, orders)
    } else if arguments.verify {
        verify::verify(
            &arguments.bootstrap,
            &arguments.topic,
            &arguments.output_topic,
        )
    } else {
        run(arguments)
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The topic in which the job writes down how far its output is committed.
fn progress(arguments: &Arguments) -> String {
    format!("{}-progress", arguments.transactional_id)
}

fn produce(arguments: &Arguments, orders: u64) -> Result<bool> {
    let mut settings = ClientSettings::new();
    settings.bootstrap_servers(&arguments.bootstrap);
    let admin = KafkaAdmin::new(&settings)?;
    for topic in [&arguments.topic, &arguments.output_topic] {
        // Totals have the time of their windows, which is long ago.
        admin.recreate(topic, arguments.partitions, &[("retention.ms", "-1")])?;
    }
    // What was committed is no more.
    admin.recreate(&progress(arguments), 1, &[("cleanup.policy", "compact")])?;
    generate::produce(&arguments.bootstrap, &arguments.topic, orders)?;
    println!(
        "{orders} orders are in the topic '{}' of {}",
        arguments.topic, arguments.bootstrap
    );
    Ok(true)
}

fn run(mut arguments: Arguments) -> Result<bool> {
    // What is committed belongs to a checkpoint, so there have to be some.
    let folder = tempfile::tempdir().context("can't make a folder for checkpoints")?;
    let checkpoints = &mut arguments.env.checkpoints;
    if checkpoints.checkpoint_dir.is_none() {
        checkpoints.checkpoint_dir = Some(folder.path().to_owned());
        checkpoints.checkpoint_interval.get_or_insert(1000);
    }
    let env = StreamEnv::new(arguments.env.clone());
    let orders = KafkaSource::json::<Order>()
        .bootstrap_servers(&arguments.bootstrap)
        .topic(&arguments.topic)
        .group_id("order-processor")
        .bounded(arguments.bounded)
        .build()?;
    let totals = KafkaSink::json()
        .bootstrap_servers(&arguments.bootstrap)
        .topic(&arguments.output_topic)
        .key(|total: &AggregatedOrder| total.customer_id.to_string())
        .exactly_once(&arguments.transactional_id)
        .progress_topic(progress(&arguments))
        .build()?;
    env.source("orders", orders)
        .watermarks(
            WatermarkStrategy::bounded_out_of_orderness(OUT_OF_ORDERNESS)
                .timestamps(|order: &Order| order.order_time)
                .idle_after(IDLE_AFTER),
        )
        .encodable()
        .key_by(|order| order.customer_id)
        .window(Tumbling::event_time(WINDOW))
        .aggregate(OrderAggregator)
        .map(|w| AggregatedOrder {
            customer_id: w.key,
            window_start: w.window.start.millis(),
            orders: w.value.0,
            cents: w.value.1,
        })
        .sink("totals", totals);
    // Its name in other engines begins with theirs; this is not them.
    let result = env.execute("Order Processing")?;
    if !arguments.env.plan {
        println!(
            "{} orders in {:.3} s, {} of them late",
            result.records_in("orders"),
            result.elapsed.as_secs_f64(),
            result.late()
        );
    }
    Ok(true)
}
