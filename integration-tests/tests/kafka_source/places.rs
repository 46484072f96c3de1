//! Where reading begins and where it ends: what transactions hide, what a group was told, what a checkpoint knows, and
//! positions that are gone.

use super::rescale::carry_on;
use super::trouble::follow;
use super::{numbered, source_of};
use integration_tests::kafka::{Topic, broker};
use rdkafka::producer::Producer;
use std::collections::BTreeMap;
use tidegate::connectors::kafka::source::{KafkaSourceBuilder, Text};
use tidegate::connectors::kafka::{KafkaSource, StartingOffsets};
use tidegate::prelude::*;

/// All that a bounded source sees, sorted.
fn all(topic: &Topic, builder: KafkaSourceBuilder<Text>) -> Vec<String> {
    let output = tidegate::testing::run(2, |env| env.source("all", source_of(builder, topic)));
    output.expect("it ends well").sorted()
}

#[test]
fn what_was_not_committed_is_not_seen_unless_asked_for() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "transactions", 3);
    let wait = Duration::from_secs(30);
    let committed = topic.transaction("committed");
    topic.append_in(&committed, 0, &["a0", "a1"]);
    topic.append_in(&committed, 1, &["a2"]);
    committed.commit_transaction(wait).expect("it is committed");
    let aborted = topic.transaction("aborted");
    for partition in 0..3 {
        topic.append_in(&aborted, partition, &["b"]);
    }
    aborted.abort_transaction(wait).expect("it is aborted");
    topic.append(0, None, Some(b"c"), 1);
    topic.flush();
    // Partition 1 ends with markers, partition 2 has nothing else that counts, partition 0 goes on behind the
    // beginning of a transaction that is open.
    let open = topic.transaction("open");
    topic.append_in(&open, 0, &["d"]);
    topic.append(0, None, Some(b"e"), 1);
    topic.flush();
    let read = || all(&topic, KafkaSource::string());
    assert_eq!(read(), ["a0", "a1", "a2", "c"]);
    let uncommitted = KafkaSource::string().property("isolation.level", "read_uncommitted");
    let seen = all(&topic, uncommitted);
    assert_eq!(seen, ["a0", "a1", "a2", "b", "b", "b", "c", "d", "e"]);
    open.commit_transaction(wait).expect("it is committed");
    assert_eq!(read(), ["a0", "a1", "a2", "c", "d", "e"]);
}

#[test]
fn a_group_says_where_reading_begins_when_it_is_asked() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "group", 2);
    numbered(&topic, 2, 0..10);
    let group = format!("{}-g", topic.name);
    topic.commit(&group, 0, 3);
    let from = |starting| {
        let builder = KafkaSource::string().group_id(&group);
        all(&topic, builder.starting_offsets(starting))
    };
    let expected = ["1", "3", "5", "6", "7", "8", "9"];
    assert_eq!(from(StartingOffsets::Group), expected, "the other has none");
    assert_eq!(from(StartingOffsets::Earliest).len(), 10);
}

#[test]
fn the_latest_are_those_that_come_and_a_new_partition_is_read_from_its_beginning() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "latest", 2);
    numbered(&topic, 2, 0..10);
    let source = KafkaSource::string()
        .bootstrap_servers(broker)
        .topic(&topic.name)
        .starting_offsets(StartingOffsets::Latest)
        .discovery_interval(Duration::from_millis(100));
    let (mut next, mut grown) = (10, false);
    let seen = follow(source.build().expect("it is sound"), |seen| {
        if seen.is_empty() {
            // From some moment on they are seen.
            topic.append(next % 2, None, Some(next.to_string().as_bytes()), 1);
            next += 1;
        } else if !std::mem::replace(&mut grown, true) {
            topic.grow(3);
            for value in ["new 1", "new 2"] {
                topic.append(2, None, Some(value.as_bytes()), 1);
            }
        }
        topic.flush();
        seen.iter().any(|value| value == "new 2")
    });
    let seen = seen.expect("it reads");
    let old = seen
        .iter()
        .filter(|v| v.parse::<i32>().is_ok_and(|n| n < 10));
    assert_eq!(old.count(), 0, "{seen:?}");
    assert!(seen.iter().any(|value| value == "new 1"), "{seen:?}");
}

fn unbounded(topic: &Topic) -> KafkaSourceBuilder<Text> {
    let source = KafkaSource::string().bootstrap_servers(broker().expect("there is one"));
    source.topic(&topic.name)
}

#[test]
fn a_checkpoint_wins_over_starting_offsets() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "wins", 2);
    numbered(&topic, 2, 0..10);
    let folder = tempfile::tempdir().expect("a folder");
    let place = |n: usize| folder.path().join(n.to_string());
    let seen = carry_on(unbounded(&topic), 1, 10, None, &place(0)).expect("it stops");
    assert_eq!(seen.len(), 10);
    numbered(&topic, 2, 10..20);
    let explicit = BTreeMap::from([((topic.name.clone(), 0), 1)]);
    let starts = [StartingOffsets::Latest, StartingOffsets::Explicit(explicit)];
    for (n, starting) in starts.into_iter().enumerate() {
        let source = unbounded(&topic).starting_offsets(starting);
        let seen = carry_on(source, 2, 10, Some(&place(0)), &place(1 + n));
        let mut seen = seen.expect("it stops");
        seen.sort_unstable();
        assert_eq!(seen, (10..20).collect::<Vec<_>>());
    }
}

#[test]
fn a_position_that_is_gone_is_one_clear_error_unless_another_will_do() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "gone", 1);
    numbered(&topic, 1, 0..10);
    let folder = tempfile::tempdir().expect("a folder");
    let place = |n: usize| folder.path().join(n.to_string());
    carry_on(unbounded(&topic), 1, 10, None, &place(0)).expect("it stops");
    topic.recreate(1);
    numbered(&topic, 1, 100..103);
    let failed = carry_on(unbounded(&topic), 1, 1, Some(&place(0)), &place(1));
    let said = failed.expect_err("it can't go on");
    let words = format!("there is no offset 10 in {}[0] any more", topic.name);
    assert!(
        said.contains(&words) && said.contains("auto.offset.reset"),
        "{said}"
    );
    assert!(!said.contains('\n'), "{said}");
    let earliest = unbounded(&topic).property("auto.offset.reset", "earliest");
    let seen = carry_on(earliest, 1, 3, Some(&place(0)), &place(2));
    assert_eq!(
        seen.expect("it goes on with what there is"),
        [100, 101, 102]
    );
}
