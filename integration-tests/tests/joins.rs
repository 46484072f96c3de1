//! Joined streams in whole jobs: the same answers at every parallelism as by definition.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidegate::prelude::*;

const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MS: i64 = 3_600_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flight {
    departed_at: i64,
    origin: u8,
    delay: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Weather {
    observed_at: i64,
    origin: u8,
    miles: f64,
}

/// A flight every 97 s, out of order by up to two hours, from one of five airports.
fn flight(n: u64) -> Flight {
    let n = n as i64;
    Flight {
        departed_at: n * 97_000 - n * 7919 % 7_200_000,
        origin: (n * 31 % 5) as u8,
        delay: n % 61 - 10,
    }
}

/// Weather of four airports every hour, in order; one hour is missing now and then.
fn weather(n: u64) -> Weather {
    let hour = n as i64 / 4;
    Weather {
        observed_at: hour * HOUR_MS + if hour % 9 == 4 { HOUR_MS / 2 } else { 0 },
        origin: (n % 4) as u8,
        miles: (n % 11) as f64,
    }
}

const FLIGHTS: u64 = 20_000;
const OBSERVATIONS: u64 = 2_000;

fn streams(
    env: &StreamEnv,
) -> (
    DataStream<Flight, impl Upstream<Out = Flight>>,
    DataStream<Weather, impl Upstream<Out = Weather>>,
) {
    let two_hours = WatermarkStrategy::bounded_out_of_orderness(2 * HOUR);
    let flights = env
        .source("flights", Generator::new(FLIGHTS, flight))
        .watermarks(two_hours.timestamps(|f: &Flight| f.departed_at));
    let in_order = WatermarkStrategy::bounded_out_of_orderness(HOUR);
    let weather = env
        .source("weather", Generator::new(OBSERVATIONS, weather))
        .watermarks(in_order.timestamps(|w: &Weather| w.observed_at));
    (flights, weather)
}

fn sorted<T: Ord + Send + 'static>(out: &Collect<T>) -> Vec<T> {
    let mut values = out.values();
    values.sort_unstable();
    values
}

#[test]
fn flights_meet_the_weather_of_their_hour() {
    let mut want = BTreeMap::new();
    for f in (0..FLIGHTS).map(flight) {
        let hour = f.departed_at.div_euclid(HOUR_MS);
        let near = (0..OBSERVATIONS).map(weather);
        for w in near.filter(|w| w.origin == f.origin && w.observed_at.div_euclid(HOUR_MS) == hour)
        {
            let total: &mut (u64, i64) = want.entry((f.origin, w.miles < 3.0)).or_default();
            *total = (total.0 + 1, total.1 + f.delay);
        }
    }
    assert_eq!(want.len(), 8, "each airport has good and bad weather");
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let (flights, weather) = streams(&env);
        let out = Collect::new();
        flights
            .join(weather)
            .key_by(|f| f.origin, |w| w.origin)
            .window(Tumbling::event_time(HOUR))
            .map(|f, w| (f.origin, w.miles < 3.0, f.delay))
            .key_by(|(origin, low, _)| (*origin, *low))
            .fold((0u64, 0i64), |total, key, (_, _, delay)| {
                *total = (total.0 + 1, total.1 + delay);
                (*key, *total)
            })
            .sink("out", out.clone());
        env.execute("weather").expect("the job runs");
        let mut got = BTreeMap::new();
        for (key, total) in sorted(&out) {
            got.insert(key, total);
        }
        assert_eq!(got, want, "parallelism {parallelism}");
    }
}

#[test]
fn an_outer_join_is_a_co_group_with_an_empty_side() {
    let (size, slide) = (2 * HOUR_MS, HOUR_MS);
    let mut counts = BTreeMap::new();
    let starts = |at: i64| {
        let last = at.div_euclid(slide) * slide;
        [last, last - slide]
    };
    for f in (0..FLIGHTS).map(flight) {
        for start in starts(f.departed_at) {
            counts.entry((f.origin, start)).or_insert((0, 0)).0 += 1;
        }
    }
    for w in (0..OBSERVATIONS).map(weather) {
        for start in starts(w.observed_at) {
            counts.entry((w.origin, start)).or_insert((0usize, 0)).1 += 1;
        }
    }
    let want: Vec<_> = counts.into_iter().collect();
    assert!(want.iter().any(|(_, (_, weather))| *weather == 0));
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let (flights, weather) = streams(&env);
        let out = Collect::new();
        flights
            .key_by(|f| f.origin)
            .co_group(weather.key_by(|w| w.origin))
            .window(Sliding::event_time(
                Duration::from_millis(size as u64),
                Duration::from_millis(slide as u64),
            ))
            .process(|origin, window, flights, weather, out| {
                out.push(((*origin, window.start.0), (flights.len(), weather.len())));
            })
            .sink("out", out.clone());
        env.execute("groups").expect("the job runs");
        assert_eq!(sorted(&out), want, "parallelism {parallelism}");
    }
}

#[test]
fn flights_meet_the_weather_around_them() {
    let (before, after) = (HOUR_MS / 2, HOUR_MS);
    let mut want = Vec::new();
    for f in (0..FLIGHTS).map(flight) {
        for w in (0..OBSERVATIONS).map(weather) {
            let later = w.observed_at - f.departed_at;
            if w.origin == f.origin && (-before..after).contains(&later) {
                want.push((
                    f.departed_at.max(w.observed_at),
                    f.departed_at,
                    w.observed_at,
                    f.origin,
                ));
            }
        }
    }
    want.sort_unstable();
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let (flights, weather) = streams(&env);
        let out = Collect::new();
        flights
            .key_by(|f| f.origin)
            .interval_join(weather.key_by(|w| w.origin))
            .between(Offset::before(HOUR / 2), HOUR)
            .exclude_upper()
            .process(|pair, f, w| {
                assert_eq!(pair.first_at.0, f.departed_at);
                Some((f.departed_at, w.observed_at, *pair.key))
            })
            .sink("out", out.clone());
        env.execute("nearness").expect("the job runs");
        let mut got: Vec<_> = out
            .take()
            .into_iter()
            .map(|(at, (f, w, origin))| (at.0, f, w, origin))
            .collect();
        got.sort_unstable();
        assert_eq!(got, want, "parallelism {parallelism}");
    }
}

#[test]
fn a_record_is_either_joined_or_comes_to_the_side() {
    let env = StreamEnv::with_parallelism(2);
    let strict = WatermarkStrategy::monotonous();
    let flights = env
        .source("flights", Generator::new(FLIGHTS, flight))
        .watermarks(strict.timestamps(|f: &Flight| f.departed_at));
    let in_order = WatermarkStrategy::bounded_out_of_orderness(HOUR);
    let observations = env
        .source("weather", Generator::new(OBSERVATIONS, weather))
        .watermarks(in_order.timestamps(|w: &Weather| w.observed_at));
    let (out, aside) = (Collect::new(), Collect::new());
    let tag = SideOutput::new("late");
    let (joined, late) = flights
        .key_by(|f| f.origin)
        .interval_join(observations.key_by(|w| w.origin))
        .between(0, HOUR_MS)
        .late_output(&tag)
        .map(|f, w| (f.departed_at, f.origin, w.observed_at))
        .side_output(&tag);
    joined.sink("out", out.clone());
    late.sink("late", aside.clone());
    env.execute("late").expect("the job runs");
    let mut late: Vec<_> = aside
        .values()
        .into_iter()
        .map(|record| match record {
            Either::First(f) => (f.departed_at, f.origin),
            Either::Second(w) => panic!("{w:?} is in order"),
        })
        .collect();
    late.sort_unstable();
    let mut want = Vec::new();
    for f in (0..FLIGHTS).map(flight) {
        if late.binary_search(&(f.departed_at, f.origin)).is_ok() {
            continue;
        }
        let near = (0..OBSERVATIONS)
            .map(weather)
            .filter(|w| w.origin == f.origin);
        let near = near.filter(|w| (0..=HOUR_MS).contains(&(w.observed_at - f.departed_at)));
        want.extend(near.map(|w| (f.departed_at, f.origin, w.observed_at)));
    }
    want.sort_unstable();
    assert_eq!(sorted(&out), want, "{} flights were late", late.len());
}

#[test]
fn what_cannot_be_joined_is_reported_before_the_job_runs() {
    let env = StreamEnv::with_parallelism(1);
    let (flights, weather) = streams(&env);
    flights
        .key_by(|f| f.origin)
        .interval_join(weather.key_by(|w| w.origin))
        .between(HOUR, Offset::before(HOUR))
        .map(|f, _| f.delay)
        .sink("near", BlackHole);
    let (flights, weather) = streams(&env);
    flights
        .join(weather)
        .key_by(|f| f.origin, |w| w.origin)
        .window(Tumbling::processing_time(HOUR))
        .map(|f, _| f.delay)
        .sink("joined", BlackHole);
    let error = env.execute("bad").expect_err("it does not run").to_string();
    for part in [
        "'interval_join'",
        "lower bound",
        "'join'",
        "event time only",
    ] {
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
}
