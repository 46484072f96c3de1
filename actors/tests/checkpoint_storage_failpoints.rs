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

#[cfg(feature = "s3")]
mod object_store {
    use object_store::memory::InMemory;
    use tidegate_actors::checkpoint_storage::ObjectStorage;
    use tidegate_engine::checkpoint::{CheckpointStorage, Result};

    const POINTS: [&str; 10] = [
        "before_put",
        "after_put",
        "before_part",
        "after_part",
        "before_finish",
        "after_finish",
        "before_publish",
        "after_publish",
        "before_delete",
        "after_delete",
    ];
    /// More than is put in one piece.
    const LARGE: usize = (16 << 20) + 1;

    /// A checkpoint with a small file, one in several parts, and one that is made while it is written.
    fn checkpoint(storage: &ObjectStorage, id: u32) -> Result<()> {
        storage.write(&format!("chk-{id}/state"), &[b"ti", b"de"])?;
        storage.write(&format!("chk-{id}/large"), &[&vec![7; LARGE]])?;
        storage.write_stream(&format!("chk-{id}/made"), &mut |put| put(b"stream"))?;
        storage.publish(&format!("chk-{id}/_metadata"), b"gate")?;
        storage.delete(&format!("chk-{id}/state"))
    }

    /// Whether the checkpoint was published. What there is of it is whole, and with its metadata there is all of it.
    fn published(storage: &ObjectStorage, id: u32, point: &str) -> bool {
        let all = storage.list(&format!("chk-{id}")).expect("lists");
        let names = all.iter().map(|file| {
            let (_, name) = file.path.rsplit_once('/').expect("in a folder");
            let whole = match name {
                "state" | "_metadata" => 4,
                "large" => LARGE as u64,
                "made" => 6,
                _ => panic!("{point}: {name}"),
            };
            assert_eq!(file.length, whole, "{point}: {name}");
            name
        });
        let names: Vec<_> = names.collect();
        let published = names.contains(&"_metadata");
        let whole = names.contains(&"large") && names.contains(&"made");
        assert!(whole || !published, "{point}: {names:?}");
        published
    }

    #[test]
    fn what_fails_or_dies_in_a_bucket_publishes_nothing_half_and_the_next_checkpoint_is_whole() {
        let scenario = fail::FailScenario::setup();
        for (point, dies) in POINTS.iter().flat_map(|p| [(*p, false), (*p, true)]) {
            let storage = ObjectStorage::new(InMemory::new(), "s3://bucket").expect("opens");
            let name = format!("object_store::{point}");
            let action = if dies {
                "panic(killed)"
            } else {
                "return(broken pipe)"
            };
            fail::cfg(&name, action).expect("a failpoint");
            let run = || checkpoint(&storage, 1);
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            fail::remove(&name);
            match ended {
                Err(_) => assert!(dies, "{point}"),
                Ok(result) => {
                    let error = result.expect_err(point).to_string();
                    assert!(!dies && error.contains("broken pipe"), "{point}: {error}");
                    assert!(error.contains("s3://bucket/chk-1/"), "{point}: {error}");
                }
            }
            let late = ["after_publish", "before_delete", "after_delete"].contains(&point);
            assert_eq!(published(&storage, 1, point), late, "{point}");
            checkpoint(&storage, 2).expect("the next one");
            assert!(published(&storage, 2, point));
            if point == "after_publish" {
                // Whoever did not hear of it may ask once more, and nobody else may take its place.
                storage
                    .publish("chk-1/_metadata", b"gate")
                    .expect("is there");
                storage
                    .publish("chk-1/_metadata", b"other")
                    .expect_err("is another");
            }
        }
        scenario.teardown();
    }
}
