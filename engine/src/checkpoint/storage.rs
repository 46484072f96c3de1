//! Where checkpoints are kept: the few operations that a store must offer, and the folders in it.
//!
//! ```text
//! <root>/<job>/chk-7/<random>            a subtask's file
//! <root>/<job>/chk-7/_metadata           published last: with it the checkpoint is complete
//! <root>/<job>/savepoint-8-<random>/...  a savepoint, the same inside, and its shared/<random>
//! <root>/<job>/shared/<random>           files that several checkpoints name
//! <root>/<job>/stopped-8                 says where the savepoint is that ended the job
//! <root>/<job>/claims/3                  says that the third process to run the job is the last one so far
//! ```
//!
//! A [`CheckpointStorage`] begins at the job's folder, or at that of one checkpoint when somebody
//! names it. All paths are relative to it, so a folder can be moved or copied as a whole.

use super::barrier::{BarrierKind, CheckpointId};
use super::error::{Error, Result};
use super::image::SubtaskImage;
use super::metadata::{CheckpointMetadata, SubtaskFile};
use super::writer::write_image_to;
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

/// The name of the file that makes a checkpoint.
pub const METADATA: &str = "_metadata";
/// The folder of files that several checkpoints name.
pub const SHARED: &str = "shared";
/// The folder of the processes' claims to the job: see `tidegate-actors`.
pub const CLAIMS: &str = "claims";
/// The largest metadata that is read.
const LARGEST_METADATA: u64 = 1 << 30;

/// A file in the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Where it is.
    pub path: String,
    /// How many bytes it has.
    pub length: u64,
    /// When it was written, by the storage's clock.
    pub modified: Timestamp,
}

/// Takes bytes that follow each other.
pub type Put<'a> = dyn FnMut(&[u8]) -> Result + 'a;

/// Gives the bytes of a file, part by part.
pub type Make<'a> = dyn FnMut(&mut Put<'_>) -> Result + 'a;

/// A place for checkpoints. Its calls wait for the disk or the network: not for an actor's turn.
pub trait CheckpointStorage: Send + Sync {
    /// The full place of a path, as a person would write it. The empty path is the storage itself.
    fn place(&self, path: &str) -> String;

    /// The place of a path in words that mean the same to every later process: what is recorded of it.
    fn lasting_place(&self, path: &str) -> String {
        self.place(path)
    }

    /// The storage, and the folder in it, of a checkpoint whose lasting place was recorded. It may lie
    /// outside of this storage.
    fn elsewhere(&self, place: &str) -> Result<(Arc<dyn CheckpointStorage>, String)> {
        Err(Error::Elsewhere {
            place: place.to_owned(),
        })
    }

    /// Writes a file of which `make` gives the bytes, part by part, to the function that it is called with. When it
    /// returns, the file outlives a loss of power; when it fails, there is no file. Names are never used twice.
    fn write_stream(&self, path: &str, make: &mut Make<'_>) -> Result;

    /// Like `write_stream`, of parts that are all there.
    fn write(&self, path: &str, parts: &[&[u8]]) -> Result {
        self.write_stream(path, &mut |put| parts.iter().try_for_each(|part| put(part)))
    }

    /// Like `write`, of a file that others may look for: they see all of it or none, and
    /// [`Error::Exists`] tells that somebody was faster.
    fn publish(&self, path: &str, bytes: &[u8]) -> Result;

    /// All bytes of a file; an error where there are more than `at_most`, before any is read.
    fn read(&self, path: &str, at_most: u64) -> Result<Vec<u8>>;

    /// Some bytes of a file; fewer where it ends before.
    fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let all = self.read(path, u64::MAX)?;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        Ok(all[from..from.saturating_add(length).min(all.len())].to_vec())
    }

    /// All files in a folder and the folders in it, sorted; none where there is no such folder.
    fn list(&self, folder: &str) -> Result<Vec<Stored>>;

    /// Deletes a file, and its folder where nothing else is left in it. No error where it is gone.
    fn delete(&self, path: &str) -> Result;

    /// A name that nobody else has: 128 random bits.
    fn fresh_name(&self) -> String {
        let random = || RandomState::new().build_hasher().finish();
        format!("{:016x}{:016x}", random(), random())
    }
}

/// The folder of an ordinary checkpoint.
pub fn checkpoint_folder(id: CheckpointId) -> String {
    format!("chk-{id}")
}

/// A folder for a savepoint for which nobody has named one.
pub fn savepoint_folder(storage: &dyn CheckpointStorage, id: CheckpointId) -> String {
    format!("savepoint-{id}-{}", &storage.fresh_name()[..12])
}

/// The path of a file in a folder; the empty folder is the storage itself.
pub fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() {
        return name.to_owned();
    }
    format!("{folder}/{name}")
}

/// Writes a subtask's file of checkpoint `id`.
pub fn write_image(
    storage: &dyn CheckpointStorage,
    id: CheckpointId,
    image: &SubtaskImage,
) -> Result<SubtaskFile> {
    write_image_to(storage, &checkpoint_folder(id), image)
}

/// Makes a checkpoint of files that are all written: from now on it is complete.
pub fn publish(storage: &dyn CheckpointStorage, metadata: &CheckpointMetadata) -> Result {
    publish_to(storage, &checkpoint_folder(metadata.id), metadata)
}

/// Makes a checkpoint or savepoint of the files in a folder.
pub fn publish_to(
    storage: &dyn CheckpointStorage,
    folder: &str,
    metadata: &CheckpointMetadata,
) -> Result {
    storage.publish(&join(folder, METADATA), &metadata.encode())
}

/// Reads what a folder's checkpoint says of itself.
pub fn read_metadata(storage: &dyn CheckpointStorage, folder: &str) -> Result<CheckpointMetadata> {
    let path = join(folder, METADATA);
    let bytes = storage.read(&path, LARGEST_METADATA)?;
    let metadata = CheckpointMetadata::decode(&storage.place(&path), &bytes)?;
    match parse_folder(folder) {
        Some((id, _)) if id != metadata.id => {
            let reason = format!("it is that of checkpoint {}", metadata.id);
            Err(Error::damaged(&storage.place(&path), "the number", reason))
        }
        _ => Ok(metadata),
    }
}

/// A folder with a checkpoint in it, as its name and its files tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The folder.
    pub folder: String,
    /// Its number.
    pub id: CheckpointId,
    /// What it is; a savepoint with which a job was stopped is called a savepoint here.
    pub kind: BarrierKind,
    /// Whether its metadata has been published.
    pub complete: bool,
    /// How many files it has, without the metadata.
    pub files: usize,
    /// How many bytes they have.
    pub bytes: u64,
    /// When its newest file was written.
    pub modified: Timestamp,
}

/// The number and the kind that a folder's name tells.
pub fn parse_folder(folder: &str) -> Option<(CheckpointId, BarrierKind)> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits
            .then(|| text.parse().ok().map(CheckpointId))
            .flatten()
    };
    if let Some(id) = folder.strip_prefix("chk-") {
        return Some((number(id)?, BarrierKind::Checkpoint));
    }
    let (id, _) = folder.strip_prefix("savepoint-")?.split_once('-')?;
    Some((number(id)?, BarrierKind::Savepoint))
}

/// The checkpoints and savepoints in a job's folder, oldest first.
pub fn checkpoints(storage: &dyn CheckpointStorage) -> Result<Vec<Listed>> {
    let mut found: BTreeMap<String, Listed> = BTreeMap::new();
    for stored in storage.list("")? {
        let Some((folder, name)) = stored.path.split_once('/') else {
            continue;
        };
        let Some((id, kind)) = parse_folder(folder) else {
            continue;
        };
        let listed = found.entry(folder.to_owned()).or_insert_with(|| Listed {
            folder: folder.to_owned(),
            id,
            kind,
            complete: false,
            files: 0,
            bytes: 0,
            modified: stored.modified,
        });
        listed.modified = listed.modified.max(stored.modified);
        if name == METADATA {
            listed.complete = true;
        } else {
            listed.files += 1;
            listed.bytes += stored.length;
        }
    }
    let mut all: Vec<Listed> = found.into_values().collect();
    all.sort_by(|a, b| (a.id, &a.folder).cmp(&(b.id, &b.folder)));
    Ok(all)
}
