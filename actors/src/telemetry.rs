//! Everything that can be known of a running job, behind one handle that any thread may hold.
//!
//! The metrics endpoint, the progress line and tests read the same numbers through it; nothing here
//! asks a subtask or waits for one.

use crate::memory_use::resident_bytes;
use crate::pressure::PressureBoard;
use crate::protocol::PressureReport;
use crate::state_backend::{StateBoard, StateReport};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tidegate_engine::checkpoint::CheckpointHistory;
use tidegate_engine::clock::Clock;
use tidegate_engine::graph::JobGraph;
use tidegate_engine::metrics::{
    MetricRegistry, MetricSample, MetricValue, render_prometheus, subtask_samples,
};
use tidegate_engine::observe::{JobStats, SubtaskSnapshot};

/// What became of the job's checkpoints, in all of its attempts, for readers outside of actors. Clones
/// show the same.
#[derive(Clone, Debug, Default)]
pub struct CheckpointBoard(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    attempt: u32,
    history: CheckpointHistory,
}

impl CheckpointBoard {
    /// As of now; empty where the job takes no checkpoints.
    pub fn latest(&self) -> CheckpointHistory {
        let shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.history.clone()
    }

    /// Shows the history as an attempt knows it. What an attempt before that has to say yet comes too late.
    pub(crate) fn publish(&self, attempt: u32, history: &CheckpointHistory) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if attempt >= shown.attempt {
            shown.attempt = attempt;
            shown.history.catch_up(history);
        }
    }
}

/// The job's numbers, live.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// The job.
    pub job: Arc<JobGraph>,
    /// What subtasks write.
    pub stats: Arc<JobStats>,
    /// What user code counts.
    pub metrics: MetricRegistry,
    /// What the back-pressure controller publishes.
    pub pressure: PressureBoard,
    /// What became of the latest checkpoints.
    pub checkpoints: CheckpointBoard,
    /// The backends of its state, where it spills.
    pub state: StateBoard,
    /// What the lag of watermarks is measured against.
    pub clock: Clock,
    /// The job's beginning.
    pub began: Instant,
}

/// A job at one moment, as `GET /observe` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Observation {
    /// The job's name.
    pub job: String,
    /// Seconds since its beginning.
    pub uptime_seconds: f64,
    /// Each subtask's numbers.
    pub subtasks: Vec<SubtaskSnapshot>,
    /// The pressure of the most pressed vertex, 0 to 1.
    pub overall_pressure: f64,
    /// The pressure of each vertex.
    pub pressure: Vec<PressureReport>,
    /// The backends of its state, where it spills.
    pub state: Option<StateReport>,
}

impl Telemetry {
    /// Says what a restart of the job would lose: in the log, and as a metric for each such source.
    pub(crate) fn warn(&self) {
        for warning in self.job.warnings() {
            tracing::warn!(job = self.job.name, "{warning}");
        }
        if self.job.settings.checkpoints.is_none() {
            return;
        }
        let group = self.metrics.root().add_group("source");
        let group = group.add_label("job", &self.job.name);
        for source in &self.job.forgetful {
            let name = &self.job.operators[source.0 as usize].name;
            let group = group.add_label("source", name);
            group.gauge("loses_records_at_restart").set(1.0);
        }
    }

    /// The job at this moment.
    pub fn observe(&self) -> Observation {
        let uptime = self.began.elapsed();
        let pressure = self.pressure.latest();
        Observation {
            job: self.job.name.clone(),
            uptime_seconds: uptime.as_secs_f64(),
            subtasks: self.stats.snapshot_at(uptime),
            overall_pressure: pressure.iter().map(|r| r.pressure).fold(0.0, f64::max),
            pressure,
            state: self.state.coordinator().map(|state| state.report()),
        }
    }

    /// All metrics: of the subtasks, of the vertices, of the job, and those of user code.
    pub fn samples(&self) -> Vec<MetricSample> {
        let (seen, now) = (self.observe(), self.clock.now());
        let mut samples = vec![self.of_job("uptime.seconds", seen.uptime_seconds)];
        if let Some(bytes) = resident_bytes() {
            samples.push(self.of_job("process.resident.bytes", bytes as f64));
        }
        for report in &seen.pressure {
            samples.extend(self.of_vertex(report));
        }
        for subtask in &seen.subtasks {
            samples.extend(subtask_samples(&seen.job, subtask, now));
        }
        if self.job.settings.checkpoints.is_some() {
            samples.extend(self.of_checkpoints());
        }
        if let Some(state) = self.state.coordinator() {
            samples.extend(state.samples());
        }
        samples.extend(self.metrics.snapshot(now.0.max(0) as u64));
        samples
    }

    /// All metrics in the Prometheus text format.
    pub fn prometheus(&self) -> String {
        render_prometheus(&self.samples())
    }

    fn of_checkpoints(&self) -> Vec<MetricSample> {
        let shown = self.checkpoints.latest();
        let counts = shown.counts;
        let counted = [
            ("checkpoints.triggered", counts.total),
            ("checkpoints.completed", counts.completed),
            ("checkpoints.failed", counts.failed),
            ("checkpoints.restored", counts.restored),
        ];
        let counted = counted.map(|(name, count)| (name, MetricValue::Counter(count)));
        let mut values = vec![("checkpoints.in_progress", counts.in_progress as f64)];
        if let Some(last) = &shown.latest.completed {
            let pause = last.subtasks.iter().map(|s| s.timing.sync_micros).max();
            values.extend([
                ("checkpoint.last.id", last.id.0 as f64),
                (
                    "checkpoint.last.duration.seconds",
                    last.end_to_end_duration as f64 / 1e3,
                ),
                ("checkpoint.last.bytes", last.state_size as f64),
                (
                    "checkpoint.last.pause.seconds",
                    pause.unwrap_or(0) as f64 / 1e6,
                ),
            ]);
        }
        let values = values.into_iter();
        let values = values.map(|(name, value)| (name, MetricValue::Gauge(value)));
        let all = counted.into_iter().chain(values);
        all.map(|(name, value)| self.valued(name, value)).collect()
    }

    fn of_job(&self, name: &str, value: f64) -> MetricSample {
        self.valued(name, MetricValue::Gauge(value))
    }

    fn valued(&self, name: &str, value: MetricValue) -> MetricSample {
        MetricSample {
            scope: vec!["job".to_owned()],
            labels: vec![("job".to_owned(), self.job.name.clone())],
            name: name.to_owned(),
            value,
        }
    }

    fn of_vertex(&self, report: &PressureReport) -> Vec<MetricSample> {
        let labels = [
            ("job", self.job.name.clone()),
            ("vertex", report.vertex.clone()),
            ("vertex_id", report.vertex_id.to_string()),
        ];
        let parts = [
            ("pressure", report.pressure),
            ("pressure.queue", report.sample.queue),
            ("pressure.credit", report.sample.credit),
            (
                "pressure.latency.seconds",
                report.sample.latency_ms / 1000.0,
            ),
            ("pressure.errors", report.sample.error_rate),
            ("pressure.memory", report.sample.memory),
            ("held", f64::from(u8::from(report.held))),
        ];
        let sample = |(name, value): (&str, f64)| MetricSample {
            scope: vec!["vertex".to_owned()],
            labels: labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect(),
            name: name.to_owned(),
            value: MetricValue::Gauge(value),
        };
        parts.into_iter().map(sample).collect()
    }
}
