//! What a source's consumer hears besides records.

use crate::kafka::contact::Contact;
use crate::kafka::outage::Outage;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Statistics, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tidegate_engine::source::Waker;

pub(super) type Consumer = BaseConsumer<Listener>;

/// The context of a source's consumer.
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

/// Lets a consumer's own events wake the subtask.
pub(super) fn wake_when_nonempty(consumer: &mut Consumer, waker: Waker) -> Arc<AtomicBool> {
    let hungry = Arc::new(AtomicBool::new(false));
    consumer.set_nonempty_callback(alarm(&hungry, &waker));
    hungry
}
