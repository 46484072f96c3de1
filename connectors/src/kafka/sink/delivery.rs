//! How records reach librdkafka, and what it says of those that it could not deliver.

use super::record::Frame;
use crate::kafka::contact::Contact;
use crate::kafka::outage::Outage;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, Statistics};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate_engine::fault::Fault;
use tidegate_engine::source::Waker;

/// Between two looks whether everything is acknowledged.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// A record that could not be delivered.
#[derive(Clone, Debug)]
pub(super) struct Undelivered {
    pub(super) topic: String,
    pub(super) code: Option<RDKafkaErrorCode>,
    why: String,
}

impl Undelivered {
    #[cold]
    pub(super) fn new(topic: &str, error: &KafkaError) -> Self {
        let code = error.rdkafka_error_code();
        Undelivered {
            topic: topic.to_owned(),
            code,
            why: code.map_or_else(|| error.to_string(), |code| code.to_string()),
        }
    }
}

impl fmt::Display for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (topic, why) = (&self.topic, &self.why);
        write!(
            f,
            "a record for the topic '{topic}' could not be delivered: {why}"
        )
    }
}

/// What a producer hears. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Delivery {
    pub(super) contact: Contact,
    failed: Arc<Mutex<Option<Undelivered>>>,
    failures: Arc<AtomicU64>,
    waker: Option<Waker>,
    outage: Option<Outage>,
}

impl Delivery {
    /// Asks for a turn when a record could not be delivered, and looks whether brokers answer.
    pub(super) fn waking(waker: Waker, outage: Outage) -> Self {
        Delivery {
            waker: Some(waker),
            outage: Some(outage),
            ..Delivery::default()
        }
    }

    /// The first record that could not be delivered.
    pub(super) fn failure(&self) -> Option<Undelivered> {
        if self.failures() == 0 {
            return None;
        }
        self.failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether brokers have been silent for longer than is borne.
    pub(super) fn unbearable(&self) -> Option<Fault> {
        self.outage.as_ref()?.unbearable()
    }

    /// How many there were.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(SeqCst)
    }
}

impl ClientContext for Delivery {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.contact.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.contact.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(outage) = &self.outage {
            outage.look(&statistics, &self.contact.trouble());
            if let (Some(waker), Some(_)) = (&self.waker, outage.unbearable()) {
                waker.wake();
            }
        }
    }
}

impl ProducerContext for Delivery {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        if let Err((error, message)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert_with(|| {
                let mut undelivered = Undelivered::new(message.topic(), error);
                if undelivered.code == Some(RDKafkaErrorCode::MessageTimedOut) {
                    undelivered.why += &self.contact.trouble();
                }
                undelivered
            });
            self.failures.fetch_add(1, SeqCst);
            if let Some(waker) = &self.waker {
                waker.wake();
            }
        }
    }
}

/// A frame as librdkafka takes it.
pub(super) fn message<'a>(topic: &'a str, frame: &Frame<'a>) -> BaseRecord<'a, [u8], [u8]> {
    let topic = if frame.topic.is_empty() {
        topic
    } else {
        frame.topic
    };
    let headers = frame.has_headers().then(|| {
        let all = OwnedHeaders::new();
        frame
            .headers()
            .fold(all, |all, (key, value)| all.insert(Header { key, value }))
    });
    BaseRecord {
        topic,
        partition: frame.partition,
        payload: frame.value,
        key: frame.key,
        timestamp: frame.timestamp,
        headers,
        delivery_opaque: (),
    }
}

/// Waits until everything is acknowledged, at most for so long, and lets the producer hear meanwhile. The client's own
/// call looks only each tenth of a second, since what arrives well is not reported.
pub(super) fn acknowledged<P: Producer<Delivery>>(
    producer: &P,
    most: Duration,
    hear: impl Fn(Duration),
) -> Result<(), KafkaError> {
    let began = Instant::now();
    loop {
        match producer.flush(Duration::ZERO) {
            Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut))
                if began.elapsed() < most =>
            {
                hear(BETWEEN_LOOKS);
            }
            flushed => return flushed,
        }
    }
}

/// Whether a refused record will be taken when others have left.
pub(super) fn queue_full(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull)
}
