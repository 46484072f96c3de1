//! What a checkpoint is made of, and the hooks by which everything with state takes part in one.
//!
//! A *barrier* travels with the records and divides every channel in what a checkpoint covers and
//! what comes after it. Where it passes, an operator shows its state to a [`StateVisitor`], once to
//! save it and, in a later attempt, once to load it: see [`visitor`]. What was saved is an *image*: of
//! an operator, of a subtask ([`image`]); the images of all subtasks make the checkpoint.
//!
//! A subtask's image becomes one file ([`mod@file`]) in a [`CheckpointStorage`] ([`storage`]); the
//! [`metadata`] that names all files is published last, and with it the checkpoint is complete.
//! [`load`](mod@load) brings it back, verified to the last byte.

mod barrier;
mod below;
pub mod checksum;
pub mod codec;
mod commits;
pub mod coordinator;
mod error;
pub mod file;
pub mod history;
pub mod image;
pub mod index;
mod keyed;
pub mod load;
pub mod metadata;
mod participant;
mod pieces;
pub mod protocol;
pub mod restart;
mod restore;
pub mod retention;
mod settings;
pub mod shape;
pub mod shared;
pub mod stopped;
pub mod storage;
pub mod stream;
pub mod visitor;
mod writer;

pub use barrier::{Barrier, BarrierKind, CheckpointId, CheckpointMode, Notice, Passing};
pub use below::Below;
pub use checksum::Checksum;
pub use codec::{Key, StateValue};
pub use commits::Commits;
pub use coordinator::Coordinator;
pub use error::{Error, Result};
pub use history::CheckpointHistory;
pub use image::{OperatorImage, StateData, StateImage, StateKind, SubtaskImage};
pub use keyed::{EncodedEntries, Entries, KeyedPart, KeyedSection, Named, OpenBacking};
pub use load::{Loaded, Which, latest, load, newest};
pub use metadata::{CheckpointMetadata, FileRef, SubtaskFile};
pub use participant::{Participant, Timing};
pub use pieces::Pieces;
pub use protocol::{
    Action, Event, Outcome, Phase, Publication, RequestId, SavepointKind, SubtaskRef,
};
pub use restart::{Decision, ExponentialDelay, RestartPolicy, RestartStrategy};
pub use restore::{RestoredJob, RestoredOperator};
pub use settings::CheckpointSettings;
pub use shape::stored_name;
pub use shared::{
    FilesImage, FilesIndex, FilesOrigin, LocalFiles, RestoredFiles, SharedFile, StoredFiles,
};
pub use stopped::Stopped;
pub use storage::{CheckpointStorage, publish, publish_to, write_image};
pub use visitor::StateVisitor;
pub use writer::write_image_to;
