//! State in files that several checkpoints name, so that a checkpoint stores only what is new.
//!
//! What a state spilled to is a set of files that never change, and a small *manifest* that ties them
//! together. A checkpoint stores the files that no complete checkpoint holds yet, each under a random
//! name of its own, and names the others where they are. A name in the local store means nothing to
//! another attempt, so it is never a file's name in the storage.
//!
//! A file is named again only if the checkpoint that holds it is known to be complete; and where such a
//! checkpoint was deleted meanwhile, the one that names its files can't be published
//! ([`retention`](super::retention)).

use super::barrier::{BarrierKind, CheckpointId, Notice};
use super::checksum::Checksum;
use super::error::{Error, Result};
use super::image::{StateData, SubtaskImage};
use super::metadata::FileRef;
use super::storage::{CheckpointStorage, SHARED, join};
use crate::fault::{Fault, Flow};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file that is stored and may be named by several checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFile {
    /// What the manifest calls it.
    pub name: String,
    /// The checkpoint that it was stored for.
    pub since: CheckpointId,
    /// The file; its path is taken from the job's folder.
    pub file: FileRef,
}

/// What a state's files hold, as far as can be told without reading them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesIndex {
    /// Who can read them: `rocksdb`.
    pub format: String,
    /// The first and the last key group that have entries, if there is any.
    pub groups: Option<(u32, u32)>,
    /// How many entries there are, about.
    pub entries: u64,
    /// The files.
    pub files: Vec<SharedFile>,
}

impl FilesIndex {
    /// How many bytes the files have.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.file.length).sum()
    }
}

/// A state in files: first in those of the running store, then in those of a checkpoint storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilesImage {
    /// What is told of it.
    pub index: FilesIndex,
    /// What ties the files together, in the store's own format.
    pub manifest: Vec<u8>,
    /// The files on this machine that are to be stored.
    #[serde(skip)]
    pub local: Local,
}

/// Files on this machine, while there are any.
#[derive(Clone, Default)]
pub struct Local(pub Option<Arc<dyn LocalFiles>>);

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "local" } else { "stored" })
    }
}

impl PartialEq for Local {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_some() == other.0.is_some()
    }
}

impl Eq for Local {}

/// Files of a running store or sink that stay as they are for as long as this is held.
pub trait LocalFiles: Send + Sync {
    /// Their names; or why there are none, where they could not be made.
    fn names(&self) -> std::result::Result<Vec<String>, String>;

    /// The bytes of one.
    fn read(&self, name: &str) -> std::result::Result<Vec<u8>, String>;

    /// What is known to be stored of the store's files.
    fn stored(&self) -> &StoredFiles;
}

/// Which files of a running store are part of a complete checkpoint. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct StoredFiles(Arc<Mutex<Known>>);

type ByName = HashMap<String, SharedFile>;

#[derive(Debug, Default)]
struct Known {
    complete: ByName,
    under_way: BTreeMap<CheckpointId, ByName>,
}

fn by_name(files: &[SharedFile]) -> ByName {
    let files = files.iter();
    files.map(|f| (f.name.clone(), f.clone())).collect()
}

impl StoredFiles {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store begins with these, which a complete checkpoint of the same job holds.
    pub fn begin_with(&self, files: &[SharedFile]) {
        self.known().complete = by_name(files);
    }

    /// Where a file is stored, if the newest checkpoint that is known to be complete holds it.
    pub fn find(&self, name: &str) -> Option<SharedFile> {
        self.known().complete.get(name).cloned()
    }

    /// All files of a checkpoint are stored; whether it will be complete is open.
    pub fn add(&self, id: CheckpointId, files: &[SharedFile]) {
        self.known().under_way.insert(id, by_name(files));
    }

    /// What became of a checkpoint.
    pub fn settled(&self, notice: Notice) {
        let mut known = self.known();
        let id = match notice {
            Notice::Completed { id, .. } => {
                if let Some(files) = known.under_way.remove(&id) {
                    known.complete = files;
                }
                id
            }
            Notice::Aborted { id } => id,
        };
        known.under_way.retain(|known, _| *known > id);
    }
}

/// Stores the files of an image that no complete checkpoint holds yet, and has it name all of them.
/// Returns what was stored, which is deleted again where it fails.
pub fn store_files(
    storage: &dyn CheckpointStorage,
    id: CheckpointId,
    image: &mut SubtaskImage,
) -> Result<Vec<FileRef>> {
    let mut fresh = Vec::new();
    // A savepoint names no file of a checkpoint, nor is one of its own named by any.
    let alone = image.barrier.kind != BarrierKind::Checkpoint;
    let states = image.operators.iter_mut().flat_map(|o| &mut o.states);
    for state in states {
        let StateData::Files(files) = &mut state.data else {
            continue;
        };
        if let Err(error) = store_state(storage, (id, alone), files, &mut fresh) {
            delete_files(storage, &fresh);
            return Err(error);
        }
    }
    Ok(fresh)
}

/// Deletes what was stored for a checkpoint that won't be. What can't be deleted is left to the sweep.
pub fn delete_files<'a>(
    storage: &dyn CheckpointStorage,
    files: impl IntoIterator<Item = &'a FileRef>,
) {
    for file in files {
        drop(storage.delete(&file.path));
    }
}

fn store_state(
    storage: &dyn CheckpointStorage,
    (id, alone): (CheckpointId, bool),
    image: &mut FilesImage,
    fresh: &mut Vec<FileRef>,
) -> Result {
    let Some(local) = image.local.0.take() else {
        return Ok(());
    };
    let names = local.names().map_err(|reason| Error::Failed {
        action: "put into files",
        path: "state or output that spills".to_owned(),
        reason,
        advice: "make room on the disk of its folder, which --state-dir names for state",
    })?;
    for name in names {
        if !alone && let Some(known) = local.stored().find(&name) {
            image.index.files.push(known);
            continue;
        }
        let bytes = local.read(&name).map_err(|reason| Error::Failed {
            action: "read the state's file",
            path: name.clone(),
            reason,
            advice: "look at the disk of the state's folder",
        })?;
        let file = FileRef {
            path: join(SHARED, &storage.fresh_name()),
            length: bytes.len() as u64,
            checksum: Checksum::of(&bytes),
        };
        storage.write(&file.path, &[&bytes])?;
        fresh.push(file.clone());
        let since = id;
        image.index.files.push(SharedFile { name, since, file });
    }
    if !alone {
        local.stored().add(id, &image.index.files);
    }
    Ok(())
}

/// Where the files are that restored state is in.
#[derive(Clone)]
pub struct FilesOrigin {
    /// The storage that the checkpoint lies in.
    pub storage: Arc<dyn CheckpointStorage>,
    /// Whether it is the one that the job's own checkpoints go to, so that they may name its files too.
    pub own: bool,
}

impl fmt::Debug for FilesOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.storage.place(""))
    }
}

/// A state in files, on its way into the store of a subtask.
#[derive(Debug)]
pub struct RestoredFiles<'a> {
    /// What the old subtasks saved, as far as it has entries of this one.
    pub images: Vec<&'a FilesImage>,
    /// The key groups of this subtask.
    pub groups: Range<u32>,
    /// Where the files are.
    pub origin: Option<&'a FilesOrigin>,
}

impl FilesOrigin {
    /// The bytes of a file, verified.
    pub fn read(&self, file: &FileRef) -> Flow<Vec<u8>> {
        let storage = &self.storage;
        let bytes = storage.read(&file.path, file.length).map_err(Fault::user)?;
        check_shared(&storage.place(&file.path), &bytes, file).map_err(Fault::user)?;
        Ok(bytes)
    }
}

impl RestoredFiles<'_> {
    /// Whether checkpoints of this job may name these files too.
    pub fn own(&self) -> bool {
        self.origin.is_some_and(|origin| origin.own)
    }

    /// What to say where a state is in files and in memory now.
    pub fn in_memory(&self) -> Fault {
        let format = self.images.first().map_or("", |image| &image.index.format);
        Fault::user(format_args!(
            "this state was saved as files of {format}, and it is kept in memory now; restore it with \
             --state-backend {format}, or from a savepoint, which any backend reads"
        ))
    }

    /// The bytes of a file, verified.
    pub fn read(&self, file: &FileRef) -> Flow<Vec<u8>> {
        match self.origin {
            Some(origin) => origin.read(file),
            None => Err(Fault::internal("restored files without their storage")),
        }
    }
}

/// Bytes of a file that are checked at a time.
const PIECE: u64 = 8 << 20;

/// Whether these are the bytes of a file: it is opaque, so its length and its checksum are all that is
/// known of it.
pub fn check_shared(place: &str, bytes: &[u8], file: &FileRef) -> Result {
    compare(place, (bytes.len() as u64, Checksum::of(bytes)), file)
}

/// Checks a file piece by piece, so that it may be larger than memory.
pub fn verify_shared(storage: &dyn CheckpointStorage, path: &str, file: &FileRef) -> Result {
    let (mut hash, mut length) = (Checksum::begin(), 0);
    // One that is longer than it was is read no further than is needed to know that.
    while length <= file.length {
        let piece = storage.read_range(path, length, PIECE)?;
        if piece.is_empty() {
            break;
        }
        hash.update(&piece);
        length += piece.len() as u64;
    }
    compare(&storage.place(path), (length, Checksum::end(&hash)), file)
}

fn compare(place: &str, found: (u64, Checksum), file: &FileRef) -> Result {
    if found == (file.length, file.checksum) {
        return Ok(());
    }
    let (length, checksum) = found;
    let reason = format!(
        "it has {length} bytes with checksum {checksum} and had {} with {} when it was written",
        file.length, file.checksum
    );
    Err(Error::damaged(place, "the whole file", reason))
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
