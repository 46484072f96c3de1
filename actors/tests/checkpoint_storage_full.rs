//! A disk that is full or breaks: the write fails with the reason, and nothing of it can be seen.
//!
//! The full disk is a real one: a file system of one MiB in memory. Where this process may not mount
//! it, the test fails rather than say nothing: run the tests in a user namespace of their own then
//! (`unshare --user --map-root-user --mount`), which needs no rights.

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::path::{Path, PathBuf};
use tidegate_actors::checkpoint_storage::LocalStorage;
use tidegate_engine::checkpoint::CheckpointStorage;

/// Mounted until it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(folder: &Path) -> Self {
        mount("tmpfs", folder, "tmpfs", MountFlags::empty(), c"size=1m")
            .expect("mounts a file system of one MiB: see the head of this file");
        SmallDisk(folder.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).expect("unmounts what it mounted");
    }
}

#[test]
fn a_full_disk_declines_the_file_with_the_reason_and_leaves_no_half_of_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let _disk = SmallDisk::at(folder.path());
    let storage = LocalStorage::new(folder.path().join("job"));
    let part = vec![7; 300 << 10];
    storage.write("chk-1/a", &[&part]).expect("fits");
    let error = storage.write("chk-1/b", &[&part, &part, &part]);
    let text = error.expect_err("does not fit").to_string();
    assert!(text.contains("No space left on device"), "{text}");
    assert!(text.contains("job/chk-1/b"), "{text}");
    assert!(text.contains("make room there"), "{text}");
    let left = storage.list("").expect("lists");
    let left: Vec<&str> = left.iter().map(|stored| stored.path.as_str()).collect();
    assert_eq!(left, ["chk-1/a"], "no half file, no temporary one");
    storage
        .write("chk-1/b", &[&part, &part])
        .expect("fits again");
}
