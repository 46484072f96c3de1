//! A real Kafka broker for tests, topics of their own in it, and what stands in them.

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::future::Future;
use std::path::Path;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// Longer than anything that a test asks of a broker.
pub const DEADLINE: Duration = Duration::from_secs(60);

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
        _ => control(&["start"]),
    };
    match BROKER.get_or_init(start) {
        Ok(address) => Some(address),
        Err(why) => {
            eprintln!("NOT TESTED against Kafka, as there is no broker: {why}");
            None
        }
    }
}

/// Waits for a future of the admin client, which librdkafka completes on threads of its own.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let started = Instant::now();
    loop {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(ready) = future.as_mut().poll(&mut context) {
            return ready;
        }
        assert!(started.elapsed() < DEADLINE, "the broker does not answer");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A topic of one test's own; removed when it is dropped.
pub struct Topic {
    /// Its name.
    pub name: String,
    servers: String,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
}

impl Topic {
    /// A new topic at these servers.
    pub fn new(servers: &str, name: &str, partitions: i32) -> Topic {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Relaxed));
        let topic = Topic::named(servers, &format!("{name}-{process}-{count}"));
        // What tests append may be old.
        let new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(1))
            .set("retention.ms", "-1");
        let made = wait(topic.admin().create_topics([&new], &AdminOptions::new()));
        for result in made.expect("the broker makes topics") {
            result.expect("the topic is new");
        }
        topic.await_partitions(partitions);
        topic
    }

    fn named(servers: &str, name: &str) -> Topic {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", servers)
            .set("linger.ms", "1")
            .create();
        Topic {
            name: name.to_owned(),
            servers: servers.to_owned(),
            producer: producer.expect("these settings are sound"),
        }
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config.create().expect("these settings are sound")
    }

    fn await_partitions(&self, partitions: i32) {
        let started = Instant::now();
        loop {
            let metadata = self
                .producer
                .client()
                .fetch_metadata(Some(&self.name), DEADLINE);
            let metadata = metadata.expect("the broker answers");
            let led = metadata.topics()[0]
                .partitions()
                .iter()
                .filter(|p| p.leader() >= 0);
            if led.count() as i32 == partitions {
                return;
            }
            assert!(started.elapsed() < DEADLINE, "the topic has no leaders");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Gives the topic more partitions.
    pub fn grow(&self, partitions: i32) {
        let new = NewPartitions::new(&self.name, partitions as usize);
        wait(self.admin().create_partitions([&new], &AdminOptions::new()))
            .expect("the topic grows");
        self.await_partitions(partitions);
    }

    /// Removes the topic.
    pub fn remove(&self) {
        let _ = wait(
            self.admin()
                .delete_topics(&[&self.name], &AdminOptions::new()),
        );
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
            .flush(DEADLINE)
            .expect("the broker takes records");
    }

    /// All that a reader sees who does not read what is not committed: partition, offset, value.
    pub fn read(&self) -> Vec<(i32, i64, Vec<u8>)> {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.servers)
            .set("group.id", "tests");
        config
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true");
        config.set("enable.auto.commit", "false");
        let consumer: BaseConsumer = config.create().expect("these settings are sound");
        let metadata = consumer
            .fetch_metadata(Some(&self.name), DEADLINE)
            .expect("the broker answers");
        let mut list = TopicPartitionList::new();
        for partition in metadata.topics()[0].partitions() {
            let added = list.add_partition_offset(&self.name, partition.id(), Offset::Beginning);
            added.expect("the beginning is an offset");
        }
        consumer.assign(&list).expect("nothing else is assigned");
        let (mut open, mut records) = (list.count(), Vec::new());
        while open > 0 {
            match consumer.poll(DEADLINE).expect("the broker answers") {
                Ok(message) => {
                    let value = message.payload().unwrap_or_default().to_vec();
                    records.push((message.partition(), message.offset(), value));
                }
                Err(KafkaError::PartitionEOF(_)) => open -= 1,
                Err(error) => panic!("{error}"),
            }
        }
        records
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
        let list = consumer.committed_offsets(list, DEADLINE).ok()?;
        match list.elements()[0].offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        self.remove();
    }
}
