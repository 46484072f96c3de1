//! The actor of a job's checkpoints: carries out what [`tidegate_engine::checkpoint::Coordinator`] decides.

use crate::checkpointing::{Checkpointing, Published, TakenOver, Target};
use crate::claims::{self, Claim};
use crate::failpoints::failpoint;
use crate::protocol::{
    AttemptFailed, CheckpointEvent, CheckpointSettled, EndInput, FailJob, Release, TakeSavepoint,
    TriggerCheckpoint,
};
use crate::subtask::{Directory, SubtaskActor};
use crate::supervisor::Supervisor;
use crate::telemetry::CheckpointBoard;
use actix::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidegate_engine::checkpoint::retention;
use tidegate_engine::checkpoint::shared::delete_files;
use tidegate_engine::checkpoint::storage::{checkpoint_folder, join, savepoint_folder};
use tidegate_engine::checkpoint::{
    Action, BarrierKind, CheckpointId, CheckpointMetadata, CheckpointSettings, Coordinator, Event,
    Notice, Outcome, Publication, RequestId, SubtaskFile, SubtaskRef,
};
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::Fault;
use tidegate_engine::graph::JobGraph;
use tidegate_engine::time::Timestamp;

/// Takes the checkpoints of one attempt.
pub struct CheckpointCoordinator {
    core: Coordinator<SubtaskFile>,
    job: Arc<JobGraph>,
    attempt: u32,
    checkpointing: Checkpointing,
    directory: Directory,
    supervisor: Addr<Supervisor>,
    clock: Clock,
    /// This process's claim to the job's folder; once it is lost, what is there is another's.
    claim: Arc<Claim>,
    taken_over: bool,
    /// Where the checkpoints under way go, and what they say of themselves.
    targets: HashMap<CheckpointId, Target>,
    published: HashMap<CheckpointId, Arc<CheckpointMetadata>>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    board: CheckpointBoard,
    timer: Option<(Timestamp, SpawnHandle)>,
    /// Superfluous checkpoints are going to be deleted.
    retiring: bool,
    /// Called once no publication of a failed attempt is under way any more.
    settled: Option<Box<dyn FnOnce()>>,
}

struct Request {
    folder: Option<Target>,
    reply: SyncSender<Result<String, String>>,
    place: Arc<OnceLock<String>>,
}

impl CheckpointCoordinator {
    /// For one attempt of a job.
    pub(crate) fn new(
        settings: CheckpointSettings,
        (job, attempt): (Arc<JobGraph>, u32),
        (checkpointing, claim): (Checkpointing, Arc<Claim>),
        (next_id, retained): (CheckpointId, Vec<CheckpointId>),
        (directory, supervisor): (Directory, Addr<Supervisor>),
        clock: Clock,
        settled: impl FnOnce() + 'static,
    ) -> Self {
        let subtasks = job.tasks.iter().enumerate().flat_map(|(task, spec)| {
            let task = task as u32;
            (0..spec.parallelism).map(move |subtask| SubtaskRef { task, subtask })
        });
        let core = Coordinator::new(settings, subtasks.collect(), next_id, clock.now());
        CheckpointCoordinator {
            core: core.two_phase_sinks(true).retaining(retained),
            job,
            attempt,
            checkpointing,
            directory,
            supervisor,
            clock,
            claim,
            taken_over: false,
            targets: HashMap::new(),
            published: HashMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            board: CheckpointBoard::default(),
            timer: None,
            retiring: false,
            settled: Some(Box::new(settled)),
        }
    }

    /// Shows what becomes of its checkpoints on a board, behind those of earlier attempts; `restored` is what this
    /// attempt begins with.
    pub fn shown_on(mut self, board: CheckpointBoard, restored: Option<CheckpointId>) -> Self {
        let (earlier, now) = (board.latest(), self.clock.now());
        self.core = self.core.following(earlier, now);
        if let Some(id) = restored {
            self.core = self.core.restored(id);
        }
        board.publish(self.attempt, self.core.history());
        self.board = board;
        self
    }

    fn handle_event(&mut self, event: Event<SubtaskFile>, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        for action in self.core.handle(event, now) {
            self.carry_out(action, ctx);
        }
        self.board.publish(self.attempt, self.core.history());
        self.set_timer(now, ctx);
    }

    fn set_timer(&mut self, now: Timestamp, ctx: &mut Context<Self>) {
        let at = self.core.next_wakeup();
        if let Some((set, handle)) = self.timer.take() {
            if set == at {
                self.timer = Some((set, handle));
                return;
            }
            ctx.cancel_future(handle);
        }
        if at == Timestamp::MAX {
            return;
        }
        let pause = at.0.saturating_sub(now.0).clamp(0, 3_600_000) as u64;
        let handle = ctx.run_later(Duration::from_millis(pause), |actor, ctx| {
            actor.timer = None;
            actor.handle_event(Event::Tick, ctx);
        });
        self.timer = Some((at, handle));
    }

    fn each_subtask(&self, tell: impl Fn(&Addr<SubtaskActor>)) {
        self.directory
            .get()
            .into_iter()
            .flatten()
            .flatten()
            .for_each(tell);
    }

    fn carry_out(&mut self, action: Action<SubtaskFile>, ctx: &mut Context<Self>) {
        match action {
            Action::Trigger(barrier) => {
                let target = self.target(barrier.id, barrier.kind);
                let order = TriggerCheckpoint {
                    barrier,
                    target,
                    at: self.clock.now(),
                };
                failpoint!("coordinator::before_trigger");
                self.each_subtask(|subtask| subtask.do_send(order.clone()));
                failpoint!("coordinator::after_trigger");
            }
            Action::Publish(publication) => self.publish(publication, ctx),
            Action::Resolve { id } => self.resolve(id, ctx),
            Action::Notify(notice) => self.notify(notice),
            Action::Discard { id, files } => self.discard(id, files),
            Action::Subsumed(ids) => self.retire(&ids, ctx),
            Action::EndInput => self.each_subtask(|subtask| subtask.do_send(EndInput)),
            Action::ReplySavepoint { request, result } => self.reply(request, result),
            Action::FailJob(reason) => {
                self.supervisor.do_send(FailJob(Fault::user(reason)));
            }
            Action::Settled => {
                if let Some(settled) = self.settled.take() {
                    settled();
                }
            }
            Action::Finish => {
                failpoint!("coordinator::before_release");
                self.each_subtask(|subtask| subtask.do_send(Release));
                failpoint!("coordinator::after_release");
            }
        }
    }

    fn notify(&self, notice: Notice) {
        failpoint!("coordinator::before_notify");
        if matches!(notice, Notice::Completed { last: true, .. }) {
            failpoint!("coordinator::before_last_notify");
        }
        self.each_subtask(|subtask| subtask.do_send(CheckpointSettled(notice)));
        failpoint!("coordinator::after_notify");
        if matches!(notice, Notice::Completed { last: true, .. }) {
            failpoint!("coordinator::after_last_notify");
        }
    }

    /// Where the files of a checkpoint go.
    fn target(&mut self, id: CheckpointId, kind: BarrierKind) -> Target {
        if let Some(known) = self.targets.get(&id) {
            return known.clone();
        }
        let own = || Target {
            storage: self.checkpointing.storage.clone(),
            folder: String::new(),
        };
        let target = match kind {
            BarrierKind::Checkpoint => Target {
                folder: checkpoint_folder(id),
                ..own()
            },
            BarrierKind::Savepoint | BarrierKind::Stop => {
                // Savepoints are taken one after the other, in the order in which they were asked for,
                // so this is for the first request that has no answer yet.
                let asked = self.requests.values().next().and_then(|r| r.folder.clone());
                let mut target = asked.unwrap_or_else(own);
                if target.folder.is_empty() {
                    target.folder = savepoint_folder(&*target.storage, id);
                }
                target
            }
        };
        self.targets.insert(id, target.clone());
        target
    }

    fn publish(&mut self, publication: Publication<SubtaskFile>, ctx: &mut Context<Self>) {
        let Publication {
            id, kind, files, ..
        } = publication;
        let mut metadata = CheckpointMetadata::new(id, kind, self.job.name.as_str());
        metadata.graph_hash = self.job.hash();
        metadata.attempt = self.attempt;
        metadata.created = publication.triggered;
        metadata.subtasks = files.into_iter().map(|(_, file)| file).collect();
        metadata.name_shared();
        let (target, metadata) = (self.target(id, kind), Arc::new(metadata));
        self.published.insert(id, metadata.clone());
        let (checkpointing, claim) = (self.checkpointing.clone(), self.claim.clone());
        let written =
            tokio::task::spawn_blocking(move || checkpointing.publish(&target, &metadata, &claim));
        ctx.spawn(wrap(written, move |actor, published, ctx| {
            actor.published(id, published, ctx);
        }));
    }

    fn published(&mut self, id: CheckpointId, published: Published, ctx: &mut Context<Self>) {
        let outcome = published.unwrap_or_else(|TakenOver| {
            let fault = claims::taken_over();
            self.taken_over = true;
            self.supervisor.do_send(FailJob(fault.clone()));
            Outcome::Failed(fault.message().to_owned())
        });
        self.handle_event(Event::MetadataPublished { id, outcome }, ctx);
    }

    fn resolve(&mut self, id: CheckpointId, ctx: &mut Context<Self>) {
        let known = self.targets.get(&id).zip(self.published.get(&id));
        let Some((target, metadata)) = known.map(|(t, m)| (t.clone(), m.clone())) else {
            return;
        };
        let (checkpointing, claim) = (self.checkpointing.clone(), self.claim.clone());
        let read =
            tokio::task::spawn_blocking(move || checkpointing.look_up(&target, &metadata, &claim));
        ctx.spawn(wrap(read, move |actor, published, ctx| {
            actor.published(id, published, ctx);
        }));
    }

    /// Deletes what was written for a checkpoint that was given up. The folder of a savepoint is a
    /// person's: nothing else in it is touched.
    fn discard(&mut self, id: CheckpointId, files: Vec<(SubtaskRef, SubtaskFile)>) {
        let target = self.targets.get(&id).cloned();
        // What is there may be what the other process goes on from.
        let Some(target) = target.filter(|_| !self.taken_over) else {
            return;
        };
        tokio::task::spawn_blocking(move || {
            let Target { storage, folder } = target;
            let deleted = if folder == checkpoint_folder(id) {
                // Of shared files those that were stored for it: no other names them.
                let shared = files.iter().flat_map(|(_, f)| f.index.shared());
                let fresh = shared.filter(|file| file.since == id);
                delete_files(&*storage, fresh.map(|file| &file.file));
                retention::discard(&*storage, &folder)
            } else {
                let shared = files.iter().flat_map(|(_, f)| f.index.shared());
                let own = files.iter().map(|(_, f)| &f.file);
                let mut all = own.chain(shared.map(|shared| &shared.file));
                all.try_for_each(|file| storage.delete(&join(&folder, &file.path)))
            };
            if let Err(error) = deleted {
                tracing::warn!("{error}");
            }
        });
    }

    /// Newer checkpoints have made these superfluous: after the grace period they are deleted. Those that
    /// become so until then are left for the next time.
    fn retire(&mut self, ids: &[CheckpointId], ctx: &mut Context<Self>) {
        self.targets.retain(|id, _| !ids.contains(id));
        self.published.retain(|id, _| !ids.contains(id));
        if std::mem::replace(&mut self.retiring, true) {
            return;
        }
        let grace = self.checkpointing.retention.grace;
        ctx.run_later(grace, |actor, ctx| {
            let retain = actor.core.settings().retained;
            let checkpointing = actor.checkpointing.clone();
            let retired = tokio::task::spawn_blocking(move || checkpointing.retire(retain));
            ctx.spawn(wrap(retired, |actor, (), _| actor.retiring = false));
        });
    }

    fn reply(&mut self, request: RequestId, result: Result<CheckpointId, String>) {
        let Some(Request { reply, place, .. }) = self.requests.remove(&request) else {
            return;
        };
        let target = |id| self.targets.get(&id).map(Target::place).unwrap_or_default();
        let result = result.map(target);
        if let Ok(taken) = &result {
            let _ = place.set(taken.clone());
        }
        // Who asked may have gone.
        let _ = reply.send(result);
    }
}

/// A blocking piece of work and what the actor does with its result.
fn wrap<R: 'static>(
    work: tokio::task::JoinHandle<R>,
    then: impl FnOnce(&mut CheckpointCoordinator, R, &mut Context<CheckpointCoordinator>) + 'static,
) -> impl ActorFuture<CheckpointCoordinator, Output = ()> {
    actix::fut::wrap_future(work).map(move |result, actor: &mut CheckpointCoordinator, ctx| {
        match result {
            Ok(result) => then(actor, result, ctx),
            Err(error) => {
                let fault = Fault::internal(format_args!("checkpoint storage: {error}"));
                actor.supervisor.do_send(FailJob(fault));
            }
        }
    })
}

impl Actor for CheckpointCoordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.set_timer(self.clock.now(), ctx);
    }
}

impl Handler<CheckpointEvent> for CheckpointCoordinator {
    type Result = ();

    fn handle(&mut self, CheckpointEvent(event): CheckpointEvent, ctx: &mut Self::Context) {
        if let Event::SnapshotDeclined { reason, id, .. } = &event {
            tracing::warn!(job = self.job.name, checkpoint = id.0, "declined: {reason}");
        }
        self.handle_event(event, ctx);
    }
}

impl Handler<TakeSavepoint> for CheckpointCoordinator {
    type Result = ();

    fn handle(&mut self, order: TakeSavepoint, ctx: &mut Self::Context) {
        let TakeSavepoint {
            kind,
            folder,
            reply,
            place,
        } = order;
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let asked = Request {
            folder,
            reply,
            place,
        };
        self.requests.insert(request, asked);
        self.handle_event(Event::SavepointRequested { request, kind }, ctx);
    }
}

impl Handler<AttemptFailed> for CheckpointCoordinator {
    type Result = ();

    fn handle(&mut self, AttemptFailed(subtask): AttemptFailed, ctx: &mut Self::Context) {
        self.handle_event(Event::SubtaskGone { subtask }, ctx);
    }
}
