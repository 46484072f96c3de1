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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::image::{OperatorImage, StateData, StateImage, StateKind};
    use crate::checkpoint::{Barrier, BarrierKind, Timing, publish, write_image};
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

    #[test]
    fn a_storage_without_checkpoints_says_so() {
        let error = latest(&MemoryStorage::default()).expect_err("empty");
        assert!(error.to_string().contains("no complete checkpoint"));
    }
}
