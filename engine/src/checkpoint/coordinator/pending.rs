//! A checkpoint under way: what it is for, and who has done their part.

use crate::checkpoint::barrier::{Barrier, BarrierKind, CheckpointId, Passing};
use crate::checkpoint::protocol::{RequestId, SubtaskRef};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// The first pause before an unknown outcome is looked up again; each further one is twice as long.
const RESOLVE_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_RESOLVE_PAUSE: Duration = Duration::from_secs(5);

/// What a checkpoint is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Recovery, by the clock.
    Periodic,
    /// A person; the job goes on.
    Savepoint(RequestId),
    /// A person; the job ends.
    Stop(RequestId),
    /// All input has ended; perhaps because a person asked for it.
    Final(Option<RequestId>),
}

impl Purpose {
    pub fn kind(self) -> BarrierKind {
        match self {
            Purpose::Periodic | Purpose::Final(None) => BarrierKind::Checkpoint,
            Purpose::Savepoint(_) => BarrierKind::Savepoint,
            Purpose::Stop(_) | Purpose::Final(Some(_)) => BarrierKind::Stop,
        }
    }

    pub fn request(self) -> Option<RequestId> {
        match self {
            Purpose::Savepoint(request) | Purpose::Stop(request) => Some(request),
            Purpose::Final(request) => request,
            Purpose::Periodic => None,
        }
    }

    /// The job ends with it.
    pub fn is_last(self) -> bool {
        matches!(self, Purpose::Stop(_) | Purpose::Final(_))
    }

    /// Failures count, and a completion makes earlier checkpoints superfluous: true of what the job
    /// takes for itself.
    pub fn is_own(self) -> bool {
        matches!(self, Purpose::Periodic | Purpose::Final(_))
    }

    /// Nothing else is under way beside it.
    pub fn is_alone(self) -> bool {
        self != Purpose::Periodic
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Subtasks do their part.
    Triggered,
    /// Asked for; no answer yet.
    Publishing,
    /// The answer was that nobody knows: it is being looked up.
    Resolving,
    /// Nor did that tell: it is looked up again then.
    Unknown { again: Timestamp },
}

/// A checkpoint under way.
#[derive(Debug)]
pub(super) struct Pending<F> {
    pub id: CheckpointId,
    pub purpose: Purpose,
    pub triggered: Timestamp,
    pub expires: Timestamp,
    pub stage: Stage,
    /// How its barrier passes what waits, and when that is to change.
    pub passing: Passing,
    pub turns: Timestamp,
    pub parts: BTreeMap<SubtaskRef, F>,
    /// How long to wait before the outcome is looked up again.
    pub resolve_pause: Duration,
}

impl<F: Clone> Pending<F> {
    pub fn new(id: CheckpointId, purpose: Purpose, now: Timestamp, timeout: Duration) -> Self {
        Pending {
            id,
            purpose,
            triggered: now,
            expires: now.plus(timeout),
            stage: Stage::Triggered,
            passing: Passing::InOrder,
            turns: Timestamp::MAX,
            parts: BTreeMap::new(),
            resolve_pause: RESOLVE_PAUSE,
        }
    }

    pub fn barrier(&self) -> Barrier {
        Barrier {
            id: self.id,
            kind: self.purpose.kind(),
            passing: self.passing,
        }
    }

    /// Has its barrier overtake what waits, at once or `after` some time.
    pub fn overtaking(mut self, after: Duration) -> Self {
        if after.is_zero() {
            self.passing = Passing::Ahead;
        } else {
            self.passing = Passing::InOrderAtFirst;
            self.turns = self.triggered.plus(after);
        }
        self
    }

    pub fn files(&self) -> Vec<(SubtaskRef, F)> {
        let parts = self.parts.iter();
        parts.map(|(who, file)| (*who, file.clone())).collect()
    }

    /// Nothing was asked of the registry: it can be given up.
    pub fn can_abort(&self) -> bool {
        self.stage == Stage::Triggered
    }

    /// When something has to be done about it though nothing happens.
    pub fn deadline(&self) -> Timestamp {
        match self.stage {
            Stage::Triggered => self.expires.min(self.turns),
            Stage::Publishing | Stage::Resolving => Timestamp::MAX,
            Stage::Unknown { again } => again,
        }
    }

    /// It could not be found out either: when to look again.
    pub fn look_again(&mut self, now: Timestamp) {
        let again = now.plus(self.resolve_pause);
        self.stage = Stage::Unknown { again };
        self.resolve_pause = (self.resolve_pause * 2).min(LONGEST_RESOLVE_PAUSE);
    }
}
