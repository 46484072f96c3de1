//! What was saved: the images of states, operators and subtasks, before they become files.

use super::barrier::Barrier;
use super::pieces::Pieces;
use super::shared::FilesImage;
use super::stream::{StoredGroups, Streamed};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// How a state is dealt out to the subtasks of a later attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateKind {
    /// By key group: each subtask gets the groups that it owns.
    Keyed,
    /// Element by element, in turns.
    List,
    /// Each subtask gets the elements of all subtasks.
    Union,
    /// All subtasks held the same: each gets the elements of one of them.
    Broadcast,
}

/// The bytes of one key group of a keyed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupImage {
    /// The key group.
    pub group: u32,
    /// How many entries there are.
    pub entries: u64,
    /// The entries, each encoded by [`super::codec`], one behind the other.
    pub bytes: Pieces,
}

/// The content of a state in one subtask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateData {
    /// Of a keyed state: the groups that hold something, in order.
    Groups(Vec<GroupImage>),
    /// Of any other: its elements.
    Elements(Vec<Vec<u8>>),
    /// Of a keyed state that spills: the files that it is in.
    Files(FilesImage),
    /// Of a keyed state that spills, on its way into a savepoint: its entries are yet to be read.
    #[serde(skip)]
    Streamed(Streamed),
    /// Of a keyed state of a large file: its entries are still there.
    Stored(StoredGroups),
}

impl StateData {
    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        match self {
            StateData::Groups(groups) => groups.iter().map(|g| g.bytes.len() as u64).sum(),
            StateData::Elements(elements) => elements.iter().map(|e| e.len() as u64).sum(),
            StateData::Files(files) => files.index.bytes(),
            StateData::Streamed(_) => 0,
            StateData::Stored(stored) => stored.bytes(),
        }
    }
}

/// One state of an operator in one subtask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateImage {
    /// The name that the operator knows it by.
    pub name: String,
    /// How it is dealt out.
    pub kind: StateKind,
    /// The type of its keys; empty where it has none.
    pub key_type: String,
    /// The type of its values.
    pub value_type: String,
    /// What it held.
    pub data: StateData,
}

/// The name of what keeps an edge's records in flight, as if it were an operator.
pub const IN_FLIGHT: &str = "in flight";

/// The state of one operator in one subtask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorImage {
    /// The operator's stable id.
    pub uid: String,
    /// Its name at that time.
    pub name: String,
    /// The number of its key groups.
    pub max_parallelism: u32,
    /// How many subtasks it had.
    pub parallelism: u32,
    /// The watermark that it had seen.
    pub watermark: Timestamp,
    /// Its states.
    pub states: Vec<StateImage>,
}

/// What one subtask has to say to a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubtaskImage {
    /// The barrier that it was taken at.
    pub barrier: Barrier,
    /// The subtask's task.
    pub task: u32,
    /// The subtask's number.
    pub subtask: u32,
    /// Its operators that have state.
    pub operators: Vec<OperatorImage>,
    /// What it cost the stream.
    pub timing: super::Timing,
    /// Of a subtask that reads a source: how far it is in each split, in words. Only the metadata has them.
    pub positions: Vec<String>,
}
