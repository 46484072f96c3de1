//! A keyed process that is cut anywhere and goes on in any number of subtasks emits what one does that
//! was never interrupted.

use super::*;
use crate::hash::{key_group, key_hash, owner_of_group};
use crate::process::{ProcessContext, TimeDomain, TimerContext};
use crate::state::{
    AggregatingState, Expiring, ListState, MapState, ReducingState, StateTtl, ValueState,
};
use crate::testing::{Attempt, MemorySpill, OperatorHarness};
use crate::window::Count;
use proptest::prelude::*;
use std::rc::Rc;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
enum Do {
    Look,
    Add(i64),
    AddToMap(u8, i64),
    ClearLists,
    Event(i64),
    DeleteEvent(i64),
    /// So long from now.
    Processing(i64),
    DeleteProcessing(i64),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Record(u64, Do),
    Watermark(i64),
    Advance(u64),
    /// Everything begins anew in so many subtasks, from what was saved.
    Cut(u32),
}

/// Keeps something of each kind of state, and shows all of it with each record and timer.
#[derive(Clone)]
struct Everything;

struct Kept {
    value: ValueState<u64, i64>,
    list: ListState<u64, i64>,
    map: MapState<u64, u8, i64>,
    highest: ReducingState<u64, i64>,
    count: AggregatingState<u64, i64, Count>,
    fresh: ValueState<u64, i64, Expiring>,
    used: ListState<u64, i64, Expiring>,
    entries: MapState<u64, u8, i64, Expiring>,
}

type Shown = (u64, &'static str, i64, Vec<i64>);

impl Kept {
    fn show(&self, cx: &ProcessContext<'_, u64>, why: &'static str, at: i64) -> Shown {
        let mut all: Vec<i64> = vec![-1];
        all.extend(self.value.get(cx));
        all.push(-2);
        all.extend(self.list.get(cx));
        all.push(-3);
        let mut entries = Vec::new();
        self.map.for_each(cx, |k, v| entries.push((*k, *v)));
        entries.push((255, -4));
        self.entries
            .for_each(cx, |k, v| entries.push((*k, v + 1_000_000)));
        entries.sort_unstable();
        all.extend(entries.iter().flat_map(|(k, v)| [i64::from(*k), *v]));
        all.extend(self.highest.get(cx));
        all.push(-5);
        all.extend(self.count.get(cx).map(|n| n as i64));
        all.push(-6);
        all.extend(self.fresh.get(cx));
        all.push(-7);
        all.extend(self.used.get(cx));
        (*cx.key(), why, at, all)
    }
}

impl KeyedProcessFunction<u64, (u64, Do)> for Everything {
    type Out = Shown;
    type State = Kept;

    fn open(&mut self, states: &mut KeyedStates<u64>, _: &mut OpenContext<'_>) -> Flow<Kept> {
        let ttl = StateTtl::new(Duration::from_millis(20));
        Ok(Kept {
            value: states.value("value")?,
            list: states.list("list")?,
            map: states.map("map")?,
            highest: states.reducing("highest", |a: &i64, b| b.max(*a))?,
            count: states.aggregating("count", Count)?,
            fresh: states.value_with("fresh", ttl)?,
            used: states.list_with("used", ttl.update_on_read())?,
            entries: states.map_with("entries", ttl)?,
        })
    }

    fn process<C: Collector<Shown>>(
        &mut self,
        kept: &mut Kept,
        cx: &ProcessContext<'_, u64>,
        (_, order): (u64, Do),
        out: &mut C,
    ) -> Flow {
        let now = cx.processing_time().0;
        match order {
            Do::Look => {}
            Do::Add(n) => {
                kept.value.update(cx, |v| *v += n);
                kept.list.add(cx, n);
                kept.highest.add(cx, n);
                kept.count.add(cx, n);
                kept.fresh.update(cx, |v| *v += n);
                kept.used.add(cx, n);
            }
            Do::AddToMap(entry, n) => {
                kept.map.update(cx, entry, |v| *v += n);
                kept.entries.update(cx, entry, |v| *v += n);
            }
            Do::ClearLists => {
                kept.list.clear(cx);
                kept.used.clear(cx);
            }
            Do::Event(at) => drop(cx.register_event_timer(Timestamp(at))),
            Do::DeleteEvent(at) => drop(cx.delete_event_timer(Timestamp(at))),
            Do::Processing(by) => drop(cx.register_processing_timer(Timestamp(now + by))),
            Do::DeleteProcessing(by) => drop(cx.delete_processing_timer(Timestamp(now + by))),
        }
        out.collect(cx.timestamp(), kept.show(cx, "record", cx.watermark().0))
    }

    fn on_timer<C: Collector<Shown>>(
        &mut self,
        kept: &mut Kept,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        let domain = match cx.domain() {
            TimeDomain::Event => "event",
            TimeDomain::Processing => "processing",
        };
        if at.0 % 7 == 0 {
            cx.register_event_timer(Timestamp(at.0 + 5));
        }
        out.collect(at, kept.show(cx, domain, at.0))
    }
}

type Input = (u64, Do);
type Harness = OperatorHarness<Input, Keyed<u64, Input>, KeyedProcess<u64, Input, Everything>>;

const GROUPS: u32 = 16;

fn attempt(me: u32, parallelism: u32) -> Attempt {
    Attempt::new()
        .max_parallelism(GROUPS)
        .subtask(me, parallelism)
}

fn begin(attempt: Attempt) -> Harness {
    let harness = attempt.keyed(KeyedProcess::new(Everything), |r: &Input| r.0);
    harness.expect("begins")
}

/// All that subtasks emit in each step, each key's in order.
fn run(steps: &[Step], exact: bool) -> Vec<Vec<(Timestamp, Shown)>> {
    run_in(steps, exact, &attempt)
}

/// State that has next to no memory.
fn spilling(me: u32, parallelism: u32) -> Attempt {
    attempt(me, parallelism).spilling(Rc::new(MemorySpill::new(200)))
}

fn run_in(
    steps: &[Step],
    exact: bool,
    attempt: &dyn Fn(u32, u32) -> Attempt,
) -> Vec<Vec<(Timestamp, Shown)>> {
    let (mut now, mut watermark, mut emitted) = (0, 0, Vec::new());
    let mut subtasks = vec![begin(attempt(0, 1))];
    for step in steps {
        match *step {
            Step::Record(key, order) => {
                let group = key_group(key_hash(&key), GROUPS);
                let owner = owner_of_group(group, GROUPS, subtasks.len() as u32);
                let subtask = &mut subtasks[owner as usize];
                subtask.push(watermark, (key, order)).expect("obeys");
                subtask.turn().expect("has its turn");
            }
            Step::Watermark(by) => {
                watermark += by;
                for subtask in &mut subtasks {
                    subtask.watermark(watermark).expect("fires");
                }
            }
            Step::Advance(by) => {
                now += by as i64;
                for subtask in &mut subtasks {
                    subtask.advance(Duration::from_millis(by)).expect("fires");
                }
            }
            Step::Cut(parallelism) => {
                let saved = subtasks.iter_mut().map(|s| s.save().expect("saves"));
                let saved: Vec<_> = (0..).zip(saved).collect();
                let go_on = |me| begin(attempt(me, parallelism).at(now).restored(saved.clone()));
                subtasks = (0..parallelism).map(go_on).collect();
                let silent = subtasks.iter_mut().all(|s| s.records().is_empty());
                assert!(silent, "a restore emits nothing");
            }
        }
        let mut step: Vec<_> = subtasks.iter_mut().flat_map(|s| s.records()).collect();
        if !exact {
            step.sort_by_key(|(_, shown)| shown.0);
        }
        emitted.push(step);
    }
    emitted
}

fn orders() -> impl Strategy<Value = Do> {
    prop_oneof![
        Just(Do::Look),
        (1i64..100).prop_map(Do::Add),
        (0u8..4, 1i64..100).prop_map(|(k, n)| Do::AddToMap(k, n)),
        Just(Do::ClearLists),
        (0i64..80).prop_map(Do::Event),
        (0i64..80).prop_map(Do::DeleteEvent),
        (1i64..30).prop_map(Do::Processing),
        (1i64..30).prop_map(Do::DeleteProcessing),
    ]
}

/// Steps with cuts into as many subtasks as one of `parallelism`.
fn steps(parallelism: std::ops::Range<u32>) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (0u64..8, orders()).prop_map(|(key, order)| Step::Record(key, order)),
        2 => (0i64..12).prop_map(Step::Watermark),
        2 => (1u64..9).prop_map(Step::Advance),
        1 => parallelism.prop_map(Step::Cut),
    ];
    prop::collection::vec(step, 0..150)
}

fn without_cuts(steps: &[Step]) -> Vec<Step> {
    let uncut = |step: &Step| match step {
        Step::Cut(_) => Step::Watermark(0),
        other => *other,
    };
    steps.iter().map(uncut).collect()
}

/// A cut stands where the other run has a watermark that was seen before: that may fire timers for the
/// past, which the cut must leave for the next watermark.
fn with_equal_watermarks(steps: &[Step]) -> Vec<Step> {
    let both = |step: &Step| match step {
        Step::Cut(_) => vec![*step, Step::Watermark(0)],
        other => vec![*other],
    };
    steps.iter().flat_map(both).collect()
}

proptest! {
    #[test]
    fn a_cut_changes_nothing_not_even_the_order(steps in steps(1..2)) {
        let cut = with_equal_watermarks(&steps);
        let emitted: Vec<_> = run(&cut, true).concat();
        prop_assert_eq!(emitted, run(&without_cuts(&steps), true).concat());
    }

    #[test]
    fn a_cut_into_other_subtasks_changes_nothing(steps in steps(1..4)) {
        let cut = with_equal_watermarks(&steps);
        let by_key = |steps: &[Step]| {
            let mut all = run(steps, false);
            all.retain(|step| !step.is_empty());
            all
        };
        prop_assert_eq!(by_key(&cut), by_key(&without_cuts(&steps)));
    }

    #[test]
    fn state_that_spills_behaves_as_that_in_memory(steps in steps(1..4)) {
        let shown = |attempt| run_in(&with_equal_watermarks(&steps), false, attempt);
        prop_assert_eq!(shown(&spilling), shown(&attempt));
    }
}

#[test]
fn a_timer_that_was_set_before_and_after_a_restore_fires_once() {
    let mut before = begin(attempt(0, 1));
    for order in [Do::Event(30), Do::Event(30), Do::Processing(30)] {
        before.push(0, (1, order)).expect("obeys");
    }
    before.watermark(10).expect("passes");
    let mut after = begin(attempt(0, 1).restored(vec![(0, before.save().expect("saves"))]));
    for order in [Do::Event(30), Do::Processing(30)] {
        after.push(0, (1, order)).expect("obeys");
    }
    after.records();
    after.watermark(30).expect("fires");
    after.advance(Duration::from_millis(30)).expect("fires");
    let fired: Vec<_> = after.values().into_iter().map(|s| (s.1, s.2)).collect();
    assert_eq!(fired, [("event", 30), ("processing", 30)]);
}

#[test]
fn timers_of_equal_time_keep_their_order_and_late_ones_of_the_clock_fire_at_once() {
    let mut before = begin(attempt(0, 1));
    let keys = [5, 3, 9, 1, 7, 2, 8];
    for key in keys {
        before.push(0, (key, Do::Event(30))).expect("obeys");
        before.push(0, (key, Do::Processing(30))).expect("obeys");
    }
    let saved = vec![(0, before.save().expect("saves"))];
    let mut after = begin(attempt(0, 1).at(1000).restored(saved));
    assert_eq!(after.values(), [], "a restore emits nothing");
    after.turn().expect("fires");
    after.watermark(30).expect("fires");
    let fired: Vec<_> = after.values().into_iter().map(|s| (s.0, s.1)).collect();
    let expected = ["processing", "event"].map(|domain| keys.map(|key| (key, domain)));
    assert_eq!(fired, expected.concat());
}

#[test]
fn state_is_as_it_was_at_the_barrier_though_records_go_on() {
    let mut before = begin(attempt(0, 1));
    for key in 0..20_000 {
        before.push(0, (key, Do::Event(50))).expect("obeys");
        before.push(0, (key, Do::Add(1))).expect("adds");
    }
    before.barrier().expect("freezes");
    before.watermark(60).expect("fires");
    for key in 0..20_000 {
        before.push(0, (key, Do::Add(100))).expect("adds");
    }
    let saved = vec![(0, before.image().expect("saves"))];
    let mut after = begin(attempt(0, 1).restored(saved));
    after.watermark(60).expect("fires");
    let fired = after.values();
    assert_eq!(fired.len(), 20_000);
    assert!(fired.iter().all(|shown| shown.3[1] == 1));
}

#[test]
fn what_has_expired_goes_without_a_record() {
    let mut h = begin(attempt(0, 1));
    h.push(0, (1, Do::Look)).expect("looks");
    assert_eq!(h.wake_at(), Timestamp::MAX);
    h.push(0, (1, Do::Add(5))).expect("adds");
    assert!(h.wake_at() <= Timestamp(20));
    for _ in 0..3 {
        h.advance(Duration::from_millis(20)).expect("sweeps");
    }
    assert_eq!(h.wake_at(), Timestamp::MAX, "nothing is left to expire");
}
