//! The object storage against stores of the process and of a folder: the same code as against S3.

use super::*;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use tempfile::TempDir;

fn memory() -> ObjectStorage {
    let storage = ObjectStorage::new(InMemory::new(), "s3://bucket").expect("opens");
    storage.below("checkpoints").below("a job")
}

fn local() -> (TempDir, ObjectStorage) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = LocalFileSystem::new_with_prefix(folder.path()).expect("a store");
    let storage = ObjectStorage::new(store, "s3://bucket").expect("opens");
    (folder, storage.below("a job"))
}

fn paths(storage: &ObjectStorage) -> Vec<String> {
    let all = storage.list("").expect("lists");
    all.into_iter().map(|stored| stored.path).collect()
}

fn check_all(storage: &ObjectStorage) {
    assert!(paths(storage).is_empty(), "nothing yet");
    storage
        .write("chk-1/b", &[b"ti", b"", b"de"])
        .expect("writes");
    storage
        .publish("chk-1/_metadata", b"gate")
        .expect("publishes");
    storage.write("a", &[]).expect("writes");
    assert_eq!(storage.read("chk-1/b", 4).expect("reads"), b"tide");
    let error = storage.read("chk-1/b", 3).expect_err("too large");
    assert!(matches!(error, Error::Damaged { .. }), "{error}");
    let error = storage.read("chk-1/c", 3).expect_err("missing");
    assert!(matches!(error, Error::Missing { .. }), "{error}");
    assert_eq!(paths(storage), ["a", "chk-1/_metadata", "chk-1/b"]);
    let listed = storage.list("chk-1").expect("lists");
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!((listed[1].path.as_str(), listed[1].length), ("chk-1/b", 4));
    assert!(listed[1].modified > Timestamp(1_600_000_000_000));
    for path in ["chk-1/b", "chk-1/b", "chk-1/_metadata"] {
        storage.delete(path).expect("deletes");
    }
    assert_eq!(paths(storage), ["a"]);
}

#[test]
fn what_is_written_is_read_listed_and_deleted() {
    check_all(&memory());
    let (_folder, storage) = local();
    check_all(&storage);
}

/// A file that is made while it is written, larger than a part of an upload.
fn check_streams(storage: &dyn CheckpointStorage) {
    let piece = |n: u8| vec![n; 3 << 20];
    let write = storage.write_stream("chk-1/large", &mut |put| {
        (0..14).try_for_each(|n| put(&piece(n)))
    });
    write.expect("writes");
    let length = 14 * (3 << 20);
    let whole = storage.read("chk-1/large", length).expect("reads");
    assert_eq!(whole, (0..14).flat_map(piece).collect::<Vec<u8>>());
    for (offset, count) in [(0, 1), (length - 2, 2), (5 << 20, 9 << 20), (7, 0)] {
        let part = storage.read_range("chk-1/large", offset, count);
        let (from, to) = (offset as usize, (offset + count) as usize);
        assert!(
            part.expect("reads") == whole[from..to],
            "{count} from {offset}"
        );
    }
    let beyond = storage.read_range("chk-1/large", length - 1, 5);
    assert_eq!(beyond.expect("reads what there is"), [13]);
    let none = storage.read_range("chk-1/large", length, 5);
    assert!(none.expect("reads what there is").is_empty());
    let broken = storage.write_stream("chk-1/broken", &mut |put| {
        put(&piece(1))?;
        Err(Error::Missing {
            path: "what it is made of".to_owned(),
        })
    });
    broken.expect_err("it can't be made");
    let listed = storage.list("").expect("lists");
    assert_eq!(listed.len(), 1, "nothing of it is left: {listed:?}");
}

#[test]
fn files_are_made_while_they_are_written_and_read_in_pieces() {
    check_streams(&memory());
    let (_folder, storage) = local();
    check_streams(&storage);
    let folder = tempfile::tempdir().expect("a folder");
    check_streams(&super::super::LocalStorage::new(folder.path()));
}

#[test]
fn folders_that_begin_alike_are_not_mixed_up() {
    let root = ObjectStorage::new(InMemory::new(), "s3://bucket").expect("opens");
    let (one, other) = (root.below("job"), root.below("job-2"));
    one.write("chk-1/a", &[b"one"]).expect("writes");
    other.write("chk-1/a", &[b"other"]).expect("writes");
    one.write("chk-10/a", &[b"ten"]).expect("writes");
    assert_eq!(paths(&one), ["chk-1/a", "chk-10/a"]);
    assert_eq!(one.list("chk-1").expect("lists").len(), 1);
    assert_eq!(root.folders().expect("lists"), ["job", "job-2"]);
}

#[test]
fn only_the_first_publishes_and_an_answer_that_was_lost_does_no_harm() {
    for storage in [memory(), local().1] {
        storage.publish("_metadata", b"first").expect("publishes");
        storage.publish("_metadata", b"first").expect("the same");
        for other in [&b"other"[..], b"second"] {
            let error = storage.publish("_metadata", other).expect_err("taken");
            assert!(matches!(error, Error::Exists { .. }), "{error}");
        }
        assert_eq!(storage.read("_metadata", 9).expect("reads"), b"first");
    }
}

#[test]
fn of_many_at_a_time_one_publishes() {
    let storage = memory();
    let published = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8u8)
            .map(|n| {
                let storage = storage.clone();
                scope.spawn(move || storage.publish("_metadata", &[n; 100]).is_ok())
            })
            .collect();
        let results = all.into_iter().map(|thread| thread.join().expect("ends"));
        results.filter(|published| *published).count()
    });
    assert_eq!(published, 1);
}

#[test]
fn a_large_file_goes_up_in_parts_and_comes_back_whole() {
    for storage in [memory(), local().1] {
        let part: Vec<u8> = (0..PART as u32).map(|n| (n % 251) as u8).collect();
        let parts = [&part[..], b"and", &part[7..], b"some"];
        storage.write("large", &parts).expect("writes");
        let read = storage.read("large", 1 << 30).expect("reads");
        assert!(read == parts.concat());
    }
}

#[test]
fn no_path_leads_out() {
    let storage = memory();
    for path in ["../a", "a/../b", "", "a//b", "/a", "a\\b", "."] {
        let error = storage.write(path, &[b"x"]).expect_err(path);
        assert!(matches!(error, Error::BadPath { .. }), "{error}");
    }
}

#[test]
fn places_are_what_a_person_writes_and_lead_back() {
    let storage = memory();
    assert_eq!(storage.place(""), "s3://bucket/checkpoints/a job");
    let place = storage.place("savepoint-1-a");
    assert_eq!(place, "s3://bucket/checkpoints/a job/savepoint-1-a");
    storage
        .publish("savepoint-1-a/_metadata", b"gate")
        .expect("publishes");
    let (other, folder) = storage.elsewhere(&place).expect("the same store");
    assert_eq!(folder, "savepoint-1-a");
    assert_eq!(
        other.read("savepoint-1-a/_metadata", 9).expect("reads"),
        b"gate"
    );
}

#[test]
fn it_may_be_dropped_where_nothing_may_wait() {
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    let storage = memory();
    storage.write("a", &[b"a"]).expect("writes");
    runtime.block_on(async move { drop(storage) });
}
