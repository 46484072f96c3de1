//! Without a guarantee, what can't be delivered is counted, and the job goes on.

use crate::kafka;
use integration_tests::kafka::{Topic, broker, total};
use tidegate::connectors::Generator;
use tidegate::connectors::kafka::{DeliveryGuarantee, KafkaRecord, KafkaSink, RecordSerializer};
use tidegate::prelude::*;

/// Numbers, some of which no broker takes: for a partition that there isn't, or too long for the topic.
struct SomeBad;

impl RecordSerializer<u64> for SomeBad {
    fn serialize(&self, n: &u64, _: Timestamp, record: &mut KafkaRecord) -> Result<(), String> {
        record.value().extend(n.to_string().into_bytes());
        match n % 10 {
            3 => record.partition(99),
            7 => record.value().resize(50_000, b'x'),
            _ => record.partition((n % 2) as i32),
        }
        Ok(())
    }
}

fn numbers(sink: KafkaSink<u64>) -> (f64, Result<(), String>) {
    let env = StreamEnv::with_parallelism(1);
    env.source("numbers", Generator::new(1000, |n| n))
        .sink("out", sink);
    let job = env.start("lossy").expect("it starts");
    let metrics = job.telemetry().metrics.clone();
    let ended = job.wait().map(drop).map_err(|error| error.to_string());
    (total(&metrics, "records.lost"), ended)
}

#[test]
fn records_that_can_not_be_delivered_are_counted_and_the_others_arrive() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "lossy", 2);
    kafka::limit_messages(&topic.name, 10_000);
    let some_bad = || {
        KafkaSink::with_record_serializer(SomeBad)
            .bootstrap_servers(broker)
            .topic(&topic.name)
            // A broker refuses all that was sent together.
            .property("batch.num.messages", "1")
    };
    let sink = || some_bad().delivery_guarantee(DeliveryGuarantee::None);
    let (lost, ended) = numbers(sink().build().expect("it is sound"));
    assert_eq!(ended, Ok(()));
    assert_eq!(lost, 200.0);
    let mut there: Vec<u64> = kafka::read_all(&topic.name)
        .iter()
        .map(|m| {
            m.value
                .as_deref()
                .expect("a value")
                .parse()
                .expect("a number")
        })
        .collect();
    there.sort_unstable();
    let good = (0..1000).filter(|n| ![3, 7].contains(&(n % 10)));
    assert!(there.into_iter().eq(good));
    let (_, ended) = numbers(some_bad().at_least_once().build().expect("it is sound"));
    let said = ended.expect_err("with a guarantee it fails");
    assert!(
        said.contains(&topic.name) && said.contains("could not be delivered"),
        "{said}"
    );
}
