//! How pressed each vertex of a job is, and whether its sources must be held back.
//!
//! Credits already bound what is in flight: a vertex that can't keep up stops its producers, hop by
//! hop, up to the sources. What credits don't see is pressure from beside the stream: memory that
//! fills up, an operator whose records fail. [`PressureMonitor`] measures all of it from the numbers
//! that subtasks keep anyway, names it, and decides; [`BackPressureController`] is the actor that
//! feeds it and carries its decisions to the sources.

mod controller;
mod monitor;
mod shape;

pub use controller::{BackPressureController, PressureBoard};
pub use monitor::{Decision, Measured, PressureMonitor, Tick};
pub use shape::Shape;

use std::time::Duration;
use tidegate_engine::constants::{CRITICAL_PRESSURE, HIGH_PRESSURE, LOCAL_MONITORING_INTERVAL};
use tidegate_engine::flow::PressureWeights;

/// When sources are held back, beyond what credits do by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThrottlePolicy {
    /// Never.
    Off,
    /// While memory, or the errors of a vertex behind a source, are critical.
    #[default]
    OnCritical,
}

/// How a job's pressure is measured and answered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PressureSettings {
    /// How often.
    pub interval: Duration,
    /// How much each measurement counts in a vertex's pressure.
    pub weights: PressureWeights,
    /// When sources are held back.
    pub throttle: ThrottlePolicy,
    /// From this share of memory or errors on, sources are held back.
    pub critical: f64,
    /// Below this share they are released.
    pub high: f64,
}

impl Default for PressureSettings {
    fn default() -> Self {
        PressureSettings {
            interval: LOCAL_MONITORING_INTERVAL,
            weights: VERTEX_WEIGHTS,
            throttle: ThrottlePolicy::default(),
            critical: CRITICAL_PRESSURE,
            high: HIGH_PRESSURE,
        }
    }
}

/// The weights of a vertex: one that is blocked altogether (a full queue, no credit, no progress)
/// comes to 0.85, which is critical, though nothing fails and memory is free.
pub const VERTEX_WEIGHTS: PressureWeights = PressureWeights {
    queue: 0.35,
    credit: 0.35,
    latency: 0.15,
    error: 0.1,
    memory: 0.05,
};
