//! What is read and what is written, as the columns of CSV files.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A departure; cancelled ones have `NA` for a time and do not parse.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flight {
    /// Event time.
    pub departed_at: Timestamp,
    /// The airline's code.
    pub carrier: String,
    /// The aircraft's registration.
    pub tailnum: String,
    /// The airport.
    pub origin: String,
    /// Minutes; negative when early.
    pub dep_delay_min: i64,
    /// Distance between the airports.
    pub distance_miles: i64,
}

/// An airport's weather in an hour.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Weather {
    /// Event time.
    pub observed_at: Timestamp,
    /// The airport.
    pub origin: String,
    /// Miles.
    pub visib_miles: f64,
}

/// A row of `carrier-day`.
#[derive(Clone, Debug, Serialize)]
pub struct CarrierDay {
    /// Midnight, UTC.
    pub window_start: Timestamp,
    /// The airline's code.
    pub carrier: String,
    /// Departures.
    pub flights: u64,
    /// Sum of their delays.
    pub dep_delay_min_sum: i64,
    /// The greatest of their delays.
    pub dep_delay_min_max: i64,
}

/// A row of `tailnum-sessions`.
#[derive(Clone, Debug, Serialize)]
pub struct AircraftSession {
    /// The first departure.
    pub session_start: Timestamp,
    /// 24 h after the last departure.
    pub session_end: Timestamp,
    /// The aircraft's registration.
    pub tailnum: String,
    /// Departures.
    pub legs: u64,
    /// Sum of their distances.
    pub distance_miles_sum: i64,
}

/// A row of `weather-join`.
#[derive(Clone, Debug, Serialize)]
pub struct DelayByVisibility {
    /// The airport.
    pub origin: String,
    /// `low` below 3 miles, else `high`.
    pub visibility: &'static str,
    /// Departures.
    pub flights: u64,
    /// Sum of their delays.
    pub dep_delay_min_sum: i64,
}
