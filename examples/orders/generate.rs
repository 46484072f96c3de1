//! Orders as a shop takes them: the same ones each time, not quite in their order.

use crate::Order;
use anyhow::{Context, Result, bail};
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The first order: 2025-01-01, 00:00 UTC.
const BEGIN: i64 = 1_735_689_600_000;
/// Milliseconds from one order to the next.
const STEP: i64 = 500;
/// How far orders are out of their order, in milliseconds.
const JITTER: u64 = 20_000;
const CUSTOMERS: u64 = 1000;

/// Scatters a number: the finaliser of SplitMix64.
fn scatter(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

fn order(order_id: u64) -> Order {
    let random = scatter(order_id);
    Order {
        order_id,
        customer_id: random % CUSTOMERS,
        cents: 100 + (random >> 20) % 100_000,
        order_time: BEGIN + order_id as i64 * STEP - (scatter(random) % JITTER) as i64,
    }
}

#[derive(Default)]
struct Delivered {
    records: AtomicU64,
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.records.fetch_add(1, Relaxed);
            }
            Err((error, message)) => eprintln!("order {:?}: {error}", message.key()),
        }
    }
}

/// Writes so many orders, each customer's to one partition.
pub fn produce(servers: &str, topic: &str, orders: u64) -> Result<()> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", servers)
        .set("linger.ms", "20");
    config
        .set("enable.idempotence", "true")
        .set("compression.type", "lz4");
    let producer: BaseProducer<Delivered> = config.create_with_context(Delivered::default())?;
    for order_id in 0..orders {
        let order = order(order_id);
        let (key, value) = (order.customer_id.to_string(), serde_json::to_vec(&order)?);
        let mut record = BaseRecord::to(topic).key(&key).payload(&value);
        loop {
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    producer.poll(Duration::from_millis(10));
                    record = back;
                }
                Err((error, _)) => return Err(error).context("can't write an order"),
            }
        }
        producer.poll(Duration::ZERO);
    }
    producer
        .flush(Duration::from_secs(60))
        .context("not all orders were written")?;
    let delivered = producer.context().records.load(Relaxed);
    if delivered != orders {
        bail!("only {delivered} of {orders} orders were written");
    }
    Ok(())
}
