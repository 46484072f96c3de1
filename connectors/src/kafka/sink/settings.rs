//! What a sink promises and how it sends, as properties of librdkafka that fit each other.

use crate::kafka::client::{ClientSettings, KafkaError};
use crate::kafka::outage::{self, LOOKS, WHY_LOOK};
use rdkafka::config::ClientConfig;
use rdkafka::producer::BaseProducer;
use std::path::PathBuf;
use std::time::Duration;

/// What is promised of each record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryGuarantee {
    /// Nothing: records that can't be delivered are counted and logged.
    None,
    /// Each arrives; after a failure some arrive twice. A checkpoint waits until the broker has
    /// acknowledged everything before it.
    #[default]
    AtLeastOnce,
    /// Each arrives once, for readers that read `read_committed`, when a checkpoint covers it.
    ExactlyOnce,
}

/// How a partition is chosen by the key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitioner {
    /// As Kafka's Java client does: murmur2 of the key, and without a key any partition.
    #[default]
    Murmur2,
    /// CRC32 of the key, and without a key any partition.
    Crc32,
    /// FNV-1a of the key, and without a key any partition.
    Fnv1a,
    /// Any partition.
    Random,
}

impl Partitioner {
    fn name(self) -> &'static str {
        match self {
            Partitioner::Murmur2 => "murmur2_random",
            Partitioner::Crc32 => "consistent_random",
            Partitioner::Fnv1a => "fnv1a_random",
            Partitioner::Random => "random",
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct SinkSettings {
    pub(super) client: ClientSettings,
    pub(super) topic: String,
    pub(super) guarantee: DeliveryGuarantee,
    pub(super) partitioner: Option<Partitioner>,
    pub(super) prefix: String,
    pub(super) transaction_timeout: Duration,
    pub(super) broker_timeout: Duration,
    pub(super) progress_topic: Option<String>,
    pub(super) allow_reemit: bool,
    pub(super) max_unacknowledged: Option<u32>,
    pub(super) max_epoch_bytes: u64,
    pub(super) max_epoch_memory: usize,
    pub(super) spill_dir: Option<PathBuf>,
    pub(super) preset: &'static [(&'static str, &'static str)],
}

impl Default for SinkSettings {
    fn default() -> Self {
        SinkSettings {
            client: ClientSettings::new(),
            topic: String::new(),
            guarantee: DeliveryGuarantee::default(),
            partitioner: None,
            prefix: String::new(),
            transaction_timeout: LONGEST_TRANSACTION,
            broker_timeout: outage::PATIENCE,
            progress_topic: None,
            allow_reemit: false,
            max_unacknowledged: None,
            max_epoch_bytes: 4 << 30,
            max_epoch_memory: 32 << 20,
            spill_dir: None,
            preset: &[],
        }
    }
}

/// What brokers allow by default.
const LONGEST_TRANSACTION: Duration = Duration::from_secs(900);

/// The least memory for an epoch: less makes a file of every few records.
const LEAST_MEMORY: usize = 16 << 10;

/// librdkafka's own default.
const MESSAGE_MAX_BYTES: usize = 1_000_000;

/// What nearly every topic takes, whatever a topic may be called.
const LONGEST_NAME: usize = 249;

impl SinkSettings {
    /// The properties of a producer without transactions.
    pub(super) fn producer(&self) -> Result<ClientConfig, KafkaError> {
        self.client
            .within("statistics.interval.ms", LOOKS, WHY_LOOK)?;
        let safe = self.guarantee != DeliveryGuarantee::None;
        let idempotent = safe && !self.weaker();
        let unacknowledged = self.max_unacknowledged.map(|n| n.to_string());
        let timeout = self.broker_timeout.as_millis().max(1).to_string();
        let mut defaults = vec![
            ("linger.ms", "5"),
            ("acks", if safe { "all" } else { "1" }),
            (
                "enable.idempotence",
                if idempotent { "true" } else { "false" },
            ),
            ("message.timeout.ms", &timeout),
            ("statistics.interval.ms", "1000"),
            ("queue.buffering.max.kbytes", "65536"),
        ];
        let common: Vec<_> = self.common().collect();
        defaults.extend(common);
        let mut fixed = vec![("delivery.report.only.error", "true")];
        if let Some(unacknowledged) = &unacknowledged {
            fixed.push(("queue.buffering.max.messages", unacknowledged));
        }
        self.client.config(&defaults, &fixed)
    }

    /// The properties of a producer of one transaction.
    pub(super) fn transactional(&self, id: &str) -> Result<ClientConfig, KafkaError> {
        let timeout = self.transaction_timeout.as_millis().to_string();
        let mut defaults = vec![("linger.ms", "5"), ("queue.buffering.max.kbytes", "65536")];
        defaults.extend(self.common());
        let fixed = [
            ("transactional.id", id),
            ("transaction.timeout.ms", &timeout),
            ("enable.idempotence", "true"),
            ("delivery.report.only.error", "true"),
        ];
        self.client.config(&defaults, &fixed)
    }

    fn common(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let partitioner = self.partitioner.unwrap_or_default().name();
        let preset = self.preset.iter().copied();
        preset.chain([("partitioner", partitioner)])
    }

    fn acks(&self) -> Option<&str> {
        self.client.get("acks")
    }

    /// Fewer acknowledgements than all: the user's choice, with which no producer is idempotent.
    fn weaker(&self) -> bool {
        self.acks()
            .is_some_and(|acks| acks != "all" && acks != "-1")
    }

    /// What the progress topic is called, given what all transactional ids begin with.
    pub(super) fn progress_topic(&self, id: &str) -> String {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        let safe = |c: char| if allowed(c) { c } else { '-' };
        self.progress_topic.clone().unwrap_or_else(|| {
            let name = format!("tidegate-progress.{id}");
            name.chars().map(safe).take(LONGEST_NAME).collect()
        })
    }

    /// How many bytes a message may have.
    pub(super) fn message_max_bytes(&self) -> usize {
        let set = self.client.get("message.max.bytes");
        set.and_then(|set| set.parse().ok())
            .unwrap_or(MESSAGE_MAX_BYTES)
    }

    /// What doesn't go together.
    pub(super) fn check(&self) -> Result<(), KafkaError> {
        if self.max_unacknowledged == Some(0) {
            return Err(KafkaError::Missing(
                ".max_unacknowledged(0) lets nothing be sent; allow at least 1",
            ));
        }
        if self.broker_timeout.is_zero() {
            return Err(KafkaError::Missing(
                ".broker_timeout(..) of nothing gives up before any broker can answer",
            ));
        }
        if self.partitioner.is_some() && self.client.get("partitioner").is_some() {
            let why = "the partitioner is set with .partitioner(..) as well";
            return Err(KafkaError::property("partitioner", why));
        }
        let config = match self.guarantee {
            DeliveryGuarantee::None => self.producer()?,
            DeliveryGuarantee::AtLeastOnce => self.check_acknowledged()?,
            DeliveryGuarantee::ExactlyOnce => self.check_transactions()?,
        };
        // Some contradictions only librdkafka knows. It asks no broker yet.
        let created = config.create::<BaseProducer>();
        created
            .map(drop)
            .map_err(|error| KafkaError::Client(error.to_string()))
    }

    fn check_acknowledged(&self) -> Result<ClientConfig, KafkaError> {
        if self.acks() == Some("0") {
            let why = "without acknowledgements nothing is known to arrive; use \
                       .delivery_guarantee(DeliveryGuarantee::None) if that is meant";
            return Err(KafkaError::property("acks", why));
        }
        self.producer()
    }

    fn check_transactions(&self) -> Result<ClientConfig, KafkaError> {
        if self.prefix.is_empty() {
            return Err(KafkaError::Missing(
                "exactly-once needs a transactional id prefix: .exactly_once(\"my-job\")",
            ));
        }
        if self.weaker() {
            return Err(KafkaError::property("acks", "exactly-once needs 'all'"));
        }
        let timeout = self.transaction_timeout;
        if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&timeout) {
            let why = format_args!("{timeout:?} is not between 1 s and 1 day");
            return Err(KafkaError::property("transaction.timeout.ms", why));
        }
        if self.max_epoch_memory < LEAST_MEMORY {
            return Err(KafkaError::Missing(
                ".max_epoch_memory(..): at least 16 KiB, or every few records make a file",
            ));
        }
        self.transactional(&self.prefix)
    }

    /// What doesn't go together with how often the job takes checkpoints.
    pub(super) fn check_interval(&self, interval: Duration) -> Result<(), KafkaError> {
        if interval <= self.transaction_timeout {
            return Ok(());
        }
        let why = format_args!(
            "{:?} is shorter than the checkpoint interval of {interval:?}: the output of one checkpoint has \
             to be sent in one transaction. Raise it (with transaction.max.timeout.ms of the broker) or \
             take checkpoints more often",
            self.transaction_timeout
        );
        Err(KafkaError::property("transaction.timeout.ms", why))
    }
}
