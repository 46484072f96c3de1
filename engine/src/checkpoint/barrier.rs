//! Barriers: what divides a stream into the part that a checkpoint covers and the rest.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of a checkpoint of a job: greater than that of any checkpoint before it, across all
/// attempts and restarts.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct CheckpointId(pub u64);

impl CheckpointId {
    /// The number after this one.
    pub fn next(self) -> Self {
        CheckpointId(self.0 + 1)
    }
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a checkpoint is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BarrierKind {
    /// For recovery, by the clock.
    Checkpoint,
    /// For a person, who owns it.
    Savepoint,
    /// For a person, and the sources read no further: the job ends with it.
    Stop,
}

/// How a barrier passes records that wait on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Passing {
    /// Behind them: channels are aligned.
    #[default]
    InOrder,
    /// Behind them until that takes too long; then it is sent again to go ahead.
    InOrderAtFirst,
    /// Ahead of them: they become part of the checkpoint.
    Ahead,
}

/// A barrier on its way through a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Barrier {
    /// The checkpoint that it belongs to.
    pub id: CheckpointId,
    /// What the checkpoint is for.
    pub kind: BarrierKind,
    /// How it passes what waits. No part of what is stored: only who carries a barrier asks.
    #[serde(skip)]
    pub passing: Passing,
}

impl Barrier {
    /// The barrier of an ordinary checkpoint.
    pub fn checkpoint(id: u64) -> Self {
        Barrier {
            id: CheckpointId(id),
            kind: BarrierKind::Checkpoint,
            passing: Passing::InOrder,
        }
    }

    /// The same, ahead of what waits.
    pub fn ahead(self) -> Self {
        let passing = Passing::Ahead;
        Barrier { passing, ..self }
    }

    /// Whether it overtakes records that wait.
    pub fn overtakes(&self) -> bool {
        self.passing == Passing::Ahead
    }
}

/// What a job promises about the state and the sinks after a recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckpointMode {
    /// Each record counts once: a channel whose barrier came waits for those of the other channels.
    #[default]
    ExactlyOnce,
    /// No channel waits; after a recovery records may count twice.
    AtLeastOnce,
}

/// What became of a checkpoint, told to every stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// It and all before it are complete: what they cover may become visible. `last` tells that the
    /// job ends with it.
    Completed {
        /// The checkpoint.
        id: CheckpointId,
        /// No other follows.
        last: bool,
    },
    /// It will never be complete: nobody should wait for its barriers.
    Aborted {
        /// The checkpoint.
        id: CheckpointId,
    },
}
