//! Damaged savepoints, and disks that refuse.

use super::job::{EVENTS, Run, define, env, finish, has_read, start};
use super::ledger::Ledger;
use super::pace::Pace;
use super::{RATE, answers, assert_whole, folder, stopped, under_way};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::{Checkpointing, Restore};
use tidegate::engine::checkpoint::storage::{Make, Stored};
use tidegate::engine::checkpoint::{
    CheckpointSettings, CheckpointStorage, Error, RestartStrategy, SavepointKind,
};
use tidegate::engine::sink::SinkWriter;
use tidegate::prelude::*;

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let mut all: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    all.sort();
    all
}

fn refused(run: &Run, folder: &Path) -> String {
    let job = start(run, folder, &Ledger::default()).expect("starts");
    job.wait().expect_err("refused").to_string()
}

#[test]
fn whatever_file_is_damaged_the_job_refuses_and_names_it() {
    let (folder, ledger) = (folder(), Ledger::default());
    let place = stopped(2, folder.path(), &ledger, None);
    let run = Run::from(&place);
    let other = self::folder();
    let all = files(&place);
    assert!(all.len() > 4, "{all:?}");
    for file in &all {
        let good = fs::read(file).expect("reads");
        let mut flipped = good.clone();
        flipped[good.len() / 2] ^= 0x10;
        let cut = &good[..good.len() - 7];
        for damage in [Some(&flipped[..]), Some(cut), Some(&[][..]), None] {
            match damage {
                Some(bytes) => fs::write(file, bytes).expect("writes"),
                None => fs::remove_file(file).expect("removes"),
            }
            let name = file.file_name().expect("a name").to_str().expect("text");
            let error = refused(&run, other.path());
            assert!(error.contains(name), "{name}: {error}");
            fs::write(file, &good).expect("writes");
        }
    }
    finish(&run, folder.path(), &ledger);
    assert_whole(&ledger, "with all files back");
}

#[test]
fn a_damaged_latest_is_refused_and_an_older_one_taken_only_by_name() {
    let (folder, ledger) = (folder(), Ledger::default());
    let run = Run {
        interval: Some(Duration::from_millis(40)),
        ..Run::default()
    };
    let job = under_way(run, EVENTS / 2, folder.path(), &ledger);
    let of_it = || -> Vec<_> {
        let mut complete: Vec<_> = files(folder.path());
        complete.retain(|path| path.join("_metadata").exists());
        complete
    };
    integration_tests::until("two checkpoints are complete", || of_it().len() >= 2);
    job.cancel();
    job.wait().expect_err("cancelled");
    let number = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix("chk-")?.parse::<u64>().ok())
    };
    let mut complete = of_it();
    complete.sort_by_key(number);
    let (newest, older) = (
        complete.pop().expect("one"),
        complete.pop().expect("another"),
    );
    let file = &files(&newest)[1];
    let mut bytes = fs::read(file).expect("reads");
    bytes[20] ^= 1;
    fs::write(file, bytes).expect("writes");
    let latest = Run {
        restore: Restore::Latest,
        ..Run::default()
    };
    let error = refused(&latest, folder.path());
    let name = |path: &Path| path.display().to_string();
    for words in [name(file), name(&older), "--restore".to_owned()] {
        assert!(error.contains(&words), "{words}: {error}");
    }
    let by_name = Ledger::default();
    finish(&Run::from(&older), super::folder().path(), &by_name);
    assert!(!answers(&by_name).is_empty());
}

/// A folder on a disk that may be full.
struct Disk {
    folder: LocalStorage,
    full: AtomicBool,
}

impl Disk {
    fn room(&self, path: &str) -> Result<(), Error> {
        // It has room for some bytes, with which a process claims the job.
        if !self.full.load(SeqCst) || path.starts_with("claims/") {
            return Ok(());
        }
        Err(Error::Failed {
            action: "write",
            path: self.place(path),
            reason: "no space left on device".to_owned(),
            advice: "make room there",
        })
    }
}

impl CheckpointStorage for Disk {
    fn place(&self, path: &str) -> String {
        self.folder.place(path)
    }

    fn lasting_place(&self, path: &str) -> String {
        self.folder.lasting_place(path)
    }

    fn write_stream(&self, path: &str, make: &mut Make<'_>) -> Result<(), Error> {
        self.room(path)?;
        self.folder.write_stream(path, make)
    }

    fn publish(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        self.room(path)?;
        self.folder.publish(path, bytes)
    }

    fn read(&self, path: &str, at_most: u64) -> Result<Vec<u8>, Error> {
        self.folder.read(path, at_most)
    }

    fn list(&self, folder: &str) -> Result<Vec<Stored>, Error> {
        self.folder.list(folder)
    }

    fn delete(&self, path: &str) -> Result<(), Error> {
        self.folder.delete(path)
    }
}

/// Starts the job on a disk; it is never restarted.
fn start_on(disk: &Arc<Disk>, run: &Run, ledger: &Ledger) -> RunningJob {
    let mut env = env(run, Path::new("unused"));
    let mut checkpointing = Checkpointing::new(disk.clone());
    checkpointing.restart = RestartStrategy::None;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    define(&env, run, ledger);
    env.start("all kinds").expect("starts")
}

#[test]
fn a_full_disk_declines_checkpoints_and_at_last_the_job() {
    let folder = folder();
    let disk = Arc::new(Disk {
        folder: LocalStorage::new(folder.path()),
        full: AtomicBool::new(true),
    });
    let ledger = Ledger::default();
    let often = Run {
        pace: Some(Pace::of(RATE / 2.0)),
        interval: Some(Duration::from_millis(20)),
        ..Run::default()
    };
    let job = start_on(&disk, &often, &ledger);
    let error = job.wait().expect_err("too many failures").to_string();
    for words in [
        "4 checkpoints failed in a row and 3 are tolerated",
        "chk-",
        "no space left on device",
    ] {
        assert!(error.contains(words), "{error}");
    }
    let left = files(folder.path());
    assert_eq!(left, [folder.path().join("claims")], "nothing half is left");
    // A savepoint that fails is no reason to end: it says why, and the next one succeeds.
    let run = Run {
        pace: Some(Pace::of(RATE)),
        ..Run::default()
    };
    let ledger = Ledger::default();
    let job = start_on(&disk, &run, &ledger);
    has_read(&job, EVENTS / 4);
    let reason = job
        .savepoint(SavepointKind::Stop, None)
        .expect_err("no room");
    assert!(
        reason.contains("no space left") && reason.contains("savepoint-1-"),
        "{reason}"
    );
    has_read(&job, EVENTS / 2);
    disk.full.store(false, SeqCst);
    let place = job
        .savepoint(SavepointKind::Stop, None)
        .expect("there is room again");
    job.wait().expect("ends well");
    finish(&Run::from(Path::new(&place)), folder.path(), &ledger);
    assert_whole(&ledger, "after all");
}

/// Takes nothing while it is stalled.
#[derive(Clone)]
struct Stalling {
    stalled: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl Sink<u64> for Stalling {
    type Writer = Stalling;

    fn open(&self, _: &mut OpenContext<'_>) -> Flow<Stalling> {
        Ok(self.clone())
    }
}

impl SinkWriter<u64> for Stalling {
    fn has_room(&self) -> bool {
        !self.stalled.load(SeqCst)
    }

    fn flushed(&mut self) -> Flow<bool> {
        Ok(!self.stalled.load(SeqCst))
    }

    fn turn(&mut self, now: Timestamp) -> Flow<Timestamp> {
        Ok(now.plus(Duration::from_millis(2)))
    }

    fn write(&mut self, _: Timestamp, _: u64) -> Flow {
        self.written.fetch_add(1, SeqCst);
        Ok(())
    }
}

#[test]
fn a_stalled_sink_costs_checkpoints_and_not_the_coordinator() {
    let folder = folder();
    let sink = Stalling {
        stalled: Arc::new(AtomicBool::new(false)),
        written: Arc::default(),
    };
    let mut env = env(&Run::default(), folder.path());
    env.settings_mut().checkpoints = Some(CheckpointSettings {
        min_pause: Some(Duration::ZERO),
        timeout: Duration::from_millis(100),
        tolerable_failures: 1_000,
        ..CheckpointSettings::every(Duration::from_millis(10))
    });
    env.source("events", Generator::unbounded(|n| n))
        .key_by(|n| n % 10)
        .reduce(|a, b| (*a).max(b))
        .sink("out", sink.clone());
    let job = env.start("stalled").expect("starts");
    has_read(&job, 1);
    sink.stalled.store(true, SeqCst);
    // Asked three times in a row, the coordinator answers each time.
    for _ in 0..3 {
        let reason = job
            .savepoint(SavepointKind::Savepoint, None)
            .expect_err("stalled");
        assert!(reason.contains("not complete after 100ms"), "{reason}");
    }
    assert!(!job.ended(), "the job goes on");
    sink.stalled.store(false, SeqCst);
    let before = sink.written.load(SeqCst);
    while sink.written.load(SeqCst) < before + 10_000 {
        assert!(!job.ended());
        std::thread::yield_now();
    }
    let taken = (0..20).find_map(|_| job.savepoint(SavepointKind::Stop, None).ok());
    assert!(taken.is_some(), "its checkpoints are complete again");
    job.wait().expect("ends well");
}
