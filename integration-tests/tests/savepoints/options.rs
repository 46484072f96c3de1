//! A whole program and the options that it survives by: it is stopped by a signal, carried on from what that
//! has saved, and made to fail.

use super::folder;
use integration_tests::PATIENCE;
use integration_tests::processes::{Ended, example, root, run_command};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const QUERY: &str = "tailnum-sessions";

/// The flights job with these options besides those that tell its input and its folders.
fn flights(folder: &Path, query: &str, options: &[&str]) -> Command {
    let input = root().join("examples/data/flights-2013-01.csv");
    let mut command = Command::new(example("flights"));
    command
        .args(["--query", query, "--checkpoint-interval", "50"])
        .arg("--input")
        .arg(input)
        .arg("--output")
        .arg(folder.join(query))
        .arg("--checkpoint-dir")
        .arg(folder.join("checkpoints"))
        .args(options);
    command
}

/// The rows that it has put out, sorted.
fn rows(folder: &Path) -> Vec<String> {
    let parts = fs::read_dir(folder.join(QUERY)).expect("a folder of parts");
    let text = |part: PathBuf| fs::read_to_string(part).expect("text");
    let text: String = parts.flatten().map(|part| text(part.path())).collect();
    let rows = text.lines().filter(|l| !l.starts_with("session_start,"));
    let mut rows: Vec<_> = rows.map(str::to_owned).collect();
    rows.sort_unstable();
    rows
}

fn expected() -> Vec<String> {
    let answer = root().join("examples/data/expected/tailnum-sessions-24h.csv");
    let answer = fs::read_to_string(answer).expect("the answer is bundled");
    let mut expected: Vec<_> = answer.lines().skip(1).map(str::to_owned).collect();
    expected.sort_unstable();
    expected
}

/// Waits until the program has completed some checkpoints.
fn has_saved(folder: &Path, program: &mut Child) {
    let began = Instant::now();
    let complete = || {
        let all = fs::read_dir(folder.join("checkpoints/flights"));
        let all = all.into_iter().flatten().flatten();
        all.filter(|entry| entry.path().join("_metadata").is_file())
            .count()
    };
    while complete() < 2 {
        let ended = program.try_wait().expect("a child");
        assert!(ended.is_none(), "it ended: {ended:?}");
        assert!(began.elapsed() < PATIENCE, "no checkpoint is complete");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Stops the program by a signal on its way; where its savepoint is.
fn stopped_by(signal: &str, folder: &Path, options: &[&str]) -> PathBuf {
    let savepoints = folder.join("savepoints");
    let mut program = flights(folder, QUERY, options)
        .args(["--source-rate", "1000", "--savepoint-dir"])
        .arg(&savepoints)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    has_saved(folder, &mut program);
    let sent = Command::new("kill")
        .args(["-s", signal, &program.id().to_string()])
        .status();
    assert!(sent.expect("there is kill").success());
    let ended = program.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let told = String::from_utf8_lossy(&ended.stdout).into_owned();
    let place = told.lines().find_map(|l| l.strip_prefix("savepoint: "));
    let place = PathBuf::from(place.expect("it tells where the savepoint is"));
    assert!(place.starts_with(&savepoints), "{}", place.display());
    assert!(place.join("_metadata").is_file(), "{}", place.display());
    place
}

fn ended_well(ended: Ended) {
    assert_eq!(ended.code, Some(0), "{ended:#?}");
}

#[test]
fn a_program_that_a_signal_stops_is_carried_on_from_the_savepoint_that_it_tells() {
    for (signal, options) in [("TERM", &[][..]), ("INT", &["--at-least-once"])] {
        let folder = folder();
        let mut two = vec!["--parallelism", "2"];
        two.extend(options);
        let place = stopped_by(signal, folder.path(), &two);
        let before = rows(folder.path());
        assert!(before.len() < expected().len(), "it was on its way");
        let place = place.to_string_lossy();
        // The first savepoint is given by its path, the second is the latest.
        let restore = if signal == "TERM" { &*place } else { "latest" };
        let mut three = vec!["--parallelism", "3", "--restore", restore];
        three.extend(options);
        ended_well(run_command(&mut flights(folder.path(), QUERY, &three)));
        assert_eq!(rows(folder.path()), expected(), "{signal}");
    }
}

#[test]
fn state_that_a_program_has_no_operator_for_is_left_behind_only_when_it_is_told_to() {
    let folder = folder();
    let place = stopped_by("TERM", folder.path(), &[]);
    let place = place.to_string_lossy();
    let other = |options: &[&str]| {
        let mut all = vec!["--restore", &*place];
        all.extend(options);
        run_command(&mut flights(folder.path(), "carrier-day", &all))
    };
    let refused = other(&[]);
    assert_eq!(refused.code, Some(1), "{refused:#?}");
    for words in ["--allow-non-restored-state", "session"] {
        assert!(refused.stderr.contains(words), "{refused:#?}");
    }
    ended_well(other(&["--allow-non-restored-state"]));
}

#[test]
fn a_program_begins_again_as_often_as_its_restart_strategy_says() {
    let fails = |options: &[&str], times: u32| {
        let folder = folder();
        let mut command = flights(folder.path(), QUERY, options);
        let point = format!("file_sink::before_write={times}*return");
        let ended = run_command(command.env("FAILPOINTS", point));
        let output = (ended.code == Some(0)).then(|| rows(folder.path()));
        (ended, output)
    };
    let (ended, _) = fails(&["--restart", "none"], 1);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.stderr.contains("failpoint"), "{ended:#?}");
    let (ended, _) = fails(&["--restart", "fixed:1:1"], 2);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    for strategy in ["fixed:2:1", "rate:5:60000:1", "exponential"] {
        let (ended, rows) = fails(&["--restart", strategy], 2);
        assert_eq!(rows, Some(expected()), "{strategy}: {ended:#?}");
    }
    let (ended, _) = fails(&["--restart", "often"], 0);
    assert_eq!(ended.code, Some(2), "{ended:#?}");
    assert!(ended.stderr.contains("fixed:TIMES:MS"), "{ended:#?}");
}
