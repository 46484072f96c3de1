//! Watches the subtasks of one job: starts them together, keeps the first failure, ends the rest.

use crate::coordinator::CheckpointCoordinator;
use crate::protocol::{
    AttemptFailed, Cancel, ExitStatus, Exited, FailJob, Kill, Observe, Opened, Start,
};
use crate::subtask::Directory;
use actix::prelude::*;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tidegate_engine::checkpoint::SubtaskRef;
use tidegate_engine::constants::{DEFAULT_STOP_PATIENCE, DEFAULT_TURN_PATIENCE};
use tidegate_engine::fault::Fault;
use tidegate_engine::graph::{JobGraph, TaskId};
use tidegate_engine::observe::{JobStats, SubtaskSnapshot};

/// How a job came to its end.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Every subtask processed all of its input.
    Finished,
    /// Somebody ended it.
    Cancelled {
        /// Subtasks that did not end in time and still hold their thread.
        stuck: Vec<String>,
    },
    /// The first failure: what died because of it does not overwrite it.
    Failed {
        /// The root cause.
        fault: Fault,
        /// The task and subtask that failed.
        subtask: String,
        /// Whether every subtask had been built: else no record was processed.
        opened: bool,
        /// Subtasks that did not end in time and still hold their thread.
        stuck: Vec<String>,
    },
}

impl Outcome {
    /// A failure before or beside any subtask.
    pub(crate) fn failed(fault: Fault) -> Self {
        Outcome::Failed {
            fault,
            subtask: String::new(),
            opened: false,
            stuck: Vec::new(),
        }
    }
}

/// Limits of supervision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// How long one turn of user code may take before the job is given up.
    pub turn: Duration,
    /// How long subtasks may take to stop after a failure.
    pub stop: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            turn: DEFAULT_TURN_PATIENCE,
            stop: DEFAULT_STOP_PATIENCE,
        }
    }
}

/// The supervisor of one job.
pub struct Supervisor {
    job: Arc<JobGraph>,
    stats: Arc<JobStats>,
    directory: Directory,
    patience: Patience,
    began: Instant,
    unopened: usize,
    alive: Vec<Vec<bool>>,
    cause: Option<(Fault, String)>,
    cancelled: bool,
    give_up_at: Option<Instant>,
    /// Who has to know when this attempt can't take checkpoints any more.
    coordinator: Option<Addr<CheckpointCoordinator>>,
    done: Option<Box<dyn FnOnce(Outcome)>>,
}

/// Runner to supervisor: who takes this attempt's checkpoints.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Coordinated(pub Addr<CheckpointCoordinator>);

impl Supervisor {
    /// Watches the subtasks of `job`; calls `done` once, when the last one is gone.
    pub fn new(
        job: Arc<JobGraph>,
        stats: Arc<JobStats>,
        directory: Directory,
        patience: Patience,
        began: Instant,
        done: impl FnOnce(Outcome) + 'static,
    ) -> Self {
        let alive: Vec<_> = job
            .tasks
            .iter()
            .map(|t| vec![true; t.parallelism as usize])
            .collect();
        let unopened = alive.iter().map(Vec::len).sum();
        Supervisor {
            job,
            stats,
            directory,
            patience,
            began,
            unopened,
            alive,
            cause: None,
            cancelled: false,
            give_up_at: None,
            coordinator: None,
            done: Some(Box::new(done)),
        }
    }

    fn name(&self, task: usize, subtask: usize) -> String {
        format!("{} [{subtask}]", self.job.tasks[task].name)
    }

    fn start_all(&self) {
        for subtask in self.directory.get().into_iter().flatten().flatten() {
            subtask.do_send(Start);
        }
    }

    fn stop_all(&mut self) {
        for subtask in self.directory.get().into_iter().flatten().flatten() {
            subtask.do_send(Kill);
        }
        self.give_up_at
            .get_or_insert(Instant::now() + self.patience.stop);
    }

    fn tell_coordinator(&self, task: u32, subtask: u32) {
        if let Some(coordinator) = &self.coordinator {
            coordinator.do_send(AttemptFailed(SubtaskRef { task, subtask }));
        }
    }

    fn living(&self) -> Vec<String> {
        let mut names = Vec::new();
        for (task, subtasks) in self.alive.iter().enumerate() {
            for (i, _) in subtasks.iter().enumerate().filter(|(_, alive)| **alive) {
                names.push(self.name(task, i));
            }
        }
        names
    }

    fn finish(&mut self, stuck: Vec<String>, ctx: &mut Context<Self>) {
        let outcome = match self.cause.take() {
            Some((fault, subtask)) => Outcome::Failed {
                fault,
                subtask,
                opened: self.unopened == 0,
                stuck,
            },
            None if self.cancelled => Outcome::Cancelled { stuck },
            None => Outcome::Finished,
        };
        if let Some(done) = self.done.take() {
            done(outcome);
        }
        ctx.stop();
    }

    /// Gives up on a turn that does not end, and on subtasks that do not stop.
    fn watch(&mut self, ctx: &mut Context<Self>) {
        if self.give_up_at.is_some_and(|at| at <= Instant::now()) {
            let stuck = self.living();
            return self.finish(stuck, ctx);
        }
        if self.cause.is_none()
            && !self.cancelled
            && let Some((task, subtask, since)) = self.overdue_turn()
        {
            let fault = Fault::user(format_args!(
                "user code has not returned for {:.1} s; look for an endless loop or a \
                 blocking call",
                since.as_secs_f64()
            ));
            let fault = fault.at(&self.job.task_name(task));
            tracing::error!(job = self.job.name, "{fault}");
            self.cause = Some((fault, self.name(task.0 as usize, subtask as usize)));
            self.tell_coordinator(task.0, subtask);
            self.stop_all();
        }
    }

    /// The task, subtask and age of a turn that takes too long. Which of a task's operators it is in
    /// is not known: to note that would cost a store for each record.
    fn overdue_turn(&self) -> Option<(TaskId, u32, Duration)> {
        let now = self.began.elapsed().as_nanos() as u64;
        let limit = self.patience.turn.as_nanos() as u64;
        let mut found = None;
        self.stats.each(|vertex, subtask, stats| {
            let at = stats.turn_began.load(Relaxed);
            let age = now.saturating_sub(at);
            if at != 0 && age > limit && found.is_none() {
                let task = self.job.vertices[vertex].task;
                found = Some((task, subtask as u32, Duration::from_nanos(age)));
            }
        });
        found
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let period =
            (self.patience.turn / 4).clamp(Duration::from_millis(5), Duration::from_millis(250));
        ctx.run_interval(period, Self::watch);
    }
}

impl Handler<Opened> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Opened, _: &mut Self::Context) {
        self.unopened -= 1;
        if self.unopened == 0 {
            self.start_all();
        }
    }
}

impl Handler<Exited> for Supervisor {
    type Result = ();

    fn handle(&mut self, exited: Exited, ctx: &mut Self::Context) {
        let (task, subtask) = (exited.task as usize, exited.subtask as usize);
        self.alive[task][subtask] = false;
        let failure = match exited.status {
            ExitStatus::Finished | ExitStatus::Killed => None,
            ExitStatus::Failed(fault) => Some(fault),
            ExitStatus::Lost => Some(Fault::internal("its actor ended without a reason")),
        };
        if let Some(fault) = failure
            && self.cause.is_none()
            && !self.cancelled
        {
            tracing::error!(job = self.job.name, "{fault}");
            self.cause = Some((fault, self.name(task, subtask)));
            self.stop_all();
        }
        if self.cause.is_some() || self.cancelled {
            self.tell_coordinator(exited.task, exited.subtask);
        }
        if self.alive.iter().flatten().all(|alive| !alive) {
            self.finish(Vec::new(), ctx);
        }
    }
}

impl Handler<Coordinated> for Supervisor {
    type Result = ();

    fn handle(&mut self, Coordinated(coordinator): Coordinated, _: &mut Self::Context) {
        self.coordinator = Some(coordinator);
    }
}

impl Handler<FailJob> for Supervisor {
    type Result = ();

    fn handle(&mut self, FailJob(fault): FailJob, _: &mut Self::Context) {
        if self.cause.is_none() && !self.cancelled {
            tracing::error!(job = self.job.name, "{fault}");
            self.cause = Some((fault, String::new()));
            self.tell_coordinator(0, 0);
            self.stop_all();
        }
    }
}

impl Handler<Cancel> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Cancel, _: &mut Self::Context) {
        self.cancelled = true;
        self.stop_all();
    }
}

impl Handler<Observe> for Supervisor {
    type Result = MessageResult<Observe>;

    fn handle(&mut self, _: Observe, _: &mut Self::Context) -> Self::Result {
        MessageResult::<Observe>(
            self.stats.snapshot_at(self.began.elapsed()) as Vec<SubtaskSnapshot>
        )
    }
}
