//! Describes a sink, and checks it before any job begins.

use super::KafkaSink;
use super::record::KafkaRecord;
use super::serializer::{
    Choose, Condition, KafkaSerializer, Part, Parts, RecordSerializer, bytes, json,
};
use super::settings::{DeliveryGuarantee, Partitioner, SinkSettings};
use crate::kafka::client::{KafkaError, Sasl, Tls};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Describes a [`KafkaSink`].
pub struct KafkaSinkBuilder<T> {
    value: Arc<dyn KafkaSerializer<T>>,
    tombstone: Option<Condition<T>>,
    parts: Vec<Part<T>>,
    choose: Option<Choose<T>>,
    record: Option<Arc<dyn RecordSerializer<T>>>,
    dynamic_topic: bool,
    settings: SinkSettings,
}

impl<T: Serialize + 'static> KafkaSink<T> {
    /// Values as JSON.
    pub fn json() -> KafkaSinkBuilder<T> {
        KafkaSinkBuilder::new(json::<T>)
    }
}

impl<T: AsRef<str> + 'static> KafkaSink<T> {
    /// Values as UTF-8.
    pub fn string() -> KafkaSinkBuilder<T> {
        KafkaSinkBuilder::new(|value: &T, into: &mut Vec<u8>| bytes(&value.as_ref(), into))
    }
}

impl<T: AsRef<[u8]> + 'static> KafkaSink<T> {
    /// Values as they are.
    pub fn bytes() -> KafkaSinkBuilder<T> {
        KafkaSinkBuilder::new(bytes::<T>)
    }
}

macro_rules! numbers {
    ($($number:ident $what:literal)*) => { $(
        impl KafkaSink<$number> {
            #[doc = concat!("Values as ", $what, ", the most significant byte first.")]
            pub fn $number() -> KafkaSinkBuilder<$number> {
                KafkaSinkBuilder::new(|value: &$number, into: &mut Vec<u8>| {
                    bytes(&value.to_be_bytes(), into)
                })
            }
        }
    )* };
}

numbers! { i32 "integers of 4 bytes" i64 "integers of 8 bytes" f64 "floating-point numbers of 8 bytes" }

impl<T: 'static> KafkaSink<T> {
    /// Values as a serializer of your own writes them.
    pub fn with_serializer(serializer: impl KafkaSerializer<T>) -> KafkaSinkBuilder<T> {
        KafkaSinkBuilder::new(serializer)
    }

    /// Whole messages as a serializer of your own writes them. [`KafkaSinkBuilder::key`] and what else fills
    /// in a part has no effect then.
    pub fn with_record_serializer(serializer: impl RecordSerializer<T>) -> KafkaSinkBuilder<T> {
        let mut builder = KafkaSinkBuilder::new(|_: &T, _: &mut Vec<u8>| Ok(()));
        builder.record = Some(Arc::new(serializer));
        builder
    }
}

impl<T: 'static> KafkaSinkBuilder<T> {
    fn new(value: impl KafkaSerializer<T>) -> Self {
        KafkaSinkBuilder {
            value: Arc::new(value),
            tombstone: None,
            parts: Vec::new(),
            choose: None,
            record: None,
            dynamic_topic: false,
            settings: SinkSettings::default(),
        }
    }

    fn part(mut self, part: impl Fn(&T, &mut KafkaRecord) + Send + Sync + 'static) -> Self {
        self.parts.push(Arc::new(part));
        self
    }

    /// The brokers to ask first: `host:port`, several with commas between them.
    pub fn bootstrap_servers(mut self, servers: impl Into<String>) -> Self {
        self.settings.client.bootstrap_servers(servers);
        self
    }

    /// The topic to write to.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.settings.topic = topic.into();
        self
    }

    /// The topic that a record goes to.
    pub fn topic_by<S: AsRef<str>>(
        mut self,
        topic: impl Fn(&T) -> S + Send + Sync + 'static,
    ) -> Self {
        self.dynamic_topic = true;
        self.part(move |value, record| record.topic(topic(value).as_ref()))
    }

    /// The key of a record, such as `|order: &Order| order.customer.clone()`. By default there is none.
    pub fn key<K: AsRef<[u8]>>(self, key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        self.part(move |value, record| record.key().extend_from_slice(key(value).as_ref()))
    }

    /// Adds a header.
    pub fn header<V: AsRef<[u8]>>(
        self,
        name: impl Into<String>,
        header: impl Fn(&T) -> V + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        self.part(move |value, record| record.header(&name, Some(header(value).as_ref())))
    }

    /// Adds headers, as many as there are: `|value, record| record.header("trace", None)`.
    pub fn headers(self, headers: impl Fn(&T, &mut KafkaRecord) + Send + Sync + 'static) -> Self {
        self.part(headers)
    }

    /// The timestamp of a record's message, in milliseconds since the epoch. By default it is the record's
    /// event time, and without one the moment in which it is sent.
    pub fn timestamp(self, timestamp: impl Fn(&T) -> i64 + Send + Sync + 'static) -> Self {
        self.part(move |value, record| record.timestamp(timestamp(value)))
    }

    /// Records that delete their key from a compacted topic: they are sent without a value.
    pub fn tombstone_if(mut self, is: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        self.tombstone = Some(Arc::new(is));
        self
    }

    /// How partitions are chosen by the key. By default as Kafka's Java client does.
    pub fn partitioner(mut self, partitioner: Partitioner) -> Self {
        self.settings.partitioner = Some(partitioner);
        self
    }

    /// Chooses the partition of a record, from 0, given how many the topic had when the attempt began.
    pub fn partition_by(mut self, choose: impl Fn(&T, i32) -> i32 + Send + Sync + 'static) -> Self {
        self.choose = Some(Arc::new(choose));
        self
    }

    /// What is promised of each record. By default at least once.
    pub fn delivery_guarantee(mut self, guarantee: DeliveryGuarantee) -> Self {
        self.settings.guarantee = guarantee;
        self
    }

    /// Each record arrives, in a job that takes checkpoints, whatever happens; after a failure some twice.
    pub fn at_least_once(self) -> Self {
        self.delivery_guarantee(DeliveryGuarantee::AtLeastOnce)
    }

    /// Each record arrives once, for readers that read `read_committed`, when a checkpoint covers it. The
    /// prefix names the job's output in this Kafka cluster: no two jobs that run may have the same.
    pub fn exactly_once(mut self, transactional_id_prefix: impl Into<String>) -> Self {
        self.settings.prefix = transactional_id_prefix.into();
        self.delivery_guarantee(DeliveryGuarantee::ExactlyOnce)
    }

    /// After how long the broker gives up a transaction that is open. Default: 15 minutes, which is also the
    /// most that brokers allow by default. No output is lost by it, however long a recovery takes.
    pub fn transaction_timeout(mut self, timeout: Duration) -> Self {
        self.settings.transaction_timeout = timeout;
        self
    }

    /// How long a running job waits while no broker answers, or doesn't acknowledge a record, before it fails; by
    /// default 2 minutes. The log, the progress line and the metric `brokers.silence.seconds` tell that it waits.
    pub fn broker_timeout(mut self, timeout: Duration) -> Self {
        self.settings.broker_timeout = timeout;
        self
    }

    /// The compacted topic in which exactly-once writes down how far it is, of one partition and this sink's
    /// own; it is created if it isn't there. Default: `tidegate-progress.` and the transactional id.
    pub fn progress_topic(mut self, topic: impl Into<String>) -> Self {
        self.settings.progress_topic = Some(topic.into());
        self
    }

    /// Accepts a checkpoint that is older than what is in Kafka, or none at all: what lies between comes twice.
    pub fn allow_reemit(mut self, allow: bool) -> Self {
        self.settings.allow_reemit = allow;
        self
    }

    /// How many records a subtask may have sent and not seen acknowledged; beyond that it takes no more. It has no
    /// effect exactly once, where records wait for their checkpoint: see [`KafkaSinkBuilder::max_epoch_bytes`].
    pub fn max_unacknowledged(mut self, records: u32) -> Self {
        self.settings.max_unacknowledged = Some(records);
        self
    }

    /// How much output a subtask may have between two checkpoints, exactly once, and have on its way into
    /// Kafka: it is kept on disk and in the checkpoint, and sent in one transaction. More fail the job.
    /// Default: 4 GiB.
    pub fn max_epoch_bytes(mut self, bytes: u64) -> Self {
        self.settings.max_epoch_bytes = bytes;
        self
    }

    /// How much memory a subtask uses for output that waits for its checkpoint, exactly once. What is more goes to
    /// disk meanwhile, to [`KafkaSinkBuilder::spill_dir`]. Default: 32 MiB.
    pub fn max_epoch_memory(mut self, bytes: usize) -> Self {
        self.settings.max_epoch_memory = bytes;
        self
    }

    /// The folder for output that is too much for memory. A recovery needs nothing of it, and a process that dies
    /// leaves nothing there. Default: that of the system for temporary files, `$TMPDIR` or `/tmp`.
    pub fn spill_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.settings.spill_dir = Some(folder.into());
        self
    }

    /// Speaks TLS.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.settings.client.tls(tls);
        self
    }

    /// Proves who it is with a name and a password.
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.settings.client.sasl(sasl);
        self
    }

    /// Any property of librdkafka. It wins over a preset, in whatever order they are named.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.client.property(name, value);
        self
    }

    /// Small batches, compressed, one request after the other: `batch.size` 16384, `linger.ms` 5, `compression.type`
    /// snappy, `retries` 3, `max.in.flight.requests.per.connection` 1.
    pub fn balanced(mut self) -> Self {
        self.settings.preset = &[
            ("batch.size", "16384"),
            ("linger.ms", "5"),
            ("compression.type", "snappy"),
            ("retries", "3"),
            ("max.in.flight.requests.per.connection", "1"),
        ];
        self
    }

    /// Large batches: `batch.size` 65536, `linger.ms` 10, 64 MiB of buffer.
    pub fn high_throughput(mut self) -> Self {
        self.settings.preset = &[
            ("batch.size", "65536"),
            ("linger.ms", "10"),
            ("queue.buffering.max.kbytes", "65536"),
        ];
        self
    }

    /// Records leave at once: `batch.size` 1024, `linger.ms` 0, no compression.
    pub fn low_latency(mut self) -> Self {
        self.settings.preset = &[
            ("batch.size", "1024"),
            ("linger.ms", "0"),
            ("compression.type", "none"),
        ];
        self
    }

    /// Checks all of it, and makes the sink.
    pub fn build(self) -> Result<KafkaSink<T>, KafkaError> {
        if self.settings.topic.is_empty() && !self.dynamic_topic && self.record.is_none() {
            return Err(KafkaError::Missing(
                "no topic was named: add .topic(\"..\") or .topic_by(..)",
            ));
        }
        if self.choose.is_some() && self.settings.topic.is_empty() {
            return Err(KafkaError::Missing(
                ".partition_by(..) needs the one topic of which it is told how many partitions there are",
            ));
        }
        self.settings.check()?;
        let serializer = self.record.unwrap_or_else(|| {
            Arc::new(Parts {
                value: self.value,
                tombstone: self.tombstone,
                others: self.parts,
            })
        });
        Ok(KafkaSink::new(serializer, self.choose, self.settings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a preset sets, with and without transactions, as librdkafka gets it.
    #[test]
    fn presets_are_what_they_say() {
        type Preset = fn(KafkaSinkBuilder<String>) -> KafkaSinkBuilder<String>;
        let table: [(Preset, &[(&str, &str)]); 4] = [
            (
                |sink| sink,
                &[("linger.ms", "5"), ("queue.buffering.max.kbytes", "65536")],
            ),
            (
                KafkaSinkBuilder::balanced,
                &[
                    ("batch.size", "16384"),
                    ("linger.ms", "5"),
                    ("compression.type", "snappy"),
                    ("retries", "3"),
                    ("max.in.flight.requests.per.connection", "1"),
                ],
            ),
            (
                KafkaSinkBuilder::high_throughput,
                &[
                    ("batch.size", "65536"),
                    ("linger.ms", "10"),
                    ("queue.buffering.max.kbytes", "65536"),
                ],
            ),
            (
                KafkaSinkBuilder::low_latency,
                &[
                    ("batch.size", "1024"),
                    ("linger.ms", "0"),
                    ("compression.type", "none"),
                ],
            ),
        ];
        for (preset, expected) in table {
            let local = KafkaSink::<String>::string().bootstrap_servers("localhost:9092");
            let sink = preset(local.topic("t").property("metadata.max.age.ms", "77777"));
            let plain = sink.settings.producer().unwrap();
            let transactional = sink.settings.transactional("id").unwrap();
            for (name, value) in expected {
                assert_eq!(plain.get(name), Some(*value), "{name}");
                assert_eq!(transactional.get(name), Some(*value), "{name}");
            }
            assert_eq!(plain.get("acks"), Some("all"));
            assert_eq!(plain.get("enable.idempotence"), Some("true"));
            assert_eq!(transactional.get("transaction.timeout.ms"), Some("900000"));
            let own = sink.property("queue.buffering.max.ms", "77");
            let own = own.settings.producer().unwrap();
            assert_eq!(own.get("linger.ms"), Some("77"), "what is set wins");
            assert_eq!(own.get("queue.buffering.max.ms"), None);
        }
    }

    #[test]
    fn a_checkpoint_interval_has_to_fit_into_a_transaction() {
        let sink = KafkaSink::<String>::string().exactly_once("t");
        let timeout = Duration::from_secs(60);
        let settings = sink.transaction_timeout(timeout).settings;
        assert!(settings.check_interval(timeout).is_ok());
        let longer = settings.check_interval(Duration::from_secs(61));
        let said = longer.unwrap_err().to_string();
        assert!(
            said.contains("60s is shorter than the checkpoint interval of 61s"),
            "{said}"
        );
    }
}
