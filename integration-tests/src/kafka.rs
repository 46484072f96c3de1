//! A real Kafka broker for tests, topics of their own in it, and what stands in them.

use crate::{PATIENCE, until};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tidegate::connectors::kafka::{ClientSettings, KafkaAdmin};
use tidegate::engine::metrics::{MetricRegistry, MetricValue};

/// Runs `.ci/kafka` with these arguments. The last line that it printed, or what went wrong.
pub fn control(arguments: &[&str]) -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut command = Command::new(root.join(".ci/kafka"));
    let output = command.args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| error.to_string())?;
    let last = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().last().unwrap_or_default().to_owned()
    };
    if output.status.success() {
        Ok(last(&output.stdout))
    } else {
        Err(last(&output.stderr))
    }
}

/// The address of the broker that all tests share; `None` where there can be none, which is said.
pub fn broker() -> Option<&'static str> {
    static BROKER: OnceLock<Result<String, String>> = OnceLock::new();
    let start = || match std::env::var("TIDEGATE_KAFKA").as_deref() {
        Ok("none") => Err("TIDEGATE_KAFKA=none".to_owned()),
        Ok(address) => Ok(address.to_owned()),
        Err(_) => control(&["start"]),
    };
    match BROKER.get_or_init(start) {
        Ok(address) => Some(address),
        Err(why) => {
            eprintln!("NOT TESTED against Kafka, as there is no broker: {why}");
            None
        }
    }
}

/// What a job shows of a metric of Kafka: a number for each subtask, or for each partition, with its labels. Of a
/// histogram, the sum.
pub fn shown(metrics: &MetricRegistry, name: &str) -> Vec<(Vec<(String, String)>, f64)> {
    let all = metrics.snapshot(0).into_iter();
    let named = all.filter(|sample| sample.name == name && sample.scope == ["kafka"]);
    let number = |value| match value {
        MetricValue::Counter(n) => n as f64,
        MetricValue::Gauge(value) | MetricValue::Total(value) => value,
        MetricValue::Meter { rate, .. } => rate,
        MetricValue::Histogram(h) => h.sum as f64,
    };
    named
        .map(|sample| (sample.labels, number(sample.value)))
        .collect()
}

/// The same, all together.
pub fn total(metrics: &MetricRegistry, name: &str) -> f64 {
    shown(metrics, name).iter().map(|(_, number)| number).sum()
}

/// A topic of one test's own; removed when it is dropped.
pub struct Topic {
    /// Its name.
    pub name: String,
    servers: String,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    owned: bool,
}

impl Topic {
    /// A new topic at these servers.
    pub fn new(servers: &str, name: &str, partitions: i32) -> Topic {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Relaxed));
        let mut topic = Topic::existing(servers, &format!("{name}-{process}-{count}"));
        topic.owned = true;
        let admin = topic.admin();
        // A broker that has just begun, or is pressed for time, may not answer at once; and one that did not may
        // have made the topic all the same. What tests append may be old.
        let mut asked = false;
        until("the broker makes the topic", || {
            let made = admin.create(&topic.name, partitions, &[("retention.ms", "-1")]);
            if let Err(fault) = &made {
                println!("{} is to be made again: {fault}", topic.name);
            } else {
                assert!(asked || made == Ok(true), "the topic is new");
            }
            asked = true;
            made.is_ok()
        });
        topic
    }

    /// A topic that is there, and stays.
    pub fn existing(servers: &str, name: &str) -> Topic {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", servers)
            .set("linger.ms", "1");
        Topic {
            name: name.to_owned(),
            servers: servers.to_owned(),
            producer: config.create().expect("these settings are sound"),
            owned: false,
        }
    }

    fn admin(&self) -> KafkaAdmin {
        let mut settings = ClientSettings::new();
        settings.bootstrap_servers(&self.servers);
        KafkaAdmin::new(&settings).expect("these settings are sound")
    }

    /// Gives the topic more partitions.
    pub fn grow(&self, partitions: i32) {
        let grown = self.admin().grow(&self.name, partitions);
        grown.expect("the topic grows");
        // The producer is to know of it too.
        let client = self.producer.client();
        let metadata = client.fetch_metadata(Some(&self.name), PATIENCE);
        metadata.expect("the broker answers");
    }

    /// Makes the topic anew, without what was in it.
    pub fn recreate(&self, partitions: i32) {
        let made = self
            .admin()
            .recreate(&self.name, partitions, &[("retention.ms", "-1")]);
        made.expect("the broker makes topics");
    }

    /// Tells a group how far a partition is read.
    pub fn commit(&self, group: &str, partition: i32, offset: i64) {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("group.id", group);
        let consumer: BaseConsumer = config.create().expect("these settings are sound");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(offset))
            .expect("an offset");
        let told = consumer.commit(&list, CommitMode::Sync);
        told.expect("the broker takes it");
    }

    /// A producer whose first transaction has begun.
    pub fn transaction(&self, id: &str) -> BaseProducer {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("linger.ms", "1")
            .set("transactional.id", format!("{}-{id}", self.name));
        let producer: BaseProducer = config.create().expect("these settings are sound");
        producer
            .init_transactions(PATIENCE)
            .expect("nobody else has this id");
        producer.begin_transaction().expect("it can begin");
        producer
    }

    /// Appends as a part of a transaction.
    pub fn append_in(&self, producer: &BaseProducer, partition: i32, values: &[&str]) {
        for value in values {
            let record = BaseRecord::<str, [u8]>::to(&self.name).partition(partition);
            let sent = producer.send(record.payload(value.as_bytes()));
            sent.map_err(|(error, _)| error).expect("there is room");
        }
        producer.flush(PATIENCE).expect("the broker takes records");
    }

    /// Removes the topic.
    pub fn remove(&self) {
        let _ = self.admin().remove(&self.name);
    }

    /// Appends to one partition, with a timestamp; 0 would be the present.
    pub fn append(&self, partition: i32, key: Option<&str>, value: Option<&[u8]>, at: i64) {
        let mut record = BaseRecord::<str, [u8]>::to(&self.name)
            .partition(partition)
            .timestamp(at);
        record.key = key;
        record.payload = value;
        self.send(record);
    }

    /// Sends a record, waiting for room.
    pub fn send(&self, record: BaseRecord<'_, str, [u8]>) {
        let mut record = record;
        while let Err((error, back)) = self.producer.send(record) {
            let full =
                error == KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull);
            assert!(full, "{error}");
            std::thread::park_timeout(Duration::from_millis(5));
            record = back;
        }
    }

    /// Waits until all that was sent is there.
    pub fn flush(&self) {
        self.producer
            .flush(PATIENCE)
            .expect("the broker takes records");
    }

    /// The offset that a group was told for a partition.
    pub fn committed(&self, group: &str, partition: i32) -> Option<i64> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("group.id", group);
        let consumer: BaseConsumer = config.create().expect("these settings are sound");
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name, partition);
        let list = consumer.committed_offsets(list, PATIENCE).ok()?;
        match list.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        if self.owned {
            self.remove();
        }
    }
}
