//! Numbers about a running job, cheap enough to update for every batch.
//!
//! A [`MetricGroup`] names things: nested scopes, labels such as job, vertex and subtask, and the
//! metrics in them. What it hands out are small clonable handles over atomics; updating one takes
//! no lock and no look-up. A [`MetricRegistry`] reads them all into one list of [`MetricSample`]s,
//! which the REST interface, the dashboard and [`render_prometheus`] share.
//!
//! ```
//! use tidegate_engine::metrics::{MetricRegistry, render_prometheus};
//!
//! let registry = MetricRegistry::new();
//! let kafka = registry.root().add_label("job", "orders").add_group("kafka");
//! let consumed = kafka.counter("records.consumed");
//! consumed.inc();
//! kafka.histogram("processing.latency").record(12);
//! let text = render_prometheus(&registry.snapshot(0));
//! assert!(text.contains("tidegate_kafka_records_consumed_total{job=\"orders\"} 1\n"));
//! ```

mod group;
mod histogram;
mod job;
mod meter;
mod prometheus;
mod value;

pub use group::{MetricGroup, MetricRegistry};
pub use histogram::{Histogram, HistogramSnapshot};
pub use job::subtask_samples;
pub use meter::Meter;
pub use prometheus::render_prometheus;
pub use value::{Counter, Gauge};

use serde::{Deserialize, Serialize};

/// One metric at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricSample {
    /// The nested groups, outermost first.
    pub scope: Vec<String>,
    /// Label names and values, sorted by name.
    pub labels: Vec<(String, String)>,
    /// The metric's own name, such as `records.consumed`.
    pub name: String,
    /// What it showed.
    pub value: MetricValue,
}

/// What a metric showed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum MetricValue {
    /// Events counted so far.
    Counter(u64),
    /// A total that only grows and need not be whole, such as seconds.
    Total(f64),
    /// A value that goes up and down.
    Gauge(f64),
    /// Events, and how fast they come.
    Meter {
        /// Events counted so far.
        count: u64,
        /// Events per second over the last minute.
        rate: f64,
    },
    /// A distribution.
    Histogram(HistogramSnapshot),
}
