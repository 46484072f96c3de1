//! Tests of states that are divided as they grow: that nothing is lost on the way, and that merges are spread.

use super::database::Database;
use super::incremental_tests::{completed, files, job, save, spilled};
use super::layout::part_number;
use super::tests::{GROUPS, Model, Table, all, coordinator_with, load, temporary, turn};
use super::{RocksSpill, StateCoordinator};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_engine::checkpoint::OperatorImage;
use tidegate_engine::hash::key_hash;
use tidegate_engine::state::backing::Spill;
use tidegate_engine::testing::MemoryStorage;

/// A state of some ten thousand entries is divided with it.
const SMALL_BUFFER: u64 = 64 << 10;
/// Checkpoints of the test of merges.
const ROUNDS: u64 = 8;

/// What no compression makes much smaller.
fn value(key: u64, version: u64) -> (u64, String) {
    let mut random = key_hash(&(key, version));
    let words = (0..5).map(|_| {
        random = key_hash(&random);
        format!("{random:016x}")
    });
    (version, words.collect())
}

/// A table whose entries are in files but for very few, and its database.
struct State {
    table: Table,
    spill: RocksSpill,
    model: Model,
    storage: Arc<MemoryStorage>,
    next: u64,
}

impl State {
    fn open(state: &StateCoordinator, storage: &Arc<MemoryStorage>) -> Self {
        let (table, spill) = spilled(state);
        State {
            table,
            spill,
            model: Model::new(),
            storage: storage.clone(),
            next: 1,
        }
    }

    fn set(&mut self, key: u64, version: u64) {
        let (value, hash) = (value(key, version), key_hash(&key));
        self.table.set(hash, key, value.clone()).expect("sets");
        self.model.insert(key, value);
    }

    fn remove(&mut self, key: u64) {
        let removed = self.table.remove(key_hash(&key), &key).expect("removes");
        assert_eq!(removed, self.model.remove(&key));
    }

    fn database(&self) -> Arc<Database> {
        self.spill.backend.databases().remove(0)
    }

    fn is_moving(&self) -> bool {
        let layout = self.database().layout(GROUPS).expect("reads");
        layout.moving().is_some()
    }

    fn is_divided(&self) -> bool {
        let layout = self.database().layout(GROUPS).expect("reads");
        layout.is_divided() && layout.moving().is_none()
    }

    /// Saves it as files; the bytes that had to be stored.
    fn checkpoint(&mut self, parallelism: u32) -> (OperatorImage, u64) {
        let id = self.next;
        self.next += 1;
        let saved = save(&mut self.table, id, parallelism, &self.storage, |_| {});
        self.spill.settled(completed(id));
        saved
    }
}

/// Restores what subtasks saved at another parallelism.
fn restored(
    state: &StateCoordinator,
    images: &[OperatorImage],
    storage: &Arc<MemoryStorage>,
    parallelism: u32,
) -> Vec<State> {
    let job = job(images.iter().cloned(), storage, true);
    let subtask = |me| {
        let mut new = State::open(state, storage);
        load(&mut new.table, &job, me, parallelism);
        new.next = 1000;
        new.model = all(&mut new.table);
        new
    };
    (0..parallelism).map(subtask).collect()
}

fn together(subtasks: &[State]) -> Model {
    let models = subtasks.iter().map(|subtask| &subtask.model);
    let whole: Model = models
        .clone()
        .flatten()
        .map(|(k, v)| (*k, v.clone()))
        .collect();
    assert_eq!(whole.len(), models.map(|model| model.len()).sum::<usize>());
    whole
}

#[test]
fn a_state_is_divided_as_it_grows_and_each_checkpoint_on_the_way_brings_it_back() {
    let folder = temporary();
    let coordinator = coordinator_with(folder.path(), 60_000, SMALL_BUFFER);
    let storage = Arc::new(MemoryStorage::default());
    let mut state = State::open(&coordinator, &storage);
    let (mut key, mut moving, mut formats) = (0, 0, BTreeSet::new());
    while !state.is_divided() {
        assert!(key < 100_000, "it is divided long before");
        for _ in 0..500 {
            state.set(key, 0);
            state.set(key_hash(&key) % (key + 1), 1);
            state.remove(key_hash(&(key + 1)) % (key + 1));
            key += 1;
            if key % 50 == 0 {
                turn(&mut state.table);
            }
        }
        if key % 2500 == 0 || state.is_moving() {
            let (image, _) = state.checkpoint(1);
            formats.insert(files(&image).index.format.clone());
            moving += usize::from(state.is_moving());
            for parallelism in [1, 3] {
                let images = std::slice::from_ref(&image);
                let subtasks = restored(&coordinator, images, &storage, parallelism);
                assert!(together(&subtasks) == state.model, "at {key}");
            }
        }
        assert!(all(&mut state.table) == state.model);
    }
    assert!(moving > 2, "checkpoints while entries move: {moving}");
    assert_eq!(Vec::from_iter(formats), ["rocksdb", "rocksdb-parts"]);
    let families = state
        .database()
        .property_of("uid/values", "rocksdb.live-sst-files-size");
    assert_eq!(families, 0, "the family of the whole is dropped");
    // One that was not divided goes on as one that is, at any parallelism, and its subtasks may differ in it.
    let (image, _) = state.checkpoint(1);
    let mut three = restored(&coordinator, &[image], &storage, 3);
    let images: Vec<_> = three
        .iter_mut()
        .map(|subtask| subtask.checkpoint(3).0)
        .collect();
    for parallelism in [1, 2, 5] {
        let subtasks = restored(&coordinator, &images, &storage, parallelism);
        assert!(
            together(&subtasks) == state.model,
            "parallelism {parallelism}"
        );
    }
}

#[test]
fn subtasks_of_which_some_are_divided_become_others() {
    let folder = temporary();
    let coordinator = coordinator_with(folder.path(), 60_000, SMALL_BUFFER);
    let storage = Arc::new(MemoryStorage::default());
    let mut state = State::open(&coordinator, &storage);
    for key in 0..20_000 {
        state.set(key, 0);
        if key % 50 == 0 {
            turn(&mut state.table);
        }
        if state.is_moving() {
            break;
        }
    }
    let (image, _) = state.checkpoint(1);
    let mut two = restored(&coordinator, &[image], &storage, 2);
    // The first goes on until it is divided, the other stays on the way.
    let keys: Vec<u64> = two[0].model.keys().copied().collect();
    for version in 2.. {
        for key in &keys {
            two[0].set(*key, version);
            turn(&mut two[0].table);
        }
        if two[0].is_divided() {
            break;
        }
    }
    assert!(two[1].is_moving());
    let expected = together(&two);
    let images: Vec<_> = two
        .iter_mut()
        .map(|subtask| subtask.checkpoint(2).0)
        .collect();
    for parallelism in [1, 2, 3, 16] {
        let subtasks = restored(&coordinator, &images, &storage, parallelism);
        assert!(together(&subtasks) == expected, "parallelism {parallelism}");
    }
}

#[test]
fn checkpoints_of_a_divided_state_merge_some_of_its_parts_in_turn() {
    let folder = temporary();
    let coordinator = coordinator_with(folder.path(), 60_000, SMALL_BUFFER);
    let storage = Arc::new(MemoryStorage::default());
    let mut state = State::open(&coordinator, &storage);
    let mut keys = 0;
    while !state.is_divided() {
        state.set(keys, 0);
        keys += 1;
        if keys % 50 == 0 {
            turn(&mut state.table);
        }
    }
    let database = state.database();
    let part_files = || {
        let mut files = BTreeMap::<u32, (usize, usize)>::new();
        for file in database.db.live_files().expect("lists") {
            if let Some(part) = part_number(&file.column_family_name, "uid/values") {
                let (count, bytes) = files.entry(part).or_default();
                *count += 1;
                *bytes += file.size;
            }
        }
        files
    };
    let checkpoint = |state: &mut State| {
        let (_, bytes) = state.checkpoint(1);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !database.merging.is_done() {
            assert!(Instant::now() < deadline, "merges come to an end");
            std::thread::yield_now();
        }
        bytes
    };
    checkpoint(&mut state);
    for round in 1..=ROUNDS {
        let changed = (0..keys).filter(|key| key_hash(&(key, round)) % 20 == 0);
        for key in Vec::from_iter(changed) {
            state.set(key, round);
        }
        let bytes = checkpoint(&mut state);
        let whole: usize = part_files().values().map(|(_, bytes)| bytes).sum();
        assert!(bytes < whole as u64 / 3, "{round}: {bytes} of {whole}");
    }
    // Each checkpoint added a file to each part, too few of them for RocksDB to merge any by itself.
    let merged = || {
        let files = part_files();
        let few = files.values().filter(|(count, _)| *count < ROUNDS as usize);
        (few.count(), files.len())
    };
    let (merged, of) = merged();
    assert!(merged >= 4 && merged < of, "some of them: {merged} of {of}");
    assert!(all(&mut state.table) == state.model);
}
