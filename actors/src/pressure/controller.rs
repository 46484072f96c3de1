//! The actor around the pressure monitor: reads, publishes, logs, and speaks to the sources.

use super::{Decision, Measured, PressureMonitor, PressureSettings, Shape};
use crate::memory_use::MemoryUse;
use crate::protocol::{Kill, ObservePressure, PressureReport, Throttle};
use crate::subtask::Directory;
use actix::prelude::*;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tidegate_engine::graph::JobGraph;
use tidegate_engine::observe::JobStats;

/// The newest reports, for readers outside of actors. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct PressureBoard(Arc<Mutex<Vec<PressureReport>>>);

impl PressureBoard {
    /// The newest report of each vertex; empty before the first interval has passed.
    pub fn latest(&self) -> Vec<PressureReport> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The report of the most pressed vertex.
    pub fn highest(&self) -> Option<PressureReport> {
        let reports = self.latest().into_iter();
        reports.max_by(|a, b| a.pressure.total_cmp(&b.pressure))
    }

    fn publish(&self, reports: Vec<PressureReport>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reports;
    }
}

/// Watches the pressure of one job.
pub struct BackPressureController {
    job: Arc<JobGraph>,
    stats: Arc<JobStats>,
    directory: Directory,
    memory: MemoryUse,
    settings: PressureSettings,
    monitor: PressureMonitor,
    board: PressureBoard,
    began: Instant,
    last: Instant,
}

impl BackPressureController {
    /// Watches `job`, which began at `began`, and publishes to `board`.
    pub fn new(
        job: Arc<JobGraph>,
        stats: Arc<JobStats>,
        directory: Directory,
        memory: MemoryUse,
        settings: PressureSettings,
        board: PressureBoard,
        began: Instant,
    ) -> Self {
        let monitor = PressureMonitor::new(Shape::of(&job), settings);
        let last = began;
        BackPressureController {
            job,
            stats,
            directory,
            memory,
            settings,
            monitor,
            board,
            began,
            last,
        }
    }

    fn measure(&self, now: Instant) -> Vec<Measured> {
        let since_start = now.duration_since(self.began);
        let mut sums = vec![Measured::default(); self.job.vertices.len()];
        self.stats.each(|vertex, _, stats| {
            let sum = &mut sums[vertex];
            sum.records_in += stats.records_in.load(Relaxed);
            sum.records_out += stats.records_out.load(Relaxed);
            sum.dead_letters += stats.dead_letters.load(Relaxed);
            sum.credits += stats.credits.load(Relaxed);
            sum.buffered += stats.buffered.load(Relaxed);
            sum.backpressured_ns += stats.rest(since_start).1;
        });
        sums
    }

    fn tick(&mut self, _: &mut Context<Self>) {
        let now = Instant::now();
        let elapsed = now.duration_since(std::mem::replace(&mut self.last, now));
        self.memory.watch_state();
        let tick = self
            .monitor
            .tick(&self.measure(now), elapsed, self.memory.share());
        let job = &self.job.name;
        for (id, before) in tick.changes {
            let report = &tick.reports[id];
            let (vertex, level) = (&report.vertex, report.level);
            tracing::info!(job, vertex, pressure = report.pressure, %before, "now {level}");
        }
        for decision in tick.decisions {
            self.carry_out(&decision);
        }
        self.board.publish(tick.reports);
    }

    fn carry_out(&self, decision: &Decision) {
        let (vertex, records_per_second) = match *decision {
            Decision::Hold { vertex, rate } => (vertex, Some(rate)),
            Decision::Release { vertex } => (vertex, None),
        };
        let shape = &self.monitor.shape().0[vertex];
        let (job, vertex) = (&self.job.name, &shape.name);
        match records_per_second {
            Some(rate) => tracing::warn!(job, vertex, rate, "memory or errors are critical: held"),
            None => tracing::info!(job, vertex, "released"),
        }
        let subtasks = self.directory.get().and_then(|tasks| tasks.get(shape.task));
        for subtask in subtasks
            .into_iter()
            .flatten()
            .take(shape.parallelism as usize)
        {
            subtask.do_send(Throttle { records_per_second });
        }
    }
}

impl Actor for BackPressureController {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(self.settings.interval, Self::tick);
    }
}

impl Handler<Kill> for BackPressureController {
    type Result = ();

    fn handle(&mut self, _: Kill, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<ObservePressure> for BackPressureController {
    type Result = MessageResult<ObservePressure>;

    fn handle(&mut self, _: ObservePressure, _: &mut Self::Context) -> Self::Result {
        MessageResult(self.board.latest())
    }
}
