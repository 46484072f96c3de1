//! A process dies at each failpoint in turn, before and after every sync, rename, snapshot, barrier and commit:
//! while it runs, while it recovers from that, and while it ends. In the end its output is that of a run that
//! nobody killed, and nothing temporary is left.
//!
//! The process that dies is this very test, started anew with the name of the point in `FAILPOINTS`.

use integration_tests::failpoints;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::{Checkpointing, Restore};
use tidegate::engine::checkpoint::retention::{Retention, StorageRegistry, sweep};
use tidegate::engine::checkpoint::{
    CheckpointSettings, CheckpointStorage, RestartStrategy, SavepointKind,
};
use tidegate::engine::clock::Clock;
use tidegate::engine::state::{RocksDbSettings, StateBackend};
use tidegate::prelude::*;

const RECORDS: u64 = 2_000;
/// Records per second of each subtask, so that there are some checkpoints on the way.
const RATE: f64 = 5_000.0;
const KEYS: u64 = 17;

/// How the process is told what it is to do.
const FOLDER: &str = "TIDEGATE_VICTIM_FOLDER";
const PARALLELISM: &str = "TIDEGATE_VICTIM_PARALLELISM";
const STOPS: &str = "TIDEGATE_VICTIM_STOPS";
const SPILLS: &str = "TIDEGATE_VICTIM_SPILLS";

/// Where every victim dies first, so that there is something to recover from, and something to remove: parts that
/// no checkpoint covers.
const FIRST: &str = "file_sink::after_prepare=5*exit";

/// How many lines the job reads besides, and which of them are no numbers.
const LINES: u64 = 1_500;
const BAD: u64 = 7;

/// A folder with what the job reads.
fn prepared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let line = |n: u64| match n % BAD {
        0 => format!("line {n}\n"),
        _ => format!("{n}\n"),
    };
    let lines: String = (0..LINES).map(line).collect();
    fs::write(folder.path().join("lines"), lines).expect("writes");
    folder
}

/// The job: windows into parts, all records into one file, and lines of which some are put aside.
fn run(folder: &Path, parallelism: u32, stops: bool, spills: bool) {
    let mut env = StreamEnv::with_parallelism(parallelism);
    if spills {
        env.settings_mut().state = StateBackend::RocksDb(RocksDbSettings {
            state_dir: folder.join("state"),
            ..RocksDbSettings::default()
        });
    }
    env.settings_mut().channels.check_grammar = true;
    env.settings_mut().checkpoints = Some(CheckpointSettings {
        min_pause: Some(Duration::ZERO),
        retained: 1,
        unaligned: true,
        ..CheckpointSettings::every(Duration::from_millis(20))
    });
    let mut checkpointing = Checkpointing::new(Arc::new(storage(folder)));
    checkpointing.restart = RestartStrategy::None;
    checkpointing.restore = Restore::Latest;
    checkpointing.retention.grace = Duration::ZERO;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    env.run_settings_mut().source_rate = Some(RATE);
    let (windows, all) = env
        .source("records", Generator::new(RECORDS, |n| n))
        .watermarks(WatermarkStrategy::monotonous().timestamps(|n: &u64| *n as i64))
        .fork();
    windows
        .key_by(|n| n % KEYS)
        .window(Tumbling::event_time(Duration::from_millis(100)))
        .count()
        .map(|w| format!("{} {} {}", w.key, w.window.start.0, w.value))
        .sink(
            "parts",
            FileSink::lines(folder.join("parts")).roll_records(30),
        );
    all.map(|n| n.to_string())
        .sink("one", FileSink::lines(folder.join("one.txt")).single_file())
        .parallelism(1);
    let lines = FileSource::json_lines::<u64>(folder.join("lines"));
    env.source(
        "lines",
        lines.on_error(DeadLetters::file(folder.join("letters"))),
    )
    .sink("nothing", BlackHole);
    let job = env.start("victim").expect("it starts");
    if stops {
        while !job.ended() && job.savepoint(SavepointKind::Stop, None).is_err() {
            thread::yield_now();
        }
    }
    job.wait().expect("it comes to a good end");
}

fn storage(folder: &Path) -> LocalStorage {
    LocalStorage::new(folder.join("checkpoints"))
}

/// Not a test: what the others start as a process of its own.
#[test]
#[ignore = "it is started by the test beside it"]
fn victim() {
    let variable = |name: &str| std::env::var(name).ok();
    let folder = variable(FOLDER).expect("the test beside it names a folder");
    let parallelism = variable(PARALLELISM).and_then(|p| p.parse().ok());
    run(
        Path::new(&folder),
        parallelism.unwrap_or(1),
        variable(STOPS).is_some(),
        variable(SPILLS).is_some(),
    );
}

/// One life of the process.
fn live(
    folder: &Path,
    parallelism: u32,
    failpoints: &str,
    (stops, spills): (bool, bool),
) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().expect("Linux knows it"));
    command
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(PARALLELISM, parallelism.to_string())
        .env("FAILPOINTS", failpoints)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if stops {
        command.env(STOPS, "yes");
    }
    if spills {
        command.env(SPILLS, "yes");
    }
    command.status().expect("this test can be started again")
}

/// Everything that is to be seen, sorted; nothing else may be there.
fn output(folder: &Path, what: &str) -> Vec<String> {
    let parts = fs::read_dir(folder.join("parts")).expect("parts").flatten();
    let mut files: Vec<PathBuf> = parts.map(|entry| entry.path()).collect();
    files.push(folder.join("one.txt"));
    let beside = fs::read_dir(folder).expect("a folder").flatten();
    for path in files
        .iter()
        .cloned()
        .chain(beside.map(|entry| entry.path()))
    {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        assert!(!name.starts_with('.'), "{what}: {name} is left over");
    }
    let text = |path: &PathBuf| fs::read_to_string(path).expect("text");
    let lines = files.iter().map(text).collect::<Vec<_>>().concat();
    let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

/// Every line that is no number was put aside, once or more often.
fn assert_letters(folder: &Path, what: &str) {
    let letters = fs::read_to_string(folder.join("letters")).expect("text");
    for n in (0..LINES).step_by(BAD as usize) {
        let letter = format!("\"line {n}\"");
        assert!(letters.contains(&letter), "{what}: no letter of line {n}");
    }
}

/// What processes that died have left in the storage, the sweep takes; then all that is there belongs to a
/// checkpoint that can be read.
fn assert_clean(folder: &Path, what: &str) {
    let storage = storage(folder);
    let registry = StorageRegistry::new(Arc::new(storage.clone()));
    let retention = Retention {
        orphan_age: Duration::ZERO,
        ..Retention::default()
    };
    let later = Clock::System.now().plus(Duration::from_secs(1));
    sweep(&storage, &registry, &retention, later, false).expect("sweeps");
    let left = storage.list("").expect("lists");
    let temporary = left.iter().find(|file| file.path.ends_with(".tmp"));
    assert!(temporary.is_none(), "{what}: {temporary:?}");
    tidegate::engine::checkpoint::latest(&storage).expect("the last checkpoint is whole");
}

/// How often a round is begun anew in which the process, on a busy machine, was at its end before it came by.
const ROUNDS: u32 = 20;

/// Dies at a point, and again on its way back, and then comes to its end. Whether it died there when it came by for
/// the `nth` time.
fn dies_at(point: &str, nth: u64, spills: bool, expected: &[String]) -> bool {
    let folder = prepared();
    let stops = point.ends_with("_record_stop");
    let mut lives = vec![(2, FIRST.to_owned(), false)];
    lives.push((3, format!("{point}={nth}*exit"), stops));
    lives.push((1, format!("{point}=exit"), stops));
    let mut reached = true;
    for (life, (parallelism, failpoints, stops)) in lives.iter().enumerate() {
        let ended = live(folder.path(), *parallelism, failpoints, (*stops, spills));
        let left = tidegate::engine::checkpoint::newest(&storage(folder.path()));
        let newest = left.expect("readable").map_or(0, |newest| newest.id().0);
        let died = ended.code().is_none();
        println!(
            "life {life}, parallelism {parallelism}, {failpoints}: {}, newest checkpoint {newest}",
            if died { "killed there" } else { "not reached" }
        );
        assert!(died || ended.success(), "{point}, life {life}: {ended}");
        // What it comes by once in its life, it need not come by again after its end.
        reached &= died || life > 1;
    }
    let ended = live(folder.path(), 2, "", (false, spills));
    assert!(ended.success(), "{point}: {ended}");
    let what = format!("{point}, {nth}");
    let got = output(folder.path(), &what);
    let differs = got.iter().zip(expected).find(|(got, want)| got != want);
    assert!(
        got == expected,
        "{what}: {} lines for {}; the first that differs: {differs:?}",
        got.len(),
        expected.len()
    );
    assert_letters(folder.path(), &what);
    assert_clean(folder.path(), &what);
    reached
}

#[test]
fn letters_that_a_checkpoint_covers_are_written_before_it_is_complete() {
    for complete in 1..4 {
        let folder = prepared();
        let slow = "dead_letters::before_write=sleep(100)";
        let failpoints = format!("{slow};coordinator::after_notify={complete}*exit");
        let died = live(folder.path(), 2, &failpoints, (false, false));
        assert!(died.code().is_none(), "{died}");
        assert!(live(folder.path(), 1, "", (false, false)).success());
        assert_letters(folder.path(), &failpoints);
    }
}

#[test]
fn a_process_that_dies_at_any_point_changes_nothing() {
    let folder = prepared();
    run(folder.path(), 1, false, false);
    let expected = output(folder.path(), "undisturbed");
    assert!(expected.len() > RECORDS as usize);
    let kills: u64 = std::env::var("TIDEGATE_CHAOS_KILLS")
        .ok()
        .and_then(|kills| kills.parse().ok())
        .unwrap_or(5);
    let times = if kills < 50 { 1 } else { 4 };
    let memory = failpoints::local().into_iter().map(|point| (point, false));
    let spilling = failpoints::spilling()
        .into_iter()
        .map(|point| (point, true));
    let points: Vec<_> = memory.chain(spilling).collect();
    assert!(points.len() > 60, "there are failpoints: {}", points.len());
    let of_rocksdb = points.iter().filter(|(_, spills)| *spills).count();
    assert!(of_rocksdb >= 10, "{points:?}");
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some((point, spills)) = points.get(next.fetch_add(1, SeqCst)) {
                    for nth in 1..=times {
                        // Some points a process comes by only once or twice.
                        let rounds = if nth == 1 { ROUNDS } else { 1 };
                        let reached = (0..rounds).any(|_| dies_at(point, nth, *spills, &expected));
                        assert!(reached || nth > 1, "{point} is never reached");
                    }
                }
            });
        }
    });
    println!(
        "failpoints: died at each of {} points, up to {times} times: each output equals that of a run without it",
        points.len()
    );
}
