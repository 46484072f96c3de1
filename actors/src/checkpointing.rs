//! How a job is made to survive: where its checkpoints go, what it begins with, when it is restarted.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use tidegate_engine::checkpoint::storage::checkpoints;
use tidegate_engine::checkpoint::{
    self as checkpoint, BarrierKind, CheckpointId, CheckpointStorage, Loaded, RestartStrategy,
    RestoredJob, Which,
};
use tidegate_engine::fault::Fault;
use tidegate_engine::graph::{JobGraph, OperatorId};

/// A folder of a checkpoint storage.
#[derive(Clone)]
pub struct Target {
    /// The storage.
    pub storage: Arc<dyn CheckpointStorage>,
    /// The folder in it; empty for the storage itself.
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
    /// With the newest complete checkpoint of its own; with nothing where there is none yet.
    Latest,
    /// With this checkpoint or savepoint.
    From(Target),
}

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
}

impl Checkpointing {
    /// Checkpoints into `storage`, with the default restart strategy.
    pub fn new(storage: Arc<dyn CheckpointStorage>) -> Self {
        Checkpointing {
            storage,
            restore: Restore::Nothing,
            allow_non_restored_state: false,
            restart: RestartStrategy::default(),
        }
    }

    /// The number that no checkpoint in the storage, complete or not, has reached.
    pub(crate) fn next_id(&self) -> Result<CheckpointId, Fault> {
        let all = checkpoints(&*self.storage).map_err(Fault::user)?;
        let greatest = all.iter().map(|listed| listed.id).max();
        Ok(greatest.unwrap_or_default().next())
    }

    /// The complete checkpoints in the storage that belong to the job and not to a person.
    pub(crate) fn own(&self) -> Result<Vec<CheckpointId>, Fault> {
        let all = checkpoints(&*self.storage).map_err(Fault::user)?;
        let own = |l: &checkpoint::storage::Listed| l.complete && l.kind == BarrierKind::Checkpoint;
        Ok(all.into_iter().filter(own).map(|l| l.id).collect())
    }

    /// What the first attempt begins with.
    pub(crate) fn first(&self, job: &JobGraph) -> Result<Option<Arc<RestoredJob>>, Fault> {
        let loaded = match &self.restore {
            Restore::Nothing => return Ok(None),
            Restore::Latest => match self.newest()? {
                Some(loaded) => loaded,
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
                checkpoint::load(&*target.storage, Which::Folder(&target.folder))
                    .map_err(Fault::user)?
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
        Ok(Some(Arc::new(loaded.job)))
    }

    /// What a later attempt of this process begins with: the newest checkpoint of the job, and while
    /// it has none, what the first attempt began with.
    pub(crate) fn again(&self, job: &JobGraph) -> Result<Option<Arc<RestoredJob>>, Fault> {
        match self.newest()? {
            Some(loaded) => Ok(Some(Arc::new(loaded.job))),
            None => self.first(job),
        }
    }

    /// The newest complete checkpoint, if there is any.
    pub(crate) fn newest(&self) -> Result<Option<Loaded>, Fault> {
        match checkpoint::latest(&*self.storage) {
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
    let known: BTreeSet<String> = ids.map(|id| job.uid(OperatorId(id))).collect();
    let mut unclaimed: Vec<String> = loaded
        .job
        .uids()
        .filter(|uid| !known.contains(*uid))
        .map(|uid| format!("'{uid}'"))
        .collect();
    unclaimed.sort_unstable();
    unclaimed
}
