//! A job with every kind of state: windows, sessions, joins, a running reduce, and a function with value,
//! list, map and reducing state and timers. All of its answers are the same at every parallelism.

use super::ledger::Ledger;
use super::pace::{Pace, Paced};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::{Checkpointing, Restore, Target};
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy};
use tidegate::engine::state::StateBackend;
use tidegate::prelude::*;

/// How many events there are if nothing else is said; of quotes there are a fourth.
pub const EVENTS: u64 = 12_000;
const KEYS: u64 = 41;

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Event {
    pub key: u64,
    pub at: i64,
    pub n: u64,
}

/// Event number `n`.
pub fn event(n: u64) -> Event {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    // Every tenth second is silent, so that sessions end.
    let at = n * 5 + mixed % 300;
    Event {
        key: (mixed >> 40) % KEYS,
        at: (at + at / 9_000 * 1_000) as i64,
        n,
    }
}

fn quote(n: u64) -> Event {
    Event {
        key: n % KEYS,
        at: (n * 20) as i64,
        n,
    }
}

/// Tells of each key's seconds what came in them.
#[derive(Clone)]
struct Seconds;

struct Second {
    counts: MapState<u64, i64, u64>,
    numbers: ListState<u64, u64>,
    last: ValueState<u64, i64>,
    total: ReducingState<u64, u64>,
}

impl KeyedProcessFunction<u64, Event> for Seconds {
    type Out = String;
    type State = Second;

    fn open(&mut self, states: &mut KeyedStates<u64>, _: &mut OpenContext<'_>) -> Flow<Second> {
        Ok(Second {
            counts: states.map("counts")?,
            numbers: states.list("numbers")?,
            last: states.value("last")?,
            total: states.reducing("total", |a, b| a + b)?,
        })
    }

    fn process<C: Collector<String>>(
        &mut self,
        second: &mut Second,
        cx: &ProcessContext<'_, u64>,
        event: Event,
        _: &mut C,
    ) -> Flow {
        let end = event.at / 1000 * 1000 + 999;
        second.counts.update(cx, end, |n| *n += 1);
        second.numbers.add(cx, event.n);
        second.total.add(cx, 1);
        cx.register_event_timer(Timestamp(end));
        Ok(())
    }

    fn on_timer<C: Collector<String>>(
        &mut self,
        second: &mut Second,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        let count = second.counts.remove(cx, &at.0).unwrap_or_default();
        let before = second.last.set(cx, at.0).unwrap_or(-1);
        // What is in the list and the total may belong to later seconds: they are told at the end of time.
        let line = format!("second {} {} {count} after {before}", cx.key(), at.0);
        out.collect(at, line)?;
        if second.counts.is_empty(cx) && cx.watermark() == Timestamp::MAX {
            let mut numbers = second.numbers.take(cx);
            numbers.sort_unstable();
            let (sum, total) = (numbers.iter().sum::<u64>(), second.total.get(cx));
            let line = format!("key {} {} {sum} {total:?}", cx.key(), numbers.len());
            out.collect(at, line)?;
        }
        Ok(())
    }
}

/// How a run of the job differs from others.
#[derive(Clone)]
pub struct Run {
    pub events: u64,
    pub parallelism: u32,
    pub max_parallelism: u32,
    /// For a run that is to be stopped on its way.
    pub pace: Option<Pace>,
    pub restore: Restore,
    pub allow_non_restored_state: bool,
    /// Another operator than before: counts by key in all of the time.
    pub with_totals: bool,
    pub with_sessions: bool,
    /// Without checkpoints but for those that it is asked for and the last one.
    pub interval: Option<Duration>,
    pub state: StateBackend,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            events: EVENTS,
            parallelism: 2,
            max_parallelism: 128,
            pace: None,
            restore: Restore::Nothing,
            allow_non_restored_state: false,
            with_totals: false,
            with_sessions: true,
            interval: None,
            state: StateBackend::Memory,
        }
    }
}

impl Run {
    /// One that goes on from the folder of a savepoint.
    pub fn from(folder: &Path) -> Self {
        Run {
            restore: Restore::From(target(folder)),
            ..Run::default()
        }
    }
}

/// A folder as the place of a savepoint.
pub fn target(folder: &Path) -> Target {
    let name = folder.file_name().expect("a name").to_str().expect("text");
    Target {
        storage: Arc::new(LocalStorage::new(folder.parent().expect("a parent"))),
        folder: name.to_owned(),
    }
}

/// The environment of a run that keeps its checkpoints in `folder`.
pub fn env(run: &Run, folder: &Path) -> StreamEnv {
    let mut env = StreamEnv::with_parallelism(run.parallelism);
    env.settings_mut().max_parallelism = run.max_parallelism;
    env.settings_mut().state = run.state.clone();
    env.settings_mut().channels.check_grammar = true;
    env.settings_mut().checkpoints = Some(CheckpointSettings {
        interval: run.interval,
        min_pause: Some(Duration::ZERO),
        ..CheckpointSettings::default()
    });
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder)));
    checkpointing.restart = RestartStrategy::None;
    checkpointing.restore = run.restore.clone();
    checkpointing.allow_non_restored_state = run.allow_non_restored_state;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    env
}

/// Starts a run.
pub fn start(run: &Run, folder: &Path, ledger: &Ledger) -> tidegate::Result<RunningJob> {
    let env = env(run, folder);
    define(&env, run, ledger);
    env.start("all kinds")
}

/// Runs it to its end.
pub fn finish(run: &Run, folder: &Path, ledger: &Ledger) {
    let job = start(run, folder, ledger).expect("starts");
    job.wait().expect("comes to a good end");
}

/// Waits until a job has read so many events.
pub fn has_read(job: &RunningJob, events: u64) {
    let read = || {
        let all = job.stats().snapshot();
        let events = all.iter().filter(|s| s.vertex.starts_with("events"));
        events.map(|s| s.records_in).sum::<u64>()
    };
    while read() < events {
        assert!(!job.ended(), "it ended before it had read {events} events");
        std::thread::yield_now();
    }
}

/// The job itself.
pub fn define(env: &StreamEnv, run: &Run, ledger: &Ledger) {
    let events = Paced::new(run.events, event, run.pace.as_ref());
    let slower = run.pace.as_ref().map(|pace| pace.times(0.25));
    let quotes = Paced::new(run.events / 4, quote, slower.as_ref());
    let late = WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(2));
    let [windows, sessions, running, seconds, joined, near, totals] = env
        .source("events", events)
        .uid("events")
        .watermarks(late.clone().timestamps(|e: &Event| e.at))
        .fork_n();
    let [for_windows, for_near] = env
        .source("quotes", quotes)
        .uid("quotes")
        .watermarks(late.timestamps(|e: &Event| e.at))
        .fork_n();
    windows
        .key_by(|e| e.key)
        .window(Tumbling::event_time(Duration::from_secs(2)))
        .count()
        .uid("windows")
        .map(|w| format!("window {} {} {}", w.key, w.window.start.0, w.value))
        .sink("windows out", ledger.page("windows"));
    if run.with_sessions {
        sessions
            .key_by(|e| e.key)
            .window(Session::event_time(Duration::from_millis(700)))
            .count()
            .uid("sessions")
            .map(|w| format!("session {} {:?} {}", w.key, w.window, w.value))
            .sink("sessions out", ledger.page("sessions"));
    } else {
        sessions.filter(|_| false).sink("nothing", BlackHole);
    }
    running
        .map(|e| (e.key, e.n))
        .key_by(|e| e.0)
        .reduce(|a, b| (a.0, a.1 + b.1))
        .uid("running")
        .map(|(key, sum)| format!("running {key} {sum}"))
        .sink("running out", ledger.page("running"));
    seconds
        .key_by(|e| e.key)
        .process(Seconds)
        .uid("seconds")
        .sink("seconds out", ledger.page("seconds"));
    joined
        .join(for_windows)
        .key_by(|e| e.key, |q| q.key)
        .window(Tumbling::event_time(Duration::from_secs(1)))
        .map(|e, q| format!("joined {} {} {}", e.key, e.n, q.n))
        .sink("joined out", ledger.page("joined"));
    near.key_by(|e| e.key)
        .interval_join(for_near.key_by(|q| q.key))
        .between(-200, 300)
        .map(|e, q| format!("near {} {} {}", e.key, e.n, q.n))
        .sink("near out", ledger.page("near"));
    if run.with_totals {
        totals
            .key_by(|e| e.key)
            .fold(0u64, |total, _, _| {
                *total += 1;
                *total
            })
            .uid("totals")
            .filter(|_| false)
            .map(|total| total.to_string())
            .sink("totals out", ledger.page("totals"));
    } else {
        totals.filter(|_| false).sink("no totals", BlackHole);
    }
}

/// What of the lines does not depend on the order in which two subtasks' records met: of running sums only
/// how many there were and the last.
pub fn answers(ledger: &Ledger) -> Vec<String> {
    let mut answers = Vec::new();
    let mut running: BTreeMap<String, (u64, usize)> = BTreeMap::new();
    for line in ledger.lines() {
        match line.strip_prefix("running ") {
            Some(rest) => {
                let (key, sum) = rest.split_once(' ').expect("a key and a sum");
                let entry = running.entry(key.to_owned()).or_default();
                *entry = (entry.0.max(sum.parse().expect("a sum")), entry.1 + 1);
            }
            None => answers.push(line),
        }
    }
    answers.extend(
        running
            .iter()
            .map(|(key, end)| format!("running {key} {end:?}")),
    );
    answers
}
