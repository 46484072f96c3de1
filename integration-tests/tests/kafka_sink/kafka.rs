//! The topics of the tests: orders that are put in, counts that come out, and what the broker knows of
//! transactions.

use integration_tests::kafka;
use integration_tests::processes::root;
use integration_tests::until;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

const SOME_TIME: Duration = Duration::from_secs(120);

const PARTITIONS: i32 = 8;

/// More keys than partitions.
const KEYS: u64 = 40;

/// The broker's address; `None` where there can be none, which is said.
pub fn broker() -> Option<String> {
    kafka::broker().map(str::to_owned)
}

fn config(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("group.id", "tidegate-tests");
    config
}

fn address() -> String {
    broker().expect("it was there when the test began")
}

/// Numbered orders in a topic of their own.
pub struct Orders {
    pub address: String,
    pub count: u64,
    pub input: String,
    pub output: String,
}

impl Orders {
    /// So many, over all partitions.
    pub fn produce(count: u64) -> Self {
        Orders::produce_at(&address(), count)
    }

    /// The same, at another broker than the shared one.
    pub fn produce_at(address: &str, count: u64) -> Self {
        let now = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |now| now.as_nanos());
        let orders = Orders {
            address: address.to_owned(),
            count,
            input: format!("test-orders-{now}"),
            output: format!("test-counts-{now}"),
        };
        let producer: BaseProducer = config(address).create().expect("a producer");
        for topic in [&orders.input, &orders.output] {
            // Made by its first use; it may be there only some moments later.
            until("the broker makes the topic", || {
                let metadata = producer.client().fetch_metadata(Some(topic), SOME_TIME);
                metadata.is_ok_and(|metadata| !metadata.topics()[0].partitions().is_empty())
            });
        }
        for n in 0..count {
            let key = n % KEYS;
            let (key_text, text) = (key.to_string(), format!("{key} {n}"));
            let mut record = BaseRecord::to(&orders.input)
                .key(&key_text)
                .payload(&text)
                .partition((key % PARTITIONS as u64) as i32);
            while let Err((_, back)) = producer.send(record) {
                record = back;
                producer.poll(Duration::from_millis(10));
            }
        }
        producer.flush(SOME_TIME).expect("the orders arrive");
        orders
    }

    /// How many orders each key has.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        let count = self.count;
        (0..KEYS)
            .map(move |key| (key, (count + KEYS - 1 - key) / KEYS))
            .filter(|(_, n)| *n > 0)
    }
}

/// That the counts of each key are there once and in order, and that no transaction is left open.
pub fn verify(orders: &Orders) {
    let counts = read_committed(&orders.address, &orders.output);
    for (key, want) in orders.counts() {
        let got = counts.get(&key).map(Vec::as_slice).unwrap_or_default();
        let first = got.iter().zip(1..).find(|(got, want)| *got != want);
        assert!(
            got.len() as u64 == want && first.is_none(),
            "key {key}: {} counts where there should be {want}; the first that is not in order: {first:?}",
            got.len()
        );
    }
    assert_eq!(
        counts.len(),
        orders.counts().count(),
        "keys that nobody ordered"
    );
    let open = open_transactions(&orders.address, &orders.output);
    assert_eq!(open, Vec::<String>::new(), "transactions are left open");
}

/// The counts of each key, in the order in which they lie in their partition.
pub fn read_committed(address: &str, topic: &str) -> BTreeMap<u64, Vec<u64>> {
    let mut config = config(address);
    let mut counts = BTreeMap::<u64, Vec<u64>>::new();
    read_each(
        config.set("isolation.level", "read_committed"),
        topic,
        |message| {
            let text = std::str::from_utf8(message.payload().expect("a value")).expect("text");
            let (key, count) = text.split_once(' ').expect("two numbers");
            let numbers = (key.parse().expect("a key"), count.parse().expect("a count"));
            counts.entry(numbers.0).or_default().push(numbers.1);
        },
    );
    counts
}

/// The numbers with which the messages of a topic begin, sorted.
pub fn numbers(address: &str, topic: &str) -> Vec<u64> {
    let mut all = Vec::new();
    read_each(&mut config(address), topic, |message| {
        let value = message.payload().expect("a value");
        let number = value.first_chunk().expect("a number");
        all.push(u64::from_be_bytes(*number));
    });
    all.sort_unstable();
    all
}

/// Shows all that a topic has now. A connection that breaks meanwhile is made again.
fn read_each(config: &mut ClientConfig, topic: &str, mut show: impl FnMut(&BorrowedMessage<'_>)) {
    let config = config
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let partitions = assign(&consumer, topic);
    let mut ended = 0;
    let mut until = Instant::now() + SOME_TIME;
    while ended < partitions {
        match consumer.poll(until.saturating_duration_since(Instant::now())) {
            Some(Ok(message)) => {
                show(&message);
                until = Instant::now() + SOME_TIME;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::AllBrokersDown | RDKafkaErrorCode::BrokerTransportFailure,
            ))) => {}
            Some(Err(error)) => panic!("{topic}: {error}"),
            // Also where the client served an event of its own.
            None => assert!(Instant::now() < until, "{topic} can't be read in time"),
        }
    }
}

fn assign(consumer: &BaseConsumer, topic: &str) -> i32 {
    let metadata = consumer
        .fetch_metadata(Some(topic), SOME_TIME)
        .expect("the broker answers");
    let partitions = metadata.topics()[0].partitions().len() as i32;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition, Offset::Beginning)
            .expect("an offset");
    }
    consumer.assign(&all).expect("it is assigned");
    partitions
}

/// The transactional ids of this topic's job whose transaction is open, as the broker tells.
pub fn open_transactions(address: &str, prefix: &str) -> Vec<String> {
    let tool = root().join(".ci/kafka");
    let class = "org.apache.kafka.tools.TransactionsCommand";
    let listed = Command::new(tool)
        .args(["tool", class, "--bootstrap-server", address, "list"])
        .output()
        .expect("Kafka's own tools can be started");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let ours = text.lines().filter(|line| line.contains(prefix));
    let ours: Vec<_> = ours.map(str::to_owned).collect();
    assert!(
        !ours.is_empty(),
        "the broker knows no transaction of {prefix}: {text}"
    );
    let ended = |line: &String| {
        line.contains("CompleteCommit") || line.contains("CompleteAbort") || line.contains("Empty")
    };
    ours.into_iter().filter(|line| !ended(line)).collect()
}

/// A name that no topic has.
pub fn fresh_topic(what: &str) -> String {
    let now = SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |now| now.as_nanos());
    format!("test-{what}-{now}")
}

/// A message, as text.
#[derive(Debug)]
pub struct Read {
    pub partition: i32,
    pub timestamp: i64,
    pub key: Option<String>,
    pub value: Option<String>,
    pub bytes: Vec<u8>,
    pub headers: Vec<(String, Option<String>)>,
}

impl Read {
    /// Its value, if that is a number of 8 bytes.
    pub fn number(&self) -> i64 {
        i64::from_be_bytes(self.bytes.as_slice().try_into().expect("8 bytes"))
    }
}

/// All messages of a topic.
pub fn read_all(topic: &str) -> Vec<Read> {
    read_all_at(&address(), topic)
}

/// All messages of a topic at another broker than the shared one.
pub fn read_all_at(address: &str, topic: &str) -> Vec<Read> {
    let mut all = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    read_each(&mut config(address), topic, |m| {
        let headers = m.headers().into_iter().flat_map(|h| h.iter());
        all.push(Read {
            partition: m.partition(),
            timestamp: m.timestamp().to_millis().unwrap_or(0),
            key: m.key().map(text),
            value: m.payload().map(text),
            bytes: m.payload().unwrap_or_default().to_vec(),
            headers: headers
                .map(|h| (h.key.to_owned(), h.value.map(text)))
                .collect(),
        });
    });
    all
}

fn alter(topic: &str, setting: &str) {
    let altered = kafka::control(&[
        "tool",
        "kafka.admin.ConfigCommand",
        "--bootstrap-server",
        &address(),
        "--alter",
        "--entity-type",
        "topics",
        "--entity-name",
        topic,
        "--add-config",
        setting,
    ]);
    altered.expect("the broker takes the setting");
}

/// Messages of this topic may have so many bytes.
pub fn limit_messages(topic: &str, bytes: u32) {
    alter(topic, &format!("max.message.bytes={bytes}"));
}

/// This topic keeps the last message of each key.
pub fn compact(topic: &str) {
    alter(topic, "cleanup.policy=compact");
}

/// Puts a message into a topic.
pub fn put(topic: &str, key: &str, value: &str) {
    let producer: BaseProducer = config(&address()).create().expect("a producer");
    let record = BaseRecord::to(topic).key(key).payload(value).partition(0);
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("it is sent");
    producer.flush(SOME_TIME).expect("it arrives");
}

/// Starts, kills, pauses or resumes the broker at a port.
pub fn control(port: &str, what: &str) {
    kafka::control(&[what, "--port", port]).expect("the broker can be controlled");
}
