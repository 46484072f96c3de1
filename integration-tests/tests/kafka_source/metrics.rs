//! What a source shows of itself: values, and not only names.

use super::numbered;
use integration_tests::kafka::{Topic, broker, shown, total};
use integration_tests::until;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use tidegate::connectors::BlackHole;
use tidegate::connectors::kafka::KafkaSource;
use tidegate::engine::clock::Clock;
use tidegate::engine::metrics::MetricRegistry;
use tidegate::prelude::*;

/// A job that counts what it reads, and stands still while the flag is up.
fn counting(
    topic: &Topic,
    stands: &Arc<AtomicBool>,
) -> (RunningJob, MetricRegistry, Arc<AtomicU64>) {
    let source = KafkaSource::string()
        .bootstrap_servers(broker().expect("there is one"))
        .topic(&topic.name);
    let (seen, stands) = (Arc::new(AtomicU64::new(0)), stands.clone());
    let env = StreamEnv::with_parallelism(1);
    let counted = seen.clone();
    env.source("numbers", source.build().expect("the source is sound"))
        .map(move |_| {
            while stands.load(SeqCst) {
                std::thread::park_timeout(Duration::from_millis(5));
            }
            counted.fetch_add(1, SeqCst)
        })
        .sink("nowhere", BlackHole);
    let job = env.start("counting").expect("it starts");
    let metrics = job.telemetry().metrics.clone();
    (job, metrics, seen)
}

fn ends(job: RunningJob) {
    job.cancel();
    let _ = job.wait();
}

/// Without a group and without checkpoints, and while the source gets no turn.
#[test]
fn lag_is_what_is_still_to_be_read() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "lag", 3);
    numbered(&topic, 2, 0..3000);
    let stands = Arc::new(AtomicBool::new(true));
    let (job, metrics, seen) = counting(&topic, &stands);
    let lag = || total(&metrics, "records.lag");
    until("all of it is to be read", || lag() == 3000.0);
    numbered(&topic, 2, 3000..5000);
    until("more is to be read", || lag() == 5000.0);
    stands.store(false, SeqCst);
    until("nothing is to be read", || lag() == 0.0);
    assert_eq!(seen.load(SeqCst), 5000);
    stands.store(true, SeqCst);
    topic.append(1, None, Some(b"1"), 1);
    numbered(&topic, 2, 5000..5100);
    until("more is to be read again", || lag() == 101.0);
    let mut partitions: Vec<_> = shown(&metrics, "partition.lag")
        .into_iter()
        .map(|(labels, lag)| {
            let label = |name: &str| {
                labels
                    .iter()
                    .find(|(n, _)| n == name)
                    .map(|(_, v)| v.clone())
            };
            assert_eq!(label("topic").as_deref(), Some(&*topic.name));
            (label("partition"), lag)
        })
        .collect();
    partitions.sort_by_key(|(partition, _)| partition.clone());
    let lags = [("0", 50.0), ("1", 51.0), ("2", 0.0)].map(|(p, lag)| (Some(p.to_owned()), lag));
    assert_eq!(partitions, lags);
    stands.store(false, SeqCst);
    ends(job);
}

#[test]
fn latency_is_that_of_the_newest_record_of_a_turn_and_each_record_counts_once() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "latency", 1);
    let now = || Clock::System.now().0;
    for _ in 0..600 {
        topic.append(0, None, Some(b"old"), now() - 3_600_000);
    }
    topic.flush();
    let stands = Arc::new(AtomicBool::new(false));
    let (job, metrics, seen) = counting(&topic, &stands);
    let latency = || total(&metrics, "processing.latency");
    let consumed = || total(&metrics, "records.consumed");
    until("old ones are read", || {
        seen.load(SeqCst) == 600 && consumed() == 600.0
    });
    let old = latency();
    assert!(old >= 3_600_000.0, "{old}");
    // One after the other, so that none fills a slice.
    for n in 1..=3 {
        topic.append(0, None, Some(b"young"), now() - 5000);
        topic.flush();
        until("a young one is read", || consumed() == f64::from(600 + n));
        let young = latency() - old;
        let n = f64::from(n);
        assert!(
            young >= n * 5000.0 && young < n * 60_000.0,
            "{young} of {n}"
        );
    }
    ends(job);
}
