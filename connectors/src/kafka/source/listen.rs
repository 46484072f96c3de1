//! What a source's consumer hears besides records.

use crate::kafka::contact::Contact;
use crate::kafka::outage::Outage;
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Statistics, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::Waker;

/// How much one subtask has fetched ahead, in bytes, where the user doesn't say it.
const ROOM: u64 = 64 << 20;

/// How much of it one partition has at most, and how much at least.
const MOST_ROOM: u64 = 16 << 20;
const LEAST_ROOM: u64 = 256 << 10;

/// So many partitions may have as much as one may have at most.
pub(super) const FEW: usize = (ROOM / MOST_ROOM) as usize;

pub(super) type Consumer = BaseConsumer<Listener>;

/// The context of a source's consumers. Clones share what they hear.
#[derive(Clone)]
pub(super) struct Listener {
    contact: Contact,
    outage: Outage,
}

impl Listener {
    /// Tells whether brokers answer.
    pub(super) fn new(outage: Outage) -> Self {
        Listener {
            contact: Contact::default(),
            outage,
        }
    }

    /// Whether brokers answer.
    pub(super) fn outage(&self) -> &Outage {
        &self.outage
    }

    pub(super) fn contact(&self) -> Contact {
        self.contact.clone()
    }
}

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.contact.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.contact.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.outage.look(&statistics, &self.contact.trouble());
    }
}

impl ConsumerContext for Listener {
    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::warn!(%error, "offsets could not be told to the group; the job does not depend on it");
        }
    }
}

/// Wakes the subtask when a queue has something for it; only when it said that it waits.
pub(super) fn alarm(hungry: &Arc<AtomicBool>, waker: &Waker) -> impl Fn() + Send + Sync + 'static {
    let (hungry, waker) = (hungry.clone(), waker.clone());
    move || {
        if hungry.load(SeqCst) && hungry.swap(false, SeqCst) {
            waker.wake();
        }
    }
}

/// What makes the clients of one subtask.
pub(super) struct Clients {
    pub(super) config: ClientConfig,
    pub(super) listener: Listener,
    pub(super) hungry: Arc<AtomicBool>,
    pub(super) waker: Waker,
}

impl Clients {
    /// The first one: it looks for partitions and hears whether brokers answer. Few partitions it reads as well.
    pub(super) fn first(&self) -> Flow<Arc<Consumer>> {
        self.make(&self.config)
    }

    /// One that reads so many partitions, more than the first one may; each of them has so much less room.
    pub(super) fn another(&self, partitions: usize) -> Flow<Arc<Consumer>> {
        let room = (ROOM / partitions.max(1) as u64).clamp(LEAST_ROOM, MOST_ROOM);
        let mut config = self.config.clone();
        config.set("queued.max.messages.kbytes", (room >> 10).to_string());
        // The first one says whether brokers answer.
        config.set("statistics.interval.ms", "0");
        self.make(&config)
    }

    fn make(&self, config: &ClientConfig) -> Flow<Arc<Consumer>> {
        let made = config.create_with_context(self.listener.clone());
        let mut consumer: Consumer = made
            .map_err(|error| Fault::user(format_args!("can't make a client for Kafka: {error}")))?;
        // Its own events wake the subtask.
        consumer.set_nonempty_callback(alarm(&self.hungry, &self.waker));
        Ok(Arc::new(consumer))
    }
}
