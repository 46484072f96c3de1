//! A sink that takes nothing holds up checkpoints whose barriers stay in order, and none whose barriers
//! overtake. What was in flight then is there after a restart, once, at any parallelism, and in its order.

use integration_tests::PATIENCE;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::{Checkpointing, Restore};
use tidegate::actors::runner::RunningJob;
use tidegate::engine::checkpoint::history::{CheckpointHistory, CheckpointStatus, CheckpointType};
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy};
use tidegate::prelude::*;

const RECORDS: u64 = 60_000;
const KEYS: u64 = 50;
/// What a checkpoint may take; one that waits for the sink takes longer.
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// Counts on, key by key: a record that is lost, doubled or out of order is an error. Each of its writers takes a
/// few records and then no more, until it is opened. It has no two phases, so these few may come again after a
/// restart.
#[derive(Clone, Default)]
struct Shut {
    open: Arc<AtomicBool>,
    /// How often the job was started.
    lives: Arc<AtomicU64>,
    /// The last count of each key, and the life that it came in.
    counts: Arc<Mutex<BTreeMap<u64, (u64, u64)>>>,
}

struct ShutWriter {
    sink: Shut,
    waker: Waker,
    room: u64,
}

/// Records that a writer takes before it is opened.
const ROOM: u64 = 100;

impl Sink<(u64, u64)> for Shut {
    type Writer = ShutWriter;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<ShutWriter> {
        Ok(ShutWriter {
            sink: self.clone(),
            waker: context.waker(),
            room: ROOM,
        })
    }
}

impl SinkWriter<(u64, u64)> for ShutWriter {
    fn write(&mut self, _: Timestamp, (key, count): (u64, u64)) -> Flow {
        self.room = self.room.saturating_sub(1);
        let mut counts = self
            .sink
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = self.sink.lives.load(SeqCst);
        let (before, life) = counts.insert(key, (count, now)).unwrap_or((0, now));
        if before + 1 == count || life < now && count <= before {
            return Ok(());
        }
        Err(Fault::user(format_args!(
            "key {key}: {count} after {before}"
        )))
    }

    fn has_room(&self) -> bool {
        self.room > 0 || self.sink.open.load(SeqCst)
    }

    fn turn(&mut self, now: Timestamp) -> Flow<Timestamp> {
        if self.sink.open.load(SeqCst) {
            self.waker.wake();
        }
        // Looks now and then whether it was opened.
        Ok(now.plus(Duration::from_millis(5)))
    }
}

/// Counts the records of each key, and sends each count over a second exchange to the sink.
fn start(folder: &Path, sink: &Shut, parallelism: u32, settings: CheckpointSettings) -> RunningJob {
    sink.lives.fetch_add(1, SeqCst);
    let mut env = StreamEnv::with_parallelism(parallelism);
    env.settings_mut().channels.check_grammar = true;
    env.settings_mut().checkpoints = Some(CheckpointSettings {
        interval: Some(Duration::from_millis(50)),
        timeout: TIMEOUT,
        tolerable_failures: 1_000,
        history: 100,
        ..settings
    });
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder)));
    checkpointing.restart = RestartStrategy::None;
    checkpointing.restore = Restore::Latest;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    env.source("numbers", Generator::new(RECORDS, |n| n))
        .watermarks(WatermarkStrategy::monotonous().timestamps(|n: &u64| *n as i64))
        .key_by(|n| n % KEYS)
        .fold((0, 0), |so_far: &mut (u64, u64), key: &u64, _: u64| {
            *so_far = (*key, so_far.1 + 1);
            *so_far
        })
        .encodable()
        .key_by(|(key, _)| key % 7)
        .fold((0, 0), |_: &mut (u64, u64), _: &u64, counted| counted)
        .sink("shut", sink.clone());
    env.start("unaligned").expect("it starts")
}

fn history(job: &RunningJob) -> CheckpointHistory {
    job.telemetry().checkpoints.latest()
}

fn until(job: &RunningJob, what: &str, holds: impl Fn(&CheckpointHistory) -> bool) {
    let began = Instant::now();
    while !holds(&history(job)) {
        let history = history(job);
        assert!(began.elapsed() < PATIENCE, "in vain: {what}: {history:?}");
        assert!(!job.ended(), "it ended too early");
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn unaligned(after: Duration) -> CheckpointSettings {
    CheckpointSettings {
        unaligned: true,
        aligned_timeout: after,
        ..CheckpointSettings::default()
    }
}

/// Opens the sink and waits for the end: then all of each key have come.
fn to_its_end(job: RunningJob, sink: &Shut) {
    sink.open.store(true, SeqCst);
    job.wait().expect("it comes to a good end");
    let counts = sink.counts.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(counts.len() as u64, KEYS);
    assert!(counts.values().all(|(count, _)| *count == RECORDS / KEYS));
}

#[test]
fn a_sink_that_takes_nothing_holds_up_checkpoints_only_where_barriers_stay_in_order() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let sink = Shut::default();
    let job = start(folder.path(), &sink, 2, CheckpointSettings::default());
    until(&job, "one fails", |history| history.counts.failed > 0);
    let aligned = history(&job);
    let failed = aligned.latest.failed.expect("one failed");
    let reason = failed.failure_message.unwrap_or_default();
    assert!(reason.contains("not complete after"), "{reason}");
    to_its_end(job, &sink);

    let folder = tempfile::tempdir().expect("there is room for files");
    let sink = Shut::default();
    let job = start(folder.path(), &sink, 2, unaligned(Duration::ZERO));
    until(&job, "some are complete", |h| h.counts.completed > 5);
    let overtaken = history(&job);
    assert_eq!(overtaken.counts.failed, 0, "{overtaken:?}");
    let last = overtaken.latest.completed.as_ref();
    let last = last.expect("some are complete");
    assert_eq!(last.checkpoint_type, CheckpointType::UnalignedCheckpoint);
    let in_flight = last.persisted_data;
    assert!(in_flight > 1_000 && in_flight < last.state_size, "{last:?}");
    assert!(last.end_to_end_duration < 1_000, "{last:?}");
    println!(
        "unaligned: checkpoint {} in {} ms with {} bytes in flight, pause {:?}; aligned: {reason}",
        last.id,
        last.end_to_end_duration,
        last.persisted_data,
        overtaken.longest_pause()
    );
    to_its_end(job, &sink);
}

#[test]
fn one_that_takes_too_long_in_order_overtakes_then() {
    let folder = tempfile::tempdir().expect("there is room for files");
    let sink = Shut::default();
    let after = Duration::from_millis(200);
    let job = start(folder.path(), &sink, 2, unaligned(after));
    let completed = |kind, history: &CheckpointHistory| {
        let done = |f: &&_| {
            let f: &tidegate::engine::checkpoint::history::CheckpointFigures = f;
            f.status == CheckpointStatus::Completed && f.checkpoint_type == kind
        };
        history.history.iter().find(done).cloned()
    };
    let turned = CheckpointType::UnalignedCheckpoint;
    until(&job, "one overtakes", |history| {
        completed(turned, history).is_some()
    });
    let figures = completed(turned, &history(&job)).expect("it was there");
    assert!(figures.end_to_end_duration >= 200, "{figures:?}");
    sink.open.store(true, SeqCst);
    to_its_end(job, &sink);
}

#[test]
fn what_was_in_flight_is_there_after_a_restart_once_and_in_order_at_any_parallelism() {
    for (before, after, again) in [(2, 3, 1), (3, 1, 2), (1, 2, 2)] {
        let folder = tempfile::tempdir().expect("there is room for files");
        let sink = Shut::default();
        for parallelism in [before, after] {
            let job = start(folder.path(), &sink, parallelism, unaligned(Duration::ZERO));
            // The second life begins with what the first had in flight, and hands little of it on.
            until(&job, "some are complete", |h| h.counts.completed > 3);
            job.cancel();
            assert!(job.wait().is_err(), "it was cancelled");
        }
        // Of an aligned job they are no hindrance either.
        let settings = match again {
            1 => CheckpointSettings::default(),
            _ => unaligned(Duration::ZERO),
        };
        let job = start(folder.path(), &sink, again, settings);
        to_its_end(job, &sink);
    }
}

#[test]
fn records_that_nobody_can_keep_are_told_of_with_their_edge() {
    let mut env = StreamEnv::with_parallelism(2);
    env.settings_mut().checkpoints = Some(unaligned(Duration::ZERO));
    env.source("words", Values::new(["a", "b"]))
        .map(|word| (word, 1u64))
        .key_by(|(word, _)| (*word).to_owned())
        .window(CountWindow::tumbling(1))
        .count()
        .sink("nothing", BlackHole);
    let error = env.graph("words").expect_err("no &str can be read back");
    let text = error.to_string();
    for words in [
        "'words -> map' to 'count_window",
        "(&str, u64)",
        ".encodable()",
    ] {
        assert!(text.contains(words), "{text}");
    }
    env.settings_mut().checkpoints = Some(CheckpointSettings::default());
    assert!(env.graph("words").is_ok(), "in order they need not be kept");
}
