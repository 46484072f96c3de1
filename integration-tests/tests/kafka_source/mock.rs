//! What librdkafka's cluster inside this process can serve, so that it is tested where no broker can be had.

use super::{numbered, trouble::follow};
use integration_tests::kafka::Topic;
use rdkafka::mocking::MockCluster;
use tidegate::connectors::kafka::KafkaSource;
use tidegate::prelude::*;

#[test]
fn records_are_read_from_a_cluster_in_this_process() {
    let cluster = MockCluster::new(2).expect("librdkafka has one");
    cluster
        .create_topic("mocked", 4, 1)
        .expect("the name is free");
    let topic = Topic::existing(&cluster.bootstrap_servers(), "mocked");
    numbered(&topic, 4, 0..2000);
    let source = || {
        KafkaSource::string()
            .bootstrap_servers(cluster.bootstrap_servers())
            .topic("mocked")
    };
    for parallelism in [1, 3] {
        let source = source().bounded(true).build().unwrap();
        let output = tidegate::testing::run(parallelism, |env| env.source("numbers", source));
        let mut values: Vec<i64> = output
            .unwrap()
            .values()
            .iter()
            .map(|n| n.parse().unwrap())
            .collect();
        values.sort_unstable();
        assert_eq!(values, (0..2000).collect::<Vec<_>>());
    }
    // Unbounded, with brokers that go and come back.
    let mut down = false;
    let seen = follow(source().build().unwrap(), |seen| {
        if seen.len() == 2000 && !std::mem::replace(&mut down, true) {
            for broker in [1, 2] {
                cluster.broker_down(broker).expect("there is one");
                cluster.broker_up(broker).expect("there is one");
            }
            numbered(&topic, 4, 2000..2100);
        }
        seen.len() >= 2100
    });
    assert_eq!(seen.unwrap().len(), 2100);
}

#[test]
fn a_topic_that_nobody_made_is_one_clear_error() {
    let cluster = MockCluster::new(1).expect("librdkafka has one");
    let source = KafkaSource::bytes()
        .bootstrap_servers(cluster.bootstrap_servers())
        .topic("nowhere")
        .start_timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let error = tidegate::testing::run(1, |env| env.source("nothing", source))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("there is no topic 'nowhere'"), "{error}");
}
