//! What is read of a record, from which topics, and by what its event time is told.

use super::source_of;
use super::trouble::follow;
use integration_tests::kafka::{Topic, broker};
use tidegate::connectors::kafka::source::Deserializer;
use tidegate::connectors::kafka::{ConsumerRecord, EventTime, KafkaSource};
use tidegate::prelude::*;

/// A deserializer of one's own.
#[derive(Clone)]
struct Reversed;

impl Deserializer for Reversed {
    type Item = String;

    fn deserialize(&self, record: &ConsumerRecord<'_>) -> Result<String, String> {
        let value = record.value().ok_or("null")?;
        let text: String = value.iter().rev().map(|byte| *byte as char).collect();
        Ok(format!("{}@{}", text, record.offset()))
    }
}

#[test]
fn numbers_and_what_a_deserializer_of_ones_own_makes() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "numbers", 1);
    let four = Topic::new(broker, "four", 1);
    topic.append(0, None, Some(&(-7i64).to_be_bytes()), 1);
    topic.append(0, None, Some(&42i64.to_be_bytes()), 2);
    four.append(0, None, Some(&(-9i32).to_be_bytes()), 1);
    for one in [&topic, &four] {
        one.flush();
    }
    let run = tidegate::testing::run(1, |env| {
        env.source("n", source_of(KafkaSource::i64(), &topic))
    });
    assert_eq!(run.expect("it ends").values(), [-7, 42]);
    let run = tidegate::testing::run(1, |env| {
        env.source("n", source_of(KafkaSource::i32(), &four))
    });
    assert_eq!(run.expect("it ends").values(), [-9]);
    let run = tidegate::testing::run(1, |env| {
        env.source("n", source_of(KafkaSource::f64(), &topic))
    });
    let floats: Vec<u64> = run
        .expect("it ends")
        .values()
        .iter()
        .map(|n| n.to_bits())
        .collect();
    assert_eq!(floats, [(-7i64) as u64, 42]);
    let short = tidegate::testing::run(1, |env| {
        env.source("n", source_of(KafkaSource::i64(), &four))
    });
    let said = short.expect_err("four are not eight").to_string();
    assert!(said.contains("4 bytes and not the 8 of an i64"), "{said}");
    let words = Topic::new(broker, "words", 1);
    words.append(0, None, Some(b"tide"), 1);
    words.append(0, None, Some(b"gate"), 2);
    words.flush();
    let run = tidegate::testing::run(1, |env| {
        let builder = KafkaSource::deserializer(Reversed).max_poll_records(1);
        env.source("words", source_of(builder, &words))
    });
    assert_eq!(run.expect("it ends").values(), ["edit@0", "etag@1"]);
}

#[test]
fn event_time_is_that_of_the_payload_or_none() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "payload", 1);
    for n in 1..=9 {
        topic.append(0, None, Some(format!("{}", n * 1000).as_bytes()), 77);
    }
    topic.flush();
    let absent = tidegate::testing::run(1, |env| {
        let builder = KafkaSource::string().event_time(EventTime::Absent);
        env.source("numbers", source_of(builder, &topic))
    });
    let absent = absent.expect("it ends");
    assert!(absent.iter().all(|(at, _)| *at == Timestamp::MIN) && absent.len() == 9);
    let payload = tidegate::testing::run(1, |env| {
        let at = |text: &String| Timestamp(text.parse().unwrap_or(0));
        env.source("numbers", source_of(KafkaSource::string(), &topic))
            .watermarks(WatermarkStrategy::monotonous().timestamps(at))
            .key_by(|_| ())
            .window(Tumbling::event_time(Duration::from_secs(5)))
            .count()
            .map(|w| (w.window.start.millis(), w.value))
    });
    assert_eq!(payload.expect("it ends").sorted(), [(0, 4), (5000, 5)]);
}

#[test]
fn several_topics_and_one_that_a_pattern_finds_later() {
    let Some(broker) = broker() else { return };
    let (one, other) = (
        Topic::new(broker, "several-a", 2),
        Topic::new(broker, "several-b", 1),
    );
    for topic in [&one, &other] {
        topic.append(0, None, Some(topic.name.as_bytes()), 1);
        topic.flush();
    }
    let run = tidegate::testing::run(2, |env| {
        let builder = KafkaSource::string().topics([other.name.as_str()]);
        env.source("both", source_of(builder, &one))
    });
    assert_eq!(
        run.expect("it ends").sorted(),
        [one.name.clone(), other.name.clone()]
    );
    let prefix = format!("later-{}", std::process::id());
    let first = Topic::new(broker, &format!("{prefix}-first"), 1);
    first.append(0, None, Some(b"first"), 1);
    first.flush();
    let source = KafkaSource::string()
        .bootstrap_servers(broker)
        .topic_pattern(format!("{prefix}-.*"))
        .discovery_interval(Duration::from_millis(100));
    let mut later = None;
    let seen = follow(source.build().expect("it is sound"), |seen| {
        if seen.len() == 1 && later.is_none() {
            let topic = Topic::new(broker, &format!("{prefix}-second"), 2);
            topic.append(1, None, Some(b"second"), 1);
            topic.flush();
            later = Some(topic);
        }
        seen.len() == 2
    });
    assert_eq!(seen.expect("it reads"), ["first", "second"]);
}
