//! What a sink learns when an attempt begins, before any writer is opened.

use super::two_phase::{FILES, committables};
use crate::checkpoint::{CheckpointId, CheckpointSettings, RestoredJob};
use crate::fault::{Fault, Flow};
use crate::graph::{JobGraph, OperatorId};

/// Of which job a sink is part, and what the attempt goes on from.
pub struct RecoveryContext<'a> {
    job: &'a JobGraph,
    operator: OperatorId,
    from: Option<&'a RestoredJob>,
}

impl<'a> RecoveryContext<'a> {
    /// For a sink of a job.
    pub fn new(job: &'a JobGraph, operator: OperatorId, from: Option<&'a RestoredJob>) -> Self {
        RecoveryContext {
            job,
            operator,
            from,
        }
    }

    /// The sink's stable id.
    pub fn uid(&self) -> String {
        self.job.uid(self.operator)
    }

    /// The job's name.
    pub fn job(&self) -> &str {
        &self.job.name
    }

    /// How many subtasks the sink has.
    pub fn parallelism(&self) -> u32 {
        self.job.parallelism(self.job.vertex_of(self.operator))
    }

    /// The checkpoint that the attempt goes on from; `None` where it begins from scratch.
    pub fn restored_from(&self) -> Option<CheckpointId> {
        self.from.map(|job| job.id)
    }

    /// When the job takes checkpoints; `None` if it takes none.
    pub fn checkpoints(&self) -> Option<&CheckpointSettings> {
        self.job.settings.checkpoints.as_ref()
    }

    /// The bytes of a file that [`TwoPhase::files`](super::TwoPhase::files) had named; verified.
    pub fn read(&self, file: &str) -> Flow<Vec<u8>> {
        match self.from {
            Some(job) => job.read_file(&self.uid(), FILES, file),
            None => Err(Fault::internal(format_args!(
                "there is no checkpoint to read '{file}' from"
            ))),
        }
    }

    /// What the checkpoint covers and may not be visible yet, in the order of the checkpoints that made it.
    pub fn committables(&self) -> Flow<Option<Vec<Vec<u8>>>> {
        let uid = self.uid();
        self.from.map(|job| committables(job, &uid)).transpose()
    }
}
