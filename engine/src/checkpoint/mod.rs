//! What a checkpoint is made of, and the hooks by which everything with state takes part in one.
//!
//! A *barrier* travels with the records and divides every channel in what a checkpoint covers and
//! what comes after it. Where it passes, an operator shows its state to a [`StateVisitor`], once to
//! save it and, in a later attempt, once to load it: see [`visitor`]. What was saved is an *image*: of
//! an operator, of a subtask ([`image`]); the images of all subtasks make the checkpoint.

mod barrier;
pub mod codec;
pub mod image;
mod keyed;
mod participant;
mod restore;
mod settings;
pub mod visitor;

pub use barrier::{Barrier, BarrierKind, CheckpointId, CheckpointMode, Notice};
pub use codec::{Key, StateValue};
pub use image::{OperatorImage, StateData, StateImage, StateKind, SubtaskImage};
pub use keyed::{EncodedEntries, Entries, KeyedPart, KeyedSection};
pub use participant::{Participant, Timing};
pub use restore::{RestoredJob, RestoredOperator};
pub use settings::CheckpointSettings;
pub use visitor::StateVisitor;
