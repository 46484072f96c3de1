//! The rules of the back-pressure controller, without an actor or a clock.
//!
//! Every interval it is shown sums of the subtasks' numbers. Out of their differences it keeps a
//! credit account per vertex: what producers sent is requested and consumed, what the vertex
//! processed is replenished, and the measured rate sizes the account's limit. So "credit" means the
//! same here as between two stages: the share in use of what the receiver gets through in time.

use super::shape::Shape;
use super::{PressureSettings, ThrottlePolicy};
use crate::protocol::PressureReport;
use std::time::Duration;
use tidegate_engine::flow::{
    CreditBasedFlowController, FlowSettings, PressureLevel, PressureSample, combine,
};

/// How much of a new measurement enters a smoothed one.
const SMOOTHING: f64 = 0.3;
/// Intervals that a level must hold before it is a change.
const STEADY: u32 = 2;
/// A held source reads at least so many records per second in each subtask, whatever was measured.
const LEAST_RATE: f64 = 100.0;

/// The numbers of a vertex, summed over its subtasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Records received or read so far.
    pub records_in: u64,
    /// Records handed on or written so far.
    pub records_out: u64,
    /// Records that failed so far.
    pub dead_letters: u64,
    /// Nanoseconds with input but without room downstream so far.
    pub backpressured_ns: u64,
    /// Credit left towards the next vertices.
    pub credits: u64,
    /// Records that wait for credit or for their batch to fill.
    pub buffered: u64,
}

/// What the controller is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Hold each subtask of a source at this many records per second.
    Hold {
        /// The source.
        vertex: usize,
        /// Records per second and subtask.
        rate: f64,
    },
    /// Let the source go.
    Release {
        /// The source.
        vertex: usize,
    },
}

/// What one interval showed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tick {
    /// The pressure of each vertex, by number.
    pub reports: Vec<PressureReport>,
    /// Vertices whose level has changed: number and the level before.
    pub changes: Vec<(usize, PressureLevel)>,
    /// What to do.
    pub decisions: Vec<Decision>,
}

struct Watched {
    last: Measured,
    flow: CreditBasedFlowController,
    /// Records sent to it that its account had no credit for.
    unfunded: u64,
    /// Records per second received, smoothed.
    rate: Option<f64>,
    /// How long it has not taken what waits for it.
    stalled: Duration,
    pressure: f64,
    level: PressureLevel,
    /// The level seen lately, and for how many intervals.
    candidate: (PressureLevel, u32),
    held: bool,
}

/// Measures the pressure of a job's vertices and decides about its sources.
pub struct PressureMonitor {
    shape: Shape,
    settings: PressureSettings,
    vertices: Vec<Watched>,
    /// By vertex: the sources whose records reach it.
    origins: Vec<Vec<usize>>,
}

impl PressureMonitor {
    /// A monitor of a job that has just begun.
    pub fn new(shape: Shape, settings: PressureSettings) -> Self {
        let watched = |id: usize| {
            let vertex = &shape.0[id];
            let most = vertex.most_credits.max(2);
            let high = (u64::from(most) * 4 / 5).max(1) as u32;
            let flow = FlowSettings::builder()
                .max_credits_per_channel(most)
                .high_water_mark(high)
                .low_water_mark(vertex.least_credits.min(high - 1))
                .build();
            Watched {
                last: Measured::default(),
                flow: CreditBasedFlowController::new(flow.unwrap_or_default()),
                unfunded: 0,
                rate: None,
                stalled: Duration::ZERO,
                pressure: 0.0,
                level: PressureLevel::Healthy,
                candidate: (PressureLevel::Healthy, 0),
                held: false,
            }
        };
        let vertices = (0..shape.0.len()).map(watched).collect();
        let origins = (0..shape.0.len()).map(|id| shape.sources_of(id)).collect();
        PressureMonitor {
            shape,
            settings,
            vertices,
            origins,
        }
    }

    /// The job's shape.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Takes the numbers of all vertices after another `elapsed`; `memory` is the share of the
    /// memory budget in use.
    pub fn tick(&mut self, now: &[Measured], elapsed: Duration, memory: f64) -> Tick {
        let before: Vec<_> = self.vertices.iter().map(|watched| watched.last).collect();
        let mut sample = |id| self.sample(id, &before, now, elapsed, memory);
        let samples: Vec<_> = (0..now.len()).map(&mut sample).collect();
        let mut tick = Tick::default();
        for (id, mut sample) in samples.into_iter().enumerate() {
            let downstream = self.shape.consumers(id).map(|c| self.level_of_account(c));
            sample.credit = downstream.fold(sample.credit, f64::max);
            let pressure = combine(&sample, &self.settings.weights);
            let watched = &mut self.vertices[id];
            watched.pressure += SMOOTHING * (pressure - watched.pressure);
            if let Some(before) = watched.settle() {
                tick.changes.push((id, before));
            }
            watched.last = now[id];
            tick.reports.push(PressureReport {
                vertex: self.shape.0[id].name.clone(),
                vertex_id: id as u32,
                pressure: watched.pressure,
                level: watched.level,
                sample,
                held: watched.held,
            });
        }
        self.decide(&mut tick);
        tick
    }

    /// Books a vertex's account and measures it, but for what its consumers' accounts say.
    fn sample(
        &mut self,
        id: usize,
        before: &[Measured],
        now: &[Measured],
        elapsed: Duration,
        memory: f64,
    ) -> PressureSample {
        let seconds = elapsed.as_secs_f64().max(1e-9);
        let vertex = &self.shape.0[id];
        let (last, numbers) = (before[id], now[id]);
        let received = numbers.records_in.saturating_sub(last.records_in);
        let failed = numbers.dead_letters.saturating_sub(last.dead_letters);
        let pressed = numbers
            .backpressured_ns
            .saturating_sub(last.backpressured_ns) as f64
            / 1e9;
        let pressed = pressed / (seconds * f64::from(vertex.parallelism.max(1)));
        let waiting = numbers.buffered as f64 / (numbers.buffered + numbers.credits).max(1) as f64;
        let in_flight = self.in_flight(id, now);
        let queued_before = self.in_flight(id, before);
        let arrived = (received + in_flight).saturating_sub(queued_before);
        let producers = self.shape.0[id].producers.iter();
        let credits: u64 = producers.map(|p| now[*p].credits).sum();
        let watched = &mut self.vertices[id];
        let rate = received as f64 / seconds;
        watched.rate = Some(match watched.rate {
            Some(before) => before + SMOOTHING * (rate - before),
            None => rate,
        });
        let stuck = received == 0 && in_flight > 0;
        watched.stalled = if stuck {
            watched.stalled + elapsed
        } else {
            Duration::ZERO
        };
        watched.book(&self.shape.0[id].name, arrived, received, rate);
        // Little's law: what is in the system is rate times time.
        let wait = if received > 0 {
            in_flight as f64 * seconds / received as f64
        } else {
            0.0
        };
        PressureSample {
            queue: in_flight as f64 / (in_flight + credits).max(1) as f64,
            credit: pressed.max(waiting).min(1.0),
            latency_ms: 1000.0 * wait.max(watched.stalled.as_secs_f64()),
            error_rate: failed as f64 / (received + failed).max(1) as f64,
            memory,
        }
    }

    /// Records that are on their way to a vertex or wait there: all that its producers sent minus
    /// all that those who share these producers received.
    fn in_flight(&self, id: usize, now: &[Measured]) -> u64 {
        let producers = &self.shape.0[id].producers;
        if producers.iter().any(|p| self.shape.0[*p].mixed) {
            return 0;
        }
        let sent: u64 = producers.iter().map(|p| now[*p].records_out).sum();
        let shares = |v: &usize| {
            self.shape.0[*v]
                .producers
                .iter()
                .any(|p| producers.contains(p))
        };
        let sharing: Vec<usize> = (0..now.len()).filter(shares).collect();
        // Only where all who share have no other producer is the difference in flight.
        let closed = |v: &usize| {
            self.shape.0[*v]
                .producers
                .iter()
                .all(|p| producers.contains(p))
        };
        if !sharing.iter().all(closed) {
            return 0;
        }
        sent.saturating_sub(sharing.iter().map(|v| now[*v].records_in).sum())
    }

    fn level_of_account(&self, id: usize) -> f64 {
        self.vertices[id]
            .flow
            .channel_pressure(&self.shape.0[id].name)
    }

    fn decide(&mut self, tick: &mut Tick) {
        if self.settings.throttle == ThrottlePolicy::Off {
            return;
        }
        for id in (0..self.shape.0.len()).filter(|id| self.shape.is_source(*id)) {
            let behind = |r: &&PressureReport| self.origins[r.vertex_id as usize].contains(&id);
            let worst = tick.reports.iter().filter(behind);
            // To read fewer bad lines per second does not make them better: what a source could not
            // parse says nothing about what is behind it.
            let from_outside = |r: &&PressureReport| !self.shape.is_source(r.vertex_id as usize);
            let errors = worst
                .filter(from_outside)
                .map(|r| r.sample.error_rate)
                .fold(0.0, f64::max);
            let memory = tick.reports[id].sample.memory;
            let worst = errors.max(memory);
            let held = self.vertices[id].held;
            if !held && worst >= self.settings.critical {
                let rate = self.sustained(id);
                self.vertices[id].held = true;
                tick.decisions.push(Decision::Hold { vertex: id, rate });
            } else if held && worst < self.settings.high {
                self.vertices[id].held = false;
                tick.decisions.push(Decision::Release { vertex: id });
            }
            tick.reports[id].held = self.vertices[id].held;
        }
    }

    /// What the slowest vertex behind a source takes, in records of the source per second and
    /// subtask: its rate, divided by how many of its records a record of the source becomes.
    fn sustained(&self, source: usize) -> f64 {
        let rate = |watched: &Watched| watched.rate.unwrap_or_default();
        let mut slowest = rate(&self.vertices[source]);
        let read = self.vertices[source].last.records_in as f64;
        for (id, watched) in self.vertices.iter().enumerate() {
            // Behind two sources nobody can tell whose records they are.
            if id == source || self.origins[id] != [source] {
                continue;
            }
            let received = watched.last.records_in as f64;
            if received > 0.0 {
                slowest = slowest.min(rate(watched) * read / received);
            }
        }
        let parallelism = f64::from(self.shape.0[source].parallelism.max(1));
        (slowest / parallelism).max(LEAST_RATE)
    }
}

impl Watched {
    /// One round of the credit cycle, driven by what was measured.
    fn book(&mut self, name: &str, arrived: u64, processed: u64, rate: f64) {
        let bounded = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        // What went straight through needed credit only for a moment.
        let through = arrived.min(processed);
        let mut completed = processed - through;
        self.flow.adapt(name, rate);
        // What was sent without credit is completed last: the account had never seen it.
        completed -= u64::from(self.flow.replenish(name, bounded(completed)));
        self.unfunded = self.unfunded.saturating_sub(completed) + arrived - through;
        let granted = self.flow.request_credits(name, bounded(self.unfunded));
        if granted > 0 && self.flow.consume_credits(name, granted).is_ok() {
            self.unfunded -= u64::from(granted);
        }
    }

    /// Takes over a level that has held; returns the one before.
    fn settle(&mut self) -> Option<PressureLevel> {
        let seen = PressureLevel::of(self.pressure);
        let count = if self.candidate.0 == seen {
            self.candidate.1 + 1
        } else {
            1
        };
        self.candidate = (seen, count);
        let change = count >= STEADY && seen != self.level;
        change.then(|| std::mem::replace(&mut self.level, seen))
    }
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
