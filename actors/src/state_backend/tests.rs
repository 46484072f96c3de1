//! Tests of state in RocksDB: against a map, through restarts, with other parallelism.

use super::StateCoordinator;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tidegate_engine::checkpoint::visitor::Capture;
use tidegate_engine::checkpoint::{
    CheckpointId, OperatorImage, RestoredJob, StateData, StateVisitor,
};
use tidegate_engine::hash::{key_group, key_hash, owner_of_group};
use tidegate_engine::state::backing::{Changes, Spill};
use tidegate_engine::state::{BackedTable, RocksDbSettings};
use tidegate_engine::time::Timestamp;

pub(super) type Model = HashMap<u64, (u64, String)>;
pub(super) type Table = BackedTable<u64, (u64, String)>;

pub(super) const GROUPS: u32 = 16;

pub(super) fn coordinator(folder: &Path, table_memory: u64) -> StateCoordinator {
    coordinator_with(folder, table_memory, 128 << 10)
}

pub(super) fn coordinator_with(
    folder: &Path,
    table_memory: u64,
    write_buffer_size: u64,
) -> StateCoordinator {
    let settings = RocksDbSettings {
        state_dir: folder.to_owned(),
        write_buffer_size,
        cache_size: 2 << 20,
        block_size: 4 << 10,
        table_memory,
        ..RocksDbSettings::default()
    };
    let state = StateCoordinator::new(settings);
    state.prepare().expect("a folder");
    state
}

/// A table in front of a new database.
fn spilled(state: &StateCoordinator) -> Table {
    let (_, spill) = state.create("tm-001", "job-123");
    let mut table = Table::default();
    let mut open = |name: &str| {
        let backing = spill.open("uid", name, GROUPS)?;
        Ok((GROUPS, backing, spill.memory().claim()))
    };
    let mut visitor = StateVisitor::spill(&mut open);
    visitor.keyed("values", &mut table).expect("spills");
    table
}

pub(super) fn all(table: &mut Table) -> Model {
    let mut found = Model::new();
    let each = table.each(|key, value| {
        let before = found.insert(*key, value.clone());
        assert!(before.is_none(), "{key} was shown twice");
        Ok(())
    });
    each.expect("reads");
    found
}

/// Changes that follow a seed: most keys once, some often.
pub(super) struct Traffic(pub u64);

impl Traffic {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = key_hash(&self.0);
        (self.0 >> 8) % below
    }

    pub(super) fn change(&mut self, table: &mut Table, model: &mut Model, keys: u64) {
        let key = if self.next(2) == 0 {
            self.next(50)
        } else {
            self.next(keys)
        };
        let hash = key_hash(&key);
        match self.next(8) {
            0 => assert_eq!(
                table.remove(hash, &key).expect("removes"),
                model.remove(&key)
            ),
            1 => assert_eq!(table.get(hash, &key).expect("reads"), model.get(&key)),
            2 => {
                let value = (self.next(1000), "set".repeat(self.next(20) as usize));
                table.set(hash, key, value.clone()).expect("sets");
                model.insert(key, value);
            }
            _ => {
                let mine = table.get_or_insert_with(hash, key, Default::default);
                let mine = mine.expect("adds");
                let theirs = model.entry(key).or_default();
                assert_eq!(mine, theirs);
                for value in [mine, theirs] {
                    value.0 += 1;
                    value.1.push('x');
                }
            }
        }
    }
}

pub(super) fn turn(table: &mut Table) {
    StateVisitor::maintain()
        .keyed("values", table)
        .expect("maintains");
}

pub(super) fn image(capture: Capture, parallelism: u32) -> OperatorImage {
    OperatorImage {
        uid: "uid".to_owned(),
        name: "values".to_owned(),
        max_parallelism: GROUPS,
        parallelism,
        watermark: Timestamp::MIN,
        states: capture.into_states(),
    }
}

/// Saves a table while `between` happens in each turn.
fn save(table: &mut Table, mut between: impl FnMut(&mut Table)) -> OperatorImage {
    let mut capture = Capture::new(GROUPS);
    let frozen = StateVisitor::freeze(&mut capture).keyed("values", table);
    frozen.expect("freezes");
    while !capture.complete() {
        between(table);
        let saved = StateVisitor::save(&mut capture, 100).keyed("values", table);
        saved.expect("saves");
    }
    image(capture, 1)
}

pub(super) fn load(table: &mut Table, job: &RestoredJob, me: u32, parallelism: u32) {
    let restored = job.operator("uid", me, parallelism, GROUPS).expect("fits");
    let mut restored = restored.expect("was saved");
    let loaded = StateVisitor::load(&mut restored).keyed("values", table);
    loaded.expect("loads");
}

pub(super) fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn state_ten_times_the_memory_survives_saving_restart_and_other_parallelism() {
    let folder = temporary();
    let state = coordinator(folder.path(), 60_000);
    let (mut table, mut model) = (spilled(&state), Model::new());
    let mut traffic = Traffic(7);
    for n in 0..60_000 {
        traffic.change(&mut table, &mut model, 20_000);
        if n % 200 == 0 {
            turn(&mut table);
        }
    }
    assert!(model.len() > 10_000, "{}", model.len());
    let report = state.report();
    assert_eq!(report.backends.len(), 1);
    // Writers wait from twice the memory on; without a bound it would be ten times.
    assert!(report.pressure < 3.0, "{report:?}");
    let then = model.clone();
    let image = save(&mut table, |table| {
        for _ in 0..50 {
            traffic.change(table, &mut model, 20_000);
        }
        turn(table);
    });
    assert_eq!(all(&mut table), model);
    drop(table);
    assert_eq!(
        state.report().backends,
        [],
        "its database went with the table"
    );

    let job = RestoredJob::new(CheckpointId(1), [(0, image)]);
    let mut whole = spilled(&state);
    load(&mut whole, &job, 0, 1);
    assert_eq!(all(&mut whole), then);
    let mut parts = Model::new();
    for me in 0..3 {
        let mut part = spilled(&state);
        load(&mut part, &job, me, 3);
        let part = all(&mut part);
        for key in part.keys() {
            let group = key_group(key_hash(key), GROUPS);
            assert_eq!(owner_of_group(group, GROUPS, 3), me);
        }
        parts.extend(part);
    }
    assert_eq!(parts, then);
}

#[test]
fn what_memory_saved_goes_on_in_rocksdb_and_back() {
    let folder = temporary();
    let state = coordinator(folder.path(), 10_000);
    let (mut table, mut model) = (Table::default(), Model::new());
    let mut traffic = Traffic(3);
    for _ in 0..5000 {
        traffic.change(&mut table, &mut model, 2000);
    }
    let from_memory = save(&mut table, |_| {});
    let mut there = spilled(&state);
    let job = RestoredJob::new(CheckpointId(1), [(0, from_memory.clone())]);
    load(&mut there, &job, 0, 1);
    assert_eq!(all(&mut there), model);
    let mut back = Table::default();
    let image = save(&mut there, |_| {});
    let names = |image: &OperatorImage| match &image.states[0].data {
        StateData::Groups(groups) => groups.iter().map(|g| (g.group, g.entries)).collect(),
        _ => Vec::new(),
    };
    assert_eq!(names(&image), names(&from_memory));
    load(
        &mut back,
        &RestoredJob::new(CheckpointId(2), [(0, image)]),
        0,
        1,
    );
    assert_eq!(all(&mut back), model);
}

#[test]
fn a_savepoint_that_is_read_while_records_go_on_is_that_of_its_barrier() {
    let folder = temporary();
    let state = coordinator(folder.path(), 10_000);
    let (mut table, mut model) = (spilled(&state), Model::new());
    let mut traffic = Traffic(5);
    for _ in 0..20_000 {
        traffic.change(&mut table, &mut model, 5000);
        turn(&mut table);
    }
    let then = model.clone();
    let mut capture = Capture::new(GROUPS).streaming(true);
    let frozen = StateVisitor::freeze(&mut capture).keyed("values", &mut table);
    frozen.expect("freezes");
    while !capture.complete() {
        let saved = StateVisitor::save(&mut capture, 64).keyed("values", &mut table);
        saved.expect("saves");
        traffic.change(&mut table, &mut model, 5000);
    }
    let mut image = image(capture, 1);
    for _ in 0..5000 {
        traffic.change(&mut table, &mut model, 5000);
        turn(&mut table);
    }
    // The state may go before whoever writes the savepoint has read it.
    drop(table);
    let StateData::Streamed(streamed) = &image.states[0].data else {
        panic!("{:?}", image.states[0].data);
    };
    let groups = streamed.gather().expect("reads");
    image.states[0].data = StateData::Groups(groups);
    let mut again = Table::default();
    let job = RestoredJob::new(CheckpointId(2), [(0, image)]);
    load(&mut again, &job, 0, 1);
    assert_eq!(all(&mut again), then);
}

#[test]
fn a_scan_shows_the_moment_of_its_beginning_in_the_order_of_keys() {
    let folder = temporary();
    let state = coordinator(folder.path(), 1 << 20);
    let (_, spill) = state.create("tm-001", "job-123");
    let mut backing = spill
        .open("uid", "values", GROUPS)
        .expect("a column family");
    let write = |from: u32, value: &str| {
        let mut changes = Changes::default();
        for n in from..from + 30_000 {
            let put = changes.put(|bytes| {
                bytes.extend(n.to_be_bytes());
                bytes.extend(value.as_bytes());
                Ok(bytes.len() - value.len())
            });
            put.expect("encodes");
        }
        changes
    };
    backing.write(&write(0, "then")).expect("writes");
    let mut scan = backing.scan().expect("begins");
    backing.write(&write(10_000, "after")).expect("writes");
    let seen = RefCell::new(Vec::new());
    let mut visit = |key: &[u8], value: &[u8]| {
        seen.borrow_mut().push((key.to_vec(), value.to_vec()));
        Ok(())
    };
    while !scan.next(1000, &mut visit).expect("reads") {}
    let expected: Vec<_> = (0..30_000u32)
        .map(|n| (n.to_be_bytes().to_vec(), b"then".to_vec()))
        .collect();
    assert!(seen.into_inner() == expected);
    let mut value = Vec::new();
    let found = backing.get(&10_000u32.to_be_bytes(), &mut value);
    assert_eq!((found, value.as_slice()), (Ok(true), b"after".as_slice()));
    // One that nobody reads to its end holds up nothing.
    drop(backing.scan().expect("begins"));
}

#[test]
fn backends_are_tracked_measured_and_cleaned_up() {
    let folder = temporary();
    let left = folder
        .path()
        .join("tidegate-4294967295-0000000000000000/state-1");
    fs::create_dir_all(&left).expect("a folder");
    let state = Arc::new(coordinator(folder.path(), 1 << 20));
    assert!(!left.exists(), "that process is gone");
    let (first, spill) = state.create("tm-001", "job-123");
    let (second, other) = state.create("tm-002", "job-123");
    assert_ne!(first, second);
    let mut backing = spill
        .open("uid", "values", GROUPS)
        .expect("a column family");
    let mut changes = Changes::default();
    let put = changes.put(|bytes| {
        bytes.extend(b"key, value");
        Ok(3)
    });
    put.and_then(|()| backing.write(&changes)).expect("writes");
    let text = tidegate_engine::metrics::render_prometheus(&state.samples());
    assert!(text.contains("tidegate_state_written_bytes"), "{text}");
    let report = state.report();
    let owners: Vec<_> = report
        .backends
        .iter()
        .map(|b| b.task_manager.as_str())
        .collect();
    assert_eq!(owners, ["tm-001", "tm-002"]);
    assert_eq!(report.backends[0].keys, 1);
    drop((spill, other));
    assert_eq!(
        state.report().backends.len(),
        1,
        "a state still uses the first"
    );
    drop(backing);
    drop(state);
    let left = fs::read_dir(folder.path()).expect("lists").count();
    assert_eq!(left, 0, "nothing stays behind");
}
