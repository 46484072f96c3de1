//! Files that are written piece by piece are those of others, and damage to them is found.

use super::*;
use crate::checkpoint::image::{OperatorImage, StateImage, StateKind};
use crate::checkpoint::metadata::FileRef;
use crate::checkpoint::shared::FilesOrigin;
use crate::checkpoint::write_image_to;
use crate::checkpoint::{Barrier, CheckpointId, RestoredJob, StateVisitor, Timing, load};
use crate::hash::{key_group, key_hash, owner_of_group};
use crate::state::KeyTable;
use crate::testing::MemoryStorage;
use crate::time::Timestamp;

const GROUPS: u32 = 8;

/// Numbers, in the order of their key groups.
struct Numbers(Vec<u64>);

impl Numbers {
    fn until(end: u64) -> Box<Self> {
        let mut all: Vec<u64> = (0..end).collect();
        all.sort_by_key(|n| std::cmp::Reverse(key_group(key_hash(n), GROUPS)));
        Box::new(Numbers(all))
    }
}

impl EntryStream for Numbers {
    fn next(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        for _ in 0..budget {
            let Some(n) = self.0.pop() else { break };
            into.put(key_hash(&n), &(n, n * 3))?;
        }
        Ok(self.0.is_empty())
    }
}

fn state(name: &str, kind: StateKind, data: StateData) -> StateImage {
    let (key_type, value_type) = match kind {
        StateKind::Keyed => ("u64", "u64"),
        _ => ("", "u8"),
    };
    StateImage {
        name: name.to_owned(),
        kind,
        key_type: key_type.to_owned(),
        value_type: value_type.to_owned(),
        data,
    }
}

fn image(count: u64) -> SubtaskImage {
    let mut section = KeyedSection::new(GROUPS);
    section.put_stream(Numbers::until(count));
    SubtaskImage {
        barrier: Barrier::checkpoint(3),
        task: 0,
        subtask: 0,
        operators: vec![OperatorImage {
            uid: "count".to_owned(),
            name: "count".to_owned(),
            max_parallelism: GROUPS,
            parallelism: 1,
            watermark: Timestamp(5),
            states: vec![
                state("list", StateKind::List, StateData::Elements(vec![vec![9]])),
                state("numbers", StateKind::Keyed, section.into_data()),
            ],
        }],
        timing: Timing::default(),
        positions: Vec::new(),
    }
}

fn written(storage: &MemoryStorage, count: u64) -> SubtaskFile {
    write_image_to(storage, "chk-3", &image(count)).expect("writes")
}

#[test]
fn what_was_streamed_is_read_whole_and_piece_by_piece() {
    let storage = MemoryStorage::default();
    let file = written(&storage, 1000);
    let sections = file.index.sections().len() as u32;
    assert!(sections > GROUPS * 3, "{sections} sections are small ones");
    let whole = load::read_image(&storage, "chk-3", &file).expect("reads");
    let pieces = read_large(&storage, "chk-3", &file).expect("reads");
    assert_eq!(whole.operators[0].states[0], pieces.operators[0].states[0]);
    let stored = &pieces.operators[0].states[1].data;
    assert!(matches!(stored, StateData::Stored(_)), "{stored:?}");
    let origin = FilesOrigin {
        storage: std::sync::Arc::new(storage),
        own: true,
    };
    for image in [whole, pieces] {
        for parallelism in 1..4 {
            let mut seen = 0;
            for me in 0..parallelism {
                let operators = image.operators.clone().into_iter().map(|o| (0, o));
                let job = RestoredJob::new(CheckpointId(3), operators).with_files(origin.clone());
                let mine = job.operator("count", me, parallelism, GROUPS);
                let mut mine = mine.expect("fits").expect("was saved");
                let mut table: KeyTable<u64, u64> = KeyTable::default();
                let mut visitor = StateVisitor::load(&mut mine);
                visitor.keyed("numbers", &mut table).expect("loads");
                for (key, value) in table.iter() {
                    let group = key_group(key_hash(key), GROUPS);
                    assert_eq!(owner_of_group(group, GROUPS, parallelism), me);
                    assert_eq!(*value, key * 3);
                }
                seen += table.len();
            }
            assert_eq!(seen, 1000);
        }
    }
}

#[test]
fn any_byte_that_is_another_is_found_and_so_is_a_length() {
    let storage = MemoryStorage::default();
    let file = written(&storage, 60);
    let path = join("chk-3", &file.file.path);
    read_large(&storage, "chk-3", &file).expect("reads");
    for place in 0..file.file.length as usize {
        storage.damage(&path, |bytes| bytes[place] ^= 4);
        let error = read_large(&storage, "chk-3", &file).expect_err("damaged");
        assert!(error.to_string().contains(&path), "{error}");
        storage.damage(&path, |bytes| bytes[place] ^= 4);
    }
    storage.damage(&path, |bytes| bytes.push(0));
    read_large(&storage, "chk-3", &file).expect_err("longer");
    storage.damage(&path, |bytes| bytes.truncate(bytes.len() - 2));
    read_large(&storage, "chk-3", &file).expect_err("shorter");
}

#[test]
fn another_intact_file_is_told_from_the_one_that_is_named() {
    let storage = MemoryStorage::default();
    let (file, other) = (written(&storage, 60), written(&storage, 61));
    let other = storage.read(&join("chk-3", &other.file.path), u64::MAX);
    let other = other.expect("reads");
    let mixed = SubtaskFile {
        file: FileRef {
            length: other.len() as u64,
            ..file.file.clone()
        },
        ..file.clone()
    };
    storage.damage(&join("chk-3", &file.file.path), |bytes| *bytes = other);
    let error = read_large(&storage, "chk-3", &mixed).expect_err("mixed up");
    assert!(error.to_string().contains("mixed up"), "{error}");
}

#[test]
fn a_state_that_can_t_be_read_leaves_no_file() {
    struct Lost;
    impl EntryStream for Lost {
        fn next(&mut self, _: &mut KeyedSection, _: usize) -> Flow<bool> {
            Err(Fault::internal("the disk is gone"))
        }
    }
    let storage = MemoryStorage::default();
    let mut image = image(1);
    let mut section = KeyedSection::new(GROUPS);
    section.put_stream(Box::new(Lost));
    image.operators[0].states[1].data = section.into_data();
    let error = write_image_to(&storage, "chk-3", &image).expect_err("can't be read");
    assert!(error.to_string().contains("the disk is gone"), "{error}");
    assert!(storage.list("").expect("lists").is_empty());
}
