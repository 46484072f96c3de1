//! Two runs of one job at a time: the older one finds out by the checkpoints themselves, whatever its sinks are.

use integration_tests::until;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::{Checkpointing, Restore};
use tidegate::connectors::Generator;
use tidegate::engine::checkpoint::CheckpointSettings;
use tidegate::prelude::*;

fn start(folder: &Path) -> RunningJob {
    let mut env = StreamEnv::with_parallelism(1);
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(Duration::from_millis(20)));
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder)));
    checkpointing.restore = Restore::Latest;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    let numbers = Generator::new(u64::MAX, |n| n).per_second(1000.0);
    env.source("numbers", numbers).sink("nothing", BlackHole);
    env.start("claimed").expect("it starts")
}

/// The numbers of the complete checkpoints.
fn complete(folder: &Path) -> Vec<u64> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let whole = entries.filter(|entry| entry.path().join("_metadata").is_file());
    let number = |name: &str| name.strip_prefix("chk-")?.parse().ok();
    let mut all: Vec<u64> = whole
        .filter_map(|entry| number(entry.file_name().to_str()?))
        .collect();
    all.sort_unstable();
    all
}

fn is_told(job: RunningJob) {
    until("the older one stops", || job.ended());
    let error = job.wait().expect_err("it stops").to_string();
    assert!(
        error.contains("another run of this job has begun"),
        "{error}"
    );
}

#[test]
fn the_older_run_stops_and_what_it_still_publishes_is_older_than_all_of_the_newer_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let old = start(folder);
    until("checkpoints", || complete(folder).len() >= 2);
    let new = start(folder);
    is_told(old);
    // Now one that hangs between its last look and the publication.
    let (held, release) = (
        Arc::new(AtomicU32::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let scenario = fail::FailScenario::setup();
    let (first, go) = (held.clone(), release.clone());
    let hold = move || {
        if first.fetch_add(1, SeqCst) == 0 {
            while !go.load(SeqCst) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    };
    fail::cfg_callback("checkpointing::claimed", hold).expect("it can be watched");
    until("it hangs", || held.load(SeqCst) > 0);
    let before = complete(folder);
    let newest = start(folder);
    until("the newest goes on", || {
        complete(folder).last() > before.last()
    });
    let own = complete(folder).last().copied();
    release.store(true, SeqCst);
    is_told(new);
    let all = complete(folder);
    let late: Vec<_> = all.iter().filter(|id| !before.contains(id)).collect();
    assert!(
        late.first().copied() < own.as_ref(),
        "what hung came late and is older: {late:?}, {own:?}"
    );
    let more = all.last().copied();
    until("the newest is alone", || {
        complete(folder).last().copied() > more
    });
    newest.cancel();
    let _ = newest.wait();
    scenario.teardown();
}
