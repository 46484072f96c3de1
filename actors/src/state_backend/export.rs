//! A state as files: the database's own, by hard links, made by a thread of its own.

use super::backend::Backend;
use super::database::{Database, failed};
use super::layout::Layout;
use crate::failpoints::failpoint;
use rocksdb::checkpoint::Checkpoint;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use tidegate_engine::checkpoint::shared::{Local, LocalFiles};
use tidegate_engine::checkpoint::{FilesImage, FilesIndex, StoredFiles};
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::state::backing::Export;

/// Who can read the files: those of a state that is not divided, and of one that is.
pub(super) const FORMATS: [&str; 2] = ["rocksdb", "rocksdb-parts"];
/// What files take besides the entries: a manifest, an index.
const BESIDES: u64 = 1 << 20;
/// Ends the names of the files with entries.
pub(super) const TABLE_FILE: &str = ".sst";
/// Begins the name of the file that tells which of them are where.
pub(super) const MANIFEST: &str = "MANIFEST-";

/// See the module.
pub(super) struct ThreadExport {
    result: Receiver<Result<FilesImage, String>>,
    database: Arc<Database>,
}

impl ThreadExport {
    /// Nothing may be written until it is ready.
    pub fn begin(database: Arc<Database>, layout: Layout) -> Flow<(Self, JoinHandle<()>)> {
        let (send, result) = sync_channel(1);
        let exports = database.clone();
        let thread = thread::Builder::new()
            .name("state-export".to_owned())
            .spawn(move || {
                // Who waited for it may have gone.
                let _ = send.send(export(&exports, &layout));
                exports.merging.after_checkpoint(&exports);
            })
            .map_err(|error| failed("start a thread", database.path(), error))?;
        Ok((ThreadExport { result, database }, thread))
    }
}

impl ThreadExport {
    /// An image without files, which whoever is to store it is told the reason of: it is the checkpoint
    /// that can't be, and the state is as it was.
    fn none(&self, reason: String) -> FilesImage {
        let path = self.database.path().display();
        let missing = Missing {
            reason: format!("{path}: {reason}"),
            stored: self.database.stored.clone(),
        };
        FilesImage {
            local: Local(Some(Arc::new(missing))),
            ..FilesImage::default()
        }
    }
}

impl Export for ThreadExport {
    fn poll(&mut self, wait: bool) -> Flow<Option<FilesImage>> {
        let received = match wait {
            true => self.result.recv().map_err(|_| TryRecvError::Disconnected),
            false => self.result.try_recv(),
        };
        match received {
            Ok(Ok(image)) => Ok(Some(image)),
            Ok(Err(reason)) => Ok(Some(self.none(reason))),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Fault::internal(
                "the thread that puts state into files panicked",
            )),
        }
    }
}

/// Hard links to the files of a database as they were. They are removed with it.
struct Links {
    folder: PathBuf,
    names: Vec<String>,
    stored: StoredFiles,
    /// Keeps the folder above.
    _backend: Arc<Backend>,
}

/// Files that could not be made.
struct Missing {
    reason: String,
    stored: StoredFiles,
}

impl LocalFiles for Missing {
    fn names(&self) -> Result<Vec<String>, String> {
        Err(self.reason.clone())
    }

    fn read(&self, _: &str) -> Result<Vec<u8>, String> {
        Err(self.reason.clone())
    }

    fn stored(&self) -> &StoredFiles {
        &self.stored
    }
}

impl LocalFiles for Links {
    fn names(&self) -> Result<Vec<String>, String> {
        Ok(self.names.clone())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let path = self.folder.join(name);
        fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn stored(&self) -> &StoredFiles {
        &self.stored
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Fails where the disk has no room for what is in write buffers. RocksDB would find out too, and take
/// no more changes from then on.
fn check_room(database: &Database) -> Result<(), String> {
    let disk = rustix::fs::statvfs(database.path()).map_err(|error| error.to_string())?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let needed = database.property("rocksdb.cur-size-all-mem-tables") + BESIDES;
    if free < needed {
        return Err(format!(
            "No space left on device: {free} bytes are free and {needed} are needed"
        ));
    }
    Ok(())
}

fn export(database: &Database, layout: &Layout) -> Result<FilesImage, String> {
    check_room(database)?;
    let mut links = Links {
        folder: database.backend.fresh_folder("links"),
        names: Vec::new(),
        stored: database.stored.clone(),
        _backend: database.backend.clone(),
    };
    // Writes what is in memory to a file first: there is no log that would hold it.
    failpoint!("state_backend::before_flush");
    let merged = database.merging.written();
    let checkpoint = Checkpoint::new(&database.db).map_err(|error| error.to_string())?;
    let linked = checkpoint.create_checkpoint(&links.folder);
    linked.map_err(|error| error.to_string())?;
    database.merging.has_files(merged);
    failpoint!("state_backend::after_links");
    let manifest = read_folder(&links.folder, &mut links.names)
        .map_err(|error| format!("{}: {error}", links.folder.display()))?;
    let index = FilesIndex {
        format: FORMATS[usize::from(layout.is_divided())].to_owned(),
        groups: occupied(database, layout)?,
        entries: database.property("rocksdb.estimate-num-keys"),
        files: Vec::new(),
    };
    Ok(FilesImage {
        index,
        manifest,
        local: Local(Some(Arc::new(links))),
    })
}

/// Notes the table files of a folder; returns the manifest, its name in front.
fn read_folder(folder: &Path, names: &mut Vec<String>) -> std::io::Result<Vec<u8>> {
    let mut manifest = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(TABLE_FILE) {
            names.push(name);
        } else if name.starts_with(MANIFEST) {
            manifest = format!("{name}\n").into_bytes();
            manifest.extend(fs::read(entry.path())?);
        }
    }
    names.sort_unstable();
    Ok(manifest)
}

/// The first and the last key group that have entries.
fn occupied(database: &Database, layout: &Layout) -> Result<Option<(u32, u32)>, String> {
    let group = |key: Option<&[u8]>| {
        let bytes = key.and_then(|key| key.get(..2)?.try_into().ok());
        bytes.map(|bytes| u32::from(u16::from_be_bytes(bytes)))
    };
    let mut groups = None;
    for piece in layout.pieces(&[], &[]) {
        let Some(family) = database.family_to_read(piece.family) else {
            continue;
        };
        let mut entries = database.db.raw_iterator_cf_opt(&family, piece.range());
        entries.seek_to_first();
        let first = group(entries.key());
        entries.seek_to_last();
        let last = group(entries.key());
        entries.status().map_err(|error| error.to_string())?;
        if let Some((first, last)) = first.zip(last) {
            groups = Some((groups.map_or(first, |(first, _)| first), last));
        }
    }
    Ok(groups)
}
