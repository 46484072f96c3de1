//! Checkpoints in a folder of this machine, or one that is mounted here.
//!
//! A file is written under a temporary name, synced, given its name, and then the folder is synced:
//! in this order no loss of power leaves half a file under a name that somebody reads. What fails on
//! the way is taken back. A process that dies on the way leaves a `.tmp` file, which no reader looks
//! at and the orphan sweep removes.

use fail::fail_point;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use tidegate_engine::checkpoint::storage::{METADATA, Make, Stored};
use tidegate_engine::checkpoint::{CheckpointStorage, Error, Result};
use tidegate_engine::time::Timestamp;

/// Ends the name of a file that is being written.
const TEMPORARY: &str = ".tmp";

/// Parts of fewer bytes are gathered: the key groups of a small state have a few each.
const GATHERED: usize = 32 << 10;

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct LocalStorage {
    root: PathBuf,
}

impl LocalStorage {
    /// Of a folder; it is created when something is written.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        LocalStorage { root: root.into() }
    }

    /// The storage that a checkpoint's folder lies in, and the folder's path there. Files that it
    /// shares with others lie beside it.
    pub fn of_checkpoint(folder: &Path) -> (Self, String) {
        let absolute = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let name = absolute.file_name().and_then(|name| name.to_str());
        match (absolute.parent(), name) {
            (Some(parent), Some(name)) => (LocalStorage::new(parent), name.to_owned()),
            _ => (LocalStorage::new(absolute), String::new()),
        }
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn full(&self, path: &str) -> Result<PathBuf> {
        let inside = path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']));
        if inside {
            return Ok(self.root.join(path));
        }
        Err(Error::BadPath {
            path: path.to_owned(),
            reason: "it leads out of the storage's folder",
        })
    }

    fn failed(&self, action: &'static str, path: &str, error: &io::Error) -> Error {
        Error::Failed {
            action,
            path: self.place(path),
            reason: error.to_string(),
            advice: advice(error.kind()),
        }
    }

    /// Writes a temporary file, of what `make` gives, and syncs it.
    fn write_temporary(&self, path: &str, temporary: &Path, make: &mut Make<'_>) -> Result {
        let failed = |action| move |error: io::Error| self.failed(action, path, &error);
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .open(temporary)
            .map_err(failed("create"))?;
        let mut file = BufWriter::with_capacity(GATHERED, file);
        make(&mut |part| write_part(&mut file, part).map_err(failed("write")))?;
        let file = file.into_inner();
        let file = file.map_err(|error| self.failed("write", path, error.error()))?;
        sync_file(&file).map_err(failed("sync"))
    }

    /// Writes a file under its temporary name, then `name`s it; takes everything back on failure.
    fn store(
        &self,
        path: &str,
        make: &mut Make<'_>,
        name: impl FnOnce(&Path, &Path) -> io::Result<()>,
    ) -> Result {
        let target = self.full(path)?;
        let folder = target.parent().unwrap_or(&self.root).to_owned();
        self.create_folder(path, &folder)?;
        let mut temporary = target.clone().into_os_string();
        temporary.push(format!(".{}{TEMPORARY}", self.fresh_name()));
        let temporary = PathBuf::from(temporary);
        let stored = self.write_temporary(path, &temporary, make).and_then(|()| {
            name(&temporary, &target).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => Error::Exists {
                    path: self.place(path),
                },
                _ => self.failed("rename", path, &error),
            })
        });
        if let Err(error) = stored {
            // If this fails too, the sweep takes it.
            drop(fs::remove_file(&temporary));
            return Err(error);
        }
        sync_folder(&folder).map_err(|error| {
            // Whether the name outlives a loss of power is unknown, so nobody may rely on it.
            drop(fs::remove_file(&target));
            self.failed("sync the folder of", path, &error)
        })
    }

    /// Creates a folder and those above it, each of which must know of it for good.
    fn create_folder(&self, path: &str, folder: &Path) -> Result {
        if folder.is_dir() {
            return Ok(());
        }
        let parent = folder.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_folder(path, parent)?;
        }
        let created = match fs::create_dir(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
            _ => sync_folder(parent.unwrap_or(Path::new("."))),
        };
        created.map_err(|error| self.failed("create the folder of", path, &error))
    }

    fn list_into(&self, folder: &str, into: &mut Vec<Stored>) -> Result {
        let full = if folder.is_empty() {
            self.root.clone()
        } else {
            self.full(folder)?
        };
        let failed = |error: io::Error| self.failed("list", folder, &error);
        let entries = match fs::read_dir(full) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(failed)?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = match folder {
                "" => name,
                folder => format!("{folder}/{name}"),
            };
            // Links are not followed: nothing of ours is one.
            let known = match entry.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                known => known.map_err(failed)?,
            };
            if known.is_dir() {
                self.list_into(&path, into)?;
            } else if known.is_file() {
                let modified = known.modified().ok();
                let age = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                into.push(Stored {
                    path,
                    length: known.len(),
                    modified: Timestamp(age.map_or(0, |age| age.as_millis() as i64)),
                });
            }
        }
        Ok(())
    }
}

impl CheckpointStorage for LocalStorage {
    fn place(&self, path: &str) -> String {
        match path {
            "" => self.root.display().to_string(),
            path => self.root.join(path).display().to_string(),
        }
    }

    fn lasting_place(&self, path: &str) -> String {
        let full = match path {
            "" => self.root.clone(),
            path => self.root.join(path),
        };
        let found = full.canonicalize().or_else(|_| std::path::absolute(&full));
        found.unwrap_or(full).display().to_string()
    }

    fn elsewhere(&self, place: &str) -> Result<(Arc<dyn CheckpointStorage>, String)> {
        super::of_checkpoint(Path::new(place))
    }

    fn write_stream(&self, path: &str, make: &mut Make<'_>) -> Result {
        self.store(path, make, rename)
    }

    fn publish(&self, path: &str, bytes: &[u8]) -> Result {
        self.store(path, &mut |put| put(bytes), rename_once)
    }

    fn read(&self, path: &str, at_most: u64) -> Result<Vec<u8>> {
        let full = self.full(path)?;
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => Error::Missing {
                path: self.place(path),
            },
            _ => self.failed("read", path, &error),
        };
        let file = File::open(full).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length > at_most {
            return Err(Error::Damaged {
                path: self.place(path),
                section: "the whole file".to_owned(),
                reason: format!("it has {length} bytes where at most {at_most} can be right"),
            });
        }
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(at_most).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let full = self.full(path)?;
        let failed = |error: io::Error| match error.kind() {
            ErrorKind::NotFound => Error::Missing {
                path: self.place(path),
            },
            _ => self.failed("read", path, &error),
        };
        let mut file = File::open(full).map_err(failed)?;
        let whole = file.metadata().map_err(failed)?.len();
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        let length = length.min(whole.saturating_sub(offset));
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(length).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    fn list(&self, folder: &str) -> Result<Vec<Stored>> {
        let mut all = Vec::new();
        self.list_into(folder, &mut all)?;
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    fn delete(&self, path: &str) -> Result {
        let full = self.full(path)?;
        fail_point!("storage::before_delete");
        match fs::remove_file(&full) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(self.failed("delete", path, &error));
            }
            _ => {}
        }
        if full.file_name().is_some_and(|name| name == METADATA) {
            // What follows deletes what it names; after a loss of power it must not be back alone.
            match full.parent().map_or(Ok(()), sync_folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(self.failed("sync the folder of", path, &error));
                }
                _ => {}
            }
        }
        if let Some(folder) = full.parent().filter(|folder| *folder != self.root) {
            // Fails, as it should, where something is left in it.
            drop(fs::remove_dir(folder));
        }
        fail_point!("storage::after_delete");
        Ok(())
    }
}

/// What a person can do about a failure.
fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            "make room there, keep fewer checkpoints, or name another folder"
        }
        ErrorKind::FileTooLarge => "raise the limit on the size of files, or the parallelism",
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "let the job's user write there, or name another folder"
        }
        ErrorKind::NotADirectory => "a file is in the way: remove it, or name another folder",
        _ => "check the disk that it is on",
    }
}

/// A failpoint whose `return(text)` becomes an error. Those behind a rename have none: what has its
/// name must not be reported as if it had not.
macro_rules! may_fail {
    ($name:literal) => {
        fail_point!($name, |text| Err(injected(text)))
    };
}

#[cfg_attr(not(feature = "failpoints"), expect(dead_code))]
fn injected(text: Option<String>) -> io::Error {
    match text.as_deref() {
        Some("full") => io::Error::from(ErrorKind::StorageFull),
        text => io::Error::other(text.unwrap_or("a failpoint").to_owned()),
    }
}

fn write_part(file: &mut impl Write, part: &[u8]) -> io::Result<()> {
    may_fail!("storage::before_write");
    file.write_all(part)?;
    may_fail!("storage::after_write");
    Ok(())
}

fn sync_file(file: &File) -> io::Result<()> {
    may_fail!("storage::before_sync");
    file.sync_all()?;
    may_fail!("storage::after_sync");
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    may_fail!("storage::before_folder_sync");
    File::open(folder)?.sync_all()?;
    may_fail!("storage::after_folder_sync");
    Ok(())
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    may_fail!("storage::before_rename");
    fs::rename(from, to)?;
    fail_point!("storage::after_rename");
    Ok(())
}

/// Renames where nobody has taken the name. A link is what decides it in one step; where the file
/// system has none, the last step is a look and a rename.
fn rename_once(from: &Path, to: &Path) -> io::Result<()> {
    may_fail!("storage::before_publish");
    match fs::hard_link(from, to) {
        Ok(()) => {
            fail_point!("storage::between_publish");
            // If it stays, the sweep takes it.
            drop(fs::remove_file(from));
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Err(error),
        Err(_) if to.exists() => return Err(io::Error::from(ErrorKind::AlreadyExists)),
        Err(_) => fs::rename(from, to)?,
    }
    fail_point!("storage::after_publish");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    fn storage() -> (TempDir, LocalStorage) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let storage = LocalStorage::new(folder.path().join("root/job"));
        (folder, storage)
    }

    fn paths(storage: &LocalStorage) -> Vec<String> {
        let all = storage.list("").expect("lists");
        all.into_iter().map(|stored| stored.path).collect()
    }

    #[test]
    fn what_is_written_is_read_listed_and_deleted() {
        let (_folder, storage) = storage();
        assert!(paths(&storage).is_empty(), "no folder yet");
        storage
            .write("chk-1/b", &[b"ti", b"", b"de"])
            .expect("writes");
        storage
            .publish("chk-1/_metadata", b"gate")
            .expect("publishes");
        storage.write("a", &[]).expect("writes");
        assert_eq!(storage.read("chk-1/b", 4).expect("reads"), b"tide");
        assert_eq!(paths(&storage), ["a", "chk-1/_metadata", "chk-1/b"]);
        let listed = storage.list("chk-1").expect("lists");
        assert_eq!(listed[1].length, 4);
        assert!(listed[1].modified > Timestamp(1_600_000_000_000));
        for path in ["chk-1/b", "chk-1/b", "chk-1/_metadata"] {
            storage.delete(path).expect("deletes");
        }
        assert!(!storage.root().join("chk-1").exists(), "empty folders go");
        assert_eq!(paths(&storage), ["a"]);
    }

    #[test]
    fn only_the_first_publishes() {
        let (_folder, storage) = storage();
        storage.publish("_metadata", b"first").expect("publishes");
        let error = storage.publish("_metadata", b"second").expect_err("taken");
        assert!(matches!(error, Error::Exists { .. }), "{error}");
        assert_eq!(storage.read("_metadata", 9).expect("reads"), b"first");
        assert_eq!(paths(&storage), ["_metadata"]);
    }

    #[test]
    fn of_many_at_a_time_one_publishes() {
        let (_folder, storage) = storage();
        let all = std::thread::scope(|scope| {
            let publish = |n: u8| {
                let storage = &storage;
                move || storage.publish("chk-1/_metadata", &[n; 1000]).is_ok()
            };
            let threads: Vec<_> = (0..8).map(|n| scope.spawn(publish(n))).collect();
            let done = threads.into_iter().map(|t| t.join().expect("no panic"));
            done.collect::<Vec<bool>>()
        });
        assert_eq!(all.iter().filter(|ok| **ok).count(), 1);
        let winner = all.iter().position(|ok| *ok).expect("one") as u8;
        let bytes = storage.read("chk-1/_metadata", 1000).expect("reads");
        assert_eq!(bytes, [winner; 1000]);
    }

    #[test]
    fn a_missing_file_and_a_longer_one_are_errors() {
        let (_folder, storage) = storage();
        storage.write("a", &[b"tide"]).expect("writes");
        let missing = storage.read("b", 9).expect_err("missing");
        assert!(matches!(missing, Error::Missing { .. }), "{missing}");
        let longer = storage.read("a", 3).expect_err("longer").to_string();
        assert!(longer.contains("has 4 bytes where at most 3"), "{longer}");
    }

    #[test]
    fn no_path_leads_out() {
        let (_folder, storage) = storage();
        for path in ["../a", "/a", "a/../../b", "", "a//b", "./a", "a\0"] {
            let error = storage.write(path, &[b"x"]).expect_err("outside");
            assert!(matches!(error, Error::BadPath { .. }), "{error}");
            assert!(storage.read(path, 9).is_err() && storage.delete(path).is_err());
        }
    }

    #[test]
    fn a_file_in_the_way_of_the_folder_is_named() {
        let (folder, storage) = storage();
        fs::write(folder.path().join("root"), "mine").expect("writes");
        let error = storage.write("chk-1/a", &[b"x"]).expect_err("in the way");
        let text = error.to_string();
        assert!(text.contains("root/job/chk-1/a"), "{text}");
        assert!(text.contains("a file is in the way"), "{text}");
    }
}
