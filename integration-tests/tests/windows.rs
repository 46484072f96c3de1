//! Whole jobs with aligned windows: the same answers at every parallelism.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tidegate::engine::watermarks::WatermarkGenerator;
use tidegate::prelude::*;

const RECORDS: u64 = 20_000;
const SIZE: i64 = 1_000;
const SLIDE: i64 = 400;

/// Record `n` is at `n` ms, give or take: neighbours are up to 6 ms out of order.
fn time(n: u64) -> i64 {
    (n ^ 5) as i64
}

fn windows_of(at: i64) -> impl Iterator<Item = i64> {
    (at - SIZE + 1..=at).filter(|start| start.rem_euclid(SLIDE) == 0)
}

fn spec() -> tidegate::engine::window::Aligned {
    Sliding::event_time(
        Duration::from_millis(SIZE as u64),
        Duration::from_millis(SLIDE as u64),
    )
}

fn ordered() -> WatermarkStrategy<
    u64,
    impl tidegate::engine::watermarks::WatermarkGenerator<u64>,
    impl tidegate::engine::watermarks::TimestampAssigner<u64>,
> {
    WatermarkStrategy::bounded_out_of_orderness(Duration::from_millis(10))
        .timestamps(|n: &u64| time(*n))
}

#[test]
fn a_keyed_sliding_count_is_that_of_the_model() {
    let mut want = BTreeMap::new();
    for n in 0..RECORDS {
        for start in windows_of(time(n)) {
            *want.entry((start, n % 37)).or_insert(0u64) += 1;
        }
    }
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let out = Collect::new();
        env.source("numbers", Generator::new(RECORDS, |n| n))
            .watermarks(ordered())
            .key_by(|n| n % 37)
            .window(spec())
            .count()
            .sink("out", out.clone());
        env.execute("counts").expect("the job runs");
        let values = out.values();
        assert_eq!(
            values.len(),
            want.len(),
            "parallelism {parallelism}: one result per window"
        );
        let got: BTreeMap<_, _> = values
            .into_iter()
            .map(|w| ((w.window.start.0, w.key), w.value))
            .collect();
        assert_eq!(got, want, "parallelism {parallelism}");
    }
}

#[test]
fn windows_over_all_records_are_those_of_the_model() {
    let mut want = BTreeMap::new();
    for n in 0..RECORDS {
        for start in windows_of(time(n)) {
            let entry: &mut u64 = want.entry(start).or_insert(0);
            *entry = n.max(*entry);
        }
    }
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let out = Collect::new();
        env.source("numbers", Generator::new(RECORDS, |n| n))
            .watermarks(ordered())
            .window_all(spec())
            .reduce(|a, b| b.max(*a))
            .sink("out", out.clone());
        env.execute("greatest").expect("the job runs");
        let values = out.values();
        assert_eq!(
            values.len(),
            want.len(),
            "parallelism {parallelism}: one result per window"
        );
        let got: BTreeMap<_, _> = values
            .into_iter()
            .map(|w| (w.window.start.0, w.value))
            .collect();
        assert_eq!(got, want, "parallelism {parallelism}");
    }
}

#[test]
fn late_records_of_windows_over_all_come_to_the_side_output_from_every_subtask() {
    let env = StreamEnv::with_parallelism(3);
    let (out, late) = (Collect::new(), Collect::new());
    let late_counter = Arc::new(AtomicU64::new(0));
    let tag = SideOutput::new("late");
    // Each record brings its own watermark; odd ones come long after their window.
    let time = |n: &u64| if n % 2 == 1 { 0 } else { 100_000 + *n as i64 };
    let strategy = WatermarkStrategy::punctuated(|_: &u64, at| Some(at)).timestamps(time);
    let counter = late_counter.clone();
    let (windows, side) = env
        .source("numbers", Generator::new(3_000, |n| n))
        .watermarks(strategy)
        .window_all(Tumbling::event_time(Duration::from_secs(1)))
        .late_output(&tag)
        .count()
        .side_output(&tag);
    windows.sink("out", out.clone());
    side.inspect(move |_| {
        counter.fetch_add(1, Relaxed);
    })
    .sink("late", late.clone());
    env.execute("late").expect("the job runs");
    let counted: u64 = out.values().iter().map(|w| w.value).sum();
    let late = late.values();
    assert_eq!(counted + late.len() as u64, 3_000);
    assert!(
        late.len() > 1_400 && late.iter().all(|n| n % 2 == 1),
        "{}",
        late.len()
    );
    assert_eq!(late_counter.load(Relaxed), late.len() as u64);
}

/// Says nothing up to one record, and then that an hour has passed.
#[derive(Clone)]
struct LeapsAt(u64);

impl WatermarkGenerator<u64> for LeapsAt {
    fn on_record(&mut self, n: &u64, _: Timestamp) -> Option<Timestamp> {
        (*n == self.0).then_some(Timestamp(3_600_000))
    }

    fn periodic(&mut self) -> Option<Timestamp> {
        None
    }
}

/// What a count per 100 ms comes to by these watermarks, and how many records came late. Record `n` is at `time(n)`.
fn counted<G: WatermarkGenerator<u64>>(
    watermarks: WatermarkStrategy<u64, G>,
    time: fn(&u64) -> i64,
) -> (Vec<u64>, u64) {
    let env = StreamEnv::with_parallelism(1);
    let out = Collect::new();
    env.source("numbers", Generator::new(1_000, |n| n))
        .watermarks(watermarks.timestamps(time))
        .key_by(|_| 0u64)
        .window(Tumbling::event_time(Duration::from_millis(100)))
        .count()
        .sink("out", out.clone());
    let result = env.execute("counted").expect("the job runs");
    let counts = out.values().into_iter().map(|w| w.value);
    (counts.collect(), result.late())
}

#[test]
fn a_generator_of_the_users_own_says_when_windows_are_complete() {
    let counts = counted(WatermarkStrategy::custom(LeapsAt(549)), |n| *n as i64);
    assert_eq!(counts, (vec![100, 100, 100, 100, 100, 50], 450));
}

#[test]
fn without_watermarks_windows_are_complete_at_the_end_and_nothing_is_late() {
    let backwards = |n: &u64| 999 - *n as i64;
    assert_eq!(
        counted(WatermarkStrategy::none(), backwards),
        (vec![100; 10], 0)
    );
}

#[test]
fn a_senseless_window_is_reported_before_the_job_starts() {
    let env = StreamEnv::with_parallelism(1);
    env.source("numbers", Generator::new(1, |n| n))
        .key_by(|n| *n)
        .window(Sliding::event_time(
            Duration::from_millis(1),
            Duration::from_millis(2),
        ))
        .count()
        .sink("out", BlackHole);
    let error = env
        .execute("gaps")
        .expect_err("the plan is unsound")
        .to_string();
    assert!(
        error.contains("'window': a slide of 2 ms is longer"),
        "{error}"
    );
}
