//! Sources that keep together in event time, and what becomes of those that can't.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use tidegate::engine::watermarks::{TimestampAssigner, WatermarkGenerator};
use tidegate::prelude::*;

const SLICE: usize = 64;
const MAX_DRIFT: i64 = 5_000;

/// The greatest lead of one stream's records over the other's, in milliseconds of event time.
#[derive(Default)]
struct Lead {
    slow: AtomicI64,
    most: AtomicI64,
}

impl Lead {
    fn slow_is_at(&self, at: i64) {
        self.slow.fetch_max(at, Relaxed);
    }

    fn fast_is_at(&self, at: i64) {
        let lead = at - self.slow.load(Relaxed);
        self.most.fetch_max(lead, Relaxed);
    }
}

fn by_time() -> WatermarkStrategy<
    (char, i64),
    impl WatermarkGenerator<(char, i64)>,
    impl TimestampAssigner<(char, i64)>,
> {
    WatermarkStrategy::monotonous().timestamps(|(_, at): &(char, i64)| *at)
}

#[test]
fn a_fast_source_is_never_further_ahead_than_the_drift_and_a_slice() {
    let mut env = StreamEnv::with_parallelism(2);
    env.settings_mut().slice = SLICE;
    let (lead, out) = (Arc::new(Lead::default()), Collect::new());
    let (of_slow, of_fast) = (lead.clone(), lead.clone());
    let aligned = || by_time().align("both", Duration::from_millis(MAX_DRIFT as u64));
    let slow = env
        .source("slow", Generator::new(400_000, |n| ('s', n as i64)))
        .parallelism(1)
        .inspect(move |(_, at)| of_slow.slow_is_at(*at))
        .watermarks(aligned());
    let fast = env
        .source("fast", Generator::new(400, |n| ('f', n as i64 * 1000)))
        .parallelism(1)
        .inspect(move |(_, at)| of_fast.fast_is_at(*at))
        .watermarks(aligned());
    slow.union(fast).sink("out", out.clone());
    env.execute("aligned").expect("the job ends");
    assert_eq!(out.values().len(), 400_400);
    let most = lead.most.load(Relaxed);
    let bound = MAX_DRIFT + SLICE as i64 * 1000;
    assert!(most <= bound, "the fast one was {most} ms ahead");
    // Without alignment it is at its end, 400,000 ms before the slow one is far.
    assert!(
        most > MAX_DRIFT,
        "it was {most} ms ahead, so nothing was held"
    );
}

#[test]
fn idle_members_and_members_that_end_hold_nobody() {
    let env = StreamEnv::with_parallelism(3);
    let out = Collect::new();
    let aligned = || {
        by_time()
            .idle_after(Duration::from_millis(20))
            .align("all", Duration::ZERO)
    };
    // Two of the three subtasks of `short` have nothing to read and end at once.
    let short = env
        .source("short", Generator::new(10, |n| ('s', n as i64)))
        .watermarks(aligned());
    let paced = Generator::new(8, |n| ('p', n as i64 * 1_000)).per_second(20.0);
    let paced = env.source("paced", paced).watermarks(aligned());
    let long = env
        .source("long", Generator::new(20_000, |n| ('l', n as i64 * 10)))
        .watermarks(aligned());
    short.union(paced).union(long).sink("out", out.clone());
    env.execute("idle").expect("the job ends");
    assert_eq!(out.values().len(), 20_018);
}

#[test]
fn alignment_behind_an_exchange_is_a_problem_of_the_graph() {
    let env = StreamEnv::with_parallelism(2);
    env.source("numbers", Generator::new(10, |n| ('n', n as i64)))
        .rebalance()
        .watermarks(by_time().align("g", Duration::ZERO))
        .name("too late")
        .sink("out", BlackHole);
    let error = env.execute("misplaced").expect_err("it can't run");
    let error = error.to_string();
    assert!(error.contains("'too late'"), "{error}");
    assert!(error.contains("right behind the source"), "{error}");
}
