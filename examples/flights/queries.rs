//! The three queries, each as a job.

use crate::records::{AircraftSession, CarrierDay, DelayByVisibility, Flight, Weather};
use std::path::Path;
use tidegate::engine::api::Upstream;
use tidegate::engine::state::{KeyedStates, ValueState};
use tidegate::engine::window::aggregate_with;
use tidegate::prelude::*;

/// A time of the engine as one that prints itself.
fn time(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::MAX)
}

/// Departure delays per carrier and UTC day.
pub fn carrier_day<U: Upstream<Out = Flight>>(flights: DataStream<Flight, U>, output: &Path) {
    let delays = aggregate_with(
        (0u64, 0i64, i64::MIN),
        |(flights, sum, max), flight: Flight| {
            *flights += 1;
            *sum += flight.dep_delay_min;
            *max = flight.dep_delay_min.max(*max);
        },
        |into: &mut (u64, i64, i64), other: &(u64, i64, i64)| {
            *into = (into.0 + other.0, into.1 + other.1, into.2.max(other.2));
        },
        |delays| *delays,
    );
    flights
        .key_by(|flight| flight.carrier.clone())
        .window(Tumbling::event_time(Duration::from_secs(24 * 3600)))
        .aggregate(delays)
        .map(|day| CarrierDay {
            window_start: time(day.window.start),
            carrier: day.key,
            flights: day.value.0,
            dep_delay_min_sum: day.value.1,
            dep_delay_min_max: day.value.2,
        })
        .sink("carrier-day", FileSink::csv(output));
}

/// What an aircraft flew between two rests of a day.
pub fn tailnum_sessions<U: Upstream<Out = Flight>>(flights: DataStream<Flight, U>, output: &Path) {
    let legs = aggregate_with(
        (0u64, 0i64),
        |(legs, miles), flight: Flight| {
            *legs += 1;
            *miles += flight.distance_miles;
        },
        |into: &mut (u64, i64), other: &(u64, i64)| *into = (into.0 + other.0, into.1 + other.1),
        |legs| *legs,
    );
    flights
        .key_by(|flight| flight.tailnum.clone())
        .window(Session::event_time(Duration::from_secs(24 * 3600)))
        .aggregate(legs)
        .map(|session| AircraftSession {
            session_start: time(session.window.start),
            session_end: time(session.window.end),
            tailnum: session.key,
            legs: session.value.0,
            distance_miles_sum: session.value.1,
        })
        .sink("tailnum-sessions", FileSink::csv(output));
}

/// Departure delays by the visibility at the airport in that hour, in all.
pub fn weather_join<U: Upstream<Out = Flight>, V: Upstream<Out = Weather>>(
    flights: DataStream<Flight, U>,
    weather: DataStream<Weather, V>,
    output: &Path,
) {
    flights
        .join(weather)
        .key_by(
            |flight| flight.origin.clone(),
            |weather| weather.origin.clone(),
        )
        .window(Tumbling::event_time(Duration::from_secs(3600)))
        .map(|flight, weather| {
            let low = weather.visib_miles < 3.0;
            (flight.origin.clone(), low, flight.dep_delay_min)
        })
        .encodable()
        .key_by(|(origin, low, _)| (origin.clone(), *low))
        .process(TotalAtEnd)
        .sink("weather-join", FileSink::csv(output));
}

/// Adds up, and emits when event time comes to its end.
#[derive(Clone)]
struct TotalAtEnd;

/// An airport, and whether the visibility was low.
type Key = (String, bool);

impl KeyedProcessFunction<Key, (String, bool, i64)> for TotalAtEnd {
    type Out = DelayByVisibility;
    type State = ValueState<Key, (u64, i64)>;

    fn open(
        &mut self,
        states: &mut KeyedStates<Key>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        states.value("totals")
    }

    fn process<C: Collector<DelayByVisibility>>(
        &mut self,
        totals: &mut Self::State,
        cx: &ProcessContext<'_, Key>,
        (_, _, delay): (String, bool, i64),
        _out: &mut C,
    ) -> Flow {
        cx.register_event_timer(Timestamp::MAX);
        totals.update(cx, |(flights, sum)| {
            *flights += 1;
            *sum += delay;
        });
        Ok(())
    }

    fn on_timer<C: Collector<DelayByVisibility>>(
        &mut self,
        totals: &mut Self::State,
        cx: &TimerContext<'_, Key>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        let (origin, low) = cx.key().clone();
        let visibility = if low { "low" } else { "high" };
        let (flights, dep_delay_min_sum) = totals.take(cx).unwrap_or_default();
        out.collect(
            at,
            DelayByVisibility {
                origin,
                visibility,
                flights,
                dep_delay_min_sum,
            },
        )
    }
}
