//! Exactly-once's requests, made of librdkafka's calls. All of them may block.

use super::delivery::{Delivery, Undelivered, acknowledged, message, queue_full};
use super::progress::Progress;
use super::protocol::{Broker, Instance, Marker, Markers, Trouble};
use super::record::{Frame, Frames};
use super::settings::SinkSettings;
use super::topic;
use crate::kafka::outage::Outage;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use tidegate_engine::fault::Fault;
use tidegate_engine::metrics::Gauge;

/// How long a call waits before it is looked whether the job ends; it goes on behind that.
const SLICE: Duration = Duration::from_millis(500);

/// How long one new instance may take. Brokers that are away longer are tried again.
const FENCE: Duration = Duration::from_secs(60);

/// How long one question to the brokers may take.
const ANSWER: Duration = Duration::from_secs(5);

/// How long nothing need come forward before that is called silence.
const QUIET: Duration = Duration::from_secs(2);

/// How long it is listened to what a client has heard.
const HEARING: Duration = Duration::from_millis(5);

/// How often the queue is looked at while it is full.
const FULL: Duration = Duration::from_millis(1);

/// The first pause between tries, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// Librdkafka, for the committers of one sink.
#[derive(Clone)]
pub(super) struct KafkaBroker {
    settings: Arc<SinkSettings>,
    progress: Arc<Progress>,
    /// The subtask ends: nothing is waited for any more.
    closing: Arc<AtomicBool>,
    outage: Outage,
}

impl KafkaBroker {
    pub(super) fn new(settings: SinkSettings, progress: Progress) -> Self {
        let gauge = Gauge::default();
        let (servers, timeout) = (settings.client.servers(), settings.broker_timeout);
        KafkaBroker {
            outage: Outage::new(servers, timeout, gauge, None),
            settings: Arc::new(settings),
            progress: Arc::new(progress),
            closing: Arc::default(),
        }
    }

    /// For one subtask, which raises the flag when it ends, and shows whether brokers answer.
    pub(super) fn until(&self, closing: Arc<AtomicBool>, outage: Outage) -> Self {
        KafkaBroker {
            closing,
            outage,
            ..self.clone()
        }
    }

    fn closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    /// How long nothing may come forward.
    fn patience(&self) -> Duration {
        self.settings.broker_timeout
    }

    /// Something was tried.
    fn heard<R>(&self, tried: Result<R, Trouble>) -> Result<R, Trouble> {
        match &tried {
            Ok(_) => self.outage.answered(),
            Err(Trouble::Unsure(why)) => self.outage.silent(&format!(": {why}")),
            Err(Trouble::Fatal(_)) => {}
        }
        tried
    }
}

impl Broker for KafkaBroker {
    type Instance = KafkaInstance;

    fn fence(&self, slot: u32) -> Result<KafkaInstance, Trouble> {
        let id = self.progress.key(slot);
        let config = self.settings.transactional(&id).map_err(Fault::from)?;
        let delivery = Delivery::default();
        let created = config.create_with_context::<_, BaseProducer<Delivery>>(delivery.clone());
        let producer = created.map_err(|error| Fault::user(format_args!("Kafka: {error}")))?;
        // With a connection there, or librdkafka looks for the coordinator only half a second later.
        let topic = self.progress.topic();
        let _ = producer.client().fetch_metadata(Some(topic), ANSWER);
        let (instance, began) = (
            KafkaInstance {
                producer,
                delivery,
                broker: self.clone(),
                id,
                open: false,
            },
            Instant::now(),
        );
        loop {
            let Err(error) = instance.producer.init_transactions(SLICE) else {
                self.outage.answered();
                return Ok(instance);
            };
            instance.producer.poll(HEARING);
            instance.refused(&error)?;
            let unsure = self.heard(Err(instance.unsure("can't begin", &error)));
            let again = instance.again(&error) && began.elapsed() < FENCE.min(self.patience());
            if !again || self.closing() {
                return unsure;
            }
        }
    }

    fn glance(&self) -> Result<(BTreeSet<u32>, Markers), Trouble> {
        self.heard(self.progress.glance())
    }

    fn markers(&self) -> Result<Markers, Trouble> {
        self.heard(self.progress.markers(&self.closing))
    }

    fn pause(&self, tries: u32) -> bool {
        let pause = PAUSES.0.saturating_mul(1 << tries.min(6)).min(PAUSES.1);
        thread::park_timeout(pause);
        // However it fails, brokers that are there included: pauses alone may come to so much.
        let total = PAUSES.1.saturating_mul(tries);
        !self.closing() && total < self.patience() && self.outage.unbearable().is_none()
    }
}

/// A producer of one transaction.
pub(super) struct KafkaInstance {
    producer: BaseProducer<Delivery>,
    delivery: Delivery,
    broker: KafkaBroker,
    id: String,
    /// Its transaction was begun, and no commit was asked for.
    open: bool,
}

impl Drop for KafkaInstance {
    /// Readers need not wait for the next instance.
    fn drop(&mut self) {
        if self.open
            && let Err(error) = self.producer.abort_transaction(SLICE)
        {
            tracing::debug!("transaction of '{}' is left open: {error}", self.id);
        }
    }
}

impl KafkaInstance {
    /// What no other try would change.
    fn refused(&self, error: &KafkaError) -> Result<(), Trouble> {
        use RDKafkaErrorCode as Code;
        let id = &self.id;
        let code = error.rdkafka_error_code();
        let fault = match code {
            Some(Code::InvalidTransactionTimeout) => format!(
                "the broker refuses a transaction timeout of {:?}: its transaction.max.timeout.ms is less \
                 (15 minutes by default); choose a shorter one with .transaction_timeout(..)",
                self.broker.settings.transaction_timeout
            ),
            Some(Code::TransactionalIdAuthorizationFailed) => {
                format!("this client may not use the transactional id '{id}'")
            }
            Some(
                Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::UnsupportedFeature
                | Code::MessageSizeTooLarge
                | Code::InvalidRecord
                | Code::PolicyViolation,
            ) => format!("output to Kafka with the transactional id '{id}': {error}"),
            Some(Code::OperationTimedOut | Code::RequestTimedOut) => {
                match self.delivery.contact.hopeless() {
                    Some(trouble) => format!("Kafka: {trouble}"),
                    None => return Ok(()),
                }
            }
            _ => return Ok(()),
        };
        Err(Fault::user(fault).into())
    }

    /// Whether the same call goes on where it was.
    fn again(&self, error: &KafkaError) -> bool {
        matches!(error, KafkaError::Transaction(error) if error.is_retriable())
    }

    #[cold]
    fn unsure(&self, what: &str, error: &KafkaError) -> Trouble {
        let trouble = self.delivery.contact.trouble();
        Trouble::Unsure(format!(
            "transaction of '{}' {what}: {error}{trouble}",
            self.id
        ))
    }

    /// Nothing came forward for longer than is borne.
    #[cold]
    fn stuck(&self, what: &str, error: &KafkaError) -> Trouble {
        let settings = &self.broker.settings;
        let (servers, topic) = (settings.client.servers(), &settings.topic);
        match topic::gone(self.producer.client(), servers, topic) {
            Some(gone) => gone.into(),
            None => self.unsure(what, error),
        }
    }

    /// What became of the records that were sent.
    fn delivered(&self) -> Result<(), Trouble> {
        match self.delivery.failure() {
            Some(failure) => Err(self.lost(failure)),
            None => Ok(()),
        }
    }

    /// A record that can never be delivered stops the job; one that was purged as the transaction ended does not.
    #[cold]
    fn lost(&self, failure: Undelivered) -> Trouble {
        use RDKafkaErrorCode as Code;
        let forever = matches!(
            failure.code,
            Some(
                Code::MessageSizeTooLarge
                    | Code::UnknownTopic
                    | Code::UnknownTopicOrPartition
                    | Code::UnknownPartition
                    | Code::TopicAuthorizationFailed
                    | Code::InvalidRecord
                    | Code::InvalidTopic
                    | Code::PolicyViolation
            )
        );
        if forever {
            return Fault::user(failure).into();
        }
        Trouble::Unsure(failure.to_string())
    }

    fn send(&self, topic: &str, frame: &Frame<'_>) -> Result<(), Trouble> {
        let mut record = message(topic, frame);
        let mut advance = None;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) if queue_full(&error) => {
                    record = back;
                    self.producer.poll(FULL);
                    self.delivered()?;
                    let advance = advance.get_or_insert_with(|| Advance::new(self));
                    if !advance.goes_on(self) {
                        return Err(self.stuck("can't send its records", &error));
                    }
                    if self.broker.closing() {
                        return Err(Trouble::Unsure("the job ends".to_owned()));
                    }
                }
                Err((error, back)) => {
                    self.refused(&error)?;
                    return Err(self.lost(Undelivered::new(back.topic, &error)));
                }
            }
        }
    }

    /// Repeats a call that goes on where it was, as long as there is hope.
    fn persist(
        &self,
        what: &str,
        call: impl Fn() -> Result<(), KafkaError>,
    ) -> Result<(), Trouble> {
        let mut advance = Advance::new(self);
        loop {
            let Err(error) = call() else {
                self.broker.outage.answered();
                return Ok(());
            };
            self.delivered()?;
            self.refused(&error)?;
            let again = self.again(&error)
                || matches!(
                    error,
                    KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut)
                );
            if !again || self.broker.closing() {
                return Err(self.unsure(what, &error));
            }
            if !advance.goes_on(self) {
                return Err(self.stuck(what, &error));
            }
            // An answer may come at once, such as that an earlier call is not done.
            self.producer.poll(HEARING);
        }
    }
}

/// Whether records still leave while something is waited for: much output takes long, and that is no trouble.
struct Advance {
    in_flight: i32,
    since: Instant,
}

impl Advance {
    fn new(instance: &KafkaInstance) -> Self {
        Advance {
            in_flight: instance.producer.in_flight_count(),
            since: Instant::now(),
        }
    }

    /// False when nothing has left for longer than is borne.
    fn goes_on(&mut self, instance: &KafkaInstance) -> bool {
        let (broker, in_flight) = (&instance.broker, instance.producer.in_flight_count());
        if in_flight < self.in_flight {
            broker.outage.answered();
            *self = Advance::new(instance);
        } else if self.since.elapsed() > QUIET {
            broker.outage.silent(&instance.delivery.contact.trouble());
        }
        self.since.elapsed() <= broker.patience()
    }
}

impl Instance for KafkaInstance {
    fn begin(&mut self) -> Result<(), Trouble> {
        let begun = self.producer.begin_transaction();
        begun.map_err(|error| self.unsure("can't begin", &error))?;
        self.open = true;
        Ok(())
    }

    fn produce(&mut self, records: &[u8]) -> Result<(), Trouble> {
        let topic = &self.broker.settings.topic;
        for (n, frame) in Frames::new(records).enumerate() {
            self.send(topic, &frame?)?;
            if n % 1024 == 0 {
                self.producer.poll(Duration::ZERO);
                self.delivered()?;
            }
        }
        Ok(())
    }

    fn mark(&mut self, marker: &Marker) -> Result<(), Trouble> {
        // The marker leaves last, so that others who read the topic wait for as little as can be.
        self.persist("can't send its records", || {
            acknowledged(&self.producer, SLICE, |pause| self.producer.poll(pause))
        })?;
        self.delivered()?;
        let value = marker.encode()?;
        let record = BaseRecord::<str, [u8]>::to(self.broker.progress.topic())
            .key(self.id.as_str())
            .payload(&value)
            .partition(0);
        let sent = self.producer.send(record);
        sent.map_err(|(error, _)| self.unsure("can't say how far it is", &error))
    }

    fn commit(mut self) -> Result<(), Trouble> {
        // Whatever comes now, another abort must not.
        self.open = false;
        self.persist("has an unknown outcome", || {
            self.producer.commit_transaction(SLICE)
        })?;
        self.delivered()
    }
}
