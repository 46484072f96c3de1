//! The actor of one subtask: brings it messages, turns and time, and reports its end.

use crate::protocol::{Deliver, ExitStatus, Exited, Kill, Opened, Start, Throttle, Wake};
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
use tidegate_engine::clock::Clock;
use tidegate_engine::exchange::{EdgeId, Message as EdgeMessage, Outbox};
use tidegate_engine::fault::{Fault, Flow, catch};
use tidegate_engine::graph::{JobGraph, TaskId};
use tidegate_engine::observe::{JobStats, SubtaskStats};
use tidegate_engine::source::Waker;
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
    /// The job's beginning, for durations.
    pub began: Instant,
}

/// The actor of one subtask.
pub struct SubtaskActor {
    shared: Shared,
    subtask: Option<Subtask>,
    post: Post,
    exit: ExitGuard,
    stats: Vec<Arc<SubtaskStats>>,
    scheduled: bool,
    timer: Option<(Timestamp, SpawnHandle)>,
    resting: Option<(Instant, bool)>,
    pace: Pace,
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
            EdgeMessage::Batch { .. } => consumers,
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

/// Slows a source down to a rate: a step is allowed while what was read is below rate times time.
#[derive(Default)]
struct Pace {
    limit: Option<(f64, Instant, u64)>,
}

impl Pace {
    fn pause(&self, read: u64) -> Option<Duration> {
        let (rate, since, at) = self.limit?;
        let earned = since.elapsed().as_secs_f64() * rate;
        let ahead = (read - at) as f64 - earned;
        (ahead > 0.0).then(|| Duration::from_secs_f64((ahead / rate).clamp(0.001, 1.0)))
    }
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
            scheduled: false,
            timer: None,
            resting: None,
            pace: Pace::default(),
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
        let task = &job.tasks[self.exit.task as usize];
        let mut subtask = Subtask::new((task.factory)(&mut build)?, job.settings.slice);
        subtask.open()?;
        self.subtask = Some(subtask);
        Ok(())
    }

    fn end(&mut self, status: ExitStatus, ctx: &mut Context<Self>) {
        self.exit.status.get_or_insert(status);
        // Files and threads that the chain holds are released before the exit is reported.
        let subtask = self.subtask.take();
        let _ = catch(move || {
            drop(subtask);
            Ok(())
        });
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
        if std::mem::replace(&mut self.scheduled, true) {
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
        let began = Instant::now();
        self.account_rest(began);
        for stats in &self.stats {
            let at = began.duration_since(self.shared.began).as_nanos().max(1) as u64;
            stats.turn_began.store(at, Relaxed);
        }
        let now = self.shared.clock.now();
        let Some(subtask) = &mut self.subtask else {
            return;
        };
        let next = catch(|| subtask.step(now, &mut self.post));
        let queued = subtask.queued() as u64;
        let busy = began.elapsed().as_nanos() as u64;
        for stats in &self.stats {
            stats.turn_began.store(0, Relaxed);
            stats.busy_ns.fetch_add(busy, Relaxed);
            stats.queued.store(queued, Relaxed);
        }
        match next {
            Err(fault) => self.fail(fault, ctx),
            Ok(Next::Done) => self.end(ExitStatus::Finished, ctx),
            Ok(Next::Again) => match self.pace.pause(self.read()) {
                Some(pause) => self.rest_until(now.plus(pause), now, ctx),
                None => self.schedule(ctx),
            },
            Ok(Next::Wait { until, blocked }) => {
                self.resting = Some((Instant::now(), blocked));
                if until != Timestamp::MAX {
                    self.rest_until(until, now, ctx);
                }
            }
        }
    }

    fn read(&self) -> u64 {
        self.stats.first().map_or(0, |s| s.records_in.load(Relaxed))
    }

    fn rest_until(&mut self, until: Timestamp, now: Timestamp, ctx: &mut Context<Self>) {
        if let Some((at, handle)) = self.timer {
            if at <= until {
                return;
            }
            ctx.cancel_future(handle);
        }
        let pause = until.0.saturating_sub(now.0).clamp(0, 3_600_000) as u64;
        let handle = ctx.run_later(Duration::from_millis(pause), |actor, ctx| {
            actor.timer = None;
            actor.schedule(ctx);
        });
        self.timer = Some((until, handle));
    }

    fn account_rest(&mut self, now: Instant) {
        let Some((since, blocked)) = self.resting.take() else {
            return;
        };
        let rest = now.duration_since(since).as_nanos() as u64;
        for stats in &self.stats {
            let counter = if blocked {
                &stats.backpressured_ns
            } else {
                &stats.idle_ns
            };
            counter.fetch_add(rest, Relaxed);
        }
    }
}

impl Actor for SubtaskActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        match catch(|| self.build(ctx)) {
            Ok(()) => self.shared.supervisor.do_send(Opened),
            Err(fault) => self.end(ExitStatus::Failed(fault), ctx),
        }
    }
}

impl Handler<Start> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, _: Start, ctx: &mut Self::Context) {
        self.schedule(ctx);
    }
}

impl Handler<Deliver> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, Deliver { edge, message }: Deliver, ctx: &mut Self::Context) {
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

    fn handle(&mut self, Throttle { records_per_second }: Throttle, _: &mut Self::Context) {
        let read = self.read();
        self.pace.limit = records_per_second.map(|rate| (rate.max(1.0), Instant::now(), read));
    }
}

impl Handler<Kill> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, _: Kill, ctx: &mut Self::Context) {
        self.end(ExitStatus::Killed, ctx);
    }
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
