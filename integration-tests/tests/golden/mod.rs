//! Golden savepoints: files that an earlier tidegate wrote, kept in the repository. This one must still read them,
//! and carry the job on to the output that was recorded with them, at every parallelism.
//!
//! `tests/golden/README.md` says what they are and how one is made.

mod functions;
mod job;

use super::job as savepoint_job;
use super::job::{Run, has_read};
use super::ledger::Ledger;
use super::pace::Pace;
use job::{EVENTS, RATE, output, start};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate::actors::checkpoint_storage::load_path;
use tidegate::engine::checkpoint::index::StateIndex;
use tidegate::engine::checkpoint::{Checksum, SavepointKind, StateKind};
use tidegate::engine::state::{RocksDbSettings, StateBackend};

/// Where the golden savepoints are, each in a folder of its own.
const GOLDEN: &str = "tests/golden/savepoints";
/// What is in each: the savepoint, the job's files when it was taken, and the output of the whole job.
const SAVEPOINT: &str = "savepoint";
/// Or, in its place, the job's folder of checkpoints, where state is in files that they share.
const CHECKPOINTS: &str = "checkpoints";
const OUT: &str = "out";
/// The checkpoint in that folder.
const CHECKPOINT: &str = "chk-1";
/// What is to be made: one of a checkpoint, with its shared files.
const INCREMENTAL: &str = "incremental";
const EXPECTED: &str = "expected.txt";

fn run(parallelism: u32) -> Run {
    Run {
        events: EVENTS,
        parallelism,
        ..Run::default()
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a file");
        }
    }
}

/// What the job goes on from.
fn saved(golden: &Path) -> PathBuf {
    match golden.join(CHECKPOINTS) {
        checkpoints if checkpoints.is_dir() => checkpoints.join(CHECKPOINT),
        _ => golden.join(SAVEPOINT),
    }
}

/// The output that the job is to have: that of the first golden savepoint, where it has not changed since.
fn recorded(golden: &Path) -> Vec<String> {
    let own = fs::read_to_string(golden.join(EXPECTED));
    let first = || fs::read_to_string(self::golden()[0].join(EXPECTED));
    let text = own.or_else(|_| first()).expect("the recorded output");
    text.lines().map(str::to_owned).collect()
}

/// State in RocksDB, most of it not in tables.
fn rocksdb(folder: &Path) -> StateBackend {
    StateBackend::RocksDb(RocksDbSettings {
        state_dir: folder.join("state"),
        table_memory: 4096,
        ..RocksDbSettings::default()
    })
}

fn golden() -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(GOLDEN)
        .expect("there are golden savepoints")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    all.sort();
    assert!(!all.is_empty(), "there are golden savepoints");
    all
}

/// Carries the job on from a savepoint, with the files that it had written; how that ended, and its output.
fn carry_on(golden: &Path, savepoint: &Path, parallelism: u32) -> Result<Vec<String>, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, ledger) = (folder.path().join("out"), Ledger::default());
    copy(&golden.join(OUT), &out);
    let run = Run {
        parallelism,
        ..Run::from(savepoint)
    };
    let state = match golden.join(CHECKPOINTS).is_dir() {
        true => rocksdb(folder.path()),
        false => StateBackend::Memory,
    };
    let run = Run {
        events: EVENTS,
        state,
        ..run
    };
    let job = start(&run, &folder.path().join("checkpoints"), &out, &ledger);
    job.wait().map_err(|error| error.to_string())?;
    Ok(output(&ledger, &out))
}

#[track_caller]
fn assert_same(got: &[String], want: &[String], what: &str) {
    let lacking = |these: &[String], those: &[String]| {
        let lacks = |line: &&String| those.binary_search(line).is_err();
        these
            .iter()
            .filter(lacks)
            .take(5)
            .cloned()
            .collect::<Vec<_>>()
    };
    assert!(
        got == want,
        "{what}: {} lines for {}; missing {:?}; too many {:?}",
        got.len(),
        want.len(),
        lacking(want, got),
        lacking(got, want)
    );
}

#[test]
fn every_golden_savepoint_is_carried_on_to_the_recorded_output_at_every_parallelism() {
    for golden in golden() {
        let expected = recorded(&golden);
        for parallelism in [2, 1, 3, 4] {
            let what = format!("{} at parallelism {parallelism}", golden.display());
            let got = carry_on(&golden, &saved(&golden), parallelism);
            assert_same(&got.expect(&what), &expected, &what);
        }
    }
}

/// The job as it is now still has this output: what is red here is a changed job, not a changed format.
#[test]
fn an_uninterrupted_run_has_the_recorded_output() {
    let expected = uninterrupted();
    for golden in golden() {
        assert_same(&expected, &recorded(&golden), &golden.display().to_string());
    }
}

#[test]
fn golden_savepoints_hold_every_kind_of_state_on_its_way() {
    for golden in golden() {
        let loaded = load_path(&saved(&golden)).expect("readable");
        let subtasks = &loaded.metadata.subtasks;
        let operators = subtasks.iter().flat_map(|s| &s.index.operators);
        let states: Vec<_> = operators
            .flat_map(|o| o.states.iter().map(move |s| (&o.uid, s)))
            .filter(|(_, state)| state.data.entries() > 0)
            .collect();
        for kind in [
            StateKind::Keyed,
            StateKind::List,
            StateKind::Union,
            StateKind::Broadcast,
        ] {
            let found = |(_, state): &(&String, &StateIndex)| state.kind == kind;
            assert!(
                states.iter().any(found),
                "{}: no {kind:?}",
                golden.display()
            );
        }
        for uid in [
            "windows", "sessions", "running", "seconds", "sliding", "counted", "early", "newest",
            "all", "global", "grouped", "kept", "means", "meeting", "ruled", "waiting", "words",
            "events", "parts", "one", "totals",
        ] {
            let held = states.iter().any(|(operator, _)| *operator == uid);
            assert!(held, "{}: no state of '{uid}'", golden.display());
        }
        let hidden = fs::read_dir(golden.join(OUT).join("parts"))
            .expect("parts")
            .flatten();
        let hidden = hidden.filter(|e| e.file_name().as_encoded_bytes().starts_with(b"."));
        let open = hidden.count() > 1 || golden.join(CHECKPOINTS).is_dir();
        assert!(open, "{}: no open parts", golden.display());
    }
}

/// Rewrites a metadata file with another body, as a later version would: with a checksum that fits.
fn rewrite_metadata(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).expect("metadata is text");
    let (head, rest) = text.split_once('\n').expect("a first line");
    let (body, _) = rest.rsplit_once("\nchecksum ").expect("a last line");
    let body = change(body.to_owned());
    let format = head.split(' ').nth(1).expect("a format");
    let content = format!("tidegate-checkpoint {format} {:020}\n{body}", body.len());
    let checksum = Checksum::of(content.as_bytes());
    fs::write(path, format!("{content}\nchecksum {checksum}\n")).expect("writes");
}

#[test]
fn a_format_of_a_later_version_is_refused_with_its_number() {
    let golden = &golden()[0];
    let folder = tempfile::tempdir().expect("a folder");
    let savepoint = folder.path().join(SAVEPOINT);
    copy(&golden.join(SAVEPOINT), &savepoint);
    let metadata = savepoint.join("_metadata");
    rewrite_metadata(&metadata, |body| body);
    load_path(&savepoint).expect("nothing has changed yet");
    rewrite_metadata(&metadata, |body| {
        body.replacen("\"min_reader_version\":1", "\"min_reader_version\":77", 1)
    });
    let error = carry_on(golden, &savepoint, 2).expect_err("refused");
    for words in [
        "format 77",
        "reads formats up to",
        "use the version that wrote it",
        "_metadata",
    ] {
        assert!(error.contains(words), "{error}");
    }
}

fn uninterrupted() -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let (out, ledger) = (folder.path().join("out"), Ledger::default());
    fs::create_dir(&out).expect("a folder");
    let job = start(&run(1), folder.path(), &out, &ledger);
    job.wait().expect("it comes to its end");
    output(&ledger, &out)
}

/// Of each kind of file that is written today there is one.
#[test]
fn golden_savepoints_are_of_every_format() {
    let (mut shared, mut shaped, mut first) = (0, 0, 0);
    for golden in golden() {
        let metadata = load_path(&saved(&golden)).expect("readable").metadata;
        let operators = metadata.subtasks.iter().flat_map(|s| &s.index.operators);
        let states = operators.flat_map(|o| &o.states);
        let has_shape = states.into_iter().any(|s| s.value_type.contains(" ~"));
        shared += u32::from(!metadata.shared.is_empty());
        shaped += u32::from(has_shape);
        first += u32::from(!has_shape);
    }
    assert!(
        shared > 0 && shaped > 0 && first > 0,
        "{shared} {shaped} {first}"
    );
}

/// Makes a golden savepoint with the name in `TIDEGATE_GOLDEN`: `make golden NAME=... KIND=...`.
#[test]
#[ignore = "writes into the repository"]
fn make_golden() {
    let name = std::env::var("TIDEGATE_GOLDEN").expect("TIDEGATE_GOLDEN names it");
    let golden = Path::new(GOLDEN).join(name);
    fs::create_dir_all(&golden).expect("a new folder");
    let golden = golden.canonicalize().expect("it is there");
    assert!(
        !saved(&golden).exists(),
        "a golden savepoint is never overwritten"
    );
    let kind = std::env::var("TIDEGATE_GOLDEN_KIND").unwrap_or_default();
    let folder = tempfile::tempdir().expect("a folder");
    let (out, ledger) = (folder.path().join("out"), Ledger::default());
    fs::create_dir(&out).expect("a folder");
    let run = Run {
        pace: Some(Pace::of(RATE)),
        interval: (kind == INCREMENTAL).then_some(Duration::from_millis(1_200)),
        state: match kind.as_str() {
            "streamed" | INCREMENTAL => rocksdb(folder.path()),
            _ => StateBackend::Memory,
        },
        ..run(if kind.is_empty() { 2 } else { 1 })
    };
    let checkpoints = folder.path().join(CHECKPOINTS);
    let job = start(&run, &checkpoints, &out, &ledger);
    if kind == INCREMENTAL {
        while !checkpoints.join(CHECKPOINT).join("_metadata").exists() {
            assert!(!job.ended(), "it takes a checkpoint on its way");
            std::thread::yield_now();
        }
        job.cancel();
        job.wait().expect_err("cancelled");
        assert!(!checkpoints.join("chk-2").exists(), "there is one");
        let shares = checkpoints.join("shared").is_dir();
        assert!(
            shares,
            "nothing had been read yet: remove what was made, and try again"
        );
        for part in [CHECKPOINT, "shared"] {
            let to = golden.join(CHECKPOINTS).join(part);
            copy(&checkpoints.join(part), &to);
        }
        copy(&out, &golden.join(OUT));
    } else {
        has_read(&job, EVENTS / 2);
        let target = savepoint_job::target(&golden.join(SAVEPOINT));
        job.savepoint(SavepointKind::Savepoint, Some(target))
            .expect("a savepoint");
        // Nothing is committed because of a savepoint: its parts are still hidden, and more are open.
        copy(&out, &golden.join(OUT));
        job.cancel();
        job.wait().expect_err("cancelled");
    }
    let expected = uninterrupted();
    if expected != recorded(&golden) {
        let text = expected.join("\n") + "\n";
        fs::write(golden.join(EXPECTED), text).expect("writes");
    }
}
