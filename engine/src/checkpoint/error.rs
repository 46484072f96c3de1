//! What can go wrong with stored checkpoints, each with the place, the reason and what to do.

use super::barrier::CheckpointId;
use crate::fault::Fault;

/// The result of something that concerns stored checkpoints.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// Why a checkpoint could not be stored, found or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage refused, and may not refuse the next time.
    #[error("checkpoint storage: could not {action} {path}: {reason}; {advice}")]
    Failed {
        /// What was tried: "write", "sync".
        action: &'static str,
        /// With what.
        path: String,
        /// What the storage said.
        reason: String,
        /// What a person can do.
        advice: &'static str,
    },
    /// There is no such file.
    #[error(
        "checkpoint storage: {path} is missing; was it deleted or moved by hand? \
         If the checkpoint can't be brought back whole, name an older one with --restore PATH"
    )]
    Missing {
        /// The file.
        path: String,
    },
    /// Somebody else has published it before.
    #[error(
        "checkpoint storage: {path} exists already and is never overwritten; \
         does the job run twice with the same folder?"
    )]
    Exists {
        /// The file.
        path: String,
    },
    /// What is there is not what was written.
    #[error(
        "{path} is damaged ({section}): {reason}; bring the file back from a copy, \
         or name an older checkpoint with --restore PATH"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Which part of it.
        section: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a later version of Tidegate.
    #[error(
        "{path} was written in format {found} and this tidegate reads formats up to {supported}; \
         use the version that wrote it{}", written_by(.writer)
    )]
    TooNew {
        /// The file.
        path: String,
        /// The oldest format that a reader must know.
        found: u32,
        /// The newest that this one knows.
        supported: u32,
        /// The version that wrote it, where that is known.
        writer: String,
    },
    /// Keys were spread by another hash.
    #[error(
        "{path}: its keys were hashed by version {found} and this tidegate hashes by version \
         {supported}, so its key groups mean something else; use the version that wrote it"
    )]
    OtherHash {
        /// The file.
        path: String,
        /// Its version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// No checkpoint where one was looked for.
    #[error("{place}: there is no complete checkpoint; check the path, or start without --restore")]
    NoCheckpoint {
        /// Where it was looked for.
        place: String,
    },
    /// The savepoint that ended a job lies where its own storage can't look.
    #[error("the job was stopped with the savepoint {place}: name it with --restore {place}")]
    Elsewhere {
        /// Where it is.
        place: String,
    },
    /// A path that leads out of the checkpoint.
    #[error("'{path}' can't be the path of a checkpoint's file: {reason}")]
    BadPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The newest checkpoint can't be used; an older one is not taken unasked.
    #[error(
        "the newest {what}, {newest} ({folder}), can't be restored: {cause}. {}", older(.others)
    )]
    NewestUnusable {
        /// What it is: a checkpoint, or the savepoint that ended the job.
        what: &'static str,
        /// Its number.
        newest: CheckpointId,
        /// Its folder.
        folder: String,
        /// What is wrong with it.
        cause: Box<Error>,
        /// The folders of the complete ones before it, newest first.
        others: Vec<String>,
    },
}

fn written_by(writer: &str) -> String {
    match writer {
        "" => String::new(),
        writer => format!(" ({writer})"),
    }
}

fn older(others: &[String]) -> String {
    match others.first() {
        None => "There is no older one".to_owned(),
        Some(next) => format!(
            "Going on from an older one repeats or loses output since then, so it has to be \
             named: --restore {next} is the next one"
        ),
    }
}

impl Error {
    /// A file is not what was written.
    pub(super) fn damaged(path: &str, section: &str, reason: impl ToString) -> Self {
        Error::Damaged {
            path: path.to_owned(),
            section: section.to_owned(),
            reason: reason.to_string(),
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::external(error)
    }
}
