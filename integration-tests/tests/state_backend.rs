//! Whole jobs whose state is larger than the memory it may use: the same answers as in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::Checkpointing;
use tidegate::engine::checkpoint::CheckpointSettings;
use tidegate::engine::checkpoint::storage::checkpoints;
use tidegate::engine::state::{RocksDbSettings, StateBackend};
use tidegate::prelude::*;

/// The highest count and sum of each key.
fn totals(parallelism: u32, backend: StateBackend) -> BTreeMap<u64, (u64, u64)> {
    let mut env = StreamEnv::with_parallelism(parallelism);
    env.settings_mut().state = backend;
    let out = Collect::new();
    env.source("numbers", Generator::new(60_000, |n| n))
        .map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20)
        .key_by(|n| *n % 9973)
        .fold((0u64, 0u64), |total, key, n| {
            total.0 += 1;
            total.1 = total.1.wrapping_add(n);
            (*key, *total)
        })
        .key_by(|(key, _)| *key)
        .reduce(|old, new| if old.1.0 > new.1.0 { *old } else { new })
        .sink("out", out.clone());
    env.execute("totals").expect("the job runs");
    let mut highest = BTreeMap::new();
    for (key, total) in out.values() {
        let so_far = highest.entry(key).or_insert(total);
        *so_far = total.max(*so_far);
    }
    highest
}

#[test]
fn a_job_with_its_state_in_rocksdb_gives_the_answers_of_one_in_memory() {
    let folder = tempfile::tempdir().expect("a folder");
    let rocksdb = StateBackend::RocksDb(RocksDbSettings {
        state_dir: folder.path().to_owned(),
        table_memory: 50_000,
        ..RocksDbSettings::default()
    });
    let expected = totals(1, StateBackend::Memory);
    assert_eq!(expected.len(), 9973);
    for parallelism in [1, 3] {
        let got = totals(parallelism, rocksdb.clone());
        assert!(got == expected, "parallelism {parallelism}");
    }
    let left = std::fs::read_dir(folder.path()).expect("lists").count();
    assert_eq!(left, 0, "nothing stays behind");
}

#[test]
fn a_folder_that_can_t_be_used_is_told() {
    let env = {
        let mut env = StreamEnv::with_parallelism(1);
        env.settings_mut().state = StateBackend::RocksDb(RocksDbSettings {
            state_dir: "/proc/nowhere".into(),
            ..RocksDbSettings::default()
        });
        env
    };
    let out = Collect::new();
    env.source("numbers", Generator::new(3, |n| n))
        .sink("out", out.clone());
    let error = env.execute("nowhere").expect_err("no such folder");
    assert!(error.to_string().contains("/proc/nowhere"), "{error}");
}

#[test]
fn state_that_spills_is_seen_in_metrics_and_observations_and_checkpoints_share_its_files() {
    let (folder, storage) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let mut env = StreamEnv::with_parallelism(2);
    env.settings_mut().state = StateBackend::RocksDb(RocksDbSettings {
        state_dir: folder.path().to_owned(),
        table_memory: 50_000,
        ..RocksDbSettings::default()
    });
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(Duration::from_millis(20)));
    let checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(storage.path())));
    env.run_settings_mut().checkpointing = Some(checkpointing);
    env.run_settings_mut().source_rate = Some(100_000.0);
    env.source("numbers", Generator::unbounded(|n| n))
        .key_by(|n| *n % 30_011)
        .fold(0u64, |total, key, n| {
            *total += n;
            (*key, *total)
        })
        .sink("out", BlackHole);
    let job = env.start("seen").expect("starts");
    let telemetry = job.telemetry().clone();
    let began = Instant::now();
    let newest = loop {
        let state = telemetry.observe().state;
        let stored = state.map_or(0, |state| state.backends.iter().map(|b| b.live_files).sum());
        let shared = std::fs::read_dir(storage.path().join("shared")).map_or(0, Iterator::count);
        let listed = checkpoints(&LocalStorage::new(storage.path())).expect("lists");
        let complete = listed.into_iter().rfind(|listed| listed.complete);
        match complete {
            Some(newest) if stored > 0 && shared > 0 => break newest,
            _ => assert!(
                began.elapsed() < Duration::from_secs(60),
                "nothing to be seen"
            ),
        }
        std::thread::yield_now();
    };
    assert!(
        newest.bytes < 30_011 * 8,
        "{newest:?}: the entries are in shared files"
    );
    let text = telemetry.prometheus();
    for name in [
        "tidegate_state_live_file_bytes{",
        "tidegate_state_pressure",
        "tidegate_state_written_bytes",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    let state = telemetry.observe().state.expect("it spills");
    assert_eq!(state.backends.len(), 2, "one in each subtask of the fold");
    assert!(state.backends.iter().all(|backend| backend.job == "seen"));
    job.cancel();
    drop(job.wait());
}
