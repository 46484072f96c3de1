//! The disk of the state's folder is full: a checkpoint is declined with the reason and the next one
//! succeeds once there is room, and what records need to be written fails with what to do.
//!
//! The full disk is a real one, as in `checkpoint_storage_full.rs`.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::{Path, PathBuf};
use tidegate_actors::checkpoint_storage::LocalStorage;
use tidegate_actors::state_backend::StateCoordinator;
use tidegate_engine::checkpoint::shared::store_files;
use tidegate_engine::checkpoint::visitor::Capture;
use tidegate_engine::checkpoint::{
    Barrier, CheckpointId, KeyedPart, OperatorImage, StateVisitor, SubtaskImage, Timing,
};
use tidegate_engine::fault::Flow;
use tidegate_engine::hash::key_hash;
use tidegate_engine::state::backing::Spill;
use tidegate_engine::state::{BackedTable, RocksDbSettings};
use tidegate_engine::time::Timestamp;

/// Mounted until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(folder: &Path) -> Self {
        mount("tmpfs", folder, "tmpfs", MountFlags::empty(), c"size=16m")
            .expect("mounts a small file system: see the head of this file");
        SmallDisk(folder.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).expect("unmounts what it mounted");
    }
}

type Table = BackedTable<u64, [u64; 12]>;

fn table(folder: &Path, write_buffer_size: u64) -> Table {
    let state = StateCoordinator::new(RocksDbSettings {
        state_dir: folder.to_owned(),
        table_memory: 200_000,
        write_buffer_size,
        ..RocksDbSettings::default()
    });
    let (_, spill) = state.create("here", "job");
    let mut table = Table::default();
    let mut open = || Ok((8, spill.open("count", "values", 8)?, spill.memory().claim()));
    table.spill(&mut open).expect("opens");
    table
}

fn fill(table: &mut Table, keys: std::ops::Range<u64>) -> Flow {
    for key in keys {
        table.set(key_hash(&key), key, [key; 12])?;
        if key % 256 == 0 {
            table.maintain()?;
        }
    }
    Ok(())
}

/// Takes a checkpoint; why it is declined, if it is.
fn checkpoint(table: &mut Table, storage: &LocalStorage, id: u64) -> Result<u64, String> {
    let mut capture = Capture::new(8).sharing_files(true);
    let freeze = StateVisitor::freeze(&mut capture).keyed("values", table);
    freeze.expect("freezes");
    while !capture.complete() {
        let save = StateVisitor::save(&mut capture, 1000).keyed("values", table);
        save.expect("the state itself is as well as before");
        std::thread::yield_now();
    }
    let mut image = SubtaskImage {
        barrier: Barrier::checkpoint(id),
        task: 0,
        subtask: 0,
        operators: vec![OperatorImage {
            uid: "count".to_owned(),
            name: "count".to_owned(),
            max_parallelism: 8,
            parallelism: 1,
            watermark: Timestamp::MIN,
            states: capture.into_states(),
        }],
        timing: Timing::default(),
        positions: Vec::new(),
    };
    let stored = store_files(storage, CheckpointId(id), &mut image);
    let stored = stored.map_err(|error| error.to_string())?;
    Ok(stored.iter().map(|file| file.length).sum())
}

#[test]
fn a_checkpoint_is_declined_and_the_next_one_succeeds_once_there_is_room() {
    let (small, large) = (
        tempfile::tempdir().expect("a folder"),
        tempfile::tempdir().expect("a folder"),
    );
    let _disk = SmallDisk::at(small.path());
    let storage = LocalStorage::new(large.path());
    let mut table = table(small.path(), 64 << 20);
    fill(&mut table, 0..30_000).expect("fits");
    let full = small.path().join("in the way");
    std::fs::write(&full, vec![1; 16 << 20]).expect_err("takes what is left");
    let reason = checkpoint(&mut table, &storage, 1).expect_err("there is no room");
    for words in ["No space left on device", "database-", "--state-dir"] {
        assert!(reason.contains(words), "{reason}");
    }
    fill(&mut table, 30_000..40_000).expect("records need no file yet");
    std::fs::remove_file(&full).expect("removes");
    let stored = checkpoint(&mut table, &storage, 2).expect("there is room again");
    assert!(stored > 100_000, "{stored} bytes");
    let mut seen = 0;
    let each = table.each(|key, value| {
        assert_eq!(*value, [*key; 12]);
        seen += 1;
        Ok(())
    });
    each.expect("reads");
    assert_eq!(seen, 40_000);
}

#[test]
fn state_that_can_t_be_kept_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let _disk = SmallDisk::at(folder.path());
    let mut table = table(folder.path(), 1 << 20);
    let fault = fill(&mut table, 0..1_000_000).expect_err("more than the disk holds");
    for words in ["can't write", "No space left on device", "--state-dir"] {
        assert!(fault.message().contains(words), "{fault}");
    }
}
