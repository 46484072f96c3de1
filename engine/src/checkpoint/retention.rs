//! Which checkpoints and files may be deleted, computed from what is recorded and never counted.
//!
//! A count that is wrong once deletes a file that is needed; a set that is computed anew from the
//! metadata of the checkpoints that stay can't be. The rules:
//!
//! * The last `retain` complete checkpoints stay, and one that is not older than them.
//! * A savepoint belongs to a person: it is never deleted, not even half of one, and makes no
//!   checkpoint superfluous.
//! * A superfluous checkpoint goes only after a grace period, counted from when it became so.
//! * A shared file goes when no checkpoint that is still there names it; and a checkpoint that names one
//!   which is gone can't become complete.
//! * What no metadata names is an orphan and goes when it is older than any checkpoint can take.

use super::barrier::{BarrierKind, CheckpointId};
use super::error::{Error, Result};
use super::metadata::CheckpointMetadata;
use super::stopped;
use super::storage::{
    CLAIMS, CheckpointStorage, METADATA, SHARED, Stored, checkpoints, join, parse_folder,
    publish_to, read_metadata,
};
use crate::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A complete checkpoint that is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Its number.
    pub id: CheckpointId,
    /// Why it was taken.
    pub kind: BarrierKind,
    /// Its folder in the storage.
    pub folder: String,
    /// When its metadata was published.
    pub completed: Timestamp,
    /// Its files and the shared ones that it names, by their paths from the job's folder.
    pub files: BTreeSet<String>,
}

impl Recorded {
    /// What is recorded of a checkpoint in a folder.
    pub fn of(folder: &str, metadata: &CheckpointMetadata, completed: Timestamp) -> Self {
        let own = metadata.subtasks.iter().map(|s| join(folder, &s.file.path));
        let shared = metadata.shared.iter();
        let shared = shared.map(|file| metadata.shared_path(folder, file));
        let mut files: BTreeSet<String> = own.chain(shared).collect();
        files.insert(join(folder, METADATA));
        Recorded {
            id: metadata.id,
            kind: metadata.kind,
            folder: folder.to_owned(),
            completed,
            files,
        }
    }
}

/// What holds the record of the complete checkpoints of a job: on one machine the storage itself, in
/// a cluster the replicated log. A checkpoint exists once it is recorded.
pub trait CheckpointRegistry: Send + Sync {
    /// Records a complete checkpoint, for good; its files have been written.
    fn record(&self, folder: &str, metadata: &CheckpointMetadata) -> Result;

    /// All that are recorded, oldest first.
    fn recorded(&self) -> Result<Vec<Recorded>>;

    /// Takes one off the record, for good, before its files are deleted.
    fn forget(&self, checkpoint: &Recorded) -> Result;
}

/// The storage as its own registry: what has metadata is recorded. Metadata never changes, so each is
/// read once.
pub struct StorageRegistry {
    storage: Arc<dyn CheckpointStorage>,
    known: Mutex<BTreeMap<String, Recorded>>,
}

impl StorageRegistry {
    /// Of a job's folder.
    pub fn new(storage: Arc<dyn CheckpointStorage>) -> Self {
        StorageRegistry {
            storage,
            known: Mutex::default(),
        }
    }
}

impl CheckpointRegistry for StorageRegistry {
    fn record(&self, folder: &str, metadata: &CheckpointMetadata) -> Result {
        publish_to(&*self.storage, folder, metadata)
    }

    fn recorded(&self) -> Result<Vec<Recorded>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::new();
        for listed in checkpoints(&*self.storage)? {
            if !listed.complete {
                continue;
            }
            let recorded = match known.remove(&listed.folder) {
                Some(recorded) => recorded,
                None => {
                    let metadata = read_metadata(&*self.storage, &listed.folder)?;
                    Recorded::of(&listed.folder, &metadata, listed.modified)
                }
            };
            all.push(recorded);
        }
        *known = all.iter().map(|r| (r.folder.clone(), r.clone())).collect();
        Ok(all)
    }

    fn forget(&self, checkpoint: &Recorded) -> Result {
        self.storage.delete(&join(&checkpoint.folder, METADATA))
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// How many complete checkpoints stay; at least one does.
    pub retain: usize,
    /// How long a checkpoint stays after enough newer ones are complete.
    pub grace: Duration,
    /// How old a file must be that nothing names before it counts as left behind.
    pub orphan_age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Retention {
            retain: 3,
            grace: Duration::from_secs(10),
            orphan_age: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// The checkpoints that may go, oldest first.
pub fn superfluous<'a>(
    recorded: &'a [Recorded],
    retention: &Retention,
    now: Timestamp,
) -> Vec<&'a Recorded> {
    let mut ours: Vec<&Recorded> = recorded
        .iter()
        .filter(|r| r.kind == BarrierKind::Checkpoint)
        .collect();
    ours.sort_by_key(|r| r.id);
    let retain = retention.retain.max(1);
    let Some(first_kept) = ours.len().checked_sub(retain).filter(|old| *old > 0) else {
        return Vec::new();
    };
    let (old, kept) = ours.split_at(first_kept);
    // Each became superfluous when as many newer ones as are kept were complete.
    let newer = |at: usize| old.iter().chain(kept).skip(at + 1).take(retain);
    let since = |at: usize| newer(at).map(|r| r.completed).max();
    let due = |at: &usize| since(*at).is_some_and(|since| since.plus(retention.grace) <= now);
    (0..old.len()).filter(due).map(|at| old[at]).collect()
}

/// The files that checkpoints name.
pub fn files_of<'a>(recorded: impl IntoIterator<Item = &'a Recorded>) -> BTreeSet<&'a str> {
    let all = recorded.into_iter().flat_map(|r| &r.files);
    all.map(String::as_str).collect()
}

/// The shared files that a checkpoint names, was not written for itself, and no recorded one holds any
/// more: with such a file missing it must not become complete.
pub fn lost_files(
    registry: &dyn CheckpointRegistry,
    metadata: &CheckpointMetadata,
) -> Result<Vec<String>> {
    let shared = metadata.subtasks.iter().flat_map(|s| s.index.shared());
    let named: Vec<&str> = shared
        .filter(|file| file.since != metadata.id)
        .map(|file| file.file.path.as_str())
        .collect();
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let recorded = registry.recorded()?;
    let held = files_of(&recorded);
    let lost = named.into_iter().filter(|path| !held.contains(path));
    Ok(lost.map(str::to_owned).collect())
}

/// What a clean-up deletes, or deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanUp {
    /// The superfluous checkpoints.
    pub checkpoints: Vec<CheckpointId>,
    /// All files that go, those of the checkpoints among them.
    pub files: Vec<Stored>,
}

impl CleanUp {
    /// How many bytes come free.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }
}

/// Deletes the checkpoints that are superfluous, and the shared files that only they named. To be
/// called when a checkpoint is complete.
pub fn retire(
    storage: &dyn CheckpointStorage,
    registry: &dyn CheckpointRegistry,
    retention: &Retention,
    now: Timestamp,
) -> Result<CleanUp> {
    let recorded = registry.recorded()?;
    let old = superfluous(&recorded, retention, now);
    if old.is_empty() {
        return Ok(CleanUp::default());
    }
    let gone = |r: &&Recorded| old.iter().any(|o| o.folder == r.folder);
    let needed = files_of(recorded.iter().filter(|r| !gone(r)));
    let named = files_of(old.iter().copied());
    let ours = |path: &str| {
        let folder = path.split('/').next().unwrap_or_default();
        named.contains(path) || old.iter().any(|o| o.folder == folder)
    };
    let mut cleaned = CleanUp::default();
    for file in storage.list("")? {
        if ours(&file.path) && !needed.contains(file.path.as_str()) {
            cleaned.files.push(file);
        }
    }
    for checkpoint in &old {
        // Metadata first: what dies on the way leaves orphans, not a checkpoint without its files.
        registry.forget(checkpoint)?;
        cleaned.checkpoints.push(checkpoint.id);
    }
    for file in &cleaned.files {
        storage.delete(&file.path)?;
    }
    // All that stay are newer: where the job was stopped before them tells nothing any more.
    let kept = recorded
        .iter()
        .filter(|r| !gone(r) && r.kind == BarrierKind::Checkpoint);
    if let Some(oldest) = kept.map(|r| r.id).min() {
        for id in stopped::recorded(storage)? {
            if id < oldest {
                storage.delete(&stopped::path(id))?;
            }
        }
    }
    Ok(cleaned)
}

/// Deletes a checkpoint that was given up: metadata first, then the files of its folder. Shared
/// files stay for the sweep: another checkpoint may name them.
pub fn discard(storage: &dyn CheckpointStorage, folder: &str) -> Result {
    if parse_folder(folder).is_none() {
        return Err(Error::BadPath {
            path: folder.to_owned(),
            reason: "it is not the folder of a checkpoint",
        });
    }
    storage.delete(&join(folder, METADATA))?;
    let files = storage.list(folder)?;
    files.iter().try_for_each(|file| storage.delete(&file.path))
}

/// The files in a job's folder that no recorded checkpoint names and that are older than any
/// checkpoint under way can be. Savepoints and what is not ours are left alone.
pub fn orphans(
    stored: Vec<Stored>,
    recorded: &[Recorded],
    retention: &Retention,
    now: Timestamp,
) -> Vec<Stored> {
    let needed = files_of(recorded);
    let orphan = |file: &Stored| {
        let Some((folder, name)) = file.path.split_once('/') else {
            return false;
        };
        let kind = parse_folder(folder).map(|(_, kind)| kind);
        // A claim stays; one that was never written whole doesn't.
        let claimed = folder == CLAIMS && name.parse::<u64>().is_err();
        let ours = claimed || folder == SHARED || kind == Some(BarrierKind::Checkpoint);
        let old = file.modified.plus(retention.orphan_age) < now;
        ours && old && !needed.contains(file.path.as_str())
    };
    stored.into_iter().filter(orphan).collect()
}

/// Finds orphans, and deletes them unless this is a dry run.
pub fn sweep(
    storage: &dyn CheckpointStorage,
    registry: &dyn CheckpointRegistry,
    retention: &Retention,
    now: Timestamp,
    dry: bool,
) -> Result<CleanUp> {
    // The record first: a checkpoint that is completed meanwhile is too young to be swept.
    let recorded = registry.recorded()?;
    let files = orphans(storage.list("")?, &recorded, retention, now);
    if !dry {
        files
            .iter()
            .try_for_each(|file| storage.delete(&file.path))?;
    }
    Ok(CleanUp {
        checkpoints: Vec::new(),
        files,
    })
}

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
