//! Sessions: by hand, and against sorting and splitting.

use super::*;
use crate::testing::OperatorHarness;
use crate::window::Count;
use proptest::prelude::*;

type Windows = SessionWindows<u32, (u32, i64), Count>;
type Harness = OperatorHarness<(u32, i64), Keyed<u32, (u32, i64)>, Windows>;
type Row = (u32, i64, i64, u64);

fn windows(gap: u64) -> Windows {
    SessionWindows::new(Session::event_time(Duration::from_millis(gap)), Count)
}

fn harness(windows: Windows) -> Harness {
    OperatorHarness::keyed(windows, |record| record.0)
}

fn push(harness: &mut Harness, key: u32, times: &[i64]) {
    times
        .iter()
        .for_each(|t| harness.push(*t, (key, *t)).expect("takes it"));
}

fn rows(harness: &mut Harness) -> Vec<Row> {
    let rows = harness.values().into_iter();
    rows.map(|w| (w.key, w.window.start.0, w.window.end.0, w.value))
        .collect()
}

#[test]
fn a_session_ends_when_the_watermark_reaches_its_last_moment() {
    let mut h = harness(windows(10));
    push(&mut h, 1, &[0, 5]);
    h.watermark(13).expect("waits");
    assert_eq!(rows(&mut h), []);
    h.watermark(14).expect("fires");
    assert_eq!(h.records()[0].0, Timestamp(14));
    h.end().expect("ends");
    assert_eq!(rows(&mut h), [], "once");
}

#[test]
fn one_record_joins_three_sessions_and_touching_is_enough() {
    let mut h = harness(windows(10));
    push(&mut h, 1, &[40, 0, 20, 10, 60]);
    h.end().expect("ends");
    assert_eq!(
        rows(&mut h),
        [(1, 0, 30, 3), (1, 40, 50, 1), (1, 60, 70, 1)]
    );
    let mut h = harness(windows(10));
    push(&mut h, 1, &[0, 20, 22, 10]);
    h.end().expect("ends");
    assert_eq!(rows(&mut h), [(1, 0, 32, 4)]);
}

#[test]
fn sessions_leave_in_the_order_of_their_ends() {
    let mut h = harness(windows(10));
    push(&mut h, 1, &[0, 8, 16]);
    push(&mut h, 2, &[3]);
    push(&mut h, 3, &[15]);
    h.watermark(100).expect("fires");
    assert_eq!(rows(&mut h), [(2, 3, 13, 1), (3, 15, 25, 1), (1, 0, 26, 3)]);
}

#[test]
fn a_late_record_is_counted_and_put_to_the_side() {
    let tag = SideOutput::new("late");
    let windows = windows(10).late_output(Some(tag.clone()));
    let (mut h, side) = OperatorHarness::keyed_with_side(windows, |r: &(u32, i64)| r.0, &tag);
    push(&mut h, 1, &[0, 12]);
    h.watermark(15).expect("fires the first");
    assert_eq!(rows(&mut h), [(1, 0, 10, 1)]);
    // Both [1, 11) and [5, 15) have passed, but the second touches a living session.
    push(&mut h, 1, &[1, 5]);
    h.end().expect("ends");
    assert_eq!(rows(&mut h), [(1, 5, 22, 2)]);
    let mut late = Vec::new();
    side.take(&mut late);
    assert_eq!(late, [(Timestamp(1), (1, 1))]);
    assert_eq!(h.stats().late.load(Relaxed), 1);
}

#[test]
fn within_its_lateness_a_session_is_emitted_anew() {
    let mut h = harness(windows(10).allowed_lateness(Duration::from_millis(20)));
    push(&mut h, 1, &[0]);
    h.watermark(9).expect("fires");
    push(&mut h, 1, &[0]);
    assert_eq!(rows(&mut h), [(1, 0, 10, 1), (1, 0, 10, 2)]);
    push(&mut h, 1, &[8]);
    assert_eq!(rows(&mut h), [], "it lives again until 18");
    h.watermark(17).expect("fires");
    assert_eq!(rows(&mut h), [(1, 0, 18, 3)]);
    h.watermark(36).expect("keeps");
    push(&mut h, 1, &[1]);
    assert_eq!(rows(&mut h), [(1, 0, 18, 4)]);
    h.watermark(37).expect("forgets");
    push(&mut h, 1, &[1]);
    assert_eq!(h.stats().late.load(Relaxed), 1);
    h.end().expect("ends");
    assert_eq!(rows(&mut h), []);
}

#[test]
fn firing_stops_without_room_and_goes_on() {
    let mut h = harness(windows(10));
    (0..1000).for_each(|key| push(&mut h, key, &[0]));
    h.set_room(false);
    h.watermark(100).expect("suspends");
    assert_eq!((h.values().len(), h.signals().len()), (256, 0));
    h.set_room(true);
    h.turn().expect("goes on");
    assert_eq!((h.values().len(), h.signals().len()), (744, 1));
}

#[test]
fn the_gap_can_come_from_the_record() {
    let spec = Session::dynamic(|r: &(u32, i64)| Duration::from_millis(r.1 as u64));
    let mut h = OperatorHarness::keyed(SessionWindows::new(spec, Count), |r| r.0);
    for (at, gap) in [(0, 5), (6, 100), (50, 1)] {
        h.push(at, (1, gap)).expect("takes it");
    }
    h.end().expect("ends");
    let ends: Vec<_> = h
        .values()
        .iter()
        .map(|w| (w.window.end.0, w.value))
        .collect();
    assert_eq!(ends, [(5, 1), (106, 2)]);
    let fault = h
        .push(200, (1, 0))
        .expect_err("a gap of nothing")
        .to_string();
    assert!(fault.contains("at least 1 ms"), "{fault}");
}

#[test]
fn by_the_clock_timers_end_sessions() {
    let spec = Session::processing_time(Duration::from_millis(10));
    let mut h = harness(SessionWindows::new(spec, Count));
    push(&mut h, 1, &[777]);
    h.advance(Duration::from_millis(6)).expect("waits");
    push(&mut h, 1, &[0]);
    h.advance(Duration::from_millis(9))
        .expect("waits: its timer moved");
    assert_eq!(rows(&mut h), []);
    h.advance(Duration::from_millis(1)).expect("fires");
    assert_eq!(rows(&mut h), [(1, 0, 16, 2)]);
    push(&mut h, 1, &[0]);
    h.end().expect("the end of the input ends all");
    assert_eq!(rows(&mut h), [(1, 16, 26, 1)]);
}

#[test]
fn a_record_without_time_is_refused() {
    let fault = harness(windows(10))
        .push(i64::MIN, (1, 0))
        .expect_err("no timestamp");
    assert!(fault.to_string().contains("without event time"), "{fault}");
}

#[test]
fn joined_sessions_leave_no_entries_behind() {
    let mut h = windows(10);
    let mut out = crate::testing::Collected::default();
    let keyed = |t| Keyed {
        hash: key_hash(&1u32),
        key: 1u32,
        value: (1u32, t),
    };
    for t in 0..10_000 {
        // Two sessions apart, then the record between them.
        for t in [t * 20, t * 20 + 20, t * 20 + 10] {
            h.process(Timestamp(t), keyed(t), &mut out)
                .expect("takes it");
        }
    }
    assert_eq!(h.live, 1);
    assert!(h.due.len() <= 2 * h.live + 64, "{}", h.due.len());
}

/// Per key: in the order of time, split where the next record is more than a gap away.
fn model(records: &[(u32, i64)], gap: i64) -> Vec<Row> {
    let mut sorted = records.to_vec();
    sorted.sort_unstable();
    let mut rows: Vec<Row> = Vec::new();
    for (key, t) in sorted {
        match rows.last_mut() {
            Some(row) if row.0 == key && t <= row.2 => *row = (key, row.1, t + gap, row.3 + 1),
            _ => rows.push((key, t, t + gap, 1)),
        }
    }
    rows
}

proptest! {
    #[test]
    fn any_order_behind_the_watermark_gives_the_sessions_of_the_sorted_records(
        records in prop::collection::vec((0u32..4, 0i64..300), 1..120),
        gap in 1i64..30,
    ) {
        let mut h = harness(windows(gap as u64));
        let mut got = Vec::new();
        for (i, (key, t)) in records.iter().enumerate() {
            push(&mut h, *key, &[*t]);
            // So far that no record comes late, and none right at the end of a session that
            // was emitted.
            if let Some(next) = records[i + 1..].iter().map(|r| r.1).min() {
                h.watermark(next - 2).expect("fires");
            }
            got.extend(rows(&mut h));
        }
        h.end().expect("ends");
        got.extend(rows(&mut h));
        got.sort_unstable();
        prop_assert_eq!(got, model(&records, gap));
        prop_assert_eq!(h.stats().late.load(Relaxed), 0);
    }
}
