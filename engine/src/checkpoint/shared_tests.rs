//! Which files are stored anew, over any history of checkpoints that are completed or given up.

use super::*;
use crate::checkpoint::image::{OperatorImage, StateImage, StateKind};
use crate::checkpoint::{Barrier, Timing};
use crate::testing::MemoryStorage;
use crate::time::Timestamp;
use proptest::prelude::*;

struct Files {
    names: Vec<String>,
    stored: StoredFiles,
}

impl LocalFiles for Files {
    fn names(&self) -> std::result::Result<Vec<String>, String> {
        Ok(self.names.clone())
    }

    fn read(&self, name: &str) -> std::result::Result<Vec<u8>, String> {
        match name {
            "lost" => Err("it is lost".to_owned()),
            name => Ok(format!("content of {name}").into_bytes()),
        }
    }

    fn stored(&self) -> &StoredFiles {
        &self.stored
    }
}

fn image(id: u64, names: &[&str], stored: &StoredFiles) -> SubtaskImage {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let local: Arc<dyn LocalFiles> = Arc::new(Files {
        names,
        stored: stored.clone(),
    });
    let files = FilesImage {
        local: Local(Some(local)),
        ..FilesImage::default()
    };
    SubtaskImage {
        barrier: Barrier::checkpoint(id),
        task: 0,
        subtask: 0,
        operators: vec![OperatorImage {
            uid: "count".to_owned(),
            name: "count".to_owned(),
            max_parallelism: 8,
            parallelism: 1,
            watermark: Timestamp(0),
            states: vec![StateImage {
                name: "values".to_owned(),
                kind: StateKind::Keyed,
                key_type: "u64".to_owned(),
                value_type: "u64".to_owned(),
                data: StateData::Files(files),
            }],
        }],
        timing: Timing::default(),
        positions: Vec::new(),
    }
}

/// The name, the checkpoint that stored it, the path.
type Stored = (String, u64, String);

/// The names of a checkpoint's files, the checkpoint that each was stored for, and its path.
fn store(storage: &MemoryStorage, id: u64, names: &[&str], stored: &StoredFiles) -> Vec<Stored> {
    let mut image = image(id, names, stored);
    store_files(storage, CheckpointId(id), &mut image).expect("stores");
    let StateData::Files(files) = &image.operators[0].states[0].data else {
        panic!("it is in files");
    };
    let files = files.index.files.iter();
    files
        .map(|f| (f.name.clone(), f.since.0, f.file.path.clone()))
        .collect()
}

fn since(files: &[(String, u64, String)]) -> Vec<(&str, u64)> {
    files.iter().map(|f| (f.0.as_str(), f.1)).collect()
}

fn completed(id: u64) -> Notice {
    let id = CheckpointId(id);
    Notice::Completed { id, last: false }
}

#[test]
fn only_what_no_complete_checkpoint_holds_is_stored() {
    let (storage, stored) = (MemoryStorage::default(), StoredFiles::default());
    let first = store(&storage, 1, &["a", "b"], &stored);
    assert_eq!(since(&first), [("a", 1), ("b", 1)]);
    let second = store(&storage, 2, &["a", "c"], &stored);
    assert_eq!(
        since(&second),
        [("a", 2), ("c", 2)],
        "1 is not known to be complete"
    );
    stored.settled(completed(1));
    stored.settled(Notice::Aborted {
        id: CheckpointId(2),
    });
    let third = store(&storage, 3, &["a", "c"], &stored);
    assert_eq!(since(&third), [("a", 1), ("c", 3)]);
    assert_eq!(third[0].2, first[0].2);
    stored.settled(completed(3));
    let fourth = store(&storage, 4, &["a", "b", "c"], &stored);
    assert_eq!(since(&fourth), [("a", 1), ("b", 4), ("c", 3)], "3 has no b");
}

#[test]
fn what_can_t_be_stored_whole_leaves_nothing() {
    let (storage, stored) = (MemoryStorage::default(), StoredFiles::default());
    let mut image = image(1, &["a", "lost"], &stored);
    let error = store_files(&storage, CheckpointId(1), &mut image).expect_err("one is lost");
    assert!(error.to_string().contains("it is lost"), "{error}");
    assert_eq!(storage.paths(), Vec::<String>::new());
    stored.settled(completed(1));
    assert_eq!(stored.find("a"), None);
}

#[test]
fn a_changed_byte_and_another_length_are_found() {
    let file = FileRef {
        path: "shared/1".to_owned(),
        length: 3,
        checksum: Checksum::of(b"abc"),
    };
    check_shared("f", b"abc", &file).expect("as it was");
    for bytes in [b"abd".as_slice(), b"ab"] {
        let error = check_shared("f", bytes, &file).expect_err("changed");
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}

#[test]
fn a_file_of_many_pieces_is_verified_to_its_last_byte() {
    let storage = MemoryStorage::default();
    let mut bytes = vec![3; 2 * PIECE as usize + 5];
    let file = FileRef {
        path: "shared/1".to_owned(),
        length: bytes.len() as u64,
        checksum: Checksum::of(&bytes),
    };
    let verified = |bytes: &[u8]| {
        storage.delete(&file.path).expect("deletes");
        storage.write(&file.path, &[bytes]).expect("writes");
        verify_shared(&storage, &file.path, &file)
    };
    verified(&bytes).expect("as it was");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    verified(&bytes).expect_err("its last byte");
    bytes[last] ^= 1;
    verified(&bytes[..last]).expect_err("shorter");
    bytes.push(3);
    verified(&bytes).expect_err("longer");
    storage.delete(&file.path).expect("deletes");
    let missing = verify_shared(&storage, &file.path, &file).expect_err("missing");
    assert!(missing.to_string().contains("shared/1"), "{missing}");
}

proptest! {
    /// Whatever is completed or given up, in order: each file that a complete checkpoint names was stored
    /// with the content of that name, for itself or for a checkpoint that is complete too.
    #[test]
    fn a_complete_checkpoint_names_what_complete_ones_stored(
        steps in prop::collection::vec((prop::collection::vec(0..9u8, 0..6), any::<bool>(), 0..3usize), 1..30),
    ) {
        let (storage, stored) = (MemoryStorage::default(), StoredFiles::default());
        let mut complete: Vec<(u64, Vec<Stored>)> = Vec::new();
        let mut open: Vec<(u64, Vec<Stored>)> = Vec::new();
        for (id, (names, good, settle)) in (1..).zip(steps) {
            let mut names: Vec<String> = names.iter().map(|n| format!("n{n}")).collect();
            names.sort_unstable();
            names.dedup();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            open.push((id, store(&storage, id, &names, &stored)));
            for _ in 0..settle.min(open.len()) {
                let (id, files) = open.remove(0);
                if good {
                    stored.settled(completed(id));
                    complete.push((id, files));
                } else {
                    stored.settled(Notice::Aborted { id: CheckpointId(id) });
                }
            }
        }
        for (id, files) in &complete {
            for (name, since, path) in files {
                let known = complete.iter().any(|(other, _)| other == since);
                prop_assert!(known && since <= id);
                let bytes = storage.read(path, 100).expect("is there");
                prop_assert_eq!(bytes, format!("content of {name}").into_bytes());
            }
        }
    }
}
