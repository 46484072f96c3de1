//! One number and one name for how pressed a stage is, out of five measurements.
//!
//! Queue, credit, latency, errors and memory press in different units. Each is brought to 0..=1,
//! weighted as the stage wishes, and the sum is named by half-open ranges, so that a dashboard,
//! an alert and a throttle mean the same by "high".

use serde::{Deserialize, Serialize};
use std::fmt;

/// The latency that counts as full pressure, in milliseconds.
const FULL_LATENCY_MS: f64 = 1000.0;

/// The name of a pressure; the ranges include their lower and exclude their upper end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PressureLevel {
    /// Below 0.3.
    Healthy,
    /// From 0.3 to below 0.6.
    Moderate,
    /// From 0.6 to below 0.8.
    High,
    /// From 0.8.
    Critical,
}

impl PressureLevel {
    /// Names a pressure of 0..=1. What is not a number counts as critical: it was not measured.
    pub fn of(pressure: f64) -> Self {
        match pressure {
            p if p < 0.3 => Self::Healthy,
            p if p < 0.6 => Self::Moderate,
            p if p < 0.8 => Self::High,
            _ => Self::Critical,
        }
    }
}

impl fmt::Display for PressureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "HEALTHY",
            Self::Moderate => "MODERATE PRESSURE",
            Self::High => "HIGH PRESSURE",
            Self::Critical => "CRITICAL PRESSURE",
        })
    }
}

/// What was measured at one stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct PressureSample {
    /// Share of the queue in use, 0 to 1; see [`queue_ratio`].
    pub queue: f64,
    /// Share of the credits in use, 0 to 1.
    pub credit: f64,
    /// Processing latency in milliseconds; a second or more is full pressure.
    pub latency_ms: f64,
    /// Share of the records that failed, 0 to 1.
    pub error_rate: f64,
    /// Share of the memory or state budget in use, 0 to 1.
    pub memory: f64,
}

/// How much each measurement counts; only their proportions matter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PressureWeights {
    /// Weight of the queue.
    pub queue: f64,
    /// Weight of the credits.
    pub credit: f64,
    /// Weight of the latency.
    pub latency: f64,
    /// Weight of the errors.
    pub error: f64,
    /// Weight of the memory.
    pub memory: f64,
}

impl Default for PressureWeights {
    fn default() -> Self {
        Self {
            queue: 0.3,
            credit: 0.25,
            latency: 0.2,
            error: 0.15,
            memory: 0.1,
        }
    }
}

/// How full a queue is: `size / max(1, max)`, at most 1.
pub fn queue_ratio(size: usize, max: usize) -> f64 {
    (size as f64 / max.max(1) as f64).min(1.0)
}

/// The weighted pressure of a sample, 0..=1.
///
/// Each part is clamped to 0..=1 first, and a part that is not a number counts as zero, since a
/// rate over nothing is no pressure. Without any positive weight the worst part decides.
pub fn combine(sample: &PressureSample, weights: &PressureWeights) -> f64 {
    let parts = [
        (unit(sample.queue), weights.queue),
        (unit(sample.credit), weights.credit),
        (unit(sample.latency_ms / FULL_LATENCY_MS), weights.latency),
        (unit(sample.error_rate), weights.error),
        (unit(sample.memory), weights.memory),
    ];
    let usable = |w: f64| if w.is_finite() { w.max(0.0) } else { 0.0 };
    let total: f64 = parts.iter().map(|(_, w)| usable(*w)).sum();
    if total <= 0.0 {
        return parts.iter().map(|(p, _)| *p).fold(0.0, f64::max);
    }
    unit(parts.iter().map(|(p, w)| p * (usable(*w) / total)).sum())
}

fn unit(value: f64) -> f64 {
    if value.is_nan() {
        0.0
    } else {
        value.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_half_open_and_named() {
        let cases = [
            (0.0, "HEALTHY"),
            (0.299_999, "HEALTHY"),
            (0.3, "MODERATE PRESSURE"),
            (0.6, "HIGH PRESSURE"),
            (0.799_999, "HIGH PRESSURE"),
            (0.8, "CRITICAL PRESSURE"),
            (1.0, "CRITICAL PRESSURE"),
            (f64::NAN, "CRITICAL PRESSURE"),
        ];
        for (pressure, name) in cases {
            assert_eq!(PressureLevel::of(pressure).to_string(), name, "{pressure}");
        }
        assert!(PressureLevel::Healthy < PressureLevel::Critical);
    }

    #[test]
    fn each_part_is_scaled_and_weighted() {
        let only = |queue, latency| PressureWeights {
            queue,
            credit: 0.0,
            latency,
            error: 0.0,
            memory: 0.0,
        };
        let sample = PressureSample {
            queue: queue_ratio(500, 1000),
            latency_ms: 250.0,
            error_rate: 7.0,
            ..PressureSample::default()
        };
        assert_eq!(combine(&sample, &only(1.0, 0.0)), 0.5);
        assert_eq!(combine(&sample, &only(0.0, 1.0)), 0.25);
        assert_eq!(combine(&sample, &only(2.0, 2.0)), 0.375);
        assert_eq!(
            combine(&sample, &only(0.0, 0.0)),
            1.0,
            "the worst part decides"
        );
        assert_eq!(queue_ratio(3, 0), 1.0);
    }

    proptest! {
        #[test]
        fn always_within_the_unit_range(v in prop::array::uniform10(any::<f64>())) {
            let sample = PressureSample {
                queue: v[0], credit: v[1], latency_ms: v[2], error_rate: v[3], memory: v[4],
            };
            let weights = PressureWeights {
                queue: v[5], credit: v[6], latency: v[7], error: v[8], memory: v[9],
            };
            prop_assert!((0.0..=1.0).contains(&combine(&sample, &weights)));
        }
    }
}
