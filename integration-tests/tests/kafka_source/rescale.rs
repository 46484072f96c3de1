//! A job that is stopped with a savepoint and carried on with more and with fewer subtasks reads each record
//! once; and it shows how far it is.

use super::numbered;
use integration_tests::PATIENCE;
use integration_tests::kafka::{Topic, broker};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::{Checkpointing, Restore, Target};
use tidegate::connectors::kafka::KafkaSource;
use tidegate::connectors::kafka::source::{KafkaSourceBuilder, Text};
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy, SavepointKind};
use tidegate::prelude::*;

fn target(folder: &Path) -> Target {
    let storage = Arc::new(LocalStorage::new(folder));
    let folder = "savepoint".to_owned();
    Target { storage, folder }
}

/// Reads at this parallelism until at least so many records were seen, and stops with a savepoint.
fn read_on(
    topic: &Topic,
    parallelism: u32,
    at_least: usize,
    from: Option<&Path>,
    to: &Path,
) -> Vec<i64> {
    let source = KafkaSource::string()
        .bootstrap_servers(broker().expect("there is one"))
        .topic(&topic.name);
    let seen = carry_on(source, parallelism, at_least, from, to);
    seen.expect("it ends well")
}

/// The same, of a source of the caller's own. An error where the job fails meanwhile.
pub fn carry_on(
    source: KafkaSourceBuilder<Text>,
    parallelism: u32,
    at_least: usize,
    from: Option<&Path>,
    to: &Path,
) -> Result<Vec<i64>, String> {
    let mut env = StreamEnv::with_parallelism(parallelism);
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(Duration::from_millis(50)));
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(to)));
    checkpointing.restart = RestartStrategy::None;
    checkpointing.restore = from.map_or(Restore::Nothing, |from| Restore::From(target(from)));
    env.run_settings_mut().checkpointing = Some(checkpointing);
    let collect = Collect::new();
    env.source("numbers", source.build().expect("the source is sound"))
        .map(|n| n.parse::<i64>().unwrap_or(-1))
        .sink("seen", collect.clone());
    let job = env.start("rescaled").expect("it starts");
    let (started, mut seen) = (Instant::now(), Vec::new());
    while seen.len() < at_least {
        assert!(started.elapsed() < PATIENCE, "{} of {at_least}", seen.len());
        if job.ended() {
            return job.wait().map(|_| seen).map_err(|error| error.to_string());
        }
        seen.extend(collect.take().into_iter().map(|(_, n)| n));
        std::thread::park_timeout(Duration::from_millis(5));
    }
    if at_least > 0 {
        let shown = job.telemetry().prometheus();
        assert!(
            shown.contains("tidegate_kafka_records_consumed_total"),
            "{shown}"
        );
        for name in ["records_per_second", "records_lag", "processing_latency"] {
            assert!(
                shown.contains(&format!("tidegate_kafka_{name}")),
                "{name}: {shown}"
            );
        }
    }
    job.savepoint(SavepointKind::Stop, Some(target(to)))
        .expect("it stops");
    job.wait().expect("it ends well");
    seen.extend(collect.take().into_iter().map(|(_, n)| n));
    Ok(seen)
}

#[test]
fn it_goes_on_with_more_and_with_fewer_subtasks() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "rescaled", 8);
    let folder = tempfile::tempdir().unwrap();
    let place = |n: usize| folder.path().join(n.to_string());
    let (mut seen, mut written) = (Vec::new(), 0);
    for (n, parallelism) in [2, 3, 1, 10].into_iter().enumerate() {
        numbered(&topic, 8, written..written + 4000);
        written += 4000;
        // The first is stopped before it has seen all there is.
        let enough = if n == 0 {
            1000
        } else {
            written as usize - seen.len()
        };
        let from = n.checked_sub(1).map(place);
        seen.extend(read_on(
            &topic,
            parallelism,
            enough,
            from.as_deref(),
            &place(n),
        ));
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..written).collect::<Vec<_>>());
}
