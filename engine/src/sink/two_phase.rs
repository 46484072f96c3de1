//! Output that becomes visible in two phases: made durable at a barrier, shown when the checkpoint that
//! covers it is complete.
//!
//! What a writer prepared is a *committable*: bytes that are part of the checkpoint, and that any process
//! can commit later. So whenever a process dies, what a complete checkpoint covers is shown, once, and what
//! none covers is not.

use crate::checkpoint::{CheckpointId, Commits, LocalFiles, RestoredJob, StoredFiles};
use crate::fault::Flow;
use std::sync::Arc;

/// The hooks of a writer whose output becomes visible in two phases. None may block.
pub trait TwoPhase {
    /// A barrier is here: what was written since the one before is to be made durable, and not visible.
    /// Called in order of the checkpoints, also before the one before has been prepared.
    fn prepare(&mut self, checkpoint: CheckpointId) -> Flow;

    /// The committable of the oldest [`TwoPhase::prepare`] that has not been asked for, once it is durable;
    /// empty if nothing was written.
    fn prepared(&mut self) -> Flow<Option<Vec<u8>>>;

    /// Makes visible what a committable stands for. The same one may come again after a recovery, and
    /// that must change nothing. `last` tells that the job ends with this checkpoint.
    fn commit(&mut self, committable: Vec<u8>, last: bool) -> Flow;

    /// Whether all commits that were asked for are done.
    fn committed(&mut self) -> Flow<bool>;

    /// How many more of the commits that were asked for are done since this was asked last, oldest first: they need
    /// not be saved any more. Who doesn't tell has all of them saved until [`TwoPhase::committed`].
    fn newly_committed(&mut self) -> Flow<usize> {
        Ok(0)
    }

    /// The files on this machine in which parts of these committables lie, which a checkpoint is about to keep:
    /// it keeps them too, and [`RecoveryContext::read`](super::RecoveryContext::read) gives them back by their
    /// names, which no other file of the sink may ever have. `stored` knows which a checkpoint holds already.
    fn files(
        &mut self,
        _committables: &[&[u8]],
        _stored: &StoredFiles,
    ) -> Flow<Option<Arc<dyn LocalFiles>>> {
        Ok(None)
    }
}

/// The name of the state in which a sink's committables are kept.
pub(super) const COMMITTABLES: &str = "committables";

/// The name of the state whose files parts of committables lie in.
pub(super) const FILES: &str = "output";

/// The committables that a checkpoint holds of a sink, in the order of the checkpoints that made them.
pub fn committables(job: &RestoredJob, uid: &str) -> Flow<Vec<Vec<u8>>> {
    Commits::default().restore(job.all_elements(uid, COMMITTABLES))
}
