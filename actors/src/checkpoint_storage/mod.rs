//! The stores that checkpoints can be kept in.
//!
//! They do the reading and writing for [`tidegate_engine::checkpoint::CheckpointStorage`]; what is
//! written, and when it may be deleted, is decided there. A place is a folder of this machine, or one in a bucket:
//! `s3://BUCKET/FOLDER`.

mod local;
#[cfg(feature = "s3")]
mod object;
#[cfg(feature = "s3")]
mod s3;
#[cfg(not(feature = "s3"))]
mod without_s3;

pub use local::LocalStorage;
#[cfg(feature = "s3")]
pub use object::ObjectStorage;

use std::path::Path;
use std::sync::Arc;
use tidegate_engine::checkpoint::storage::{METADATA, join};
use tidegate_engine::checkpoint::{CheckpointStorage, Loaded, Result, Which, latest, load};

/// What a place in a bucket begins with.
pub const S3: &str = "s3://";

/// Any storage. Clones show the same.
pub type Storage = Arc<dyn CheckpointStorage>;

/// The storage in a place.
pub fn open(place: &Path) -> Result<Storage> {
    match in_s3(place) {
        Some(place) => Ok(open_s3(place)?.into()),
        None => Ok(Arc::new(LocalStorage::new(place))),
    }
}

/// The storage of a folder below a place.
pub fn open_below(place: &Path, folder: &str) -> Result<Storage> {
    match in_s3(place) {
        Some(place) => Ok(Arc::new(open_s3(place)?.below(folder))),
        None => Ok(Arc::new(LocalStorage::new(place.join(folder)))),
    }
}

/// The storages of the folders directly below a place.
pub fn folders(place: &Path) -> Result<Vec<Storage>> {
    if let Some(place) = in_s3(place) {
        let storage = open_s3(place)?;
        let below = |folder: String| Arc::new(storage.below(&folder)) as Storage;
        return Ok(storage.folders()?.into_iter().map(below).collect());
    }
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let mut folders: Vec<_> = entries.map(|entry| entry.path()).collect();
    folders.sort();
    let folders = folders.into_iter().filter(|path| path.is_dir());
    Ok(folders
        .map(|path| Arc::new(LocalStorage::new(path)) as Storage)
        .collect())
}

/// The storage that a checkpoint's folder lies in, and the folder's path there. Files that it shares with others
/// lie beside it.
pub fn of_checkpoint(place: &Path) -> Result<(Storage, String)> {
    let Some(place) = in_s3(place) else {
        let (storage, folder) = LocalStorage::of_checkpoint(place);
        return Ok((Arc::new(storage), folder));
    };
    let place = place.trim_end_matches('/');
    match place.rsplit_once('/') {
        Some((parent, folder)) if parent.len() >= S3.len() => {
            Ok((open_s3(parent)?.into(), folder.to_owned()))
        }
        _ => Ok((open_s3(place)?.into(), String::new())),
    }
}

/// The place, where it is in a bucket.
fn in_s3(place: &Path) -> Option<&str> {
    place.to_str().filter(|place| place.starts_with(S3))
}

/// Whether a folder holds a complete checkpoint or savepoint.
pub fn is_checkpoint(storage: &dyn CheckpointStorage, folder: &str) -> Result<bool> {
    let metadata = join(folder, METADATA);
    let stored = storage.list(folder)?;
    Ok(stored.iter().any(|file| file.path == metadata))
}

/// Reads and verifies what a person named: the folder of one checkpoint or savepoint, or a job's
/// folder, of which the newest complete checkpoint is meant.
pub fn load_path(path: &Path) -> Result<Loaded> {
    if path.join(METADATA).exists() {
        let (storage, folder) = LocalStorage::of_checkpoint(path);
        return load(&storage, Which::Folder(&folder));
    }
    latest(&LocalStorage::new(path))
}

#[cfg(feature = "s3")]
use s3::open as open_s3;
#[cfg(not(feature = "s3"))]
use without_s3::open as open_s3;
