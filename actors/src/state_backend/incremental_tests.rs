//! Tests of checkpoints as files: what is stored anew, and that all of it comes back at any parallelism.

use super::tests::{GROUPS, Model, Table, Traffic, all, coordinator, load, temporary, turn};
use super::{RocksSpill, StateCoordinator};
use std::sync::Arc;
use tidegate_engine::checkpoint::shared::{FilesOrigin, store_files};
use tidegate_engine::checkpoint::visitor::Capture;
use tidegate_engine::checkpoint::{
    Barrier, CheckpointId, CheckpointStorage, FilesImage, Notice, OperatorImage, RestoredJob,
    StateData, StateVisitor, SubtaskImage, Timing,
};
use tidegate_engine::hash::{key_group, key_hash, owner_of_group};
use tidegate_engine::state::RocksDbSettings;
use tidegate_engine::state::backing::Spill;
use tidegate_engine::testing::MemoryStorage;

/// A table in front of a new database, and what tells that of checkpoints.
pub(super) fn spilled(state: &StateCoordinator) -> (Table, RocksSpill) {
    let (_, spill) = state.create("tm-001", "job-123");
    let mut table = Table::default();
    let mut open = |name: &str| {
        let backing = spill.open("uid", name, GROUPS)?;
        Ok((GROUPS, backing, spill.memory().claim()))
    };
    let spills = StateVisitor::spill(&mut open).keyed("values", &mut table);
    spills.expect("spills");
    (table, spill)
}

/// Saves a table as files while `between` happens in each turn, and stores them.
pub(super) fn save(
    table: &mut Table,
    id: u64,
    parallelism: u32,
    storage: &MemoryStorage,
    mut between: impl FnMut(&mut Table),
) -> (OperatorImage, u64) {
    let mut capture = Capture::new(GROUPS).sharing_files(true);
    let frozen = StateVisitor::freeze(&mut capture).keyed("values", table);
    frozen.expect("freezes");
    while !capture.complete() {
        between(table);
        let saved = StateVisitor::save(&mut capture, 100).keyed("values", table);
        saved.expect("saves");
    }
    let mut image = SubtaskImage {
        barrier: Barrier::checkpoint(id),
        task: 0,
        subtask: 0,
        operators: vec![super::tests::image(capture, parallelism)],
        timing: Timing::default(),
        positions: Vec::new(),
    };
    let fresh = store_files(storage, CheckpointId(id), &mut image).expect("stores");
    let bytes = fresh.iter().map(|file| file.length).sum();
    (image.operators.remove(0), bytes)
}

pub(super) fn completed(id: u64) -> Notice {
    let id = CheckpointId(id);
    Notice::Completed { id, last: false }
}

pub(super) fn files(image: &OperatorImage) -> &FilesImage {
    match &image.states[0].data {
        StateData::Files(files) => files,
        _ => panic!("it is saved as files"),
    }
}

pub(super) fn job(
    images: impl IntoIterator<Item = OperatorImage>,
    storage: &Arc<MemoryStorage>,
    own: bool,
) -> RestoredJob {
    let storage: Arc<dyn CheckpointStorage> = storage.clone();
    let job = RestoredJob::new(CheckpointId(1), (0..).zip(images));
    job.with_files(FilesOrigin { storage, own })
}

/// Restores at a parallelism, and checks that each subtask has what is its.
fn restored(
    state: &StateCoordinator,
    job: &RestoredJob,
    parallelism: u32,
) -> (Model, Vec<(Table, RocksSpill)>) {
    let (mut whole, mut tables) = (Model::new(), Vec::new());
    for me in 0..parallelism {
        let (mut table, spill) = spilled(state);
        load(&mut table, job, me, parallelism);
        let part = all(&mut table);
        for key in part.keys() {
            let group = key_group(key_hash(key), GROUPS);
            assert_eq!(owner_of_group(group, GROUPS, parallelism), me);
        }
        whole.extend(part);
        tables.push((table, spill));
    }
    (whole, tables)
}

#[test]
fn files_bring_back_the_moment_of_the_barrier_at_any_parallelism() {
    let folder = temporary();
    let state = coordinator(folder.path(), 60_000);
    let storage = Arc::new(MemoryStorage::default());
    let ((mut table, _spill), mut model) = (spilled(&state), Model::new());
    let mut traffic = Traffic(7);
    let mut work = |table: &mut Table, model: &mut Model, count| {
        for n in 0..count {
            traffic.change(table, model, 20_000);
            if n % 200 == 0 {
                turn(table);
            }
        }
    };
    work(&mut table, &mut model, 40_000);
    let then = model.clone();
    let (image, _) = save(&mut table, 1, 1, &storage, |table| {
        work(table, &mut model, 50);
    });
    assert!(model != then, "it went on meanwhile");
    assert_eq!(all(&mut table), model);
    let (same, _) = restored(&state, &job([image.clone()], &storage, true), 1);
    assert!(same == then);
    let (three, tables) = restored(&state, &job([image], &storage, true), 3);
    assert!(three == then);
    // From three to two: one old subtask's groups are dealt out, others' are put together.
    let images: Vec<_> = tables
        .into_iter()
        .map(|(mut table, _spill)| save(&mut table, 2, 3, &storage, |_| {}).0)
        .collect();
    for parallelism in [1, 2, 3, 5] {
        let (found, _) = restored(&state, &job(images.clone(), &storage, true), parallelism);
        assert!(found == then, "parallelism {parallelism}");
    }
    let left = std::fs::read_dir(folder.path()).expect("lists").count();
    assert_eq!(left, 1, "the folder of the process");
}

#[test]
fn a_checkpoint_stores_what_changed_since_the_one_before() {
    let folder = temporary();
    // So large that there are few files, and nothing to be compacted.
    let state = StateCoordinator::new(RocksDbSettings {
        state_dir: folder.path().to_owned(),
        write_buffer_size: 16 << 20,
        table_memory: 1 << 20,
        ..RocksDbSettings::default()
    });
    let storage = Arc::new(MemoryStorage::default());
    let (mut table, spill) = spilled(&state);
    let put = |table: &mut Table, key: u64, n: u64| {
        let text = format!("{:016x}{:016x}", key_hash(&key), key_hash(&(key + n)));
        table.set(key_hash(&key), key, (n, text)).expect("sets");
    };
    for key in 0..60_000 {
        put(&mut table, key, 0);
        if key % 500 == 0 {
            turn(&mut table);
        }
    }
    let (first, all_bytes) = save(&mut table, 1, 1, &storage, turn);
    assert!(all_bytes > 1 << 20, "{all_bytes}");
    spill.settled(completed(1));
    for key in 0..600 {
        put(&mut table, key * 100, 1);
    }
    let (second, bytes) = save(&mut table, 2, 1, &storage, turn);
    assert!(bytes * 33 < all_bytes, "{bytes} of {all_bytes}");
    assert!(files(&second).index.files.len() > files(&first).index.files.len());
    spill.settled(Notice::Aborted {
        id: CheckpointId(2),
    });
    // 2 was given up: what was stored for it is nobody's.
    let (third, bytes) = save(&mut table, 3, 1, &storage, turn);
    assert!(
        bytes * 33 < all_bytes && bytes > 0,
        "{bytes} of {all_bytes}"
    );
    let since: Vec<u64> = files(&third)
        .index
        .files
        .iter()
        .map(|f| f.since.0)
        .collect();
    assert!(since.iter().all(|id| *id == 1 || *id == 3), "{since:?}");

    // A new attempt goes on with what its checkpoint holds, where that is the job's own.
    for own in [true, false] {
        let job = job([third.clone()], &storage, own);
        let (_, mut tables) = restored(&state, &job, 1);
        let (table, _) = &mut tables[0];
        put(table, 7, 2);
        let (fourth, bytes) = save(table, 4, 1, &storage, turn);
        // RocksDB may compact some of them meanwhile.
        let goes_on = files(&fourth).index.files.iter().any(|f| f.since.0 < 4);
        assert_eq!(goes_on, own, "{bytes} of {all_bytes}");
        assert!(!own || bytes < all_bytes, "{bytes} of {all_bytes}");
    }
}

#[test]
fn what_goes_on_from_a_foreign_checkpoint_needs_none_of_it_from_its_first_own_one_on() {
    let folder = temporary();
    let state = coordinator(folder.path(), 60_000);
    let foreign = Arc::new(MemoryStorage::default());
    let ((mut table, _spill), mut model) = (spilled(&state), Model::new());
    let mut traffic = Traffic(11);
    let mut work = |table: &mut Table, model: &mut Model| {
        for n in 0..5_000 {
            traffic.change(table, model, 20_000);
            if n % 200 == 0 {
                turn(table);
            }
        }
    };
    work(&mut table, &mut model);
    let (original, _) = save(&mut table, 1, 1, &foreign, turn);
    let own = Arc::new(MemoryStorage::default());
    let (same, mut tables) = restored(&state, &job([original], &foreign, false), 1);
    assert!(same == model);
    let (table, spill) = &mut tables[0];
    // The first is whole, and the next ones name its files and no others.
    let mut newest = None;
    for id in 2..5 {
        work(table, &mut model);
        let (image, _) = save(table, id, 1, &own, turn);
        spill.settled(completed(id));
        let since = files(&image).index.files.iter().map(|file| file.since.0);
        assert!(since.clone().all(|since| since >= 2), "checkpoint {id}");
        assert!(id == 2 || since.min() < Some(id), "{id} is not incremental");
        newest = Some(image);
    }
    for path in foreign.paths() {
        foreign.delete(&path).expect("deletes");
    }
    let newest = newest.expect("there were some");
    for parallelism in [1, 3] {
        let (found, _) = restored(&state, &job([newest.clone()], &own, true), parallelism);
        assert!(found == model, "parallelism {parallelism}");
    }
}

#[test]
fn jobs_with_the_same_settings_share_one_budget() {
    let folder = temporary();
    let first = coordinator(folder.path(), 60_000);
    let second = coordinator(folder.path(), 60_000);
    let other = coordinator(folder.path(), 70_000);
    let mut claim = first.memory().claim();
    claim.set(1_000);
    assert_eq!(second.memory().used(), 1_000);
    assert_eq!(other.memory().used(), 0);
}

#[test]
fn a_damaged_or_missing_file_is_named() {
    let folder = temporary();
    let state = coordinator(folder.path(), 1 << 20);
    let storage = Arc::new(MemoryStorage::default());
    let (mut table, _spill) = spilled(&state);
    for key in 0..100 {
        let value = (key, "value".to_owned());
        table.set(key_hash(&key), key, value).expect("sets");
    }
    let (image, _) = save(&mut table, 1, 1, &storage, turn);
    let path = files(&image).index.files[0].file.path.clone();
    let job = job([image], &storage, true);
    let failure = || {
        let mut saved = job.operator("uid", 0, 1, GROUPS).expect("fits");
        let (mut table, _spill) = spilled(&state);
        let mut saved = StateVisitor::load(saved.as_mut().expect("was saved"));
        let fault = saved.keyed("values", &mut table).expect_err("not whole");
        fault.to_string()
    };
    storage.damage(&path, |bytes| bytes[10] ^= 1);
    let message = failure();
    assert!(
        message.contains(&path) && message.contains("damaged"),
        "{message}"
    );
    storage.delete(&path).expect("deletes");
    let message = failure();
    assert!(
        message.contains(&path) && message.contains("missing"),
        "{message}"
    );
    // In memory it can't be read, which is told with the way out.
    let mut saved = job.operator("uid", 0, 1, GROUPS).expect("fits");
    let mut saved = StateVisitor::load(saved.as_mut().expect("was saved"));
    let fault = saved.keyed("values", &mut Table::default());
    let message = fault.expect_err("in memory").to_string();
    assert!(message.contains("--state-backend rocksdb"), "{message}");
}
