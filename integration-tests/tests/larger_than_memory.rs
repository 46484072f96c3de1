//! Every kind of keyed state in whole jobs, each ten times larger than the memory for it, with
//! checkpoints that share files and panics on the way: the same results as in memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::Checkpointing;
use tidegate::connectors::BlackHole;
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy};
use tidegate::engine::hash::key_hash;
use tidegate::engine::state::{AutoState, RocksDbSettings, StateBackend};
use tidegate::engine::window::sum;
use tidegate::prelude::*;

/// A key, and the record's number, which is its time in milliseconds too, give or take.
type Record = (u64, u64);

const RECORDS: u64 = 60_000;
const KEYS: u64 = 20_000;
const TABLE_MEMORY: u64 = 40_000;
/// What an entry takes in memory at least.
const ENTRY_BYTES: u64 = 40;

fn record(n: u64) -> Record {
    (key_hash(&n) % KEYS, n)
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Records of the kind under test become lines.
type Kind = fn(DataStream<Record>, DataStream<Record>) -> DataStream<String>;

/// What a kind with one input does with the other.
fn nowhere(records: DataStream<Record>) {
    records.sink("nowhere", BlackHole);
}

fn tumbling(records: DataStream<Record>, other: DataStream<Record>) -> DataStream<String> {
    nowhere(other);
    let windows = records
        .key_by(|r| r.0)
        .window(Tumbling::event_time(ms(30_000)));
    windows.count().map(|w| format!("{w:?}")).boxed()
}

fn sliding(records: DataStream<Record>, other: DataStream<Record>) -> DataStream<String> {
    nowhere(other);
    let spec = Sliding::event_time(ms(24_000), ms(8_000));
    let windows = records.key_by(|r| r.0).window(spec);
    let summed = windows
        .allowed_lateness(ms(5))
        .aggregate(sum(|r: &Record| r.1 as i64));
    summed.map(|w| format!("{w:?}")).boxed()
}

fn sessions(records: DataStream<Record>, other: DataStream<Record>) -> DataStream<String> {
    nowhere(other);
    let windows = records
        .key_by(|r| r.0)
        .window(Session::event_time(ms(9_000)));
    windows.count().map(|w| format!("{w:?}")).boxed()
}

fn triggered(records: DataStream<Record>, other: DataStream<Record>) -> DataStream<String> {
    nowhere(other);
    let windows = records
        .key_by(|r| r.0)
        .window(Tumbling::event_time(ms(30_000)));
    // How much a window holds on the way depends on when the watermark came.
    let at_end = EventTimeTrigger::new();
    windows
        .trigger(at_end)
        .count()
        .map(|w| format!("{w:?}"))
        .boxed()
}

fn joined(first: DataStream<Record>, second: DataStream<Record>) -> DataStream<String> {
    let met = first.join(second).key_by(|r| r.0, |r| r.0);
    let pairs = met.window(Tumbling::event_time(ms(12_000)));
    pairs.map(|a, b| format!("{a:?} {b:?}")).boxed()
}

fn near(first: DataStream<Record>, second: DataStream<Record>) -> DataStream<String> {
    let met = first.key_by(|r| r.0).interval_join(second.key_by(|r| r.0));
    let near = met.between(ms(0), ms(9_000));
    near.map(|a: &Record, b: &Record| format!("{a:?} {b:?}"))
        .boxed()
}

/// Counts a key's records in state, and reports some time after each record.
#[derive(Clone)]
struct Later;

impl KeyedProcessFunction<u64, Record> for Later {
    type Out = String;
    type State = ValueState<u64, u64>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        states.value("count")
    }

    fn process<C: Collector<String>>(
        &mut self,
        count: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        _: Record,
        _: &mut C,
    ) -> Flow {
        count.update(cx, |n| *n += 1);
        let at = cx.timestamp().0;
        cx.register_event_timer(Timestamp(at + 25_000));
        // One of two is taken back.
        cx.register_event_timer(Timestamp(at / 2 * 2 + 30_000));
        if at % 2 == 0 {
            cx.delete_event_timer(Timestamp(at + 30_000));
        }
        Ok(())
    }

    fn on_timer<C: Collector<String>>(
        &mut self,
        count: &mut Self::State,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        // How many records came meanwhile depends on when the watermark came.
        let any = count.get(cx).is_some();
        out.collect(at, format!("{} at {at:?}, {any}", cx.key()))
    }
}

fn timers(records: DataStream<Record>, other: DataStream<Record>) -> DataStream<String> {
    nowhere(other);
    records.key_by(|r| r.0).process(Later).boxed()
}

/// The distinct lines of a run. With `panics`, it begins anew so often from its newest checkpoint.
fn run(kind: Kind, state: StateBackend, parallelism: u32, panics: u32) -> (BTreeSet<String>, u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut env = StreamEnv::with_parallelism(parallelism);
    env.settings_mut().state = state;
    env.settings_mut().checkpoints = Some(CheckpointSettings {
        min_pause: Some(Duration::ZERO),
        ..CheckpointSettings::every(ms(20))
    });
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder.path())));
    checkpointing.restart = RestartStrategy::FixedDelay {
        attempts: 100,
        delay: ms(1),
    };
    env.run_settings_mut().checkpointing = Some(checkpointing);
    // Long enough for a process that grows to be looked at.
    let slowly = matches!(env.settings_mut().state, StateBackend::Auto(_));
    let (seen, left) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU32::new(panics)),
    );
    let source = |name: &str| {
        let strategy = WatermarkStrategy::bounded_out_of_orderness(ms(10));
        let strategy = strategy.timestamps(|r: &Record| (r.1 ^ 5) as i64);
        let mut numbers = Generator::new(RECORDS, record);
        if slowly {
            numbers = numbers.per_second(30_000.0);
        }
        let records = env.source(name, numbers).watermarks(strategy);
        let (seen, left) = (seen.clone(), left.clone());
        let watched = records.map(move |record| {
            if seen.fetch_add(1, SeqCst) % 43_001 == 43_000 {
                let more = left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
                assert!(more.is_err(), "as planned");
            }
            record
        });
        watched.boxed()
    };
    let out = Collect::new();
    kind(source("first"), source("second")).sink("out", out.clone());
    let job = env.start("larger").expect("starts");
    let telemetry = job.telemetry().clone();
    let mut most = 0;
    while !job.ended() {
        if let Some(state) = telemetry.observe().state {
            most = most.max(state.backends.iter().map(|backend| backend.keys).sum());
        }
        std::thread::yield_now();
    }
    job.wait().expect("comes to a good end");
    (out.values().into_iter().collect(), most)
}

fn check(kind: Kind) {
    let (expected, _) = run(kind, StateBackend::Memory, 1, 0);
    assert!(expected.len() > 10_000, "{} results", expected.len());
    for (parallelism, moves) in [(1, false), (3, false), (2, true)] {
        let folder = tempfile::tempdir().expect("a folder");
        let rocksdb = RocksDbSettings {
            state_dir: folder.path().to_owned(),
            table_memory: TABLE_MEMORY,
            ..RocksDbSettings::default()
        };
        let backend = match moves {
            false => StateBackend::RocksDb(rocksdb),
            // The first look is at a process that is too large.
            true => StateBackend::Auto(AutoState {
                moves_at: Some(1),
                rocksdb,
            }),
        };
        let (got, most) = run(kind, backend, parallelism, 2);
        let times = most * ENTRY_BYTES / TABLE_MEMORY;
        assert!(
            times >= 10,
            "moves: {moves}, {most} entries are {times} times the memory"
        );
        let missing: Vec<_> = expected.difference(&got).take(3).collect();
        let wrong: Vec<_> = got.difference(&expected).take(3).collect();
        assert!(
            missing.is_empty() && wrong.is_empty(),
            "parallelism {parallelism}: missing {missing:?}, wrong {wrong:?}"
        );
        let left = std::fs::read_dir(folder.path()).expect("lists").count();
        assert_eq!(left, 0, "nothing stays behind");
    }
}

#[test]
fn tumbling_windows() {
    check(tumbling);
}

#[test]
fn sliding_windows() {
    check(sliding);
}

#[test]
fn session_windows() {
    check(sessions);
}

#[test]
fn windows_with_triggers() {
    check(triggered);
}

#[test]
fn window_joins() {
    check(joined);
}

#[test]
fn interval_joins() {
    check(near);
}

#[test]
fn timers_of_process_functions() {
    check(timers);
}
