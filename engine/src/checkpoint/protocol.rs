//! What the coordinator of checkpoints is told, and what it wants done: the whole protocol on a page.
//!
//! ```text
//! Trigger n ──> every subtask ──> SnapshotDone n (or SnapshotDeclined) ──> all there: Publish n
//!    Published ──> Notify Completed n      Failed ──> Notify Aborted n      Unknown ──> Resolve n
//! ```
//!
//! What whoever carries out the actions has to keep to:
//!
//! - Actions are carried out in their order. Each [`Action::Publish`] and [`Action::Resolve`] is answered
//!   by [`Event::MetadataPublished`], and `Failed` is said only of what can't become recorded later.
//! - [`Action::Trigger`] goes to *all* subtasks, a second time where a barrier is to overtake after some time. A source sends the barrier on. A subtask all of whose
//!   inputs have ended takes its snapshot at the trigger; one whose inputs end after the trigger came and
//!   before any barrier did, when they end.
//! - Messages may be late, come twice and overtake each other. Of those to subtasks only notices of
//!   completion may be lost, and not the last one: the next one says the same.
//! - A trigger with a greater id implies that a [`BarrierKind::Stop`] before it was given up.
//! - No new attempt may start before [`Action::Settled`]: a publication that is still under way could
//!   be recorded behind its back.

use super::barrier::{Barrier, BarrierKind, CheckpointId, Notice};
use super::participant::Timing;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A subtask of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SubtaskRef {
    /// Its task.
    pub task: u32,
    /// Its number there.
    pub subtask: u32,
}

impl fmt::Display for SubtaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "task {}, subtask {}", self.task, self.subtask)
    }
}

/// Which request for a savepoint an answer belongs to: chosen by who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// What a person wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavepointKind {
    /// A savepoint; the job goes on. Sinks commit nothing because of it, as a job that fails later must
    /// go on from a checkpoint of its own.
    Savepoint,
    /// The sources read no further; the job ends with a savepoint and can be carried on from it.
    Stop,
    /// The sources end as if there were no more input; all windows fire; the job ends with a savepoint.
    Drain,
}

/// When a snapshot failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// While the stream stood still for it: what the operator holds can't be trusted any more.
    Sync,
    /// While it was written, beside the stream.
    Async,
}

/// What became of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written, synced and recorded.
    Published,
    /// It isn't recorded and never will be.
    Failed(String),
    /// Nobody knows yet.
    Unknown,
}

/// What the coordinator is told. `F` stands for what a subtask has written, which only storage
/// understands.
#[derive(Clone, Debug)]
pub enum Event<F> {
    /// Time has passed: see [`super::Coordinator::next_wakeup`].
    Tick,
    /// A subtask has durably written its part.
    SnapshotDone {
        /// Of this checkpoint.
        id: CheckpointId,
        /// Who.
        subtask: SubtaskRef,
        /// What it wrote.
        file: F,
        /// How much that is.
        bytes: u64,
        /// What it cost the stream.
        timing: Timing,
    },
    /// A subtask could not do its part.
    SnapshotDeclined {
        /// Of this checkpoint.
        id: CheckpointId,
        /// Who.
        subtask: SubtaskRef,
        /// Why.
        reason: String,
        /// When.
        phase: Phase,
    },
    /// The answer to [`Action::Publish`] and [`Action::Resolve`].
    MetadataPublished {
        /// Of this checkpoint.
        id: CheckpointId,
        /// What became of it.
        outcome: Outcome,
    },
    /// A subtask's input has ended and everything has left it. It still takes part in checkpoints.
    Drained {
        /// Who.
        subtask: SubtaskRef,
    },
    /// A person wants a savepoint; answered by [`Action::ReplySavepoint`].
    SavepointRequested {
        /// Names the request.
        request: RequestId,
        /// What is wanted.
        kind: SavepointKind,
    },
    /// A person doesn't want it any more. Too late where it is being published.
    AbortRequested {
        /// Which.
        request: RequestId,
    },
    /// A subtask is gone: this attempt takes no further checkpoint.
    SubtaskGone {
        /// Who.
        subtask: SubtaskRef,
    },
}

/// A checkpoint that is ready to be written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Publication<F> {
    /// Which.
    pub id: CheckpointId,
    /// What it is for.
    pub kind: BarrierKind,
    /// The request that it answers.
    pub request: Option<RequestId>,
    /// Nothing follows: whoever recovers from it has only to commit.
    pub last: bool,
    /// Whether a recovery may go on from it: sinks commit what such a one covers, and only that. True of
    /// all but savepoints that the job goes on after.
    pub recovery_point: bool,
    /// When it was triggered.
    pub triggered: Timestamp,
    /// What each subtask wrote.
    pub files: Vec<(SubtaskRef, F)>,
}

/// What the coordinator wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<F> {
    /// Send the barrier to all subtasks.
    Trigger(Barrier),
    /// Write the metadata, sync it, and record it; then answer.
    Publish(Publication<F>),
    /// Look up whether it is recorded before anything else is done; then answer.
    Resolve {
        /// Which.
        id: CheckpointId,
    },
    /// Tell all subtasks.
    Notify(Notice),
    /// Nothing that is recorded refers to these, as far as their checkpoint goes.
    Discard {
        /// The checkpoint that they were written for.
        id: CheckpointId,
        /// What was written.
        files: Vec<(SubtaskRef, F)>,
    },
    /// Checkpoints that newer ones have made superfluous: they may be deleted.
    Subsumed(Vec<CheckpointId>),
    /// Let the sources end as if there were no more input.
    EndInput,
    /// Answer a request: the savepoint's number, or why there is none.
    ReplySavepoint {
        /// Which request.
        request: RequestId,
        /// What came of it.
        result: Result<CheckpointId, String>,
    },
    /// The job can't go on like this.
    FailJob(String),
    /// After a failure: no publication is under way any more.
    Settled,
    /// All is complete: subtasks may end.
    Finish,
}
