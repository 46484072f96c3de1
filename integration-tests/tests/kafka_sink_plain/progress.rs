//! What becomes of an exactly-once job whose progress topic is meddled with, and of checkpoints without output.

use crate::kafka;
use integration_tests::kafka::{Topic, broker, total};
use integration_tests::until;
use std::sync::Arc;
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::Checkpointing;
use tidegate::connectors::Generator;
use tidegate::connectors::kafka::{ClientSettings, KafkaAdmin, KafkaSink};
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy};
use tidegate::engine::metrics::MetricRegistry;
use tidegate::prelude::*;

/// A job that writes numbers exactly once, so many per second, with checkpoints every 50 ms.
fn numbers(
    topic: &Topic,
    count: u64,
    rate: f64,
    folder: &std::path::Path,
) -> (RunningJob, MetricRegistry) {
    let mut env = StreamEnv::with_parallelism(1);
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(Duration::from_millis(50)));
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder)));
    checkpointing.restart = RestartStrategy::None;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    let sink = KafkaSink::string()
        .bootstrap_servers(broker().expect("there is one"))
        .topic(&topic.name)
        .exactly_once(&topic.name)
        .progress_topic(format!("{}-progress", topic.name))
        .broker_timeout(Duration::from_secs(5));
    let generator = Generator::new(count, |n: u64| n.to_string()).per_second(rate);
    env.source("numbers", generator)
        .sink("out", sink.build().expect("it is sound"))
        .uid("out");
    let job = env.start("numbers").expect("it starts");
    let metrics = job.telemetry().metrics.clone();
    (job, metrics)
}

#[test]
fn a_progress_topic_that_is_deleted_or_written_by_others_is_one_clear_error() {
    let Some(address) = broker() else { return };
    for poisoned in [true, false] {
        let topic = Topic::new(address, "progress", 1);
        let folder = tempfile::tempdir().expect("a folder");
        let (job, metrics) = numbers(&topic, u64::MAX, 500.0, folder.path());
        let committed = || total(&metrics, "transactions.committed");
        until("it commits", || committed() >= 2.0 || job.ended());
        let progress = format!("{}-progress", topic.name);
        if poisoned {
            kafka::put(&progress, &format!("{}-out-0", topic.name), "poison");
        } else {
            let mut settings = ClientSettings::new();
            settings.bootstrap_servers(address);
            let admin = KafkaAdmin::new(&settings).expect("it is sound");
            admin.remove(&progress).expect("it can be removed");
        }
        let began = std::time::Instant::now();
        until("it ends", || job.ended());
        let said = job.wait().expect_err("it fails").to_string();
        println!("poisoned: {poisoned}, after {:?}: {said}", began.elapsed());
        assert!(said.contains(&progress) && !said.contains('\n'), "{said}");
        let words = if poisoned {
            "nobody but Tidegate may write there"
        } else {
            "progress topic"
        };
        assert!(said.contains(words), "{said}");
    }
}

/// K14.
#[test]
fn checkpoints_without_output_commit_nothing_and_disturb_nothing() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "seldom", 1);
    let folder = tempfile::tempdir().expect("a folder");
    let (job, metrics) = numbers(&topic, 8, 2.0, folder.path());
    let transactions = || total(&metrics, "transactions.committed");
    let result = job.wait().expect("it ends well");
    let taken = result.checkpoints.counts.completed;
    assert!(taken > 12, "{taken} checkpoints in four seconds");
    assert!(
        transactions() <= 9.0 && transactions() >= 2.0,
        "{} of {taken}",
        transactions()
    );
    let there: Vec<_> = kafka::read_all(&topic.name)
        .into_iter()
        .filter_map(|m| m.value)
        .collect();
    let expected: Vec<_> = (0..8).map(|n: u64| n.to_string()).collect();
    assert_eq!(there, expected);
}
