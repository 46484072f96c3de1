//! The numbers that every subtask keeps, as metrics: one bridge for files, endpoints and dashboards.
//!
//! A job's own numbers live in [`crate::observe`], where the hot path writes them once a turn. Here
//! a snapshot of them becomes samples with the labels job, vertex and subtask, beside the metrics
//! that user code counts.

use super::{MetricSample, MetricValue};
use crate::observe::SubtaskSnapshot;
use crate::time::Timestamp;

/// A subtask's numbers as samples. `now` is what the lag of its watermark is measured against; a
/// watermark that says nothing (none yet, or the end of time) shows neither itself nor a lag.
pub fn subtask_samples(job: &str, subtask: &SubtaskSnapshot, now: Timestamp) -> Vec<MetricSample> {
    let labels = vec![
        ("job".to_owned(), job.to_owned()),
        ("subtask".to_owned(), subtask.subtask.to_string()),
        ("vertex".to_owned(), subtask.vertex.clone()),
        ("vertex_id".to_owned(), subtask.vertex_id.to_string()),
    ];
    let sample = |name: &str, value| MetricSample {
        scope: vec!["subtask".to_owned()],
        labels: labels.clone(),
        name: name.to_owned(),
        value,
    };
    let total = |name, value| sample(name, MetricValue::Counter(value));
    let seconds = |name, ns: u64| sample(name, MetricValue::Total(ns as f64 / 1e9));
    let gauge = |name, value: u64| sample(name, MetricValue::Gauge(value as f64));
    let mut samples = vec![
        total("records.in", subtask.records_in),
        total("records.out", subtask.records_out),
        total("bytes.in", subtask.bytes_in),
        total("bytes.out", subtask.bytes_out),
        total("late.records", subtask.late),
        total("dead.letters", subtask.dead_letters),
        seconds("busy.seconds", subtask.busy_ns),
        seconds("idle.seconds", subtask.idle_ns),
        seconds("back.pressured.seconds", subtask.backpressured_ns),
        gauge("queued.batches", subtask.queued),
        gauge("credits", subtask.credits),
        gauge("buffered.records", subtask.buffered),
        gauge("timers", subtask.timers),
        sample(
            "silence.seconds",
            MetricValue::Gauge(subtask.silence_ms as f64 / 1000.0),
        ),
    ];
    if let Some(at) = subtask.watermark.filter(|at| *at != Timestamp::MAX.0) {
        let lag = now.0.saturating_sub(at);
        samples.push(sample(
            "watermark.seconds",
            MetricValue::Gauge(at as f64 / 1000.0),
        ));
        samples.push(sample(
            "watermark.lag.seconds",
            MetricValue::Gauge(lag as f64 / 1000.0),
        ));
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::render_prometheus;

    fn text(subtask: &SubtaskSnapshot) -> String {
        render_prometheus(&subtask_samples("orders", subtask, Timestamp(10_000)))
    }

    #[test]
    fn counts_times_and_gauges_have_their_kinds_and_labels() {
        let subtask = SubtaskSnapshot {
            vertex: "totals -> out".to_owned(),
            vertex_id: 2,
            subtask: 1,
            records_in: 7,
            busy_ns: 1_500_000_000,
            credits: 900,
            silence_ms: 4_500,
            watermark: Some(7_500),
            ..SubtaskSnapshot::default()
        };
        let text = text(&subtask);
        let labels = r#"{job="orders",subtask="1",vertex="totals -> out",vertex_id="2"}"#;
        for line in [
            format!("tidegate_subtask_records_in_total{labels} 7\n"),
            format!("tidegate_subtask_busy_seconds_total{labels} 1.5\n"),
            format!("tidegate_subtask_credits{labels} 900\n"),
            format!("tidegate_subtask_silence_seconds{labels} 4.5\n"),
            format!("tidegate_subtask_watermark_seconds{labels} 7.5\n"),
            format!("tidegate_subtask_watermark_lag_seconds{labels} 2.5\n"),
            "# TYPE tidegate_subtask_busy_seconds_total counter\n".to_owned(),
        ] {
            assert!(text.contains(&line), "{line}\nis not in\n{text}");
        }
    }

    #[test]
    fn a_watermark_that_says_nothing_is_absent() {
        let mut subtask = SubtaskSnapshot::default();
        assert!(!text(&subtask).contains("watermark"));
        subtask.watermark = Some(Timestamp::MAX.0);
        assert!(!text(&subtask).contains("watermark"));
        subtask.watermark = Some(0);
        assert!(text(&subtask).contains("watermark_lag_seconds"));
    }
}
