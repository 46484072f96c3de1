//! The attempts of a job: each builds all of its actors anew, from the state of the newest checkpoint.

use crate::checkpointing::{Checkpointing, Target};
use crate::claims::Claim;
use crate::coordinator::CheckpointCoordinator;
use crate::failpoints::failpoint;
use crate::memory_use::half_of_what_there_is;
use crate::pressure::BackPressureController;
use crate::protocol::{Cancel, Kill, TakeSavepoint};
use crate::runner::RunSettings;
use crate::state_backend::StateCoordinator;
use crate::subtask::{Directory, Shared, SubtaskActor};
use crate::supervisor::{Coordinated, Outcome, Supervisor};
use crate::telemetry::Telemetry;
use actix::prelude::*;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tidegate_engine::checkpoint::{
    CheckpointId, CheckpointSettings, Decision, RestartPolicy, RestartStrategy, RestoredJob,
    SavepointKind,
};
use tidegate_engine::fault::{Fault, FaultKind};
use tidegate_engine::graph::TaskId;
use tidegate_engine::state::StateBackend;
use tokio::sync::{Notify, oneshot};

/// How long the publications of a failed attempt may take before the next attempt is given up.
const SETTLING: Duration = Duration::from_secs(60);

/// What other threads ask of a job, whichever of its attempts is running.
#[derive(Default)]
pub struct JobControl {
    current: Mutex<Current>,
    cancelled: Notify,
}

#[derive(Default)]
struct Current {
    cancelled: bool,
    attempt: u32,
    supervisor: Option<Addr<Supervisor>>,
    coordinator: Option<Addr<CheckpointCoordinator>>,
}

impl JobControl {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the job early.
    pub fn cancel(&self) {
        let mut current = self.current();
        current.cancelled = true;
        if let Some(supervisor) = &current.supervisor {
            supervisor.do_send(Cancel);
        }
        self.cancelled.notify_one();
    }

    /// The number of the attempt that is running, or ran last, from 1.
    pub fn attempt(&self) -> u32 {
        self.current().attempt
    }

    /// Takes a savepoint and waits for it; returns where it is.
    pub fn savepoint(&self, kind: SavepointKind, folder: Option<Target>) -> Result<String, String> {
        self.take(kind, folder, Arc::default())
    }

    /// The same. Once the job has ended because of it, its place is there, whoever still waits for the answer.
    pub(crate) fn take(
        &self,
        kind: SavepointKind,
        folder: Option<Target>,
        place: Arc<OnceLock<String>>,
    ) -> Result<String, String> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        let coordinator = self.current().coordinator.clone();
        let Some(coordinator) = coordinator else {
            return Err("the job is not running now, or takes no checkpoints".to_owned());
        };
        let order = TakeSavepoint {
            kind,
            folder,
            reply,
            place,
        };
        coordinator.do_send(order);
        let gone = |_| "the job ended before the savepoint was complete".to_owned();
        answer.recv().map_err(gone)?
    }

    /// Whether an attempt is running that takes checkpoints.
    pub(crate) fn takes_savepoints(&self) -> bool {
        self.current().coordinator.is_some()
    }

    fn is_cancelled(&self) -> bool {
        self.current().cancelled
    }
}

/// Runs the attempts of one job, one after the other.
pub(crate) struct Attempts<'a> {
    pub telemetry: &'a Telemetry,
    pub settings: &'a RunSettings,
    pub arbiters: &'a [Arbiter],
    pub control: &'a JobControl,
}

/// What an attempt begins with.
#[derive(Default)]
struct Beginning {
    restored: Option<Arc<RestoredJob>>,
    next_id: CheckpointId,
    retained: Vec<CheckpointId>,
    claim: Option<Arc<Claim>>,
}

impl Attempts<'_> {
    /// Runs attempts until one ends well, the job is cancelled, or the restart strategy gives up. The
    /// failure that is told then is that of the last attempt.
    pub async fn run(&self) -> Outcome {
        let checkpointing = self.checkpointing();
        let strategy = checkpointing.map_or(RestartStrategy::None, |(c, _)| c.restart.clone());
        if let Err(reason) = strategy.check() {
            return Outcome::failed(Fault::user(reason));
        }
        let mut policy = RestartPolicy::new(strategy, RandomState::new().build_hasher().finish());
        let clock = &self.telemetry.clock;
        let (mut since, mut claim) = (None, None);
        loop {
            let outcome = match self.begin(since, claim.clone()).await {
                Ok(beginning) => {
                    since.get_or_insert(beginning.next_id);
                    claim = beginning.claim.clone();
                    policy.on_healthy(clock.now());
                    self.attempt(beginning).await
                }
                Err(fault) => Outcome::failed(fault),
            };
            let Outcome::Failed {
                fault,
                stuck,
                opened,
                ..
            } = &outcome
            else {
                return outcome;
            };
            // What can't begin at all would fail again, such as with state of another type; a thread that
            // user code holds can't be had back; and who was taken over from must not take over in turn.
            let attempt = self.control.attempt();
            let unfit = attempt == 1 && !opened && fault.kind() == FaultKind::User;
            let fenced = fault.kind() == FaultKind::Fenced;
            if attempt == 0 || unfit || fenced || !stuck.is_empty() {
                return outcome;
            }
            let job = &self.telemetry.job.name;
            match policy.on_failure(clock.now()) {
                Decision::GiveUp(reason) => {
                    tracing::error!(job, "not restarted: {reason}");
                    return outcome;
                }
                Decision::RestartAfter(pause) => {
                    tracing::warn!(
                        job,
                        ?pause,
                        attempt = self.control.attempt(),
                        "restarts: {fault}"
                    );
                    let cancelled = self.control.cancelled.notified();
                    let _ = tokio::time::timeout(pause, cancelled).await;
                }
            }
            if self.control.is_cancelled() {
                return Outcome::Cancelled { stuck: Vec::new() };
            }
        }
    }

    fn checkpointing(&self) -> Option<(&Checkpointing, &CheckpointSettings)> {
        let checkpointing = self.settings.checkpointing.as_ref()?;
        Some((
            checkpointing,
            self.telemetry.job.settings.checkpoints.as_ref()?,
        ))
    }

    /// Reads what the attempt begins with, and has the sinks commit what that covers. `since` is the
    /// number with which this run of the job began to count its checkpoints, if it has.
    async fn begin(
        &self,
        since: Option<CheckpointId>,
        claim: Option<Arc<Claim>>,
    ) -> Result<Beginning, Fault> {
        let job = self.telemetry.job.clone();
        let state = &self.telemetry.state;
        if let (Some(settings), None) = (job.settings.state.rocksdb(), state.coordinator()) {
            settings.check().map_err(Fault::user)?;
            let coordinator = StateCoordinator::new(settings.clone());
            if !matches!(job.settings.state, StateBackend::Auto(_)) {
                coordinator.prepare()?;
            }
            state.show(Arc::new(coordinator));
        }
        let checkpoints = self.checkpointing().map(|(c, s)| (c.clone(), s.retained));
        let work = move || {
            let mut beginning = Beginning::default();
            if let Some((checkpointing, retained)) = checkpoints {
                // Before anything is read: from here on no other process adds to it.
                beginning.claim = Some(match claim {
                    None => {
                        Arc::new(Claim::take(checkpointing.storage.clone()).map_err(Fault::user)?)
                    }
                    Some(claim) => claim,
                });
                let (next_id, own) = checkpointing.numbers()?;
                beginning.retained = own;
                beginning.restored = match since {
                    None => checkpointing.first(&job)?,
                    Some(since) => checkpointing.again(&job, since)?,
                };
                // Greater than that of a savepoint from elsewhere too: sinks name their parts by it.
                let restored = beginning.restored.as_ref().map(|job| job.id.next());
                beginning.next_id = next_id.max(restored.unwrap_or_default());
                if since.is_none() {
                    tokio::task::spawn_blocking(move || checkpointing.sweep(retained));
                }
            }
            failpoint!("attempt::before_recover");
            job.recover(beginning.restored.as_deref())?;
            failpoint!("attempt::after_recover");
            Ok(beginning)
        };
        let work = tokio::task::spawn_blocking(move || tidegate_engine::fault::catch(work));
        work.await
            .unwrap_or_else(|error| Err(Fault::internal(error)))
    }

    async fn attempt(&self, beginning: Beginning) -> Outcome {
        let Telemetry {
            job, stats, began, ..
        } = self.telemetry;
        stats.reset();
        let directory: Directory = Arc::new(OnceLock::new());
        let (sender, ended) = oneshot::channel();
        let supervisor = Supervisor::new(
            job.clone(),
            stats.clone(),
            directory.clone(),
            self.settings.patience,
            *began,
            move |outcome| drop(sender.send(outcome)),
        )
        .start();
        let (sender, settled) = oneshot::channel();
        let number = self.control.attempt() + 1;
        let coordinator = self.checkpointing().map(|(checkpointing, settings)| {
            let addresses = (directory.clone(), supervisor.clone());
            let claim = beginning
                .claim
                .expect("who takes checkpoints has claimed their folder");
            let numbers = (beginning.next_id, beginning.retained);
            let coordinator = CheckpointCoordinator::new(
                settings.clone(),
                (job.clone(), number),
                (checkpointing.clone(), claim),
                numbers,
                addresses,
                self.settings.clock.clone(),
                move || {
                    let _ = sender.send(());
                },
            );
            let board = self.telemetry.checkpoints.clone();
            let restored = beginning.restored.as_ref().map(|job| job.id);
            coordinator.shown_on(board, restored).start()
        });
        if let Some(coordinator) = coordinator.clone() {
            supervisor.do_send(Coordinated(coordinator));
        }
        let cancelled = {
            let mut current = self.control.current();
            current.attempt = number;
            current.supervisor = Some(supervisor.clone());
            current.coordinator = coordinator.clone();
            current.cancelled
        };
        if cancelled {
            supervisor.do_send(Cancel);
        }
        let restored = beginning.restored;
        self.start_subtasks(supervisor, coordinator.clone(), restored, &directory);
        let controller = self.start_controller(&directory);
        let outcome = ended.await.unwrap_or_else(|_| {
            Outcome::failed(Fault::internal("the supervisor ended without a verdict"))
        });
        controller.do_send(Kill);
        self.control.current().coordinator = None;
        let mut outcome = outcome;
        // A publication under way may yet be recorded, and then the next attempt begins with it.
        if let Outcome::Failed { stuck, .. } = &mut outcome
            && coordinator.is_some()
            && tokio::time::timeout(SETTLING, settled).await.is_err()
        {
            stuck.push("the publication of a checkpoint".to_owned());
        }
        outcome
    }

    fn start_controller(&self, directory: &Directory) -> Addr<BackPressureController> {
        let Telemetry {
            job,
            stats,
            pressure,
            began,
            ..
        } = self.telemetry;
        let mut memory = self.settings.memory.clone();
        let state = self.telemetry.state.coordinator();
        memory.state = state.map(|state| state.memory().clone());
        if let StateBackend::Auto(auto) = &job.settings.state {
            memory.state_moves_at = auto.moves_at.or_else(half_of_what_there_is);
        }
        BackPressureController::new(
            job.clone(),
            stats.clone(),
            directory.clone(),
            memory,
            self.settings.pressure,
            pressure.clone(),
            *began,
        )
        .start()
    }

    fn start_subtasks(
        &self,
        supervisor: Addr<Supervisor>,
        coordinator: Option<Addr<CheckpointCoordinator>>,
        restored: Option<Arc<RestoredJob>>,
        directory: &Directory,
    ) {
        let Telemetry {
            job,
            stats,
            metrics,
            began,
            ..
        } = self.telemetry;
        let shared = Shared {
            job: job.clone(),
            stats: stats.clone(),
            clock: self.settings.clock.clone(),
            directory: directory.clone(),
            supervisor,
            metrics: metrics.clone(),
            memory: self.settings.memory.budget.clone(),
            began: *began,
            coordinator,
            restored,
            state: self.telemetry.state.coordinator().cloned(),
            source_rate: self.settings.source_rate,
        };
        let mut all = Vec::new();
        for (task, spec) in job.tasks.iter().enumerate() {
            let mut addresses = Vec::new();
            for number in 0..spec.parallelism {
                let shared = shared.clone();
                let arbiter = self.arbiters[number as usize % self.arbiters.len()].handle();
                addresses.push(SubtaskActor::start_in_arbiter(&arbiter, move |_| {
                    SubtaskActor::new(shared, TaskId(task as u32), number)
                }));
            }
            all.push(addresses);
        }
        let _ = directory.set(all);
    }
}
