//! The Kafka source against a real broker: what it reads, in which order and up to where, what event time it
//! gives, how it goes on after a failure and at another parallelism, and how it fails.

#[path = "kafka_source/metrics.rs"]
mod metrics;
#[path = "kafka_source/mock.rs"]
mod mock;
#[path = "kafka_source/pace.rs"]
mod pace;
#[path = "kafka_source/places.rs"]
mod places;
#[path = "kafka_source/rescale.rs"]
mod rescale;
#[path = "kafka_source/trouble.rs"]
mod trouble;
#[path = "kafka_source/values.rs"]
mod values;

use integration_tests::kafka::{Topic, broker};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::{Checkpointing, Restore};
use tidegate::connectors::kafka::source::{Deserializer, KafkaSourceBuilder};
use tidegate::connectors::kafka::{EventTime, KafkaSource, StartingOffsets};
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy};
use tidegate::prelude::*;

fn source_of<D: Deserializer>(builder: KafkaSourceBuilder<D>, topic: &Topic) -> KafkaSource<D> {
    let broker = broker().expect("a topic has a broker");
    let builder = builder.bootstrap_servers(broker).topic(&topic.name);
    builder
        .bounded(true)
        .build()
        .expect("these settings are sound")
}

/// Numbers spread over the partitions, each with itself as the timestamp, in seconds, and one second more.
fn numbered(topic: &Topic, partitions: i32, numbers: std::ops::Range<i64>) {
    for n in numbers {
        let value = n.to_string();
        topic.append(
            (n % i64::from(partitions)) as i32,
            None,
            Some(value.as_bytes()),
            (n + 1) * 1000,
        );
    }
    topic.flush();
}

#[test]
fn every_record_is_read_once_at_any_parallelism() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "once", 8);
    numbered(&topic, 8, 0..5000);
    for parallelism in [1, 3, 10] {
        let output = tidegate::testing::run(parallelism, |env| {
            env.source("numbers", source_of(KafkaSource::string(), &topic))
        });
        let output = output.unwrap();
        assert!(
            output
                .iter()
                .all(|(at, n)| at.0 == (n.parse::<i64>().unwrap() + 1) * 1000)
        );
        let mut values: Vec<i64> = output.values().iter().map(|n| n.parse().unwrap()).collect();
        values.sort_unstable();
        assert_eq!(values, (0..5000).collect::<Vec<_>>());
    }
}

#[test]
fn an_empty_topic_ends_at_once() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "empty", 3);
    let output = tidegate::testing::run(2, |env| {
        env.source("nothing", source_of(KafkaSource::bytes(), &topic))
    });
    assert!(output.unwrap().is_empty());
}

#[test]
fn no_record_is_late_because_another_partition_is_ahead() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "ahead", 4);
    // One partition after the other: whoever reads them one by one is hours ahead in some.
    for partition in 0..4 {
        for n in 0..3000 {
            topic.append(partition, None, Some(b"x"), 1 + n * 10_000);
        }
    }
    topic.flush();
    for parallelism in [1, 2] {
        let output = tidegate::testing::run(parallelism, |env| {
            env.source("events", source_of(KafkaSource::bytes(), &topic))
                .watermarks(WatermarkStrategy::monotonous())
                .key_by(|_| ())
                .window(Tumbling::event_time(Duration::from_secs(3600)))
                .count()
                .map(|w| (w.window.start.millis(), w.value))
        });
        let output = output.unwrap();
        assert_eq!(output.result.late(), 0);
        let counts = output.sorted();
        assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 12_000);
        assert_eq!(counts.len(), 9);
    }
}

#[test]
fn starting_offsets_are_kept() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "starts", 2);
    numbered(&topic, 2, 0..10);
    let from = |starting: StartingOffsets| {
        let output = tidegate::testing::run(1, |env| {
            let builder = KafkaSource::string()
                .starting_offsets(starting)
                .group_id(format!("{}-g", topic.name));
            env.source("numbers", source_of(builder, &topic))
        });
        let mut values: Vec<i64> = output
            .unwrap()
            .values()
            .iter()
            .map(|n| n.parse().unwrap())
            .collect();
        values.sort_unstable();
        values
    };
    assert_eq!(from(StartingOffsets::Earliest), (0..10).collect::<Vec<_>>());
    assert_eq!(from(StartingOffsets::Latest), [0i64; 0]);
    assert_eq!(from(StartingOffsets::Timestamp(Timestamp(8000))), [7, 8, 9]);
    assert_eq!(
        from(StartingOffsets::Timestamp(Timestamp(99_000))),
        [0i64; 0]
    );
    let explicit = BTreeMap::from([((topic.name.clone(), 1), 4)]);
    assert_eq!(
        from(StartingOffsets::Explicit(explicit)),
        [0, 2, 4, 6, 8, 9]
    );
    assert_eq!(
        from(StartingOffsets::Group),
        (0..10).collect::<Vec<_>>(),
        "nothing is committed"
    );
}

#[test]
fn bad_records_are_put_aside_with_their_place() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "bad", 1);
    topic.append(0, None, Some(b"{\"n\":1}"), 1);
    topic.append(0, Some("k"), Some(b"{oops"), 2);
    topic.append(0, Some("k"), None, 3);
    topic.append(0, None, Some(b"{\"n\":4}"), 4);
    topic.flush();
    let folder = tempfile::tempdir().unwrap();
    let letters = folder.path().join("letters.jsonl");
    let output = tidegate::testing::run(1, |env| {
        let builder =
            KafkaSource::json::<BTreeMap<String, i64>>().on_error(DeadLetters::file(&letters));
        env.source("events", source_of(builder, &topic))
            .map(|event| event["n"])
    });
    assert_eq!(output.unwrap().sorted(), [1, 4]);
    let letters = std::fs::read_to_string(&letters).unwrap();
    assert!(
        letters.contains(&format!("\"{}[0]@1\"", topic.name)),
        "{letters}"
    );
    assert!(
        letters.contains("{oops") && letters.contains("the value is null"),
        "{letters}"
    );
    let failed = tidegate::testing::run(1, |env| {
        env.source(
            "events",
            source_of(KafkaSource::json::<BTreeMap<String, i64>>(), &topic),
        )
    });
    let error = failed.err().unwrap().to_string();
    assert!(error.contains("[0]@1") && error.contains("JSON"), "{error}");
    // Nulls may be what is meant.
    let output = tidegate::testing::run(1, |env| {
        env.source(
            "events",
            source_of(KafkaSource::string().nullable(), &topic),
        )
    });
    assert_eq!(
        output
            .unwrap()
            .values()
            .iter()
            .filter(|v| v.is_none())
            .count(),
        1
    );
}

#[test]
fn event_time_can_be_in_a_header() {
    use rdkafka::message::{Header, OwnedHeaders};
    use rdkafka::producer::BaseRecord;
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "header", 1);
    for (value, at) in [("a", "5000"), ("b", "never")] {
        let headers = OwnedHeaders::new().insert(Header {
            key: "event-time",
            value: Some(at),
        });
        topic.send(
            BaseRecord::to(&topic.name)
                .payload(value.as_bytes())
                .headers(headers),
        );
    }
    topic.flush();
    let output = tidegate::testing::run(1, |env| {
        let builder = KafkaSource::string().event_time(EventTime::Header("event-time".into()));
        env.source("events", source_of(builder.on_error(OnError::Skip), &topic))
    });
    let output = output.unwrap();
    assert_eq!(output[..], [(Timestamp(5000), "a".to_owned())]);
}

/// A job that counts numbers into windows, fails at some of them, and goes on from its checkpoints.
fn counted(
    topic: &Topic,
    parallelism: u32,
    failures: u32,
    store: &std::path::Path,
    restore: Restore,
) -> BTreeMap<i64, u64> {
    let mut env = StreamEnv::with_parallelism(parallelism);
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(Duration::from_millis(20)));
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(store)));
    checkpointing.restart = RestartStrategy::FixedDelay {
        attempts: 20,
        delay: Duration::from_millis(1),
    };
    checkpointing.restore = restore;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    let (failed, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
    let collect = Collect::new();
    let group = format!("{}-group", topic.name);
    env.source(
        "numbers",
        source_of(KafkaSource::string().group_id(&group), topic),
    )
    .map(move |n| {
        let seen = seen.fetch_add(1, SeqCst);
        if seen % 7000 == 6999 && failed.fetch_add(1, SeqCst) < failures {
            panic!("as planned");
        }
        n.parse::<i64>().unwrap_or(-1)
    })
    .watermarks(WatermarkStrategy::monotonous())
    .key_by(|n| n % 10)
    .window(Tumbling::event_time(Duration::from_secs(1_000_000)))
    .count()
    .map(|w| (w.key, w.value))
    .sink("counts", collect.clone());
    env.execute("counted").expect("it runs");
    collect.take().into_iter().map(|(_, count)| count).collect()
}

#[test]
fn after_failures_nothing_is_missing_and_nothing_is_doubled() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "failures", 8);
    numbered(&topic, 8, 0..40_000);
    let store = tempfile::tempdir().unwrap();
    for parallelism in [2, 3, 1] {
        let folder = store.path().join(parallelism.to_string());
        let counts = counted(&topic, parallelism, 4, &folder, Restore::Nothing);
        assert_eq!(counts.len(), 10);
        assert_eq!(
            counts.into_values().collect::<BTreeSet<_>>(),
            BTreeSet::from([4000])
        );
    }
    let told = topic.committed(&format!("{}-group", topic.name), 0);
    assert_eq!(told, Some(5000), "the group hears how far the job is");
}
