//! From stored files back to what a job goes on from; nothing unverified gets through.

use super::barrier::{BarrierKind, CheckpointId};
use super::error::{Error, Result};
use super::file;
use super::image::SubtaskImage;
use super::index::SubtaskIndex;
use super::metadata::{CheckpointMetadata, SubtaskFile};
use super::restore::RestoredJob;
use super::stopped::{self, Located, Stopped};
use super::storage::{
    CheckpointStorage, METADATA, checkpoint_folder, checkpoints, join, read_metadata,
};
use super::stream;
use std::fmt;
use std::sync::Arc;

/// Which checkpoint of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which<'a> {
    /// The ordinary checkpoint of this number.
    Id(CheckpointId),
    /// The checkpoint or savepoint in this folder; empty where the storage itself is the folder.
    Folder(&'a str),
}

/// A checkpoint that was read and verified.
pub struct Loaded {
    /// What it says of itself.
    pub metadata: CheckpointMetadata,
    /// What the job goes on from.
    pub job: RestoredJob,
    /// Its folder.
    pub folder: String,
    /// The storage that the folder is in, where that is another one than was asked.
    pub elsewhere: Option<Arc<dyn CheckpointStorage>>,
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = &self.folder;
        write!(f, "Loaded({folder}: {:?}, {:?})", self.metadata, self.job)
    }
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
    Ok(Loaded {
        metadata,
        job,
        folder,
        elsewhere: None,
    })
}

/// The checkpoint that a job goes on from, as its folder tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Newest {
    /// The complete checkpoint of this number.
    Checkpoint(CheckpointId),
    /// The savepoint of this number, which ended the job: see [`super::stopped`].
    Stopped(CheckpointId),
}

impl Newest {
    /// Its number.
    pub fn id(&self) -> CheckpointId {
        match self {
            Newest::Checkpoint(id) | Newest::Stopped(id) => *id,
        }
    }
}

/// What a job goes on from: its newest complete checkpoint, or the savepoint with which it was stopped
/// after that. A savepoint that the job went on after is nothing to it: no sink committed because of it.
pub fn newest(storage: &dyn CheckpointStorage) -> Result<Option<Newest>> {
    let checkpoint = own_checkpoints(storage)?.pop().map(Newest::Checkpoint);
    let stopped = stopped::recorded(storage)?.pop().map(Newest::Stopped);
    Ok(checkpoint.into_iter().chain(stopped).max_by_key(Newest::id))
}

/// The complete checkpoints that a job took for itself, oldest first.
fn own_checkpoints(storage: &dyn CheckpointStorage) -> Result<Vec<CheckpointId>> {
    let all = checkpoints(storage)?.into_iter();
    let own = all.filter(|l| l.complete && l.kind == BarrierKind::Checkpoint);
    Ok(own.map(|listed| listed.id).collect())
}

/// Reads what a job goes on from. If it is damaged, that is an error: an older one is never taken
/// instead unless a person names it.
pub fn latest(storage: &dyn CheckpointStorage) -> Result<Loaded> {
    let Some(newest) = newest(storage)? else {
        return Err(Error::NoCheckpoint {
            place: storage.place(""),
        });
    };
    let mut place = String::new();
    let loaded = match newest {
        Newest::Checkpoint(id) => {
            place = storage.place(&checkpoint_folder(id));
            load(storage, Which::Id(id))
        }
        Newest::Stopped(id) => stopped_at(storage, id, &mut place),
    };
    let others = own_checkpoints(storage)?.into_iter().rev();
    let others = others.filter(|id| *id < newest.id());
    loaded.map_err(|cause| Error::NewestUnusable {
        what: match newest {
            Newest::Checkpoint(_) => "checkpoint",
            Newest::Stopped(_) => "savepoint, with which the job was stopped",
        },
        newest: newest.id(),
        folder: place,
        cause: Box::new(cause),
        others: others
            .map(|id| storage.place(&checkpoint_folder(id)))
            .collect(),
    })
}

fn stopped_at(
    storage: &dyn CheckpointStorage,
    id: CheckpointId,
    place: &mut String,
) -> Result<Loaded> {
    *place = storage.place(&stopped::path(id));
    let stopped = Stopped::read(storage, id)?;
    let located = stopped.savepoint(storage)?;
    let (storage, folder) = located.parts();
    *place = storage.place(folder);
    let mut loaded = load(storage, Which::Folder(folder))?;
    if loaded.metadata.id == id {
        if let Located::Elsewhere(storage, _) = &located {
            loaded.elsewhere = Some(storage.clone());
        }
        return Ok(loaded);
    }
    let metadata = storage.place(&join(folder, METADATA));
    let reason = format!("it is that of checkpoint {}", loaded.metadata.id);
    Err(Error::damaged(&metadata, "the number", reason))
}

/// Reads a subtask's file and compares it with what the metadata says of it.
pub fn read_image(
    storage: &dyn CheckpointStorage,
    folder: &str,
    subtask: &SubtaskFile,
) -> Result<SubtaskImage> {
    if subtask.file.length > stream::READ_WHOLE {
        return stream::read_large(storage, folder, subtask);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::image::{OperatorImage, StateData, StateImage, StateKind};
    use crate::checkpoint::{Barrier, BarrierKind, Timing, publish, publish_to, write_image};
    use crate::testing::MemoryStorage;
    use crate::time::Timestamp;

    fn image(id: u64, subtask: u32) -> SubtaskImage {
        let splits = StateImage {
            name: "splits".to_owned(),
            kind: StateKind::List,
            key_type: String::new(),
            value_type: "u8".to_owned(),
            data: StateData::Elements(vec![vec![subtask as u8]]),
        };
        SubtaskImage {
            barrier: Barrier::checkpoint(id),
            task: 0,
            subtask,
            operators: vec![OperatorImage {
                uid: "source".to_owned(),
                name: "source".to_owned(),
                max_parallelism: 128,
                parallelism: 2,
                watermark: Timestamp(1),
                states: vec![splits],
            }],
            timing: Timing::default(),
            positions: Vec::new(),
        }
    }

    /// Takes a checkpoint of two subtasks; the paths of their files.
    fn take(storage: &MemoryStorage, id: u64) -> Vec<String> {
        let id = CheckpointId(id);
        let mut metadata = CheckpointMetadata::new(id, BarrierKind::Checkpoint, "job");
        for subtask in [1, 0] {
            let file = write_image(storage, id, &image(id.0, subtask)).expect("writes");
            metadata.subtasks.push(file);
        }
        publish(storage, &metadata).expect("publishes");
        let files = metadata.subtasks.iter();
        files
            .map(|s| join(&checkpoint_folder(id), &s.file.path))
            .collect()
    }

    #[test]
    fn the_newest_complete_checkpoint_is_loaded() {
        let storage = MemoryStorage::default();
        for id in [9, 10] {
            take(&storage, id);
        }
        let id = CheckpointId(11);
        write_image(&storage, id, &image(11, 0)).expect("writes, and is never published");
        let loaded = latest(&storage).expect("loads");
        assert_eq!(loaded.job.id, CheckpointId(10));
        assert_eq!(
            loaded.job.all_elements("source", "splits"),
            [[0], [1]],
            "by subtask"
        );
        assert_eq!(
            load(&storage, Which::Id(CheckpointId(9)))
                .expect("loads")
                .metadata
                .id,
            CheckpointId(9)
        );
    }

    #[test]
    fn a_damaged_newest_one_is_an_error_that_names_the_file_and_the_way_out() {
        let storage = MemoryStorage::default();
        take(&storage, 1);
        take(&storage, 2);
        let files = take(&storage, 3);
        storage.damage(&files[1], |bytes| bytes[30] ^= 4);
        let error = latest(&storage).expect_err("damaged").to_string();
        assert!(error.contains("the newest checkpoint, 3"), "{error}");
        assert!(error.contains(&files[1]), "{error}");
        assert!(error.contains("--restore memory:chk-2"), "{error}");
    }

    #[test]
    fn a_missing_file_a_cut_off_one_and_a_longer_one_are_named() {
        for (change, word) in [(0, "missing"), (1, "had"), (2, "more than")] {
            let storage = MemoryStorage::default();
            let files = take(&storage, 3);
            match change {
                0 => storage.delete(&files[0]).expect("deletes"),
                1 => storage.damage(&files[0], |bytes| bytes.truncate(50)),
                _ => storage.damage(&files[0], |bytes| bytes.push(0)),
            }
            let error = latest(&storage).expect_err("damaged").to_string();
            assert!(error.contains(&files[0]) && error.contains(word), "{error}");
        }
    }

    #[test]
    fn files_that_were_mixed_up_are_found() {
        let storage = MemoryStorage::default();
        let files = take(&storage, 3);
        let other = storage.read(&files[1], u64::MAX).expect("reads");
        storage.damage(&files[0], |bytes| *bytes = other);
        let error = latest(&storage).expect_err("mixed up").to_string();
        assert!(error.contains("files were mixed up"), "{error}");
        let metadata = storage.read("chk-3/_metadata", u64::MAX).expect("reads");
        storage
            .publish("chk-4/_metadata", &metadata)
            .expect("writes");
        let error = latest(&storage).expect_err("mixed up").to_string();
        assert!(error.contains("it is that of checkpoint 3"), "{error}");
    }

    /// A savepoint without subtasks; where the job ended with it, that is recorded.
    fn savepoint(own: &MemoryStorage, id: u64, kind: BarrierKind, folder: &str) {
        let metadata = CheckpointMetadata::new(CheckpointId(id), kind, "job");
        publish_to(own, folder, &metadata).expect("publishes");
        if kind == BarrierKind::Stop {
            let stopped = Stopped::new(own, CheckpointId(id), (own, folder));
            stopped.record(own).expect("writes");
        }
    }

    #[test]
    fn a_job_goes_on_from_where_it_was_stopped_and_not_from_a_savepoint_on_its_way() {
        let storage = MemoryStorage::default();
        take(&storage, 3);
        savepoint(&storage, 4, BarrierKind::Savepoint, "savepoint-4-ab");
        let found = |storage| latest(storage).expect("loads").metadata;
        assert_eq!(found(&storage).id, CheckpointId(3));
        storage.damage("savepoint-4-ab/_metadata", |bytes| bytes.truncate(3));
        assert_eq!(
            found(&storage).id,
            CheckpointId(3),
            "it is nothing to the job"
        );
        savepoint(&storage, 5, BarrierKind::Stop, "mine");
        assert_eq!(found(&storage).kind, BarrierKind::Stop);
        take(&storage, 6);
        assert_eq!(found(&storage).id, CheckpointId(6), "it went on");
    }

    #[test]
    fn a_lost_savepoint_that_ended_the_job_is_an_error() {
        let storage = MemoryStorage::default();
        take(&storage, 3);
        savepoint(&storage, 5, BarrierKind::Stop, "mine");
        storage.delete("mine/_metadata").expect("deletes");
        let error = latest(&storage).expect_err("gone").to_string();
        for words in [
            "with which the job was stopped, 5",
            "mine/_metadata",
            "--restore memory:chk-3",
        ] {
            assert!(error.contains(words), "{error}");
        }
        storage.damage("stopped-5", |bytes| bytes[30] ^= 1);
        let error = latest(&storage).expect_err("damaged").to_string();
        assert!(error.contains("memory:stopped-5 is damaged"), "{error}");
    }

    #[test]
    fn a_storage_without_checkpoints_says_so() {
        let error = latest(&MemoryStorage::default()).expect_err("empty");
        assert!(error.to_string().contains("no complete checkpoint"));
    }
}
