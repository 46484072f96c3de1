//! Triggers, evictors and merging in the operator of general windows.

use super::*;
use crate::testing::OperatorHarness;
use crate::window::{
    Aggregated, Buffered, ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, Count,
    CountEvictor, CountTrigger, CountWindow, DeltaTrigger, Elements, EventTimeTrigger, Evictor,
    NeverTrigger, NoEvictor, ProcessFn, PurgingTrigger, Session, Sliding, TimeTrigger, Tumbling,
    WindowContext, WindowOutput, Windowed,
};

type Record = (u32, i64);
type Counting<As, Tr> = GeneralWindows<u32, Record, As, Tr, Aggregated<Count>>;
type Harness<Op> = OperatorHarness<Record, Keyed<u32, Record>, Op>;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn counting<As: Clone, Tr: Trigger<Record>>(assigner: As, trigger: Tr) -> Counting<As, Tr> {
    GeneralWindows::new(assigner, trigger, Aggregated(Count))
}

fn harness<Op: Operator<Keyed<u32, Record>>>(op: Op) -> Harness<Op> {
    OperatorHarness::keyed(op, |record| record.0)
}

fn push<Op: Operator<Keyed<u32, Record>>>(harness: &mut Harness<Op>, times: &[i64]) {
    times
        .iter()
        .for_each(|t| harness.push(*t, (1, *t)).expect("takes it"));
}

/// Key, end and count of what was emitted.
fn counts<Op>(harness: &mut Harness<Op>) -> Vec<(i64, u64)>
where
    Op: Operator<Keyed<u32, Record>, Out = Windowed<u32, u64>>,
{
    harness
        .values()
        .iter()
        .map(|w| (w.window.end.0, w.value))
        .collect()
}

/// Windows whose results are the records' times as the window function saw them.
fn listing<As, Tr, Ev>(
    assigner: As,
    trigger: Tr,
    evictor: Ev,
) -> impl Operator<Keyed<u32, Record>, Out = Vec<i64>>
where
    As: WindowAssigner<Record>,
    Tr: Trigger<Record>,
    Ev: Evictor<Record>,
{
    let list = |_: &WindowContext<'_, u32>,
                elements: &Elements<Record>,
                out: &mut WindowOutput<Vec<i64>>| {
        out.emit(elements.iter().map(|(at, _)| at.0).collect());
    };
    GeneralWindows::new(
        assigner,
        trigger,
        Buffered::new(evictor, ProcessFn::new(list)),
    )
}

#[test]
fn event_time_fires_at_the_end_and_for_late_records_until_dropped() {
    let spec = Tumbling::event_time(ms(10));
    let windows = counting(spec, EventTimeTrigger::new()).allowed_lateness(ms(5));
    let mut h = harness(windows);
    push(&mut h, &[1, 11, 2]);
    h.watermark(8).expect("waits");
    assert_eq!(counts(&mut h), []);
    h.watermark(9).expect("fires");
    push(&mut h, &[3]);
    assert_eq!(counts(&mut h), [(10, 2), (10, 3)]);
    h.watermark(14).expect("drops");
    push(&mut h, &[4]);
    assert_eq!(counts(&mut h), []);
    assert_eq!(h.stats().late.load(Relaxed), 1);
    h.end().expect("ends");
    assert_eq!(counts(&mut h), [(20, 1)]);
}

#[test]
fn late_records_go_to_the_side_output() {
    let tag = SideOutput::new("late");
    let windows = counting(
        Tumbling::event_time(ms(10)),
        TimeTrigger::new(TimeKind::Event),
    )
    .late_output(Some(tag.clone()));
    let (mut h, side) = OperatorHarness::keyed_with_side(windows, |r: &Record| r.0, &tag);
    h.watermark(9).expect("passes");
    push(&mut h, &[9, 10]);
    let mut late = Vec::new();
    side.take(&mut late);
    assert_eq!(late, [(Timestamp(9), (1, 9))]);
}

#[test]
fn a_record_is_added_to_every_sliding_window() {
    let mut h = harness(listing(
        Sliding::event_time(ms(10), ms(5)),
        TimeTrigger::new(TimeKind::Event),
        NoEvictor,
    ));
    push(&mut h, &[7, 3]);
    h.end().expect("ends");
    assert_eq!(h.values(), [vec![3], vec![7, 3], vec![7]]);
}

#[test]
fn processing_time_windows_end_when_the_clock_has_passed_them() {
    let spec = Tumbling::processing_time(ms(10));
    let mut h = harness(counting(spec, TimeTrigger::new(TimeKind::Processing)));
    push(&mut h, &[77]);
    h.advance(ms(9)).expect("waits");
    push(&mut h, &[77]);
    assert_eq!(counts(&mut h), []);
    h.advance(ms(1)).expect("fires");
    assert_eq!(counts(&mut h), [(10, 2)]);
    push(&mut h, &[77]);
    h.end().expect("the end of the input ends all");
    assert_eq!(counts(&mut h), [(20, 1)]);
}

#[test]
fn count_trigger_fires_with_every_n_records_and_purging_begins_anew() {
    let mut h = harness(counting(GlobalWindows, CountTrigger::new(2)));
    push(&mut h, &[1, 2, 3, 4]);
    let records = h.records();
    let got: Vec<_> = records.iter().map(|(at, w)| (at.0, w.value)).collect();
    assert_eq!(
        got,
        [(2, 2), (4, 4)],
        "a global window has the time of its newest record"
    );
    let mut h = harness(counting(
        GlobalWindows,
        PurgingTrigger::of(CountTrigger::new(2)),
    ));
    push(&mut h, &[1, 2, 3, 4, 5]);
    h.end().expect("ends");
    assert_eq!(
        h.values().iter().map(|w| w.value).collect::<Vec<_>>(),
        [2, 2]
    );
}

#[test]
fn never_never_fires() {
    let mut h = harness(counting(GlobalWindows, NeverTrigger));
    push(&mut h, &[1, 2]);
    h.end().expect("ends");
    assert_eq!(counts(&mut h), []);
}

#[test]
fn delta_fires_when_a_record_is_far_from_that_of_the_last_firing() {
    let delta = DeltaTrigger::new(10.0, |a: &Record, b: &Record| (b.1 - a.1).abs() as f64);
    let mut h = harness(counting(GlobalWindows, delta));
    push(&mut h, &[0, 10, 11, 15, 22]);
    assert_eq!(
        h.values().iter().map(|w| w.value).collect::<Vec<_>>(),
        [3, 5]
    );
}

#[test]
fn continuous_event_time_fires_at_intervals_once_a_watermark_and_at_the_end() {
    let spec = Tumbling::event_time(ms(100));
    let mut h = harness(counting(spec, ContinuousEventTimeTrigger::of(ms(10))));
    push(&mut h, &[3, 5]);
    h.watermark(9).expect("waits");
    assert_eq!(counts(&mut h), []);
    h.watermark(10).expect("fires");
    push(&mut h, &[12]);
    h.watermark(57).expect("fires once");
    assert_eq!(counts(&mut h), [(100, 2), (100, 3)]);
    h.watermark(60).expect("fires");
    assert_eq!(counts(&mut h), [(100, 3)]);
    h.end().expect("ends");
    assert_eq!(counts(&mut h).last(), Some(&(100, 3)));
}

#[test]
fn continuous_triggers_come_to_an_end_in_global_windows() {
    let mut h = harness(counting(
        GlobalWindows,
        ContinuousEventTimeTrigger::of(ms(10)),
    ));
    push(&mut h, &[3]);
    h.end().expect("ends");
    assert!((1..=2).contains(&counts(&mut h).len()));
}

#[test]
fn continuous_processing_time_fires_by_the_clock() {
    let spec = Tumbling::event_time(ms(100));
    let mut h = harness(counting(
        spec,
        ContinuousProcessingTimeTrigger::of(ms(1000)),
    ));
    h.advance(ms(5000))
        .expect("the clock is far beyond the window");
    push(&mut h, &[3]);
    h.advance(ms(1001)).expect("fires");
    assert_eq!(counts(&mut h), [(100, 1)]);
    push(&mut h, &[4]);
    h.advance(ms(1000)).expect("fires");
    h.advance(ms(1000)).expect("fires");
    assert_eq!(counts(&mut h), [(100, 2), (100, 2)]);
    h.watermark(99).expect("drops the window");
    h.advance(ms(9000)).expect("nothing is left");
    assert_eq!(counts(&mut h), []);
}

#[test]
fn an_evictor_decides_what_the_function_sees() {
    let trigger = TimeTrigger::new(TimeKind::Event);
    let spec = Tumbling::event_time(ms(10));
    let mut h = harness(listing(spec, trigger, CountEvictor::new(2)));
    push(&mut h, &[5, 1, 3]);
    h.end().expect("ends");
    assert_eq!(h.values(), [vec![1, 3]]);
}

#[test]
fn a_function_over_count_windows_sees_the_last_records() {
    let run = |spec: CountWindow, n: i64| {
        let trigger = WindowAssigner::<Record>::default_trigger(&spec);
        let evictor = WindowAssigner::<Record>::default_evictor(&spec);
        let mut h = harness(listing(spec, trigger, evictor));
        push(&mut h, &(1..=n).collect::<Vec<_>>());
        h.values()
    };
    assert_eq!(run(CountWindow::tumbling(2), 5), [vec![1, 2], vec![3, 4]]);
    assert_eq!(
        run(CountWindow::sliding(3, 2), 6),
        [vec![1, 2], vec![2, 3, 4], vec![4, 5, 6]]
    );
    assert_eq!(run(CountWindow::sliding(1, 2), 4), [vec![2], vec![4]]);
}

#[test]
fn sessions_merge_with_their_records_timers_and_trigger_state() {
    let spec = Session::event_time(ms(10));
    let mut h = harness(listing(spec, TimeTrigger::new(TimeKind::Event), NoEvictor));
    push(&mut h, &[40, 0, 20, 10, 60]);
    h.watermark(28).expect("waits");
    assert!(h.values().is_empty());
    h.watermark(29).expect("fires");
    assert_eq!(h.values(), [vec![0, 20, 10]]);
    h.end().expect("ends");
    assert_eq!(h.values(), [vec![40], vec![60]]);

    let mut h = harness(counting(spec, CountTrigger::new(4)));
    push(&mut h, &[0, 20]);
    push(&mut h, &[5, 12]);
    assert_eq!(counts(&mut h), [(30, 4)], "the counts of both add up");
}

#[test]
fn a_trigger_that_cannot_merge_is_refused_for_sessions() {
    #[derive(Clone)]
    struct Plain;
    impl Trigger<Record> for Plain {
        type State = ();
        fn on_element(
            &mut self,
            _value: &Record,
            _at: Timestamp,
            _window: TimeWindow,
            _state: &mut (),
            _context: &mut TriggerContext<'_>,
        ) -> TriggerResult {
            TriggerResult::Fire
        }
    }
    let refused = std::panic::catch_unwind(|| {
        harness(counting(Session::event_time(ms(10)), Plain));
    });
    assert!(refused.is_err());
    let mut h = harness(counting(Tumbling::event_time(ms(10)), Plain));
    push(&mut h, &[1, 2]);
    assert_eq!(
        counts(&mut h),
        [(10, 1), (10, 2)],
        "a trigger of the user's own"
    );
}

#[test]
fn a_watermark_waits_while_there_is_no_room() {
    let spec = Tumbling::event_time(ms(10));
    let mut h = harness(counting(spec, TimeTrigger::new(TimeKind::Event)));
    (0..1000).for_each(|key| h.push(1, (key, 1)).expect("takes it"));
    h.set_room(false);
    h.watermark(100).expect("suspends");
    assert_eq!((h.values().len(), h.signals().len()), (256, 0));
    h.set_room(true);
    h.turn().expect("goes on");
    assert_eq!((h.values().len(), h.signals().len()), (744, 1));
}

#[test]
fn nothing_is_left_of_windows_that_are_over() {
    let spec = Session::event_time(ms(10));
    let mut windows = counting(spec, ContinuousEventTimeTrigger::of(ms(3)));
    let mut out = crate::testing::Collected::default();
    for t in 0..1000i64 {
        for t in [t * 50, t * 50 + 20, t * 50 + 10] {
            let key = (t % 7) as u32;
            let hash = crate::hash::key_hash(&key);
            let record = Keyed {
                hash,
                key,
                value: (key, t),
            };
            windows
                .process(Timestamp(t), record, &mut out)
                .expect("takes it");
        }
        windows
            .watermark(Timestamp(t * 50), &mut out)
            .expect("fires");
        let (timers, open, keys) = windows.panes.sizes();
        assert!(
            timers <= 3 * open && open <= 12 && keys <= 7,
            "{timers} {open} {keys}"
        );
    }
    windows
        .watermark(Timestamp(60_000), &mut out)
        .expect("fires");
    assert_eq!(windows.panes.sizes(), (0, 0, 0));
}
