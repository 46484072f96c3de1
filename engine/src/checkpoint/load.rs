//! From stored files back to what a job goes on from; nothing unverified gets through.

use super::barrier::CheckpointId;
use super::error::{Error, Result};
use super::file;
use super::image::SubtaskImage;
use super::index::SubtaskIndex;
use super::metadata::{CheckpointMetadata, SubtaskFile};
use super::restore::RestoredJob;
use super::storage::{CheckpointStorage, checkpoint_folder, checkpoints, join, read_metadata};

/// Which checkpoint of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// The ordinary checkpoint of this number.
    Id(CheckpointId),
    /// The checkpoint or savepoint in this folder; empty where the storage itself is the folder.
    Folder(&'a str),
}

/// A checkpoint that was read and verified.
#[derive(Debug)]
pub struct Loaded {
    /// What it says of itself.
    pub metadata: CheckpointMetadata,
    /// What the job goes on from.
    pub job: RestoredJob,
}

/// Reads a checkpoint, verifying every byte of it.
pub fn load(storage: &dyn CheckpointStorage, which: Which<'_>) -> Result<Loaded> {
    let folder = match which {
        Which::Id(id) => checkpoint_folder(id),
        Which::Folder(folder) => folder.to_owned(),
    };
    let metadata = read_metadata(storage, &folder)?;
    let mut operators = Vec::new();
    for subtask in &metadata.subtasks {
        let image = read_image(storage, &folder, subtask)?;
        let number = image.subtask;
        operators.extend(image.operators.into_iter().map(|o| (number, o)));
    }
    let job = RestoredJob::new(metadata.id, operators);
    Ok(Loaded { metadata, job })
}

/// Reads the newest complete checkpoint of a job's folder. If it is damaged, that is an error: an
/// older one is never taken instead unless a person names it.
pub fn latest(storage: &dyn CheckpointStorage) -> Result<Loaded> {
    let mut complete: Vec<_> = checkpoints(storage)?
        .into_iter()
        .filter(|listed| listed.complete)
        .collect();
    let Some(newest) = complete.pop() else {
        return Err(Error::NoCheckpoint {
            place: storage.place(""),
        });
    };
    load(storage, Which::Folder(&newest.folder)).map_err(|cause| Error::NewestUnusable {
        newest: newest.id,
        folder: storage.place(&newest.folder),
        cause: Box::new(cause),
        others: complete
            .iter()
            .rev()
            .map(|listed| storage.place(&listed.folder))
            .collect(),
    })
}

/// Reads a subtask's file and compares it with what the metadata says of it.
pub fn read_image(
    storage: &dyn CheckpointStorage,
    folder: &str,
    subtask: &SubtaskFile,
) -> Result<SubtaskImage> {
    let path = join(folder, &subtask.file.path);
    let place = storage.place(&path);
    let bytes = storage.read(&path, subtask.file.length)?;
    let index = verify_bytes(&place, &bytes, subtask)?;
    file::image(&place, &bytes, index)
}

/// Checks that these are the bytes that the metadata speaks of, and that they are undamaged.
pub fn verify_bytes(place: &str, bytes: &[u8], subtask: &SubtaskFile) -> Result<SubtaskIndex> {
    let damaged = |section: &str, reason: String| Err(Error::damaged(place, section, reason));
    let (found, expected) = (bytes.len() as u64, subtask.file.length);
    if found != expected {
        let reason = format!("it has {found} bytes and had {expected} when it was written");
        return damaged("the whole file", reason);
    }
    let (checksum, index) = file::verify(place, bytes)?;
    if checksum != subtask.file.checksum || index != subtask.index {
        let reason = "it is intact and not the one that the metadata names: files were mixed up";
        return damaged("the whole file", reason.to_owned());
    }
    Ok(index)
}
