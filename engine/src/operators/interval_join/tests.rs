//! Interval joins against their definition, and what happens to records that wait or come late.

use super::*;
use crate::testing::cut::{Case, Step, cuts, script};
use crate::testing::{Attempt, OperatorHarness};
use proptest::prelude::*;

type Record = Either<Side, Side>;
type Side = (u8, u32);
type Triple = (u8, u32, u32);
type Joined = (Timestamp, Triple);
type Join<F> = IntervalJoin<u8, Side, Side, F>;

fn join(
    lower: i64,
    upper: i64,
) -> Join<impl FnMut(Pair<'_, u8>, &Side, &Side) -> [Triple; 1] + Clone> {
    let interval = Interval { lower, upper };
    IntervalJoin::new(
        interval,
        |pair: Pair<'_, u8>, a: &(u8, u32), b: &(u8, u32)| [(*pair.key, a.1, b.1)],
    )
}

fn key(record: &Record) -> u8 {
    match record {
        Either::First((key, _)) | Either::Second((key, _)) => *key,
    }
}

#[test]
fn both_bounds_belong_to_the_interval_and_the_later_time_counts() {
    let mut harness = OperatorHarness::keyed(join(-2, 3), key);
    harness.push(10, Either::First((1, 0))).expect("joins");
    for at in [7, 8, 10, 13, 14] {
        let b = Either::Second((1, at as u32));
        harness.push(at, b).expect("joins");
    }
    harness
        .push(11, Either::Second((2, 99)))
        .expect("another key");
    let want = [(10, 8), (10, 10), (13, 13)];
    let want = want.map(|(at, b)| (Timestamp(at), (1, 0, b)));
    assert_eq!(harness.records(), want);
}

#[test]
fn late_records_are_counted_and_put_aside() {
    let tag = SideOutput::new("late");
    let join = join(-5, 5).late_output(Some(tag.clone()));
    let (mut harness, side) = OperatorHarness::keyed_with_side(join, key, &tag);
    harness.push(10, Either::First((1, 0))).expect("joins");
    harness.watermark(10).expect("passes");
    harness.push(10, Either::Second((1, 7))).expect("late");
    harness.push(11, Either::Second((1, 8))).expect("joins");
    assert_eq!(harness.values(), [(1, 0, 8)]);
    assert_eq!(harness.stats().late.load(Relaxed), 1);
    let mut late = Vec::new();
    side.take(&mut late);
    assert_eq!(late, [(Timestamp(10), Either::Second((1, 7)))]);
}

#[test]
fn a_record_without_time_is_an_error() {
    let mut harness = OperatorHarness::keyed(join(-5, 5), key);
    let error = harness.push(i64::MIN, Either::First((1, 0)));
    assert!(error.is_err_and(|e| e.to_string().contains(".watermarks(")));
}

#[test]
fn what_cannot_find_a_partner_any_more_is_forgotten() {
    let mut join = join(-3, 5);
    let mut out = crate::testing::Collected::default();
    for n in 0..1_000u32 {
        let key = (n % 7) as u8;
        let value = if n % 2 == 0 {
            Either::First((key, n))
        } else {
            Either::Second((key, n))
        };
        let hash = crate::hash::key_hash(&key);
        let record = Keyed { hash, key, value };
        let at = i64::from(n) * 10;
        join.process(Timestamp(at), record, &mut out)
            .expect("joins");
        join.watermark(Timestamp(at - 1), &mut out).expect("passes");
        let (mut keys, mut kept) = (0, 0);
        let each = join.sides.each(|_, sides| {
            keys += 1;
            kept += sides.first.len() + sides.second.len();
            Ok(())
        });
        each.expect("shows them");
        assert!(kept <= 2, "{kept} records are kept");
        let swept: usize = join.sweeps.values().map(Vec::len).sum();
        assert_eq!(swept, keys);
    }
    join.watermark(Timestamp(20_000), &mut out).expect("passes");
    let none = join.sides.each(|key, _| panic!("{key} is still there"));
    none.expect("shows nothing");
    assert!(join.sweeps.is_empty());
}

#[test]
fn waits_for_room_and_loses_nothing() {
    let mut harness = OperatorHarness::keyed(join(-10, 10), key);
    for n in 0..1_000 {
        harness.push(5, Either::First((1, n))).expect("joins");
    }
    harness.set_room(false);
    harness.push(5, Either::Second((1, 0))).expect("joins");
    harness.push(6, Either::Second((1, 1))).expect("waits");
    harness.watermark(20).expect("waits");
    harness.push(30, Either::First((1, 9))).expect("waits");
    harness.push(15, Either::Second((1, 2))).expect("is late");
    assert_eq!(harness.records().len() as u32, BETWEEN_ASKING);
    assert_eq!(harness.signals(), []);
    harness.set_room(true);
    harness.turn().expect("goes on");
    harness.turn().expect("goes on");
    assert_eq!(harness.records().len() as u32, 2_000 - BETWEEN_ASKING);
    assert_eq!(harness.signals().len(), 1);
    assert_eq!(harness.stats().late.load(Relaxed), 1);
}

/// Records out of order, each with how far the watermark comes behind it.
fn input() -> impl Strategy<Value = Vec<(bool, u8, i64, i64)>> {
    prop::collection::vec((any::<bool>(), 0u8..4, 0i64..120, -30i64..30), 0..200)
}

fn naive(input: &[(bool, u8, i64, i64)], lower: i64, upper: i64) -> (Vec<Joined>, u64) {
    let (mut kept, mut late, mut watermark) = (Vec::new(), 0, i64::MIN);
    for (n, (first, key, at, behind)) in input.iter().enumerate() {
        if *at > watermark {
            kept.push((*first, *key, *at, n as u32));
        } else {
            late += 1;
        }
        watermark = watermark.max(at - 20 + behind.min(&0));
    }
    let mut joined = Vec::new();
    for (_, k, a, n) in kept.iter().filter(|r| r.0) {
        for (_, _, b, m) in kept.iter().filter(|r| !r.0 && r.1 == *k) {
            if a + lower <= *b && *b <= a + upper {
                joined.push((Timestamp(*a.max(b)), (*k, *n, *m)));
            }
        }
    }
    joined.sort_unstable();
    (joined, late)
}

proptest! {
    #[test]
    fn joins_what_the_definition_joins(
        input in input(), lower in -20i64..20, length in 0i64..30, blocked in 1usize..50,
    ) {
        let upper = lower + length;
        let mut harness = OperatorHarness::keyed(join(lower, upper), key);
        let mut watermark = i64::MIN;
        let mut got = Vec::new();
        for (n, (first, key, at, behind)) in input.iter().enumerate() {
            let record = (*key, n as u32);
            let record = if *first { Either::First(record) } else { Either::Second(record) };
            harness.push(*at, record).expect("joins");
            harness.set_room(n % blocked != 0);
            watermark = watermark.max(at - 20 + behind.min(&0));
            harness.watermark(watermark).expect("passes");
        }
        harness.set_room(true);
        harness.end().expect("ends");
        got.extend(harness.records());
        got.sort_unstable();
        let (want, late) = naive(&input, lower, upper);
        prop_assert_eq!(got, want);
        prop_assert_eq!(harness.stats().late.load(Relaxed), late);
    }
}

proptest! {
    #[test]
    fn a_join_goes_on_from_a_checkpoint_anywhere(
        script in script(), cuts in cuts(), lower in -20i64..20, length in 0i64..30,
    ) {
        let either = |record: Side| match record.1 % 2 {
            0 => Either::First(record),
            _ => Either::Second(record),
        };
        let script: Vec<Step<Record>> = script.into_iter().map(|step| step.map(either)).collect();
        let tag = SideOutput::new("late");
        let make = || join(lower, lower + length).late_output(Some(tag.clone()));
        Case { make: &make, key, tag: &tag }.holds(&script, &cuts)?;
    }
}

#[test]
fn a_barrier_waits_for_pairs_that_wait_for_room() {
    let mut harness = OperatorHarness::keyed(join(-5, 5), key);
    for i in 0..600 {
        let first = Either::First((1, i));
        harness.push(10, first).expect("is kept");
    }
    harness.set_room(false);
    let second = Either::Second((1, 7));
    harness.push(10, second).expect("joins some");
    let before = harness.values().len();
    harness.barrier().expect("is held back");
    assert_eq!(harness.signals(), []);
    assert!(harness.image().is_err(), "nothing is saved yet");
    harness.set_room(true);
    let image = harness.image().expect("saves");
    assert_eq!(before + harness.values().len(), 600);
    assert_eq!(harness.signals().len(), 1, "the barrier went on");
    let attempt = Attempt::new().restored(vec![(0, image)]);
    let mut again = attempt.keyed(join(-5, 5), key).expect("loads");
    again.push(10, Either::Second((1, 8))).expect("joins");
    assert_eq!(again.values().len(), 600);
}
