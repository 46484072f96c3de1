//! The job of the golden savepoints: that of the tests of savepoints, and beside it what that one lacks. It has
//! every kind of state that there is, and its answers are the same at every parallelism and wherever it is cut.
//!
//! A golden savepoint names the operators, the states and the types that are here: none may be renamed.

use super::super::job as savepoint_job;
use super::super::job::{Event, Run, event};
use super::super::ledger::Ledger;
use super::functions::{Kept, Mean, Meeting, Ruled, Waiting};
use std::path::Path;
use tidegate::prelude::*;

/// How many events the job has.
pub const EVENTS: u64 = 1_000;
/// Records per second that a subtask of a source reads while a golden savepoint is made.
pub const RATE: f64 = 500.0;

/// The text that it reads; as the tests of this package see it.
pub const WORDS: &str = "tests/golden/words.txt";

/// An event's key in classes, of which there are fewer than keys.
fn class(e: &Event) -> u64 {
    e.key % 7
}

/// The environment of a run that keeps its checkpoints in `folder`.
pub fn env(run: &Run, folder: &Path) -> StreamEnv {
    let mut env = savepoint_job::env(run, folder);
    env.run_settings_mut().source_rate = run.pace.as_ref().map(|pace| pace.per_second);
    env
}

/// Starts a run; its files go into `out`.
pub fn start(run: &Run, folder: &Path, out: &Path, ledger: &Ledger) -> RunningJob {
    let env = env(run, folder);
    let whole = Run {
        pace: None,
        with_totals: true,
        ..run.clone()
    };
    savepoint_job::define(&env, &whole, ledger);
    windows(&env, ledger);
    functions(&env, ledger);
    files(&env, out);
    env.start("golden").expect("it starts")
}

fn timed(env: &StreamEnv, name: &str) -> DataStream<Event> {
    let late = WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(2));
    env.source(name, Generator::new(EVENTS, event))
        .uid(name)
        .watermarks(late.timestamps(|e: &Event| e.at))
        .boxed()
}

/// The kinds of windows that the other job lacks.
fn windows(env: &StreamEnv, ledger: &Ledger) {
    let [sliding, counted, early, newest, all, global, grouped] =
        timed(env, "for windows").fork_n();
    let second = Duration::from_secs(1);
    sliding
        .key_by(class)
        .window(Sliding::event_time(second * 3, second))
        .count()
        .uid("sliding")
        .map(|w| format!("sliding {} {} {}", w.key, w.window.start.0, w.value))
        .sink("sliding out", ledger.page("sliding"));
    counted
        .key_by(class)
        .window(CountWindow::sliding(10, 5))
        .count()
        .uid("counted")
        .map(|w| format!("counted {} {}", w.key, w.value))
        .sink("counted out", ledger.page("counted"));
    early
        .key_by(class)
        .window(Tumbling::event_time(second * 2))
        .trigger(PurgingTrigger::of(CountTrigger::new(7)))
        .count()
        .uid("early")
        .map(|w| format!("early {} {} {}", w.key, w.window.start.0, w.value))
        .sink("early out", ledger.page("early"));
    newest
        .key_by(class)
        .window(Tumbling::event_time(second * 2))
        .evictor(CountEvictor::new(3))
        .count()
        .uid("newest")
        .map(|w| format!("newest {} {} {}", w.key, w.window.start.0, w.value))
        .sink("newest out", ledger.page("newest"));
    all.window_all(Tumbling::event_time(second * 2))
        .count()
        .uid("all")
        .map(|w| format!("all {} {}", w.window.start.0, w.value))
        .sink("all out", ledger.page("all"));
    global
        .key_by(class)
        .window(GlobalWindows)
        .trigger(CountTrigger::new(20))
        .count()
        .uid("global")
        .map(|w| format!("global {} {}", w.key, w.value))
        .sink("global out", ledger.page("global"));
    grouped
        .key_by(class)
        .co_group(timed(env, "for groups").key_by(class))
        .window(Tumbling::event_time(second * 2))
        .process(|key, window, left, right, out| {
            out.push(format!(
                "grouped {key} {} {} {}",
                window.start.0,
                left.len(),
                right.len()
            ));
        })
        .uid("grouped")
        .sink("grouped out", ledger.page("grouped"));
}

/// State of functions: that which expires, broadcast state, elements without keys, timers.
fn functions(env: &StreamEnv, ledger: &Ledger) {
    let [kept, means, met, ruled] = timed(env, "for functions").fork_n();
    kept.key_by(class)
        .process(Kept)
        .uid("kept")
        .sink("kept out", ledger.page("kept"));
    means
        .key_by(class)
        .process(Mean)
        .uid("means")
        .sink("means out", ledger.page("means"));
    met.connect(timed(env, "for meetings"))
        .key_by(class, class)
        .process(Meeting)
        .uid("meeting")
        .sink("meeting out", ledger.page("meeting"));
    let rules = env
        .source("rules", Generator::new(EVENTS, |n| (n % 9, n)))
        .uid("rules");
    ruled
        .key_by(class)
        .connect_broadcast(rules)
        .process(Ruled)
        .uid("ruled")
        .sink("ruled out", ledger.page("ruled"));
    env.source("numbers", Generator::new(EVENTS, |n| n))
        .uid("numbers")
        .rebalance()
        .process(Waiting { end: EVENTS - 200 })
        .uid("waiting")
        .sink("waiting out", ledger.page("waiting"));
}

/// A source of files, and sinks into parts and into one file.
fn files(env: &StreamEnv, out: &Path) {
    let (parts, one) = env
        .source("words", FileSource::lines(WORDS))
        .uid("words")
        .fork();
    parts
        .map(|line: String| format!("part {line}"))
        .sink(
            "parts",
            FileSink::lines(out.join("parts")).roll_records(100),
        )
        .uid("parts");
    one.map(|line: String| format!("one {line}"))
        .sink("one", FileSink::lines(out.join("one.txt")).single_file())
        .uid("one")
        .parallelism(1);
}

/// What a run has put out: the answers in the ledger, and the lines of the files, each sorted.
pub fn output(ledger: &Ledger, out: &Path) -> Vec<String> {
    let mut lines = savepoint_job::answers(ledger);
    for path in [out.join("parts"), out.join("one.txt")] {
        lines.extend(read(&path));
    }
    lines.sort_unstable();
    lines
}

fn read(path: &Path) -> Vec<String> {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).expect("a folder").flatten();
        return entries.flat_map(|entry| read(&entry.path())).collect();
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    assert!(!name.starts_with('.'), "{} is left over", path.display());
    let text = std::fs::read_to_string(path).expect("a file of the output");
    text.lines().map(str::to_owned).collect()
}
