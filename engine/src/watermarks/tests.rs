//! Generators in step with others, idle ones, and what a later attempt says first.

use super::*;
use crate::checkpoint::OperatorImage;
use crate::testing::{Attempt, OperatorHarness};
use proptest::prelude::*;

type Strategy = WatermarkStrategy<i64, BoundedOutOfOrderness, fn(&i64) -> i64>;

fn strategy() -> Strategy {
    WatermarkStrategy::monotonous().timestamps((|at: &i64| *at) as fn(&i64) -> i64)
}

fn harness(strategy: Strategy) -> OperatorHarness<i64, i64, impl Operator<i64, Out = i64>> {
    OperatorHarness::new(AssignWatermarks::new(strategy))
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn who_is_too_far_ahead_takes_no_records_until_the_others_have_come() {
    let aligned = strategy().align("g", ms(100));
    let mut ahead = harness(aligned.clone());
    let others = ahead.join_alignment(&aligned.alignment.expect("just set"));
    others.publish(Timestamp(0));
    ahead.push(0, 101).expect("takes it");
    assert!(ahead.has_room(), "exactly the drift ahead");
    ahead.push(0, 102).expect("takes it");
    assert!(!ahead.has_room());
    let woken = ahead.wake_at();
    assert_eq!(woken, Timestamp(10), "it looks again by itself");
    others.publish(Timestamp(1));
    ahead.advance(ms(10)).expect("looks");
    assert!(ahead.has_room());
    ahead.push(0, 500).expect("takes it");
    assert!(!ahead.has_room());
    others.end();
    ahead.advance(ms(10)).expect("looks");
    assert!(ahead.has_room(), "nobody waits for who has ended");
    ahead.end().expect("ends");
    assert_eq!(others.least(), Timestamp::MAX, "and it says so itself");
}

#[test]
fn who_waits_for_others_is_not_idle() {
    let aligned = strategy().idle_after(ms(50)).align("g", ms(100));
    let mut ahead = harness(aligned.clone());
    let others = ahead.join_alignment(&aligned.alignment.expect("just set"));
    others.publish(Timestamp(0));
    ahead.push(0, 1000).expect("takes it");
    for _ in 0..20 {
        ahead.hold_back();
        ahead.advance(ms(10)).expect("looks");
    }
    assert_eq!(ahead.signals(), [Signal::Watermark(Timestamp(999))]);
    others.end();
    ahead.advance(ms(10)).expect("looks");
    ahead.advance(ms(60)).expect("nothing comes, and it could");
    assert_eq!(ahead.signals(), [Signal::Idle]);
    assert_eq!(others.least(), Timestamp::MAX);
    ahead.push(0, 1000).expect("comes back");
    assert_eq!(ahead.signals(), [Signal::Watermark(Timestamp(999))]);
    assert_eq!(others.least(), Timestamp(999));
}

#[test]
fn time_without_room_is_not_idleness() {
    let mut held = harness(strategy().idle_after(ms(50)));
    held.push(0, 7).expect("takes it");
    for _ in 0..20 {
        held.hold_back();
        held.advance(ms(10)).expect("rests");
    }
    assert_eq!(held.signals(), [Signal::Watermark(Timestamp(6))]);
    held.advance(ms(51)).expect("rests");
    assert_eq!(held.signals(), [Signal::Idle]);
}

type Saved = Vec<(u32, OperatorImage)>;

fn again<G: WatermarkGenerator<i64>>(
    strategy: WatermarkStrategy<i64, G, fn(&i64) -> i64>,
    saved: &Saved,
    (me, parallelism): (u32, u32),
) -> OperatorHarness<i64, i64, impl Operator<i64, Out = i64> + use<G>> {
    let attempt = Attempt::new().subtask(me, parallelism);
    let operator = AssignWatermarks::new(strategy);
    let attempt = attempt.restored(saved.clone()).plain(operator);
    attempt.expect("loads")
}

fn said<Op: Operator<i64>>(harness: &mut OperatorHarness<i64, i64, Op>) -> Option<Signal> {
    harness
        .signals()
        .into_iter()
        .rfind(|s| !matches!(s, Signal::Barrier(_)))
}

#[test]
fn a_later_attempt_says_in_its_first_turn_how_far_the_slowest_had_come() {
    let (mut fast, mut slow, mut idle) = (
        harness(strategy()),
        harness(strategy()),
        harness(strategy().idle_after(ms(50))),
    );
    fast.push(0, 1000).expect("takes it");
    slow.push(0, 500).expect("takes it");
    idle.push(0, 3).expect("takes it");
    idle.advance(ms(60)).expect("is idle");
    let save = |h: &mut OperatorHarness<_, _, _>| h.save().expect("saves");
    let saved = vec![(0, save(&mut fast)), (1, save(&mut slow))];
    for subtask in [(0, 1), (0, 3), (2, 3)] {
        let mut next = again(strategy(), &saved, subtask);
        next.turn().expect("turns");
        assert_eq!(next.signals(), [Signal::Watermark(Timestamp(499))]);
        next.push(0, 400).expect("takes it");
        next.push(0, 501).expect("takes it");
        assert_eq!(next.signals(), [Signal::Watermark(Timestamp(500))]);
    }
    let mut image = idle.save().expect("saves");
    image.name = "operator".into();
    let saved = vec![saved[0].clone(), (1, image)];
    let mut next = again(strategy().idle_after(ms(50)), &saved, (1, 2));
    next.turn().expect("turns");
    assert_eq!(
        said(&mut next),
        Some(Signal::Watermark(Timestamp(999))),
        "nobody waits for the idle"
    );
    next.advance(ms(60)).expect("nothing comes");
    assert_eq!(next.signals(), [Signal::Idle]);
}

#[test]
fn a_subtask_that_had_said_nothing_or_the_last_word_says_nothing_first() {
    let mut silent = harness(strategy());
    let mut next = again(
        strategy(),
        &vec![(0, silent.save().expect("saves"))],
        (0, 1),
    );
    next.turn().expect("turns");
    assert_eq!(next.signals(), []);
    silent.push(0, 5).expect("takes it");
    silent.end().expect("ends");
    let mut next = again(
        strategy(),
        &vec![(0, silent.save().expect("saves"))],
        (0, 1),
    );
    next.turn().expect("turns");
    assert_eq!(next.signals(), [], "its source says it again");
    next.end().expect("ends");
    assert_eq!(
        next.signals(),
        [Signal::Watermark(Timestamp::MAX), Signal::EndOfInput]
    );
}

proptest! {
    #[test]
    fn watermarks_go_on_from_a_checkpoint_anywhere(
        times in prop::collection::vec(0i64..1000, 0..40), at: prop::sample::Index,
        delay in 0u64..100, punctuated: bool,
    ) {
        fn same(at: &i64) -> i64 {
            *at
        }
        let cut = at.index(times.len() + 1);
        let bounded = || WatermarkStrategy::bounded_out_of_orderness(ms(delay)).timestamps(same as fn(&i64) -> i64);
        let marks = || {
            let even = |at: &i64, time| (at % 2 == 0).then_some(time);
            WatermarkStrategy::punctuated(even).timestamps(same as fn(&i64) -> i64)
        };
        if punctuated {
            goes_on(marks(), &times, cut)?;
        } else {
            goes_on(bounded(), &times, cut)?;
        }
    }
}

fn goes_on<G: WatermarkGenerator<i64>>(
    strategy: WatermarkStrategy<i64, G, fn(&i64) -> i64>,
    times: &[i64],
    cut: usize,
) -> Result<(), TestCaseError> {
    let mut whole = OperatorHarness::new(AssignWatermarks::new(strategy.clone()));
    let mut before = OperatorHarness::new(AssignWatermarks::new(strategy.clone()));
    let (mut said_last, mut again_last) = (None, None);
    for at in &times[..cut] {
        whole.push(0, *at).expect("takes it");
        before.push(0, *at).expect("takes it");
    }
    said_last = said(&mut whole).or(said_last);
    let saved = vec![(0, before.save().expect("saves"))];
    let mut after = again(strategy, &saved, (0, 1));
    after.turn().expect("turns");
    again_last = said(&mut after).or(again_last);
    prop_assert_eq!(again_last, said_last);
    for at in &times[cut..] {
        whole.push(0, *at).expect("takes it");
        after.push(0, *at).expect("takes it");
        said_last = said(&mut whole).or(said_last);
        again_last = said(&mut after).or(again_last);
        prop_assert_eq!(again_last, said_last);
    }
    Ok(())
}
