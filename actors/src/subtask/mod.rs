//! The actor of one subtask: brings it messages, turns and time, and reports its end.

mod checkpoints;
mod rest;

use crate::coordinator::CheckpointCoordinator;
use crate::failpoints::failpoint;
use crate::pace::Pace;
use crate::protocol::{Deliver, ExitStatus, Exited, Kill, Opened, Start, Throttle, Wake};
use crate::snapshots::Snapshots;
use crate::state_backend::StateCoordinator;
use crate::supervisor::Supervisor;
use actix::fut::wrap_future;
use actix::prelude::*;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};
use tidegate_engine::build::BuildContext;
use tidegate_engine::checkpoint::{Participant, RestoredJob};
use tidegate_engine::clock::Clock;
use tidegate_engine::exchange::{EdgeId, Message as EdgeMessage, Outbox};
use tidegate_engine::fault::{Fault, Flow, catch};
use tidegate_engine::graph::{JobGraph, TaskId};
use tidegate_engine::memory::MemoryManager;
use tidegate_engine::metrics::MetricRegistry;
use tidegate_engine::observe::{JobStats, SubtaskStats};
use tidegate_engine::source::Waker;
use tidegate_engine::state::StateBackend;
use tidegate_engine::task::{Next, Subtask};
use tidegate_engine::time::Timestamp;

/// The addresses of all subtasks of a job: by task, then by number.
pub type Directory = Arc<OnceLock<Vec<Vec<Addr<SubtaskActor>>>>>;

/// What all subtasks of a job share.
#[derive(Clone)]
pub struct Shared {
    /// The job.
    pub job: Arc<JobGraph>,
    /// Its live numbers.
    pub stats: Arc<JobStats>,
    /// Where processing time comes from.
    pub clock: Clock,
    /// Who finds whom.
    pub directory: Directory,
    /// Who watches.
    pub supervisor: Addr<Supervisor>,
    /// What user code counts.
    pub metrics: MetricRegistry,
    /// The budget of pooled memory.
    pub memory: MemoryManager,
    /// The job's beginning, for durations.
    pub began: Instant,
    /// Who takes checkpoints, if anyone.
    pub coordinator: Option<Addr<CheckpointCoordinator>>,
    /// Records per second that each subtask of a source reads at most.
    pub source_rate: Option<f64>,
    /// What this attempt begins with.
    pub restored: Option<Arc<RestoredJob>>,
    /// Who creates what its states spill to, where they do.
    pub state: Option<Arc<StateCoordinator>>,
}

/// The actor of one subtask.
pub struct SubtaskActor {
    shared: Shared,
    subtask: Option<Subtask>,
    post: Post,
    exit: ExitGuard,
    stats: Vec<Arc<SubtaskStats>>,
    /// Every actor of the job exists.
    begun: bool,
    scheduled: bool,
    timer: Option<(Timestamp, SpawnHandle)>,
    resting: Option<(Instant, bool)>,
    /// While a source is held back.
    pace: Option<Pace>,
    /// What it owes to checkpoints, where there are any.
    snapshots: Option<Snapshots>,
}

/// Sends what a chain hands out to the actors at the other ends.
struct Post {
    directory: Directory,
    /// For each edge: the producers' and the consumers' task.
    ends: Vec<(TaskId, TaskId)>,
}

impl Outbox for Post {
    fn send(&mut self, edge: EdgeId, to: u32, message: EdgeMessage) {
        let (producers, consumers) = self.ends[edge.0 as usize];
        let task = match message {
            EdgeMessage::Batch { .. } | EdgeMessage::Barrier { .. } => consumers,
            EdgeMessage::Credit { .. } => producers,
        };
        let directory = self
            .directory
            .get()
            .expect("the directory is filled before any start");
        // Credits bound what can be in the mailbox, so its own limit is not asked. A receiver that is
        // gone has told the supervisor, which ends this subtask too.
        directory[task.0 as usize][to as usize].do_send(Deliver { edge, message });
    }
}

/// Tells the supervisor that a subtask is gone, however it went.
struct ExitGuard {
    supervisor: Addr<Supervisor>,
    task: u32,
    subtask: u32,
    status: Option<ExitStatus>,
}

impl Drop for ExitGuard {
    fn drop(&mut self) {
        let status = self.status.take().unwrap_or(ExitStatus::Lost);
        let (task, subtask) = (self.task, self.subtask);
        self.supervisor.do_send(Exited {
            task,
            subtask,
            status,
        });
    }
}

/// By what this process is known as a task manager.
fn local_task_manager() -> String {
    format!("local-{}", std::process::id())
}

impl SubtaskActor {
    /// The actor of subtask `number` of `task`.
    pub fn new(shared: Shared, task: TaskId, number: u32) -> Self {
        let job = &shared.job;
        let ends = (0..job.edges.len() as u32)
            .map(|e| job.tasks_of(EdgeId(e)))
            .collect();
        let directory = shared.directory.clone();
        let vertices = job
            .vertices
            .iter()
            .enumerate()
            .filter(|(_, v)| v.task == task);
        let stats = vertices
            .map(|(id, _)| shared.stats.subtask(id as u32, number))
            .collect();
        let supervisor = shared.supervisor.clone();
        SubtaskActor {
            subtask: None,
            post: Post { directory, ends },
            exit: ExitGuard {
                supervisor,
                task: task.0,
                subtask: number,
                status: None,
            },
            stats,
            begun: false,
            scheduled: false,
            timer: None,
            resting: None,
            pace: pace(shared.source_rate, 0),
            snapshots: None,
            shared,
        }
    }

    fn build(&mut self, ctx: &mut Context<Self>) -> Flow {
        let address = ctx.address();
        let waker = Waker::new(move || address.do_send(Wake));
        let Shared {
            job, stats, clock, ..
        } = &self.shared;
        let (clock, stats) = (clock.clone(), stats.clone());
        let mut build = BuildContext::new(job.clone(), self.exit.subtask, clock, stats, waker);
        build.metrics = self.shared.metrics.clone();
        build.memory = self.shared.memory.clone();
        let task = &job.tasks[self.exit.task as usize];
        let checkpoints = job.settings.checkpoints.as_ref();
        let mode = checkpoints.map(|c| c.mode).unwrap_or_default();
        let restored = self.shared.restored.clone();
        let participant = Participant::new(self.exit.subtask, mode, restored);
        let participant = match &self.shared.state {
            Some(state) => {
                let (_, spill) = state.create(&local_task_manager(), &job.name);
                let participant = participant.spilling(std::rc::Rc::new(spill));
                match job.settings.state {
                    StateBackend::Auto(_) => participant.when_short(),
                    _ => participant,
                }
            }
            None => participant,
        };
        build.participant = participant.clone();
        let head = (task.factory)(&mut build)?;
        let mut subtask = Subtask::new(head, job.settings.slice, participant);
        if job.settings.slice_micros > 0 {
            subtask.begin_short();
        }
        subtask.open()?;
        self.subtask = Some(subtask);
        self.owe_checkpoints();
        Ok(())
    }

    fn end(&mut self, status: ExitStatus, ctx: &mut Context<Self>) {
        self.exit.status.get_or_insert(status);
        self.account_rest(Instant::now());
        // Files and threads that the chain holds are released before the exit is reported.
        let subtask = self.subtask.take();
        self.begin_turn(Instant::now());
        let dropped = catch(move || {
            drop(subtask);
            Ok(())
        });
        self.end_turn();
        // What a panic in `drop` leaves undone nobody knows: a job does not end well with it.
        if let (Err(fault), Some(ExitStatus::Finished)) = (dropped, &self.exit.status) {
            let task = self.shared.job.task_name(TaskId(self.exit.task));
            self.exit.status = Some(ExitStatus::Failed(fault.at(&task)));
        }
        ctx.stop();
    }

    fn fail(&mut self, fault: Fault, ctx: &mut Context<Self>) {
        let position = self
            .subtask
            .as_ref()
            .and_then(|s| catch(|| Ok(s.position())).ok().flatten());
        let fault = match position {
            Some(position) => fault.on_record(|| position),
            None => fault,
        };
        self.end(ExitStatus::Failed(fault), ctx);
    }

    /// Plans a step behind whatever else waits on this arbiter.
    fn schedule(&mut self, ctx: &mut Context<Self>) {
        // A source's own thread may wake it before every actor of the job exists.
        if !self.begun || std::mem::replace(&mut self.scheduled, true) {
            return;
        }
        ctx.spawn(
            wrap_future::<_, Self>(YieldOnce(false)).map(|(), actor, ctx| {
                actor.scheduled = false;
                actor.step(ctx);
            }),
        );
    }

    fn step(&mut self, ctx: &mut Context<Self>) {
        if self.subtask.is_none() {
            return;
        }
        let began = Instant::now();
        self.account_rest(began);
        self.begin_turn(began);
        let now = self.shared.clock.now();
        let read = self.read();
        let allowance = self.pace.as_mut().map(|pace| pace.allowance(began, read));
        let Some(subtask) = &mut self.subtask else {
            return;
        };
        subtask.allow(allowance);
        let next = catch(|| subtask.step(now, &mut self.post));
        let queued = subtask.queued() as u64;
        let took = began.elapsed();
        let limit = Duration::from_micros(self.shared.job.settings.slice_micros);
        subtask.fit_step(took, limit);
        let busy = took.as_nanos() as u64;
        self.end_turn();
        for stats in &self.stats {
            stats.busy_ns.fetch_add(busy, Relaxed);
            stats.queued.store(queued, Relaxed);
        }
        if next.is_ok()
            && self.look_after_checkpoints(took, matches!(next, Ok(Next::Done { .. })), ctx)
        {
            return;
        }
        match next {
            Err(fault) => self.fail(fault, ctx),
            // With checkpoints, it ends after the last one, which it goes on saving without a rest.
            Ok(Next::Done { until }) if self.snapshots.is_some() && until <= now => {
                self.schedule(ctx);
            }
            Ok(Next::Done { until }) if self.snapshots.is_some() => {
                self.begin_rest(false);
                if until != Timestamp::MAX {
                    self.rest_until(until, now, ctx);
                }
            }
            Ok(Next::Done { .. }) => self.end(ExitStatus::Finished, ctx),
            Ok(Next::Again) => self.schedule(ctx),
            Ok(Next::Wait { until, blocked }) => {
                let held = allowance == Some(0);
                let pause = self.pace.as_ref().filter(|_| held).map(Pace::pause);
                let until = pause.map_or(until, |pause| until.min(now.plus(pause)));
                self.begin_rest(blocked || held);
                if until != Timestamp::MAX {
                    self.rest_until(until, now, ctx);
                }
            }
        }
    }

    fn read(&self) -> u64 {
        self.stats.first().map_or(0, |s| s.records_in.load(Relaxed))
    }
}

impl Actor for SubtaskActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.begin_turn(Instant::now());
        let built = catch(|| self.build(ctx));
        self.end_turn();
        match built {
            Ok(()) => self.shared.supervisor.do_send(Opened),
            Err(fault) => self.end(ExitStatus::Failed(fault), ctx),
        }
    }
}

impl Handler<Start> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, _: Start, ctx: &mut Self::Context) {
        self.begun = true;
        self.schedule(ctx);
    }
}

impl Handler<Deliver> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, Deliver { edge, message }: Deliver, ctx: &mut Self::Context) {
        if matches!(message, EdgeMessage::Barrier { .. }) {
            failpoint!("subtask::before_overtaking");
            self.tell(ctx, |subtask| subtask.receive(edge, message));
            failpoint!("subtask::after_overtaking");
            return;
        }
        let Some(subtask) = &mut self.subtask else {
            return;
        };
        match catch(|| subtask.receive(edge, message)) {
            Ok(()) => self.schedule(ctx),
            Err(fault) => self.fail(fault, ctx),
        }
    }
}

impl Handler<Wake> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, _: Wake, ctx: &mut Self::Context) {
        if let Some(subtask) = &mut self.subtask {
            subtask.wake();
            self.schedule(ctx);
        }
    }
}

impl Handler<Throttle> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, Throttle { records_per_second }: Throttle, ctx: &mut Self::Context) {
        let read = self.read();
        let most = self.shared.source_rate;
        let rate = records_per_second.map_or(most, |r| Some(most.map_or(r, |most| most.min(r))));
        self.pace = pace(rate, read);
        self.schedule(ctx);
    }
}

impl Handler<Kill> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, _: Kill, ctx: &mut Self::Context) {
        self.end(ExitStatus::Killed, ctx);
    }
}

fn pace(rate: Option<f64>, read: u64) -> Option<Pace> {
    rate.map(|rate| Pace::new(rate, Instant::now(), read))
}

/// Lets every other ready actor of the arbiter have its turn first.
struct YieldOnce(bool);

impl Future for YieldOnce {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
