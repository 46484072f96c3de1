//! What a sink makes of values, and where it puts them.

use crate::kafka::{fresh_topic, read_all};
use crate::{fault, strings};
use integration_tests::kafka::{Topic, broker};
use std::collections::BTreeSet;
use std::fmt::Debug;
use tidegate::connectors::Values;
use tidegate::connectors::kafka::source::{Deserializer, KafkaSourceBuilder};
use tidegate::connectors::kafka::{
    KafkaRecord, KafkaSink, KafkaSinkBuilder, KafkaSource, Partitioner, RecordSerializer,
};
use tidegate::prelude::*;

/// Writes values and reads them back.
fn through<T, D>(sink: KafkaSinkBuilder<T>, source: KafkaSourceBuilder<D>, values: &[T])
where
    T: Clone + Debug + PartialEq + Send + Sync + 'static,
    D: Deserializer<Item = T>,
    T: Send,
{
    let broker = broker().expect("there is one");
    let topic = Topic::new(broker, "values", 1);
    let env = StreamEnv::with_parallelism(1);
    let sink = sink.bootstrap_servers(broker).topic(&topic.name);
    env.source("values", Values::new(values.to_vec()))
        .sink("out", sink.build().expect("it is sound"));
    env.execute("values").expect("it ends well");
    let source = source.bootstrap_servers(broker).topic(&topic.name);
    let source = source.bounded(true).build().expect("it is sound");
    let output = tidegate::testing::run(1, |env| env.source("values", source));
    assert_eq!(output.expect("it ends well").values(), values);
}

#[test]
fn values_of_each_kind_go_in_and_come_out() {
    if broker().is_none() {
        return;
    }
    through(KafkaSink::i32(), KafkaSource::i32(), &[i32::MIN, -1, 7]);
    through(KafkaSink::i64(), KafkaSource::i64(), &[i64::MIN, -1, 7]);
    through(KafkaSink::f64(), KafkaSource::f64(), &[-0.5, 1e300]);
    let bytes = [vec![0, 255], vec![1]];
    through(KafkaSink::bytes(), KafkaSource::bytes(), &bytes);
    let pairs = [("a".to_owned(), 1u8), ("b".to_owned(), 2)];
    through(KafkaSink::json(), KafkaSource::json(), &pairs);
    let words = ["tide".to_owned(), "gate".to_owned()];
    through(KafkaSink::string(), KafkaSource::string(), &words);
}

/// Kafka's own hash of keys (Austin Appleby's murmur2, 32 bits, as the Java client seeds it).
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let chunks = key.chunks_exact(4);
    let rest = chunks.remainder();
    for chunk in chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().expect("four bytes")).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        for (n, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * n);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    (hash ^ (hash >> 15)) & 0x7fff_ffff
}

fn crc32(key: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        if crc & 1 == 1 {
            (crc >> 1) ^ 0xedb8_8320
        } else {
            crc >> 1
        }
    };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !key.iter().fold(u32::MAX, byte)
}

/// As Sarama has it: of a signed number, without its sign.
fn fnv1a(key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    (key.iter().fold(0x811c_9dc5, step) as i32).unsigned_abs()
}

#[test]
fn each_partitioner_puts_a_key_where_other_clients_do() {
    let Some(broker) = broker() else { return };
    assert_eq!(
        murmur2(b"21"),
        (-973_932_308i32 & 0x7fff_ffff) as u32,
        "as Kafka's tests say"
    );
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    type Hash = fn(&[u8]) -> u32;
    let all: [(Partitioner, Option<Hash>); 4] = [
        (Partitioner::Murmur2, Some(murmur2)),
        (Partitioner::Crc32, Some(crc32)),
        (Partitioner::Fnv1a, Some(fnv1a)),
        (Partitioner::Random, None),
    ];
    let keys: Vec<String> = (0..60).map(|n| format!("customer-{}", n % 20)).collect();
    for (partitioner, hash) in all {
        let topic = Topic::new(broker, "partitioner", 7);
        let sink = KafkaSink::string()
            .bootstrap_servers(broker)
            .topic(&topic.name)
            .key(|text: &String| text.clone())
            .partitioner(partitioner);
        let env = StreamEnv::with_parallelism(1);
        env.source("keys", Values::new(keys.clone()))
            .sink("out", sink.build().expect("it is sound"));
        env.execute("keys").expect("it ends well");
        let there = read_all(&topic.name);
        assert_eq!(there.len(), 60);
        let places = |key: &str| -> BTreeSet<i32> {
            let of_key = there.iter().filter(|m| m.key.as_deref() == Some(key));
            of_key.map(|m| m.partition).collect()
        };
        let spread = keys.iter().any(|key| places(key).len() > 1);
        assert_eq!(spread, hash.is_none(), "{partitioner:?}");
        if let Some(hash) = hash {
            for key in &keys {
                let place = (hash(key.as_bytes()) % 7) as i32;
                assert_eq!(
                    places(key),
                    BTreeSet::from([place]),
                    "{partitioner:?}: {key}"
                );
            }
        }
    }
}

/// Fills in every part of a message.
struct Whole(String);

impl RecordSerializer<u64> for Whole {
    fn serialize(&self, n: &u64, at: Timestamp, record: &mut KafkaRecord) -> Result<(), String> {
        if *n > 100 {
            return Err(format!("{n} is too much"));
        }
        record.topic(&self.0);
        record.partition(1);
        record.timestamp(at.0 + 5);
        record.key().extend(n.to_be_bytes());
        record.header("n", Some(n.to_string().as_bytes()));
        Ok(())
    }
}

#[test]
fn whole_messages_and_times_of_ones_own() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "whole", 2);
    let run = |sink: KafkaSinkBuilder<u64>, n: u64| {
        let env = StreamEnv::with_parallelism(1);
        let sink = sink.bootstrap_servers(broker).build().expect("it is sound");
        env.source("n", Values::timestamped([(1000i64, n)]))
            .sink("out", sink);
        env.execute("n")
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let whole = || KafkaSink::with_record_serializer(Whole(topic.name.clone()));
    run(whole(), 7).expect("it ends well");
    let said = run(whole(), 101).expect_err("it can't be written");
    assert!(said.contains("101 is too much"), "{said}");
    let text = |n: &u64, into: &mut Vec<u8>| {
        into.extend(n.to_string().as_bytes());
        Ok(())
    };
    let timed = KafkaSink::with_serializer(text)
        .topic(&topic.name)
        .partition_by(|_, _| 0)
        .timestamp(|n| *n as i64 * 1000);
    run(timed, 9).expect("it ends well");
    let mut there = read_all(&topic.name);
    there.sort_by_key(|message| message.partition);
    let [timed, whole] = there.as_slice() else {
        panic!("{there:?}");
    };
    assert_eq!((timed.timestamp, timed.value.as_deref()), (9000, Some("9")));
    assert_eq!((whole.timestamp, whole.partition), (1005, 1));
    assert_eq!(whole.value, None);
    assert_eq!(whole.key.as_deref(), Some("\0\0\0\0\0\0\0\u{7}"));
    assert_eq!(whole.headers, [("n".to_owned(), Some("7".to_owned()))]);
}

#[test]
fn a_partition_that_there_is_not_and_an_epoch_that_is_too_long_are_clear_errors() {
    let topic = fresh_topic("limits");
    let Some(sink) = strings(&topic) else { return };
    let sink = sink.partition_by(|_, partitions| partitions + 1);
    let said = fault(sink.build().expect("it is sound"), false);
    assert!(said.contains("it was given partition 9 of 8"), "{said}");
    let sink = strings(&topic).expect("a broker").exactly_once(&topic);
    let said = fault(sink.max_epoch_bytes(3).build().expect("it is sound"), true);
    assert!(
        said.contains("more than 3 bytes") && said.contains(".max_epoch_bytes(..)"),
        "{said}"
    );
}
