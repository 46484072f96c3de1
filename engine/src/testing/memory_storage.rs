//! A storage for checkpoints in memory, with a clock and a disk that tests can turn and damage.

use crate::checkpoint::storage::{Make, Stored};
use crate::checkpoint::{CheckpointStorage, Error, Result};
use crate::time::Timestamp;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Files in memory. Names are numbered, so that a test can expect them.
#[derive(Debug, Default)]
pub struct MemoryStorage(Mutex<Disk>);

#[derive(Debug, Default)]
struct Disk {
    files: BTreeMap<String, (Vec<u8>, Timestamp)>,
    now: i64,
    names: u64,
    /// The bytes that still fit.
    room: Option<u64>,
}

impl MemoryStorage {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time of what is written from now on.
    pub fn set_time(&self, now: Timestamp) {
        self.disk().now = now.0;
    }

    /// Only so many bytes fit from now on.
    pub fn set_room(&self, bytes: u64) {
        self.disk().room = Some(bytes);
    }

    /// Changes the bytes of a file behind everybody's back. Nothing happens where there is none.
    pub fn damage(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        if let Some((bytes, _)) = self.disk().files.get_mut(path) {
            change(bytes);
        }
    }

    /// The paths of all files.
    pub fn paths(&self) -> Vec<String> {
        self.disk().files.keys().cloned().collect()
    }
}

impl CheckpointStorage for MemoryStorage {
    fn place(&self, path: &str) -> String {
        format!("memory:{path}")
    }

    fn lasting_place(&self, path: &str) -> String {
        match path {
            "" => "/memory".to_owned(),
            path => format!("/memory/{path}"),
        }
    }

    fn write_stream(&self, path: &str, make: &mut Make<'_>) -> Result {
        let mut all = Vec::new();
        make(&mut |part| {
            all.extend_from_slice(part);
            Ok(())
        })?;
        self.publish(path, &all)
    }

    fn publish(&self, path: &str, bytes: &[u8]) -> Result {
        let mut disk = self.disk();
        if disk.files.contains_key(path) {
            return Err(Error::Exists {
                path: self.place(path),
            });
        }
        let left = disk.room.map(|room| room.checked_sub(bytes.len() as u64));
        if left == Some(None) {
            return Err(Error::Failed {
                action: "write",
                path: self.place(path),
                reason: "no room is left".to_owned(),
                advice: "call set_room",
            });
        }
        disk.room = left.flatten();
        let now = Timestamp(disk.now);
        disk.files.insert(path.to_owned(), (bytes.to_vec(), now));
        Ok(())
    }

    fn read(&self, path: &str, at_most: u64) -> Result<Vec<u8>> {
        let disk = self.disk();
        match disk.files.get(path) {
            None => Err(Error::Missing {
                path: self.place(path),
            }),
            Some((bytes, _)) if bytes.len() as u64 > at_most => Err(Error::Damaged {
                path: self.place(path),
                section: "the whole file".to_owned(),
                reason: format!("it has more than {at_most} bytes"),
            }),
            Some((bytes, _)) => Ok(bytes.clone()),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Stored>> {
        let disk = self.disk();
        let inside = |path: &str| {
            let rest = path.strip_prefix(folder);
            folder.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let files = disk.files.iter().filter(|(path, _)| inside(path));
        let stored = files.map(|(path, (bytes, modified))| Stored {
            path: path.clone(),
            length: bytes.len() as u64,
            modified: *modified,
        });
        Ok(stored.collect())
    }

    fn delete(&self, path: &str) -> Result {
        self.disk().files.remove(path);
        Ok(())
    }

    fn fresh_name(&self) -> String {
        let mut disk = self.disk();
        disk.names += 1;
        format!("{:032x}", disk.names)
    }
}
