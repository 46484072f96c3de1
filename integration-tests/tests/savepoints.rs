//! Savepoints from end to end: taken, stopped with, drained into, and carried on with another parallelism,
//! other operators and other types.

#[path = "savepoints/changes.rs"]
mod changes;
#[path = "savepoints/damage.rs"]
mod damage;
#[path = "golden/mod.rs"]
mod golden;
#[path = "savepoints/job.rs"]
mod job;
#[path = "savepoints/ledger.rs"]
mod ledger;
#[path = "savepoints/options.rs"]
mod options;
#[path = "savepoints/pace.rs"]
mod pace;

use job::{EVENTS, Run, answers, finish, has_read, start, target};
use ledger::Ledger;
use pace::Pace;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use tempfile::TempDir;
use tidegate::actors::checkpointing::Restore;
use tidegate::engine::checkpoint::SavepointKind;
use tidegate::engine::state::{RocksDbSettings, StateBackend};
use tidegate::prelude::*;

/// Fast enough for a test, and slow enough to be stopped on the way.
const RATE: f64 = 20_000.0;

/// What a run that nobody stops puts out.
fn uninterrupted() -> &'static Vec<String> {
    static ANSWERS: OnceLock<Vec<String>> = OnceLock::new();
    ANSWERS.get_or_init(|| {
        let (folder, ledger) = (folder(), Ledger::default());
        finish(&Run::default(), folder.path(), &ledger);
        let answers = answers(&ledger);
        for kind in [
            "window", "session", "second", "key", "joined", "near", "running",
        ] {
            let of_kind = answers.iter().filter(|a| a.starts_with(kind)).count();
            assert!(of_kind >= 41, "{of_kind} lines of {kind}");
        }
        answers
    })
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn assert_whole(ledger: &Ledger, what: &str) {
    let (got, want) = (answers(ledger), uninterrupted());
    if got != *want {
        let missing: Vec<_> = want
            .iter()
            .filter(|w| got.binary_search(w).is_err())
            .collect();
        let extra: Vec<_> = got
            .iter()
            .filter(|g| want.binary_search(g).is_err())
            .collect();
        let few = |all: &[&String]| {
            format!(
                "{}: {:?}",
                all.len(),
                all.iter().take(5).collect::<Vec<_>>()
            )
        };
        panic!(
            "{what}: {} lines for {}; missing {}; too many {}",
            got.len(),
            want.len(),
            few(&missing),
            few(&extra)
        );
    }
}

/// A job that has read so many events, too slow to come to its end meanwhile.
fn under_way(run: Run, events: u64, folder: &Path, ledger: &Ledger) -> RunningJob {
    let run = Run {
        pace: Some(run.pace.unwrap_or_else(|| Pace::of(RATE))),
        ..run
    };
    let job = start(&run, folder, ledger).expect("starts");
    has_read(&job, events);
    job
}

/// Runs the job to its middle and ends it there.
fn stopped(parallelism: u32, folder: &Path, ledger: &Ledger, into: Option<&Path>) -> PathBuf {
    let run = Run {
        parallelism,
        ..Run::default()
    };
    let job = under_way(run, EVENTS / 2, folder, ledger);
    let place = job.savepoint(SavepointKind::Stop, into.map(target));
    job.wait().expect("it ends well");
    PathBuf::from(place.expect("a savepoint"))
}

#[test]
fn a_stopped_job_is_carried_on_at_half_and_double_parallelism() {
    for (before, after) in [
        (1, 2),
        (2, 4),
        (4, 2),
        (2, 1),
        (3, 3),
        (4, 3),
        (1, 4),
        (7, 2),
    ] {
        let (folder, ledger) = (folder(), Ledger::default());
        let place = stopped(before, folder.path(), &ledger, None);
        assert!(!ledger.lines().is_empty(), "what it covers is committed");
        let run = Run {
            parallelism: after,
            ..Run::from(&place)
        };
        finish(&run, folder.path(), &ledger);
        assert_whole(&ledger, &format!("{before} -> {after}"));
    }
}

#[test]
fn as_many_subtasks_as_key_groups_are_carried_on_by_fewer_and_the_other_way_round() {
    for (before, after) in [(8, 3), (3, 8)] {
        let (folder, ledger) = (folder(), Ledger::default());
        let run = |parallelism| Run {
            parallelism,
            max_parallelism: 8,
            ..Run::default()
        };
        let job = under_way(run(before), EVENTS / 2, folder.path(), &ledger);
        let place = job.savepoint(SavepointKind::Stop, None);
        job.wait().expect("it ends well");
        let place = PathBuf::from(place.expect("a savepoint"));
        let after = Run {
            restore: Run::from(&place).restore,
            ..run(after)
        };
        finish(&after, folder.path(), &ledger);
        assert_whole(&ledger, &format!("{before} -> {} of 8", after.parallelism));
    }
}

#[test]
fn state_in_rocksdb_is_carried_on_there_and_in_memory() {
    let spills = folder();
    let rocksdb = StateBackend::RocksDb(RocksDbSettings {
        state_dir: spills.path().to_owned(),
        table_memory: 4096,
        ..RocksDbSettings::default()
    });
    for (before, after) in [
        (rocksdb.clone(), StateBackend::Memory),
        (StateBackend::Memory, rocksdb.clone()),
        (rocksdb.clone(), rocksdb.clone()),
    ] {
        let (folder, ledger) = (folder(), Ledger::default());
        let run = Run {
            state: before,
            ..Run::default()
        };
        let job = under_way(run, EVENTS / 2, folder.path(), &ledger);
        let place = job.savepoint(SavepointKind::Stop, None);
        job.wait().expect("it ends well");
        let run = Run {
            parallelism: 3,
            state: after,
            ..Run::from(Path::new(&place.expect("a savepoint")))
        };
        finish(&run, folder.path(), &ledger);
        assert_whole(&ledger, "with RocksDB before, behind, or both");
    }
}

#[test]
fn a_job_that_fails_before_its_next_checkpoint_goes_back_to_a_savepoint_that_was_moved() {
    let (folder, elsewhere, ledger) = (folder(), self::folder(), Ledger::default());
    let place = stopped(2, folder.path(), &ledger, None);
    let moved = elsewhere.path().join("moved");
    std::fs::rename(&place, &moved).expect("moves");
    let other = self::folder();
    let run = Run::from(&moved);
    let mut env = job::env(&run, other.path());
    let checkpointing = env.run_settings_mut().checkpointing.as_mut().expect("set");
    checkpointing.restart = tidegate::engine::checkpoint::RestartStrategy::FixedDelay {
        attempts: 1,
        delay: Duration::from_millis(1),
    };
    job::define(&env, &run, &ledger);
    let failed = Arc::new(AtomicBool::new(false));
    let fails = failed.clone();
    env.source("trouble", Generator::new(5_000, |n| n))
        .map(move |n: u64| assert!(n < 4_999 || fails.swap(true, SeqCst), "as planned"))
        .sink("nowhere", BlackHole);
    let job = env.start("all kinds").expect("starts");
    while !job.ended() {
        std::thread::yield_now();
    }
    assert_eq!(job.attempt(), 2);
    job.wait().expect("the second attempt ends well");
    assert!(failed.load(SeqCst));
    assert_whole(&ledger, "from the savepoint, twice");
}

#[test]
fn a_job_goes_on_after_a_savepoint_and_the_savepoint_can_be_carried_on_too() {
    let (folder, ledger) = (folder(), Ledger::default());
    let pace = Pace::of(RATE);
    let run = Run {
        pace: Some(pace.clone()),
        ..Run::default()
    };
    let job = under_way(run, EVENTS / 3, folder.path(), &ledger);
    let place = job
        .savepoint(SavepointKind::Savepoint, None)
        .expect("a savepoint");
    assert!(
        ledger.lines().is_empty(),
        "nothing is committed because of it"
    );
    pace.let_go();
    job.wait().expect("it goes on to its end");
    assert_whole(&ledger, "the job that went on");
    for parallelism in [1, 3] {
        let (other, ledger) = (self::folder(), Ledger::default());
        let run = Run {
            parallelism,
            ..Run::from(Path::new(&place))
        };
        finish(&run, other.path(), &ledger);
        assert_whole(&ledger, "the savepoint");
    }
}

#[test]
fn a_drained_job_tells_all_that_it_has_read() {
    let (folder, ledger) = (folder(), Ledger::default());
    let job = under_way(Run::default(), EVENTS / 2, folder.path(), &ledger);
    let place = job
        .savepoint(SavepointKind::Drain, None)
        .expect("a savepoint");
    let result = job.wait().expect("it ends well");
    let read: u64 = result
        .subtasks
        .iter()
        .filter(|s| s.vertex.starts_with("events"))
        .map(|s| s.records_in)
        .sum();
    assert!((EVENTS / 2..EVENTS).contains(&read), "{read}");
    let count = |kind: &str| {
        let lines = ledger.lines().into_iter().filter(|l| l.starts_with(kind));
        lines
            .map(|l| {
                l.rsplit(' ')
                    .next()
                    .and_then(|n| n.parse::<u64>().ok())
                    .expect("a count")
            })
            .sum::<u64>()
    };
    assert_eq!(count("window"), read, "all windows have fired");
    assert_eq!(count("session"), read);
    assert!(Path::new(&place).join("_metadata").exists());
    // It is the end of the job: going on from it finds nothing more to tell of what was read.
    let before = ledger.lines();
    let latest = Run {
        restore: Restore::Latest,
        ..Run::default()
    };
    let job = start(&latest, folder.path(), &ledger).expect("starts");
    job.wait().expect("ends");
    let after = ledger.lines();
    assert!(before.iter().all(|line| after.binary_search(line).is_ok()));
}

#[test]
fn latest_is_where_the_job_was_stopped_wherever_that_lies() {
    let (folder, elsewhere, ledger) = (folder(), self::folder(), Ledger::default());
    let run = Run {
        interval: Some(Duration::from_millis(30)),
        ..Run::default()
    };
    let job = under_way(run, EVENTS / 2, folder.path(), &ledger);
    let mine = elsewhere.path().join("mine");
    let place = job
        .savepoint(SavepointKind::Stop, Some(target(&mine)))
        .expect("a savepoint");
    job.wait().expect("ends well");
    assert_eq!(Path::new(&place), mine);
    let latest = Run {
        parallelism: 3,
        restore: Restore::Latest,
        ..Run::default()
    };
    // While it is away, no older checkpoint is taken in its stead.
    let away = elsewhere.path().join("away");
    std::fs::rename(&mine, &away).expect("moves");
    let job = start(&latest, folder.path(), &ledger).expect("starts");
    let error = job.wait().expect_err("refused").to_string();
    for words in [
        "with which the job was stopped",
        "mine/_metadata",
        "--restore",
    ] {
        assert!(error.contains(words), "{error}");
    }
    std::fs::rename(&away, &mine).expect("moves");
    finish(&latest, folder.path(), &ledger);
    assert_whole(&ledger, "latest");
}

#[test]
fn latest_is_never_a_savepoint_on_the_way() {
    let (folder, ledger) = (folder(), Ledger::default());
    let run = Run {
        interval: Some(Duration::from_millis(30)),
        ..Run::default()
    };
    let job = under_way(run, EVENTS / 2, folder.path(), &ledger);
    job.savepoint(SavepointKind::Savepoint, None)
        .expect("a savepoint");
    // Killed at once: what was committed is what a checkpoint before the savepoint covers, or one behind it.
    job.cancel();
    job.wait().expect_err("cancelled");
    let latest = Run {
        restore: Restore::Latest,
        ..Run::default()
    };
    finish(&latest, folder.path(), &ledger);
    assert_whole(&ledger, "after the savepoint");
}

#[test]
fn a_run_from_scratch_never_goes_back_to_one_before_it() {
    let (folder, ledger) = (folder(), Ledger::default());
    stopped(2, folder.path(), &ledger, None);
    // It fails before its first checkpoint: what it goes on from is the beginning.
    let again = Ledger::default();
    let env = job::env(&Run::default(), folder.path());
    let mut env = env;
    let checkpointing = env.run_settings_mut().checkpointing.as_mut().expect("set");
    checkpointing.restart = tidegate::engine::checkpoint::RestartStrategy::FixedDelay {
        attempts: 1,
        delay: Duration::from_millis(1),
    };
    let failed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    env.source("events", Generator::new(100, |n| n))
        .map(move |n: u64| {
            let before = failed.swap(true, std::sync::atomic::Ordering::SeqCst);
            assert!(before, "as planned");
            n.to_string()
        })
        .sink("out", again.page("out"));
    env.execute("all kinds")
        .expect("the second attempt ends well");
    assert_eq!(again.lines().len(), 100);
}
