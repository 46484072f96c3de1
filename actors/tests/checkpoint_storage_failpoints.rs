//! The storage fails before or after every write, sync and rename: nothing half is ever visible.
#![cfg(feature = "failpoints")]

use tidegate_actors::checkpoint_storage::LocalStorage;
use tidegate_engine::checkpoint::CheckpointStorage;

const FAILING: [&str; 8] = [
    "before_write",
    "after_write",
    "before_sync",
    "after_sync",
    "before_rename",
    "before_publish",
    "before_folder_sync",
    "after_folder_sync",
];

const DYING: [&str; 11] = [
    "before_write",
    "after_write",
    "before_sync",
    "after_sync",
    "before_rename",
    "after_rename",
    "before_publish",
    "between_publish",
    "after_publish",
    "before_folder_sync",
    "after_folder_sync",
];

fn visible(storage: &LocalStorage) -> Vec<String> {
    let all = storage.list("").expect("lists");
    let paths = all.into_iter().map(|stored| stored.path);
    paths.filter(|path| !path.ends_with(".tmp")).collect()
}

fn write_both(storage: &LocalStorage) -> bool {
    let state = storage.write("chk-1/state", &[b"ti", b"de"]);
    state
        .and_then(|()| storage.publish("chk-1/_metadata", b"gate"))
        .is_ok()
}

fn check_whole(storage: &LocalStorage, point: &str) {
    for path in visible(storage) {
        let expected: &[u8] = match path.as_str() {
            "chk-1/state" => b"tide",
            "chk-1/_metadata" => b"gate",
            _ => panic!("{point}: {path}"),
        };
        assert_eq!(storage.read(&path, 9).expect("reads"), expected, "{point}");
    }
}

#[test]
fn what_fails_is_taken_back_and_what_dies_leaves_nothing_half() {
    let scenario = fail::FailScenario::setup();
    for point in FAILING {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let storage = LocalStorage::new(folder.path());
        drop(std::fs::create_dir(folder.path().join("chk-1")));
        let name = format!("storage::{point}");
        fail::cfg(&name, "return(full)").expect("a failpoint");
        let whole = write_both(&storage);
        fail::remove(&name);
        assert!(!whole, "{point} was not met");
        assert!(
            !visible(&storage).contains(&"chk-1/_metadata".to_owned()),
            "{point}"
        );
        let left = storage.list("").expect("lists");
        assert!(
            !left.iter().any(|f| f.path.ends_with(".tmp")),
            "{point}: {left:?}"
        );
        check_whole(&storage, point);
    }
    for point in DYING {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let storage = LocalStorage::new(folder.path());
        let name = format!("storage::{point}");
        fail::cfg(&name, "panic(killed)").expect("a failpoint");
        let died = std::panic::catch_unwind(|| write_both(&storage)).is_err();
        fail::remove(&name);
        assert!(died, "{point} was not met");
        check_whole(&storage, point);
    }
    scenario.teardown();
}
