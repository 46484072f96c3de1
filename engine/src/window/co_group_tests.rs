//! Window joins against their definition, and what happens to records that wait or come late.

use super::{Aligned, CoGroupWindows, Groups, Pairs, Sliding, TimeWindow, Tumbling};
use crate::exchange::Either;
use crate::side::SideOutput;
use crate::stage::Signal;
use crate::testing::OperatorHarness;
use crate::time::Timestamp;
use proptest::prelude::*;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

type Side = (u8, u32);
type Record = Either<Side, Side>;

fn key(record: &Record) -> u8 {
    match record {
        Either::First((key, _)) | Either::Second((key, _)) => *key,
    }
}

fn ms(n: i64) -> Duration {
    Duration::from_millis(n as u64)
}

type Join<F> = CoGroupWindows<u8, Side, Side, Pairs<F>>;

fn join(spec: Aligned) -> Join<impl FnMut(&Side, &Side) -> (u8, u32, u32) + Clone + Send> {
    CoGroupWindows::new(
        spec,
        Pairs::new(|a: &(u8, u32), b: &(u8, u32)| (a.0, a.1, b.1)),
    )
}

#[test]
fn every_pair_of_a_key_and_window_is_joined_when_the_window_ends() {
    let mut harness = OperatorHarness::keyed(join(Tumbling::event_time(ms(10))), key);
    for (at, record) in [
        (1, Either::First((1, 10))),
        (2, Either::Second((1, 20))),
        (9, Either::Second((1, 21))),
        (10, Either::Second((1, 22))),
        (3, Either::First((2, 11))),
    ] {
        harness.push(at, record).expect("is kept");
    }
    harness.watermark(8).expect("passes");
    assert_eq!(harness.records(), []);
    harness.watermark(9).expect("fires");
    let want = [(1, 10, 20), (1, 10, 21)].map(|v| (Timestamp(9), v));
    assert_eq!(harness.records(), want);
    harness.end().expect("ends");
    assert_eq!(harness.records(), []);
}

#[test]
fn groups_with_an_empty_side_are_shown() {
    let outer = Groups::new(
        |key: &u8,
         window: TimeWindow,
         a: &[(u8, u32)],
         b: &[(u8, u32)],
         out: &mut Vec<(u8, i64, usize, usize)>| {
            out.push((*key, window.start.0, a.len(), b.len()));
        },
    );
    let windows = CoGroupWindows::new(Sliding::event_time(ms(10), ms(5)), outer);
    let mut harness = OperatorHarness::keyed(windows, key);
    harness.push(3, Either::First((1, 0))).expect("is kept");
    harness.push(6, Either::Second((1, 0))).expect("is kept");
    harness.push(7, Either::Second((2, 0))).expect("is kept");
    harness.end().expect("ends");
    let mut got = harness.values();
    got.sort_unstable();
    let want = [
        (1, -5, 1, 0),
        (1, 0, 1, 1),
        (1, 5, 0, 1),
        (2, 0, 0, 1),
        (2, 5, 0, 1),
    ];
    assert_eq!(got, want);
}

#[test]
fn a_record_within_the_lateness_emits_its_group_again_and_a_later_one_is_put_aside() {
    let tag = SideOutput::new("late");
    let windows = join(Tumbling::event_time(ms(10)))
        .allowed_lateness(ms(5))
        .late_output(Some(tag.clone()));
    let (mut harness, side) = OperatorHarness::keyed_with_side(windows, key, &tag);
    harness.push(1, Either::First((1, 10))).expect("is kept");
    harness.watermark(13).expect("fires");
    assert_eq!(harness.values(), []);
    harness.push(2, Either::Second((1, 20))).expect("refines");
    assert_eq!(harness.values(), [(1, 10, 20)]);
    harness.push(3, Either::Second((1, 21))).expect("refines");
    assert_eq!(harness.values(), [(1, 10, 20), (1, 10, 21)]);
    harness.watermark(14).expect("drops");
    harness.push(4, Either::Second((1, 22))).expect("is late");
    assert_eq!(harness.values(), []);
    assert_eq!(harness.stats().late.load(Relaxed), 1);
    let mut late = Vec::new();
    side.take(&mut late);
    assert_eq!(late, [(Timestamp(4), Either::Second((1, 22)))]);
}

#[test]
fn a_product_waits_for_room_and_the_watermark_behind_it() {
    for spec in [
        Tumbling::event_time(ms(10)),
        Sliding::event_time(ms(10), ms(5)),
    ] {
        let mut harness = OperatorHarness::keyed(join(spec), key);
        for n in 0..100 {
            harness.push(5, Either::First((1, n))).expect("is kept");
            harness.push(5, Either::Second((1, n))).expect("is kept");
        }
        harness.set_room(false);
        harness.watermark(9).expect("fires");
        assert_eq!(harness.values().len(), 256);
        harness.push(6, Either::First((1, 7))).expect("waits");
        harness.push(60, Either::First((1, 8))).expect("waits");
        harness.turn().expect("waits");
        assert_eq!(harness.values().len(), 0);
        assert_eq!(harness.signals(), []);
        harness.set_room(true);
        harness.turn().expect("goes on");
        assert_eq!(harness.values().len(), 10_000 - 256);
        assert_eq!(harness.signals(), [Signal::Watermark(Timestamp(9))]);
        harness.end().expect("ends");
        let slides = spec != Tumbling::event_time(ms(10));
        assert_eq!(harness.values().len(), if slides { 101 * 100 } else { 0 });
        assert_eq!(harness.stats().late.load(Relaxed), u64::from(!slides));
    }
}

#[test]
fn refinements_wait_for_room_too() {
    let windows = join(Tumbling::event_time(ms(10))).allowed_lateness(ms(100));
    let mut harness = OperatorHarness::keyed(windows, key);
    for n in 0..1_000 {
        harness.push(5, Either::First((1, n))).expect("is kept");
    }
    harness.watermark(9).expect("fires");
    harness.set_room(false);
    harness.push(5, Either::Second((1, 0))).expect("refines");
    assert_eq!(harness.values().len(), 256);
    harness.push(5, Either::Second((1, 1))).expect("refines");
    harness.push(15, Either::First((1, 1))).expect("is kept");
    harness.watermark(12).expect("waits");
    assert_eq!(harness.values().len(), 0);
    assert_eq!(harness.signals().len(), 1);
    harness.set_room(true);
    harness.turn().expect("goes on");
    assert_eq!(harness.values().len(), 3_000 - 256);
    assert_eq!(harness.signals(), [Signal::Watermark(Timestamp(12))]);
}

type Joined = (Timestamp, (u8, u32, u32));

fn naive(input: &[(bool, u8, i64)], size: i64, slide: i64) -> (Vec<Joined>, u64) {
    let windows = |at: i64| {
        let last = at - at.rem_euclid(slide);
        (0..)
            .map(move |n| last - n * slide)
            .take_while(move |start| start + size > at)
    };
    let (mut kept, mut late, mut watermark) = (Vec::new(), 0, i64::MIN);
    for (n, (first, key, at)) in input.iter().enumerate() {
        let open: Vec<i64> = windows(*at).filter(|s| s + size - 1 > watermark).collect();
        late += u64::from(open.is_empty());
        kept.extend(
            open.into_iter()
                .map(|start| (*first, *key, start, n as u32)),
        );
        watermark = watermark.max(at - 20);
    }
    let mut joined = Vec::new();
    for (_, k, start, n) in kept.iter().filter(|r| r.0) {
        for (_, _, _, m) in kept.iter().filter(|r| !r.0 && (r.1, r.2) == (*k, *start)) {
            joined.push((Timestamp(start + size - 1), (*k, *n, *m)));
        }
    }
    joined.sort_unstable();
    (joined, late)
}

proptest! {
    #[test]
    fn joins_what_the_definition_joins(
        input in prop::collection::vec((any::<bool>(), 0u8..3, 0i64..150), 0..150),
        size in 1i64..40, slide in 1i64..40, blocked in 1usize..20,
    ) {
        let slide = slide.min(size);
        let mut harness = OperatorHarness::keyed(join(Sliding::event_time(ms(size), ms(slide))), key);
        let mut watermark = i64::MIN;
        for (n, (first, key, at)) in input.iter().enumerate() {
            let record = (*key, n as u32);
            let record = if *first { Either::First(record) } else { Either::Second(record) };
            harness.push(*at, record).expect("is kept");
            harness.set_room(n % blocked != 0);
            watermark = watermark.max(at - 20);
            harness.watermark(watermark).expect("passes");
            harness.set_room(true);
            harness.turn().expect("goes on");
        }
        harness.end().expect("ends");
        let mut got = harness.records();
        got.sort_unstable();
        let (want, late) = naive(&input, size, slide);
        prop_assert_eq!(got, want);
        prop_assert_eq!(harness.stats().late.load(Relaxed), late);
    }
}
