//! Sessions, count windows and windows with triggers, in whole jobs at several parallelisms.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidegate::prelude::*;

const RECORDS: u64 = 20_000;
const KEYS: u64 = 37;

/// A key and a time; times go forwards with jumps and some disorder.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Click {
    user: u64,
    at: i64,
}

fn click(n: u64) -> Click {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let (user, jitter) = ((mixed >> 40) % KEYS, (mixed >> 20) % 400);
    Click {
        user,
        at: (n * 10 + jitter) as i64,
    }
}

fn clicks() -> impl Iterator<Item = Click> {
    (0..RECORDS).map(click)
}

const GAP: i64 = 700;

/// User, start, end and number of clicks, as sorting and splitting gives them.
fn sessions() -> Vec<(u64, i64, i64, u64)> {
    let mut sorted: Vec<_> = clicks().map(|c| (c.user, c.at)).collect();
    sorted.sort_unstable();
    let mut rows: Vec<(u64, i64, i64, u64)> = Vec::new();
    for (user, at) in sorted {
        match rows.last_mut() {
            Some(row) if row.0 == user && at <= row.2 => *row = (user, row.1, at + GAP, row.3 + 1),
            _ => rows.push((user, at, at + GAP, 1)),
        }
    }
    rows
}

#[test]
fn sessions_are_those_of_the_sorted_input_at_every_parallelism() {
    let want = sessions();
    assert!(
        want.len() > 2 * KEYS as usize,
        "the input has silences: {}",
        want.len()
    );
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let out = Collect::new();
        env.source("clicks", Generator::new(RECORDS, click))
            .watermarks(
                WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(1))
                    .timestamps(|c: &Click| c.at),
            )
            .key_by(|c| c.user)
            .window(Session::event_time(Duration::from_millis(GAP as u64)))
            .count()
            .sink("out", out.clone());
        let result = env.execute("sessions").expect("the job runs");
        let mut got: Vec<_> = out
            .take()
            .into_iter()
            .map(|(at, w)| {
                assert_eq!(at, w.window.max_timestamp());
                (w.key, w.window.start.0, w.window.end.0, w.value)
            })
            .collect();
        got.sort_unstable();
        assert_eq!(got, want, "parallelism {parallelism}");
        assert_eq!(result.records_in("clicks"), RECORDS);
    }
}

/// Adds up the clicks of each user's results.
fn per_user(results: Vec<(u64, u64)>) -> BTreeMap<u64, (u64, u64)> {
    let mut totals = BTreeMap::new();
    for (user, n) in results {
        let (results, clicks) = totals.entry(user).or_insert((0, 0));
        (*results, *clicks) = (*results + 1, *clicks + n);
    }
    totals
}

#[test]
fn count_windows_are_complete_at_every_parallelism() {
    let mut clicks_of = BTreeMap::new();
    clicks().for_each(|c| *clicks_of.entry(c.user).or_insert(0u64) += 1);
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let (sums, lists) = (Collect::new(), Collect::new());
        let (left, right) = env.source("clicks", Generator::new(RECORDS, click)).fork();
        left.key_by(|c| c.user)
            .window(CountWindow::tumbling(10))
            .count()
            .sink("sums", sums.clone());
        right
            .key_by(|c| c.user)
            .window(CountWindow::sliding(10, 5))
            .process(|context, clicks, out| out.emit((*context.key, clicks.len() as u64)))
            .sink("lists", lists.clone());
        env.execute("counts").expect("the job runs");
        let sums = per_user(
            sums.values()
                .into_iter()
                .map(|w| (w.key, w.value))
                .collect(),
        );
        let lists = per_user(lists.values());
        for (user, n) in &clicks_of {
            assert_eq!(
                sums[user],
                (n / 10, n / 10 * 10),
                "parallelism {parallelism}"
            );
            let fired = n / 5;
            assert_eq!(
                lists[user],
                (fired, 5 + (fired - 1) * 10),
                "parallelism {parallelism}"
            );
        }
    }
}

#[test]
fn a_trigger_and_an_evictor_change_when_and_what_a_window_emits() {
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let (early, newest) = (Collect::new(), Collect::new());
        let timed = env
            .source("clicks", Generator::new(RECORDS, click))
            .watermarks(
                WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(1))
                    .timestamps(|c: &Click| c.at),
            );
        let (left, right) = timed.fork();
        let minute = Tumbling::event_time(Duration::from_secs(60));
        left.key_by(|c| c.user)
            .window(minute)
            .trigger(PurgingTrigger::of(CountTrigger::new(7)))
            .count()
            .sink("early", early.clone());
        right
            .key_by(|c| c.user)
            .window(minute)
            .evictor(CountEvictor::new(3))
            .count()
            .sink("newest", newest.clone());
        env.execute("triggers").expect("the job runs");
        let mut in_minutes = BTreeMap::new();
        clicks().for_each(|c| *in_minutes.entry((c.user, c.at / 60_000)).or_insert(0u64) += 1);
        let early = early.values();
        assert!(early.iter().all(|w| w.value == 7));
        let sevens: u64 = in_minutes.values().map(|n| n / 7).sum();
        assert_eq!(early.len() as u64, sevens, "parallelism {parallelism}");
        let newest = newest.values();
        assert_eq!(newest.len(), in_minutes.len(), "parallelism {parallelism}");
        let kept: u64 = in_minutes.values().map(|n| n.min(&3)).sum();
        assert_eq!(newest.iter().map(|w| w.value).sum::<u64>(), kept);
    }
}

/// The fields of a sample's rows, without its header.
fn sample(file: &str) -> Vec<Vec<String>> {
    let path = format!("{}/../examples/data/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the sample is part of the project");
    let rows = text.lines().skip(1);
    rows.map(|row| row.split(',').map(str::to_owned).collect())
        .collect()
}

/// Milliseconds since the epoch of a time such as `2013-01-31T23:59:00Z`; the sample ends in February.
fn millis_of(time: &str) -> i64 {
    let number = |from: usize, to: usize| time[from..to].parse::<i64>().expect("a number");
    let year_days = (number(0, 4) - 1970) * 365 + 11;
    let days = year_days + (number(5, 7) - 1) * 31 + number(8, 10) - 1;
    (((days * 24 + number(11, 13)) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1000
}

/// Legs and miles of a session.
#[derive(Clone)]
struct Legs;

impl Aggregator<(String, i64, u64)> for Legs {
    type Acc = (u64, u64);
    type Out = (u64, u64);

    fn create(&self) -> (u64, u64) {
        (0, 0)
    }

    fn add(&self, acc: &mut (u64, u64), flight: (String, i64, u64)) {
        *acc = (acc.0 + 1, acc.1 + flight.2);
    }

    fn merge(&self, into: &mut (u64, u64), other: &(u64, u64)) {
        *into = (into.0 + other.0, into.1 + other.1);
    }

    fn result(&self, acc: &(u64, u64)) -> (u64, u64) {
        *acc
    }
}

#[test]
fn aircraft_sessions_of_real_flights_are_those_of_another_program() {
    let mut want: Vec<(i64, i64, String, (u64, u64))> = sample("expected/tailnum-sessions-24h.csv")
        .into_iter()
        .map(|row| {
            let number = |at: usize| row[at].parse().expect("a number");
            (
                millis_of(&row[0]),
                millis_of(&row[1]),
                row[2].clone(),
                (number(3), number(4)),
            )
        })
        .collect();
    want.sort_unstable();
    let good = sample("flights-2013-01.csv")
        .into_iter()
        .filter(|row| row[1] != "NA");
    let flights: Vec<(String, i64, u64)> = good
        .map(|row| {
            (
                row[5].clone(),
                millis_of(&row[1]),
                row[11].parse().expect("miles"),
            )
        })
        .collect();
    for parallelism in [1, 2, 3] {
        let (env, out, flights) = (
            StreamEnv::with_parallelism(parallelism),
            Collect::new(),
            flights.clone(),
        );
        env.source(
            "flights",
            Generator::new(flights.len() as u64, move |n| flights[n as usize].clone()),
        )
        .watermarks(
            WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(11 * 3600))
                .timestamps(|flight: &(String, i64, u64)| flight.1),
        )
        .key_by(|flight| flight.0.clone())
        .window(Session::event_time(Duration::from_secs(24 * 3600)))
        .aggregate(Legs)
        .sink("out", out.clone());
        env.execute("sessions").expect("the job runs");
        let rows = out.values().into_iter();
        let mut got: Vec<_> = rows
            .map(|w| (w.window.start.0, w.window.end.0, w.key, w.value))
            .collect();
        got.sort_unstable();
        assert!(
            got == want,
            "parallelism {parallelism}: {} of {}",
            got.len(),
            want.len()
        );
    }
}
