//! Tests of windows per key: single behaviours, and all of them against a model without slices.

use super::{
    Aggregator, Aligned, Count, Reduced, SlicedWindows, Sliding, TimeWindow, Tumbling, Windowed,
};
use crate::exchange::Keyed;
use crate::fault::FaultKind;
use crate::operator::Operator;
use crate::side::SideOutput;
use crate::stage::Signal;
use crate::testing::OperatorHarness;
use crate::time::Timestamp;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

type Counting = SlicedWindows<u64, u64, Count>;
type Harness = OperatorHarness<u64, Keyed<u64, u64>, Counting>;

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Counts per key; the records are their keys.
fn counting(spec: Aligned, lateness: u64) -> Harness {
    let windows = SlicedWindows::new(spec, Count).allowed_lateness(ms(lateness));
    OperatorHarness::keyed(windows, |key: &u64| *key)
}

/// What came out since the last time: (start, end, key, count), sorted.
fn results<Op>(harness: &mut OperatorHarness<u64, Keyed<u64, u64>, Op>) -> Vec<(i64, i64, u64, u64)>
where
    Op: Operator<Keyed<u64, u64>, Out = Windowed<u64, u64>>,
{
    let mut all: Vec<_> = harness
        .records()
        .into_iter()
        .map(|(at, Windowed { key, window, value })| {
            assert_eq!(at, window.max_timestamp());
            (window.start.0, window.end.0, key, value)
        })
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn a_tumbling_window_fires_when_the_watermark_passes_its_last_moment() {
    let mut harness = counting(Tumbling::event_time(ms(10)), 0);
    for (at, key) in [(0, 1), (9, 1), (5, 2), (10, 1)] {
        harness.push(at, key).expect("counts");
    }
    harness.watermark(8).expect("passes");
    assert_eq!(results(&mut harness), []);
    harness.watermark(9).expect("fires");
    assert_eq!(results(&mut harness), [(0, 10, 1, 2), (0, 10, 2, 1)]);
    harness.end().expect("fires the rest");
    assert_eq!(results(&mut harness), [(10, 20, 1, 1)]);
}

#[test]
fn the_watermark_follows_the_results_of_its_windows() {
    let mut harness = counting(Tumbling::event_time(ms(10)), 0);
    harness.push(3, 1).expect("counts");
    harness.watermark(50).expect("fires");
    assert_eq!(harness.signals(), [Signal::Watermark(Timestamp(50))]);
}

#[test]
fn sliding_windows_share_their_slices() {
    let mut harness = counting(Sliding::event_time(ms(10), ms(4)), 0);
    harness.push(9, 1).expect("counts");
    harness.push(4, 1).expect("counts");
    harness.end().expect("fires");
    assert_eq!(
        results(&mut harness),
        [(-4, 6, 1, 1), (0, 10, 1, 2), (4, 14, 1, 2), (8, 18, 1, 1)]
    );
}

#[test]
fn offsets_move_windows_either_way() {
    for (offset, start) in [(3, 3), (-3, 7), (13, 3), (-23, 7)] {
        let mut harness = counting(Tumbling::event_time(ms(10)).offset_ms(offset), 0);
        harness.push(start, 1).expect("counts");
        harness.push(start - 1, 1).expect("counts");
        harness.end().expect("fires");
        assert_eq!(
            results(&mut harness),
            [(start - 10, start, 1, 1), (start, start + 10, 1, 1)]
        );
    }
}

#[test]
fn a_record_is_late_when_all_its_windows_are_gone() {
    let tag = SideOutput::new("late");
    let windows: Counting = SlicedWindows::new(Sliding::event_time(ms(10), ms(5)), Count)
        .late_output(Some(tag.clone()));
    let (mut harness, late) = OperatorHarness::keyed_with_side(windows, |key: &u64| *key, &tag);
    harness.watermark(9).expect("passes");
    harness.push(4, 1).expect("is late");
    harness.push(5, 2).expect("counts in one window");
    harness.end().expect("fires");
    assert_eq!(results(&mut harness), [(5, 15, 2, 1)]);
    assert_eq!(harness.stats().late.load(Relaxed), 1);
    let mut taken = Vec::new();
    late.take(&mut taken);
    assert_eq!(taken, [(Timestamp(4), 1)]);
}

#[test]
fn a_late_record_within_the_allowance_refines_the_result() {
    let mut harness = counting(Tumbling::event_time(ms(10)), 5);
    harness.push(1, 7).expect("counts");
    harness.watermark(9).expect("fires");
    assert_eq!(results(&mut harness), [(0, 10, 7, 1)]);
    harness.push(2, 7).expect("refines");
    harness.push(3, 8).expect("is the first of its key");
    assert_eq!(results(&mut harness), [(0, 10, 7, 2), (0, 10, 8, 1)]);
    harness.watermark(13).expect("keeps the window");
    harness.push(9, 7).expect("refines");
    assert_eq!(results(&mut harness), [(0, 10, 7, 3)]);
    harness.watermark(14).expect("drops the window");
    harness.push(9, 7).expect("is late");
    harness.end().expect("ends");
    assert_eq!(results(&mut harness), []);
    assert_eq!(harness.stats().late.load(Relaxed), 1);
}

#[test]
fn an_allowed_record_refines_fired_windows_and_waits_in_others() {
    let mut harness = counting(Sliding::event_time(ms(10), ms(5)), 100);
    harness.push(6, 1).expect("counts");
    harness.watermark(9).expect("fires the first");
    assert_eq!(results(&mut harness), [(0, 10, 1, 1)]);
    harness.push(7, 1).expect("refines the first");
    assert_eq!(results(&mut harness), [(0, 10, 1, 2)]);
    harness.watermark(14).expect("fires the second");
    assert_eq!(results(&mut harness), [(5, 15, 1, 2)]);
    harness.push(8, 1).expect("refines both");
    assert_eq!(results(&mut harness), [(0, 10, 1, 3), (5, 15, 1, 3)]);
}

#[test]
fn a_window_that_was_empty_fires_once_for_an_allowed_record() {
    let mut harness = counting(Tumbling::event_time(ms(10)), 100);
    harness.watermark(50).expect("passes");
    harness.push(2, 1).expect("refines nothing");
    assert_eq!(results(&mut harness), [(0, 10, 1, 1)]);
    harness.watermark(60).expect("has nothing to fire");
    harness.end().expect("ends");
    assert_eq!(results(&mut harness), []);
}

#[test]
fn a_full_channel_suspends_firing_and_nothing_is_lost() {
    let mut harness = counting(Sliding::event_time(ms(20), ms(10)), 0);
    for key in 0..2_000 {
        harness.push(15, key).expect("counts");
    }
    harness.set_room(false);
    harness.watermark(29).expect("suspends");
    assert_eq!(results(&mut harness).len(), 256);
    assert_eq!(harness.signals(), []);
    harness.push(21, 5).expect("waits");
    harness.push(19, 5).expect("waits, and is late");
    harness.set_room(true);
    harness.turn().expect("goes on");
    let rest = results(&mut harness);
    assert_eq!(rest.len(), 4_000 - 256);
    assert!(rest.iter().all(|(_, _, _, count)| *count == 1));
    assert_eq!(harness.signals(), [Signal::Watermark(Timestamp(29))]);
    harness.end().expect("fires the record that waited");
    assert_eq!(results(&mut harness), [(10, 30, 5, 1), (20, 40, 5, 1)][1..]);
    assert_eq!(harness.stats().late.load(Relaxed), 1);
}

#[test]
fn many_small_windows_ask_for_room_too() {
    let mut harness = counting(Tumbling::event_time(ms(1)), 0);
    for at in 0..1_000 {
        harness.push(at, 1).expect("counts");
    }
    harness.set_room(false);
    harness.watermark(2_000).expect("suspends");
    assert_eq!(results(&mut harness).len(), 256);
    harness.set_room(true);
    harness.turn().expect("goes on");
    assert_eq!(results(&mut harness).len(), 744);
}

#[test]
fn processing_time_windows_go_by_the_clock() {
    let mut harness = counting(Tumbling::processing_time(ms(10)), 0);
    harness.push(-5, 1).expect("counts");
    harness.advance(ms(9)).expect("waits");
    harness.push(i64::MIN, 1).expect("counts");
    harness.watermark(500).expect("passes");
    assert_eq!(results(&mut harness), []);
    harness.advance(ms(1)).expect("fires");
    assert_eq!(results(&mut harness), [(0, 10, 1, 2)]);
    harness.push(0, 1).expect("counts");
    harness.end().expect("fires what there is");
    assert_eq!(results(&mut harness), [(10, 20, 1, 1)]);
}

#[test]
fn processing_time_windows_wait_for_room() {
    let mut harness = counting(Tumbling::processing_time(ms(10)), 0);
    for key in 0..1_000 {
        harness.push(0, key).expect("counts");
    }
    harness.advance(ms(9)).expect("waits");
    harness.set_room(false);
    harness.advance(ms(1)).expect("waits for room");
    assert_eq!(results(&mut harness), []);
    harness.set_room(true);
    harness.turn().expect("fires");
    assert_eq!(results(&mut harness).len(), 1_000);
}

#[test]
fn a_record_without_event_time_is_a_fault_that_says_what_to_do() {
    let mut harness = counting(Tumbling::event_time(ms(10)), 0);
    let fault = harness.push(i64::MIN, 1).expect_err("it has no time");
    assert_eq!(fault.kind(), FaultKind::User);
    assert!(
        fault
            .message()
            .contains("assign timestamps with .watermarks(...)"),
        "{fault}"
    );
}

#[test]
fn the_ends_of_time_are_windows_like_others() {
    for spec in [
        Tumbling::event_time(ms(1)),
        Sliding::event_time(Duration::MAX, ms(1 << 62)),
    ] {
        let mut harness = counting(spec.offset_ms(-1), 0);
        for at in [i64::MIN + 1, 0, i64::MAX] {
            harness.push(at, 1).expect("counts");
        }
        harness.end().expect("fires");
        let records = results(&mut harness);
        assert!(
            records.iter().map(|(.., count)| count).sum::<u64>() >= 3,
            "{records:?}"
        );
    }
}

/// Counts records, and how often it was given one.
#[derive(Clone, Default)]
struct Adds(Arc<AtomicU64>);

impl Aggregator<u64> for Adds {
    type Acc = u64;
    type Out = u64;

    fn create(&self) -> u64 {
        0
    }

    fn add(&self, acc: &mut u64, _: u64) {
        self.0.fetch_add(1, Relaxed);
        *acc += 1;
    }

    fn merge(&self, into: &mut u64, other: &u64) {
        *into += other;
    }

    fn result(&self, acc: &u64) -> u64 {
        *acc
    }
}

#[test]
fn a_record_is_added_once_however_many_windows_it_is_in() {
    const RECORDS: u64 = 2_000;
    for ratio in [1, 2, 10, 500] {
        let adds = Adds::default();
        let windows = SlicedWindows::new(Sliding::event_time(ms(ratio), ms(1)), adds.clone());
        let mut harness = OperatorHarness::keyed(windows, |n: &u64| n % 5);
        for n in 0..RECORDS {
            harness.push(n as i64 / 4, n).expect("adds");
        }
        harness.end().expect("fires");
        let counted: u64 = results(&mut harness).iter().map(|(.., count)| count).sum();
        assert_eq!(counted, RECORDS * ratio, "each is in {ratio} windows");
        assert_eq!(adds.0.load(Relaxed), RECORDS, "of {ratio} slides");
    }
}

#[test]
fn specs_that_make_no_sense_are_problems() {
    let problem = |spec: Aligned| spec.problem().unwrap_or_default();
    assert_eq!(problem(Sliding::event_time(ms(10), ms(3))), "");
    assert!(problem(Tumbling::event_time(ms(0))).contains("size 0"));
    assert!(problem(Sliding::event_time(ms(5), ms(0))).contains("slide"));
    assert!(problem(Sliding::event_time(ms(5), ms(6))).contains("longer than the size"));
}

/// A record or a watermark.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Record(i64, u64),
    Watermark(i64),
}

/// Records that are out of order, some of them late, between watermarks that rise.
pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0i64..30, -25i64..25, 0u64..4, prop::bool::weighted(0.2));
    prop::collection::vec(step, 0..120).prop_map(|raw| {
        let mut time = 0;
        let step = |(forward, off, key, is_watermark)| {
            if is_watermark {
                time += forward;
                Step::Watermark(time)
            } else {
                Step::Record(time + off, key)
            }
        };
        raw.into_iter().map(step).collect()
    })
}

/// Every record put into every window it belongs to, as a textbook would have it. Each record is its
/// place in the sequence, so a result shows which records made it.
#[derive(Default)]
pub(super) struct Model {
    open: BTreeMap<(TimeWindow, u64), Vec<u64>>,
    pub fired: Vec<(i64, i64, u64, Vec<u64>)>,
    pub late: u64,
}

impl Model {
    pub fn run(size: i64, slide: i64, offset: i64, steps: &[Step]) -> Model {
        let (mut model, mut watermark) = (Model::default(), i64::MIN);
        for (place, step) in steps.iter().enumerate() {
            match *step {
                Step::Watermark(at) => {
                    watermark = at;
                    model.fire(at);
                }
                Step::Record(at, key) => {
                    let starts = at - size + 1..=at;
                    let mut late = true;
                    for start in starts.filter(|s| (s - offset).rem_euclid(slide) == 0) {
                        if start + size - 1 > watermark {
                            late = false;
                            let window = TimeWindow::new(start, start + size);
                            model
                                .open
                                .entry((window, key))
                                .or_default()
                                .push(place as u64);
                        }
                    }
                    model.late += u64::from(late);
                }
            }
        }
        model.fire(i64::MAX);
        model
    }

    fn fire(&mut self, watermark: i64) {
        while let Some(first) = self.open.first_entry() {
            let (window, key) = *first.key();
            if window.max_timestamp().0 > watermark {
                break;
            }
            let mut records = first.remove();
            records.sort_unstable();
            self.fired
                .push((window.start.0, window.end.0, key, records));
        }
    }
}

/// What the operator makes of the same; with `full`, each watermark finds no room downstream, and two
/// records come before there is some again.
fn run(spec: Aligned, lateness: u64, steps: &[Step], full: bool) -> (Model, bool) {
    let gather = Reduced::new(|a: &(u64, Vec<u64>), b: (u64, Vec<u64>)| {
        (b.0, a.1.iter().copied().chain(b.1).collect())
    });
    let mut windows = SlicedWindows::new(spec, gather).allowed_lateness(ms(lateness));
    windows.between_asking = 3;
    let mut harness = OperatorHarness::keyed(windows, |record: &(u64, Vec<u64>)| record.0);
    let mut records_without_room = 0;
    for (place, step) in steps.iter().enumerate() {
        if matches!(step, Step::Watermark(_)) || records_without_room == 2 {
            harness.set_room(true);
            harness.turn().expect("goes on");
        }
        match *step {
            Step::Watermark(at) => {
                harness.set_room(!full);
                records_without_room = 0;
                harness.watermark(at).expect("fires");
            }
            Step::Record(at, key) => {
                records_without_room += 1;
                harness
                    .push(at, (key, vec![place as u64]))
                    .expect("takes it");
            }
        }
    }
    harness.set_room(true);
    harness.turn().expect("goes on");
    harness.end().expect("ends");
    let mut model = Model {
        late: harness.stats().late.load(Relaxed),
        ..Model::default()
    };
    let (mut ends_first, mut end) = (true, i64::MIN);
    for Windowed {
        key,
        window,
        value: (_, mut records),
    } in harness.values()
    {
        ends_first &= end <= window.end.0;
        end = window.end.0;
        records.sort_unstable();
        model
            .fired
            .push((window.start.0, window.end.0, key, records));
    }
    model.fired.sort_unstable();
    (model, ends_first)
}

proptest! {
    #[test]
    fn windows_are_those_of_the_model(
        size in 1i64..40, slide in 1i64..40, offset in -50i64..50, steps in steps(), full: bool,
    ) {
        prop_assume!(slide <= size);
        let spec = Sliding::event_time(ms(size as u64), ms(slide as u64)).offset_ms(offset);
        let mut want = Model::run(size, slide, offset, &steps);
        want.fired.sort_unstable();
        let (got, ends_first) = run(spec, 0, &steps, full);
        prop_assert_eq!(got.fired, want.fired);
        prop_assert_eq!(got.late, want.late);
        prop_assert!(ends_first);
    }

    #[test]
    fn with_enough_lateness_the_last_result_of_a_window_holds_every_record(
        size in 1i64..40, slide in 1i64..40, steps in steps(),
    ) {
        prop_assume!(slide <= size);
        let spec = Sliding::event_time(ms(size as u64), ms(slide as u64));
        let records: Vec<_> = steps.iter().copied()
            .map(|s| if let Step::Record(..) = s { s } else { Step::Watermark(i64::MIN) }).collect();
        let mut want = Model::run(size, slide, 0, &records).fired;
        want.sort_unstable();
        let (got, _) = run(spec, 1_000_000, &steps, false);
        // Results of a window and key only grow, so the largest is the last.
        let mut last = BTreeMap::new();
        for (start, end, key, records) in got.fired {
            let kept: &mut Vec<u64> = last.entry((start, end, key)).or_default();
            if records.len() > kept.len() { *kept = records; }
        }
        let got: Vec<_> = last.into_iter().map(|((s, e, k), records)| (s, e, k, records)).collect();
        prop_assert_eq!(got, want);
    }
}
