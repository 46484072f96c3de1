//! Timestamps at the ends of what 64 bits hold: windows neither panic nor loop, and each record is
//! answered or counted as late.

use integration_tests::PATIENCE;
use std::time::Instant;
use tidegate::engine::watermarks::{TimestampAssigner, WatermarkGenerator};
use tidegate::prelude::*;

/// `MIN` itself means that a record has no time.
const TIMES: [i64; 12] = [
    0,
    i64::MIN + 1,
    i64::MAX,
    -1,
    i64::MAX - 1,
    1,
    i64::MIN + 2,
    i64::MAX / 2,
    i64::MIN / 2,
    i64::MAX - 7,
    999,
    -1000,
];

/// In another order each time.
const RECORDS: u64 = 12 * 7;

fn time(n: u64) -> i64 {
    let (round, place) = (n as usize / TIMES.len(), n as usize % TIMES.len());
    TIMES[(place * [1, 5, 7, 11][round % 4] + round) % TIMES.len()]
}

fn delay(
    ms: u64,
) -> WatermarkStrategy<u64, impl WatermarkGenerator<u64>, impl TimestampAssigner<u64>> {
    WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(ms))
        .timestamps(|n: &u64| time(*n))
}

/// Runs a job that must end in time.
fn run(env: &StreamEnv, what: &str) -> JobResult {
    let job = env.start(what).expect("it starts");
    let began = Instant::now();
    while !job.ended() {
        if began.elapsed() > PATIENCE {
            job.cancel();
            panic!("{what} does not end: {:?}", job.wait().err());
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    job.wait().unwrap_or_else(|error| panic!("{what}: {error}"))
}

const DELAYS: [u64; 3] = [0, 1000, u64::MAX];

#[test]
fn tumbling_windows() {
    for (ms, size) in DELAYS
        .into_iter()
        .flat_map(|d| [(d, 1), (d, 1000), (d, i64::MAX as u64)])
    {
        let env = StreamEnv::with_parallelism(2);
        let out = Collect::new();
        env.source("numbers", Generator::new(RECORDS, |n| n))
            .watermarks(delay(ms))
            .key_by(|n| n % 3)
            .window(Tumbling::event_time(Duration::from_millis(size)))
            .count()
            .sink("out", out.clone());
        let result = run(&env, "tumbling");
        let counted: u64 = out.values().iter().map(|window| window.value).sum();
        assert_eq!(counted + result.late(), RECORDS, "delay {ms} size {size}");
    }
}

#[test]
fn sliding_windows() {
    for ms in DELAYS {
        let env = StreamEnv::with_parallelism(2);
        let out = Collect::new();
        let spec = Sliding::event_time(Duration::from_millis(1000), Duration::from_millis(250));
        env.source("numbers", Generator::new(RECORDS, |n| n))
            .watermarks(delay(ms))
            .key_by(|n| n % 3)
            .window(spec)
            .count()
            .sink("out", out.clone());
        let result = run(&env, "sliding");
        let counted: u64 = out.values().iter().map(|window| window.value).sum();
        // At the ends of time a record belongs to fewer windows than the usual four.
        assert!(counted <= 4 * RECORDS, "delay {ms}");
        assert!(counted + result.late() >= RECORDS, "delay {ms}");
    }
}

#[test]
fn session_windows() {
    for ms in DELAYS {
        let env = StreamEnv::with_parallelism(2);
        let out = Collect::new();
        env.source("numbers", Generator::new(RECORDS, |n| n))
            .watermarks(delay(ms))
            .key_by(|n| n % 3)
            .window(Session::event_time(Duration::from_millis(1000)))
            .count()
            .sink("out", out.clone());
        let result = run(&env, "sessions");
        let counted: u64 = out.values().iter().map(|window| window.value).sum();
        assert_eq!(counted + result.late(), RECORDS, "delay {ms}");
    }
}
