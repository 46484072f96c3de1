//! Compares the totals that are committed with what the orders give, without the engine.

use crate::{AggregatedOrder, Order, WINDOW};
use anyhow::{Context, Result, bail};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a broker may be silent.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls `each` with the partition and the value of every committed record of a topic.
fn read(servers: &str, topic: &str, mut each: impl FnMut(i32, &[u8]) -> Result<()>) -> Result<()> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("group.id", "orders-verify");
    config
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true");
    config.set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE);
    let metadata = metadata.with_context(|| format!("{servers} does not answer"))?;
    let mut list = TopicPartitionList::new();
    for partition in metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
    {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    if list.count() == 0 {
        bail!("there is no topic '{topic}' at {servers}; --produce makes it");
    }
    consumer.assign(&list)?;
    let (mut open, mut until, mut broken) = (list.count(), Instant::now() + PATIENCE, None);
    while open > 0 {
        match consumer.poll(until.saturating_duration_since(Instant::now())) {
            // The client may have served an event of its own.
            None if Instant::now() < until => {}
            None => {
                let why = broken
                    .map(|error| format!(" ({error})"))
                    .unwrap_or_default();
                bail!(
                    "{servers} is silent{why} while '{topic}' is read: is a transaction left open?"
                )
            }
            Some(Ok(message)) => {
                until = Instant::now() + PATIENCE;
                let (partition, offset) = (message.partition(), message.offset());
                each(partition, message.payload().unwrap_or_default())
                    .with_context(|| format!("{topic}[{partition}]@{offset}"))?;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
            // The client connects again by itself.
            Some(Err(KafkaError::MessageConsumption(
                error @ (RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure),
            ))) => broken = Some(error),
            Some(Err(error)) => return Err(error).with_context(|| format!("can't read '{topic}'")),
        }
    }
    Ok(())
}

/// By customer and beginning of the window: the number of orders and their sum.
type Totals = BTreeMap<(u64, i64), (u64, u64)>;

/// What was found to be wrong.
#[derive(Default)]
struct Findings {
    first: Option<String>,
    missing: u64,
    doubled: u64,
    wrong: u64,
    disordered: u64,
}

impl Findings {
    fn note(&mut self, what: impl FnOnce() -> String) {
        self.first.get_or_insert_with(what);
    }
}

/// Says whether each total is there exactly once; true if so.
pub fn verify(servers: &str, topic: &str, output_topic: &str) -> Result<bool> {
    let (mut expected, mut orders) = (Totals::new(), 0u64);
    let window = WINDOW.as_millis() as i64;
    read(servers, topic, |_, value| {
        let order: Order = serde_json::from_slice(value)?;
        let start = order.order_time.div_euclid(window) * window;
        let (count, cents) = expected.entry((order.customer_id, start)).or_default();
        (*count, *cents, orders) = (*count + 1, *cents + order.cents, orders + 1);
        Ok(())
    })?;
    let (mut seen, mut last) = (Totals::new(), BTreeMap::new());
    let mut findings = Findings::default();
    read(servers, output_topic, |partition, value| {
        let total: AggregatedOrder = serde_json::from_slice(value)?;
        let (key, found) = (
            (total.customer_id, total.window_start),
            (total.orders, total.cents),
        );
        if seen.insert(key, found).is_some() {
            findings.doubled += 1;
            findings.note(|| format!("twice: {total:?}"));
        } else if expected.get(&key) != Some(&found) {
            findings.wrong += 1;
            findings.note(|| format!("{total:?}, and it should be {:?}", expected.get(&key)));
        }
        // A customer's totals are in one partition, in the order of their windows.
        let before = last.insert((partition, total.customer_id), total.window_start);
        if before.is_some_and(|before| before > total.window_start) {
            findings.disordered += 1;
            findings.note(|| format!("{total:?} behind the window {before:?}"));
        }
        Ok(())
    })?;
    for (key, totals) in expected.iter().filter(|(key, _)| !seen.contains_key(key)) {
        findings.missing += 1;
        findings.note(|| format!("missing: customer {}, window {}: {totals:?}", key.0, key.1));
    }
    if let Some(first) = &findings.first {
        println!("the first finding: {first}");
        println!(
            "WRONG: of {} totals of {orders} orders, {} are missing, {} come twice, {} are wrong, {} are out of order",
            expected.len(),
            findings.missing,
            findings.doubled,
            findings.wrong,
            findings.disordered
        );
    } else if orders == 0 {
        println!("WRONG: there are no orders; --produce writes some");
    } else {
        println!(
            "exactly once: all {} totals of {orders} orders are there, each once, and in order per customer",
            expected.len()
        );
    }
    Ok(findings.first.is_none() && orders > 0)
}
