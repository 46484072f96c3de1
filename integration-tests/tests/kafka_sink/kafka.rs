//! The topics of the tests: orders that are put in, counts that come out, and what the broker knows of
//! transactions.

use integration_tests::processes::root;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, SystemTime};

const SOME_TIME: Duration = Duration::from_secs(30);

const PARTITIONS: i32 = 8;

/// More keys than partitions.
const KEYS: u64 = 40;

/// The broker's address; `None`, and a line that says so, where there is none.
pub fn broker() -> Option<String> {
    let address = std::env::var("TIDEGATE_KAFKA").unwrap_or_else(|_| "localhost:9092".to_owned());
    let consumer: Result<BaseConsumer, _> = config(&address).create();
    let there = consumer.is_ok_and(|c| {
        c.fetch_metadata(Some("orders"), Duration::from_secs(3))
            .is_ok()
    });
    if !there {
        println!("SKIPPED: no Kafka broker answers at {address}; `make kafka` starts one");
    }
    there.then_some(address)
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
    pub count: u64,
    pub input: String,
    pub output: String,
}

impl Orders {
    /// So many, over all partitions.
    pub fn produce(count: u64) -> Self {
        let now = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(0, |now| now.as_nanos());
        let orders = Orders {
            count,
            input: format!("test-orders-{now}"),
            output: format!("test-counts-{now}"),
        };
        let producer: BaseProducer = config(&address()).create().expect("a producer");
        for topic in [&orders.input, &orders.output] {
            // Made by its first use.
            let metadata = producer.client().fetch_metadata(Some(topic), SOME_TIME);
            metadata.expect("the broker answers");
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

/// The counts of each key, in the order in which they lie in their partition.
pub fn read_committed(topic: &str) -> BTreeMap<u64, Vec<u64>> {
    let mut config = config(&address());
    let consumer: BaseConsumer = config
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
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
    let (mut counts, mut ended) = (BTreeMap::<u64, Vec<u64>>::new(), 0);
    while ended < partitions {
        match consumer.poll(SOME_TIME) {
            Some(Ok(message)) => {
                let text = std::str::from_utf8(message.payload().expect("a value")).expect("text");
                let (key, count) = text.split_once(' ').expect("two numbers");
                let numbers = (key.parse().expect("a key"), count.parse().expect("a count"));
                counts.entry(numbers.0).or_default().push(numbers.1);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
            Some(Err(error)) => panic!("{error}"),
            None => panic!("{topic} can't be read in time"),
        }
    }
    counts
}

/// The transactional ids of this topic's job whose transaction is open, as the broker tells.
pub fn open_transactions(prefix: &str) -> Vec<String> {
    let tool = root().join(".ci/kafka");
    let class = "org.apache.kafka.tools.TransactionsCommand";
    let address = address();
    let listed = Command::new(tool)
        .args(["tool", class, "--bootstrap-server", &address, "list"])
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
