//! The actor of a job's checkpoints: carries out what [`tidegate_engine::checkpoint::Coordinator`] decides.

use crate::checkpointing::{Checkpointing, Target};
use crate::protocol::{
    AttemptFailed, CheckpointEvent, CheckpointSettled, EndInput, FailJob, Release, TakeSavepoint,
    TriggerCheckpoint,
};
use crate::subtask::{Directory, SubtaskActor};
use crate::supervisor::Supervisor;
use crate::telemetry::CheckpointBoard;
use actix::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;
use tidegate_engine::checkpoint::storage::{
    checkpoint_folder, join, publish_to, read_metadata, savepoint_folder,
};
use tidegate_engine::checkpoint::{
    Action, BarrierKind, CheckpointId, CheckpointMetadata, CheckpointSettings, Coordinator, Error,
    Event, Outcome, Publication, RequestId, SubtaskFile, SubtaskRef,
};
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::Fault;
use tidegate_engine::graph::JobGraph;
use tidegate_engine::time::Timestamp;

/// After how long a publication of unknown outcome is looked up again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Takes the checkpoints of one attempt.
pub struct CheckpointCoordinator {
    core: Coordinator<SubtaskFile>,
    job: Arc<JobGraph>,
    attempt: u32,
    checkpointing: Checkpointing,
    directory: Directory,
    supervisor: Addr<Supervisor>,
    clock: Clock,
    /// Where the checkpoints under way go.
    targets: HashMap<CheckpointId, Target>,
    requests: HashMap<RequestId, Request>,
    next_request: u64,
    board: CheckpointBoard,
    timer: Option<(Timestamp, SpawnHandle)>,
    /// Called once no publication of a failed attempt is under way any more.
    settled: Option<Box<dyn FnOnce()>>,
}

struct Request {
    folder: Option<Target>,
    reply: SyncSender<Result<String, String>>,
}

impl CheckpointCoordinator {
    /// For one attempt of a job.
    pub fn new(
        settings: CheckpointSettings,
        (job, attempt): (Arc<JobGraph>, u32),
        checkpointing: Checkpointing,
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
            targets: HashMap::new(),
            requests: HashMap::new(),
            next_request: 0,
            board: CheckpointBoard::default(),
            timer: None,
            settled: Some(Box::new(settled)),
        }
    }

    /// Shows what becomes of its checkpoints on a board.
    pub fn shown_on(mut self, board: CheckpointBoard) -> Self {
        self.board = board;
        self
    }

    fn handle_event(&mut self, event: Event<SubtaskFile>, ctx: &mut Context<Self>) {
        let now = self.clock.now();
        for action in self.core.handle(event, now) {
            self.carry_out(action, ctx);
        }
        self.board.publish(self.core.history());
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
                self.each_subtask(|subtask| subtask.do_send(order.clone()));
            }
            Action::Publish(publication) => self.publish(publication, ctx),
            Action::Resolve { id } => self.resolve(id, ctx),
            Action::Notify(notice) => {
                self.each_subtask(|subtask| subtask.do_send(CheckpointSettled(notice)));
            }
            Action::Discard { id, files } => self.discard(id, files),
            Action::Subsumed(ids) => self.delete(ids),
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
            Action::Finish => self.each_subtask(|subtask| subtask.do_send(Release)),
        }
    }

    /// Where the files of a checkpoint go.
    fn target(&mut self, id: CheckpointId, kind: BarrierKind) -> Target {
        if let Some(known) = self.targets.get(&id) {
            return known.clone();
        }
        let storage = self.checkpointing.storage.clone();
        let asked = (kind != BarrierKind::Checkpoint)
            .then(|| self.requests.values_mut().find_map(|r| r.folder.take()))
            .flatten();
        let target = asked.unwrap_or_else(|| Target {
            folder: match kind {
                BarrierKind::Checkpoint => checkpoint_folder(id),
                BarrierKind::Savepoint | BarrierKind::Stop => savepoint_folder(&*storage, id),
            },
            storage,
        });
        self.targets.insert(id, target.clone());
        target
    }

    fn publish(&mut self, publication: Publication<SubtaskFile>, ctx: &mut Context<Self>) {
        let Publication {
            id, kind, files, ..
        } = publication;
        let mut metadata = CheckpointMetadata::new(id, kind, self.job.name.as_str());
        metadata.attempt = self.attempt;
        metadata.created = publication.triggered;
        metadata.subtasks = files.into_iter().map(|(_, file)| file).collect();
        let target = self.target(id, kind);
        let written = tokio::task::spawn_blocking(move || {
            publish_to(&*target.storage, &target.folder, &metadata)
        });
        ctx.spawn(wrap(written, move |actor, written, ctx| {
            // Whether a rename that reported an error has happened, only the storage can tell.
            let outcome = match written {
                Ok(()) => Outcome::Published,
                Err(error) => {
                    tracing::warn!(job = actor.job.name, checkpoint = id.0, "{error}");
                    Outcome::Unknown
                }
            };
            actor.handle_event(Event::MetadataPublished { id, outcome }, ctx);
        }));
    }

    fn resolve(&mut self, id: CheckpointId, ctx: &mut Context<Self>) {
        let Some(target) = self.targets.get(&id).cloned() else {
            return;
        };
        let read = tokio::task::spawn_blocking(move || {
            let found = read_metadata(&*target.storage, &target.folder);
            found.map(drop)
        });
        ctx.spawn(wrap(read, move |actor, found, ctx| {
            let outcome = match found {
                Ok(()) => Outcome::Published,
                Err(Error::Missing { .. }) => {
                    Outcome::Failed("its metadata could not be written".to_owned())
                }
                Err(error) => {
                    tracing::warn!(job = actor.job.name, checkpoint = id.0, "{error}");
                    ctx.run_later(LOOK_AGAIN, move |actor, ctx| actor.resolve(id, ctx));
                    return;
                }
            };
            actor.handle_event(Event::MetadataPublished { id, outcome }, ctx);
        }));
    }

    fn discard(&mut self, id: CheckpointId, files: Vec<(SubtaskRef, SubtaskFile)>) {
        let Some(target) = self.targets.get(&id).cloned() else {
            return;
        };
        tokio::task::spawn_blocking(move || {
            for (_, file) in files {
                let path = join(&target.folder, &file.file.path);
                if let Err(error) = target.storage.delete(&path) {
                    tracing::warn!("{error}");
                }
            }
        });
    }

    /// Deletes checkpoints that newer ones have made superfluous.
    fn delete(&mut self, ids: Vec<CheckpointId>) {
        let storage = self.checkpointing.storage.clone();
        self.targets.retain(|id, _| !ids.contains(id));
        tokio::task::spawn_blocking(move || {
            for id in ids {
                let folder = checkpoint_folder(id);
                let deleted = storage.list(&folder).and_then(|mut files| {
                    // Without its metadata it is no checkpoint any more, whatever happens next.
                    files.sort_by_key(|file| !file.path.ends_with("_metadata"));
                    files.iter().try_for_each(|file| storage.delete(&file.path))
                });
                if let Err(error) = deleted {
                    tracing::warn!("{error}");
                }
            }
        });
    }

    fn reply(&mut self, request: RequestId, result: Result<CheckpointId, String>) {
        let Some(Request { reply, .. }) = self.requests.remove(&request) else {
            return;
        };
        let place = |id| self.targets.get(&id).map(Target::place).unwrap_or_default();
        // Who asked may have gone.
        let _ = reply.send(result.map(place));
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
        } = order;
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, Request { folder, reply });
        self.handle_event(Event::SavepointRequested { request, kind }, ctx);
    }
}

impl Handler<AttemptFailed> for CheckpointCoordinator {
    type Result = ();

    fn handle(&mut self, AttemptFailed(subtask): AttemptFailed, ctx: &mut Self::Context) {
        self.handle_event(Event::SubtaskGone { subtask }, ctx);
    }
}
