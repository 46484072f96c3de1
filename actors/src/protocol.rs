//! Every message between the actors of a job, on one page.
//!
//! Commands are imperatives, events are past tense. Data, watermarks and the end of input of a channel
//! travel in one enum ([`tidegate_engine::exchange::Message`]) through one address per edge, so
//! their order is the order of one queue.

use crate::checkpointing::Target;
use actix::prelude::*;
use std::sync::{Arc, OnceLock};
use tidegate_engine::checkpoint::{Barrier, Event, Notice, SavepointKind, SubtaskFile, SubtaskRef};
use tidegate_engine::exchange::{EdgeId, Message as EdgeMessage};
use tidegate_engine::fault::Fault;
use tidegate_engine::flow::{PressureLevel, PressureSample};
use tidegate_engine::observe::SubtaskSnapshot;
use tidegate_engine::time::Timestamp;

/// Runner to subtask: every actor of the job exists, begin.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Start;

/// Subtask to subtask: a batch, credit or barrier of an edge.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Deliver {
    /// The edge.
    pub edge: EdgeId,
    /// What it carries.
    pub message: EdgeMessage,
}

/// A source's or sink's own thread to its subtask: there is something to do.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Wake;

/// Controller to source subtask: read at most this many records per second from now on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Throttle {
    /// Records per second; `None` lifts the limit.
    pub records_per_second: Option<f64>,
}

/// Coordinator to subtask: a checkpoint begins, or its barriers overtake what waits from now on.
#[derive(Message, Clone)]
#[rtype(result = "()")]
pub struct TriggerCheckpoint {
    /// Its barrier.
    pub barrier: Barrier,
    /// Where the subtask's file goes.
    pub target: Target,
    /// When it was triggered.
    pub at: Timestamp,
}

/// Coordinator to subtask: what became of a checkpoint.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub struct CheckpointSettled(pub Notice);

/// Coordinator to subtask: let your source end, as if there were no more input.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub struct EndInput;

/// Coordinator to subtask: the last checkpoint is behind us, end once all of it can be seen outside.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub struct Release;

/// Subtask, or the coordinator's own helpers, to coordinator: something happened to a checkpoint.
#[derive(Message)]
#[rtype(result = "()")]
pub struct CheckpointEvent(pub Event<SubtaskFile>);

/// Anyone to coordinator: a savepoint, please. Answered when it is complete or can't be.
#[derive(Message)]
#[rtype(result = "()")]
pub struct TakeSavepoint {
    /// What is wanted.
    pub kind: SavepointKind,
    /// Into this folder, or into one of its own beside the checkpoints.
    pub folder: Option<Target>,
    /// Gets the place of the savepoint, or why there is none.
    pub reply: std::sync::mpsc::SyncSender<Result<String, String>>,
    /// Holds the place before the job can end because of it.
    pub place: Arc<OnceLock<String>>,
}

/// Supervisor to coordinator: a subtask is gone, this attempt takes no further checkpoint.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub struct AttemptFailed(pub SubtaskRef);

/// Coordinator to supervisor: the job can't go on.
#[derive(Message)]
#[rtype(result = "()")]
pub struct FailJob(pub Fault);

/// Supervisor to subtask, runner to controller: stop now, whatever is in flight.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Kill;

/// Anyone to supervisor: end the job early.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Cancel;

/// Anyone to supervisor: the job's numbers, please.
#[derive(Message)]
#[rtype(result = "Vec<SubtaskSnapshot>")]
pub struct Observe;

/// How a subtask came to its end.
#[derive(Clone, Debug, PartialEq)]
pub enum ExitStatus {
    /// All input processed, all output left.
    Finished,
    /// Its own fault.
    Failed(Fault),
    /// Told to stop.
    Killed,
    /// Its actor vanished without a word.
    Lost,
}

/// Subtask to supervisor: my chain is built, I can begin.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Opened;

/// Subtask to supervisor: I am gone. Sent by a drop guard, so it comes whatever happened.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Exited {
    /// The task's number.
    pub task: u32,
    /// The subtask's number.
    pub subtask: u32,
    /// How.
    pub status: ExitStatus,
}

/// Anyone to controller: the newest pressure of each vertex, please.
#[derive(Message)]
#[rtype(result = "Vec<PressureReport>")]
pub struct ObservePressure;

/// Controller to its readers: the pressure of a vertex.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct PressureReport {
    /// The vertex's name.
    pub vertex: String,
    /// Its number.
    pub vertex_id: u32,
    /// 0 to 1, smoothed over some intervals.
    pub pressure: f64,
    /// The name of the range in which it has settled.
    pub level: PressureLevel,
    /// What the last interval showed.
    pub sample: PressureSample,
    /// It is a source that is being held back.
    pub held: bool,
}
