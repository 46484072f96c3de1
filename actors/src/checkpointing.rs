//! How a job is made to survive: where its checkpoints go, what it begins with, when it is restarted.

use crate::claims::Claim;
use crate::failpoints::failpoint;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use tidegate_engine::checkpoint::retention::{
    self, CheckpointRegistry, Retention, StorageRegistry,
};
use tidegate_engine::checkpoint::stopped::{self, Stopped};
use tidegate_engine::checkpoint::storage::{
    METADATA, checkpoints, join, publish_to, read_metadata,
};
use tidegate_engine::checkpoint::{
    self as checkpoint, BarrierKind, Below, CheckpointId, CheckpointMetadata, CheckpointStorage,
    FilesOrigin, Loaded, Outcome, RestartStrategy, RestoredJob, Which,
};
use tidegate_engine::clock::Clock;
use tidegate_engine::exchange::EdgeId;
use tidegate_engine::fault::Fault;
use tidegate_engine::graph::{JobGraph, OperatorId};

/// A folder of a checkpoint storage.
#[derive(Clone)]
pub struct Target {
    /// The storage.
    pub storage: Arc<dyn CheckpointStorage>,
    /// The folder in it; empty for the storage itself. Where a savepoint is asked for, empty stands for
    /// a folder of its own in the storage.
    pub folder: String,
}

impl Target {
    /// How messages call it.
    pub fn place(&self) -> String {
        self.storage.place(&self.folder)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

/// What a job begins with.
#[derive(Clone, Debug, Default)]
pub enum Restore {
    /// With nothing.
    #[default]
    Nothing,
    /// With the newest complete checkpoint of its own, or the savepoint that it was stopped with after
    /// that; with nothing where there is none yet.
    Latest,
    /// With this checkpoint or savepoint.
    From(Target),
}

/// The job is another process's now: see [`crate::claims`].
#[derive(Debug)]
pub(crate) struct TakenOver;

/// What became of a publication.
pub(crate) type Published = Result<Outcome, TakenOver>;

/// Where the checkpoints of a job go, and what is done with them.
#[derive(Clone)]
pub struct Checkpointing {
    /// The job's own storage.
    pub storage: Arc<dyn CheckpointStorage>,
    /// What the first attempt begins with.
    pub restore: Restore,
    /// Whether state may be left out that no operator claims.
    pub allow_non_restored_state: bool,
    /// When a failed job is started again.
    pub restart: RestartStrategy,
    /// How long superfluous checkpoints and files that nothing names stay; how many checkpoints are kept
    /// is the job's [`CheckpointSettings::retained`](checkpoint::CheckpointSettings::retained).
    pub retention: Retention,
    /// The record of the complete checkpoints.
    registry: Arc<dyn CheckpointRegistry>,
    /// Held while a checkpoint is recorded, and while superfluous ones are deleted.
    changing: Arc<Mutex<()>>,
}

impl Checkpointing {
    /// Checkpoints into `storage`, with the default restart strategy.
    pub fn new(storage: Arc<dyn CheckpointStorage>) -> Self {
        Checkpointing {
            registry: Arc::new(StorageRegistry::new(storage.clone())),
            changing: Arc::default(),
            retention: Retention::default(),
            storage,
            restore: Restore::Nothing,
            allow_non_restored_state: false,
            restart: RestartStrategy::default(),
        }
    }

    /// The number that no checkpoint in the storage, complete or not, has reached, nor the savepoint
    /// with which the job was stopped; and the complete checkpoints that belong to the job and not to
    /// a person.
    pub(crate) fn numbers(&self) -> Result<(CheckpointId, Vec<CheckpointId>), Fault> {
        let all = checkpoints(&*self.storage).map_err(Fault::user)?;
        let stopped = stopped::recorded(&*self.storage).map_err(Fault::user)?;
        let greatest = all.iter().map(|listed| listed.id).chain(stopped).max();
        let own = |l: &checkpoint::storage::Listed| l.complete && l.kind == BarrierKind::Checkpoint;
        let own = all.into_iter().filter(own).map(|l| l.id).collect();
        Ok((greatest.unwrap_or_default().next(), own))
    }

    /// Makes a checkpoint of files that are written, and records it where the job ends with it.
    pub(crate) fn publish(
        &self,
        target: &Target,
        metadata: &CheckpointMetadata,
        claim: &Claim,
    ) -> Published {
        failpoint!("checkpointing::before_publish");
        match claim.lost() {
            Ok(false) => {}
            Ok(true) => return Err(TakenOver),
            Err(error) => return Ok(Outcome::Failed(error.to_string())),
        }
        failpoint!("checkpointing::claimed");
        match self.record(target, metadata) {
            Outcome::Published => self.own(target, metadata, claim),
            outcome => Ok(outcome),
        }
    }

    fn record(&self, target: &Target, metadata: &CheckpointMetadata) -> Outcome {
        let _changing = self.changing.lock();
        match retention::lost_files(&*self.registry, metadata) {
            Ok(lost) if lost.is_empty() => {}
            Ok(lost) => {
                let count = lost.len();
                return Outcome::Failed(format!(
                    "{count} of its files were deleted with the checkpoint that held them, {} first",
                    lost[0]
                ));
            }
            Err(error) => return Outcome::Failed(error.to_string()),
        }
        let published = match metadata.kind {
            BarrierKind::Checkpoint => self.registry.record(&target.folder, metadata),
            _ => publish_to(&*target.storage, &target.folder, metadata),
        };
        failpoint!("checkpointing::after_publish");
        match published {
            Ok(()) => Outcome::Published,
            Err(error) => {
                // Whether a rename that reported an error has happened, only the storage can tell.
                tracing::warn!(checkpoint = metadata.id.0, "{error}");
                Outcome::Unknown
            }
        }
    }

    /// Looks up whether a checkpoint has been published.
    pub(crate) fn look_up(
        &self,
        target: &Target,
        metadata: &CheckpointMetadata,
        claim: &Claim,
    ) -> Published {
        match read_metadata(&*target.storage, &target.folder) {
            Ok(found) if found == *metadata => self.own(target, metadata, claim),
            Ok(_) => Err(TakenOver),
            Err(checkpoint::Error::Missing { .. }) => Ok(Outcome::Failed(
                "its metadata could not be written".to_owned(),
            )),
            Err(error) => {
                tracing::warn!(checkpoint = metadata.id.0, "{error}");
                Ok(Outcome::Unknown)
            }
        }
    }

    /// A checkpoint is published. Nobody may be told of it if the job is another process's by now.
    fn own(&self, target: &Target, metadata: &CheckpointMetadata, claim: &Claim) -> Published {
        match claim.lost() {
            Ok(false) => Ok(self.record_stop(target, metadata.id, metadata.kind)),
            Ok(true) => Err(TakenOver),
            Err(error) => {
                tracing::warn!(checkpoint = metadata.id.0, "{error}");
                Ok(Outcome::Unknown)
            }
        }
    }

    /// A job goes on from the savepoint that ended it, wherever that lies: without the record it
    /// would go on from before, so then the savepoint is none either.
    fn record_stop(&self, target: &Target, id: CheckpointId, kind: BarrierKind) -> Outcome {
        if kind != BarrierKind::Stop {
            return Outcome::Published;
        }
        failpoint!("checkpointing::before_record_stop");
        let stopped = Stopped::new(&*self.storage, id, (&*target.storage, &target.folder));
        let recorded = stopped.record(&*self.storage);
        failpoint!("checkpointing::after_record_stop");
        let Err(error) = recorded else {
            return Outcome::Published;
        };
        tracing::warn!(checkpoint = id.0, "{error}");
        match target.storage.delete(&join(&target.folder, METADATA)) {
            Ok(()) => Outcome::Failed(error.to_string()),
            Err(_) => Outcome::Unknown,
        }
    }

    /// Deletes what newer checkpoints have made superfluous for long enough.
    pub(crate) fn retire(&self, retain: u32) {
        let retention = self.retention(retain);
        let now = Clock::System.now();
        failpoint!("checkpointing::before_retire");
        let _changing = self.changing.lock();
        match retention::retire(&*self.storage, &*self.registry, &retention, now) {
            Ok(gone) if !gone.checkpoints.is_empty() => tracing::debug!(
                checkpoints = gone.checkpoints.len(),
                bytes = gone.bytes(),
                "deleted superfluous checkpoints"
            ),
            Ok(_) => {}
            Err(error) => tracing::warn!("superfluous checkpoints were not deleted: {error}"),
        }
        failpoint!("checkpointing::after_retire");
    }

    /// Deletes what attempts that died have left behind.
    pub(crate) fn sweep(&self, retain: u32) {
        let retention = self.retention(retain);
        let now = Clock::System.now();
        failpoint!("checkpointing::before_sweep");
        match retention::sweep(&*self.storage, &*self.registry, &retention, now, false) {
            Ok(gone) if !gone.files.is_empty() => tracing::info!(
                files = gone.files.len(),
                bytes = gone.bytes(),
                "swept files that belong to no checkpoint"
            ),
            Ok(_) => {}
            Err(error) => tracing::warn!("files that were left behind were not swept: {error}"),
        }
        failpoint!("checkpointing::after_sweep");
    }

    fn retention(&self, retain: u32) -> Retention {
        Retention {
            retain: retain as usize,
            ..self.retention
        }
    }

    /// What the first attempt begins with.
    pub(crate) fn first(&self, job: &JobGraph) -> Result<Option<Arc<RestoredJob>>, Fault> {
        let (loaded, storage) = match &self.restore {
            Restore::Nothing => return Ok(None),
            Restore::Latest => match self.newest()? {
                Some(loaded) => (loaded, &self.storage),
                None => {
                    let place = self.storage.place("");
                    tracing::info!(
                        job = job.name,
                        "no checkpoint in {place}: from the beginning"
                    );
                    return Ok(None);
                }
            },
            Restore::From(target) => {
                let loaded = checkpoint::load(&*target.storage, Which::Folder(&target.folder));
                (loaded.map_err(Fault::user)?, &target.storage)
            }
        };
        let unclaimed = unclaimed(&loaded, job);
        if !unclaimed.is_empty() && !self.allow_non_restored_state {
            return Err(Fault::user(format_args!(
                "checkpoint {} holds state of {}, which the job '{}' does not have; give operators the \
                 uid that they had, or leave that state behind with --allow-non-restored-state",
                loaded.metadata.id,
                unclaimed.join(", "),
                job.name
            )));
        }
        tracing::info!(
            job = job.name,
            checkpoint = loaded.metadata.id.0,
            "restored"
        );
        Ok(Some(self.begin_with(loaded, storage)))
    }

    /// What a later attempt of this process begins with: the newest checkpoint that this run of the job
    /// took, the first of which would have had the number `since`; and while there is none, what the
    /// first attempt began with. What an earlier run left there was not asked for.
    pub(crate) fn again(
        &self,
        job: &JobGraph,
        since: CheckpointId,
    ) -> Result<Option<Arc<RestoredJob>>, Fault> {
        let newest = checkpoint::newest(&*self.storage).map_err(Fault::user)?;
        if newest.is_none_or(|newest| newest.id() < since) {
            return self.first(job);
        }
        let newest = self.newest()?;
        Ok(newest.map(|loaded| self.begin_with(loaded, &self.storage)))
    }

    /// `storage` is where it was asked for: shared files lie there, and those of a savepoint in its own folder.
    fn begin_with(&self, loaded: Loaded, storage: &Arc<dyn CheckpointStorage>) -> Arc<RestoredJob> {
        let job = loaded.job.allow_left_over(self.allow_non_restored_state);
        let checkpoint = loaded.metadata.kind == BarrierKind::Checkpoint;
        let storage = loaded.elsewhere.unwrap_or_else(|| storage.clone());
        let own = storage.lasting_place("") == self.storage.lasting_place("");
        let origin = FilesOrigin {
            own: own && checkpoint,
            storage: match checkpoint {
                true => storage,
                false => Arc::new(Below::new(storage, loaded.folder)),
            },
        };
        Arc::new(job.with_files(origin))
    }

    /// The newest complete checkpoint, if there is any.
    pub(crate) fn newest(&self) -> Result<Option<Loaded>, Fault> {
        failpoint!("checkpointing::before_load");
        let latest = checkpoint::latest(&*self.storage);
        failpoint!("checkpointing::after_load");
        match latest {
            Ok(loaded) => Ok(Some(loaded)),
            Err(checkpoint::Error::NoCheckpoint { .. }) => Ok(None),
            Err(error) => Err(Fault::user(error)),
        }
    }
}

impl fmt::Debug for Checkpointing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointing")
            .field("storage", &self.storage.place(""))
            .field("restore", &self.restore)
            .field("restart", &self.restart)
            .finish_non_exhaustive()
    }
}

/// The operators of a checkpoint that a job does not have.
fn unclaimed(loaded: &Loaded, job: &JobGraph) -> Vec<String> {
    let ids = 0..job.operators.len() as u32;
    let operators = ids.map(|id| job.uid(OperatorId(id)));
    let edges = (0..job.edges.len() as u32).map(|id| job.edge_uid(EdgeId(id)));
    let known: BTreeSet<String> = operators.chain(edges).collect();
    let mut unclaimed: Vec<String> = loaded
        .job
        .uids()
        .filter(|uid| !known.contains(*uid))
        .map(|uid| format!("'{uid}'"))
        .collect();
    unclaimed.sort_unstable();
    unclaimed
}
