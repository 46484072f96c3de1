//! `tidegate checkpoint`, the built binary, on checkpoints that are intact, damaged and half.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;
use tidegate::actors::checkpoint_storage::{LocalStorage, load_path};
use tidegate::engine::checkpoint::image::{
    GroupImage, OperatorImage, StateData, StateImage, StateKind, SubtaskImage,
};
use tidegate::engine::checkpoint::{
    Barrier, BarrierKind, CheckpointId, CheckpointMetadata, CheckpointStorage, Checksum, FileRef,
    FilesImage, FilesIndex, SharedFile, Timing, publish, write_image,
};
use tidegate::engine::time::Timestamp;

fn state(name: &str, kind: StateKind, data: StateData) -> StateImage {
    let keyed = kind == StateKind::Keyed;
    StateImage {
        name: name.to_owned(),
        kind,
        key_type: if keyed { "u64" } else { "" }.to_owned(),
        value_type: "i32".to_owned(),
        data,
    }
}

fn image(id: u64, subtask: u32) -> SubtaskImage {
    let group = |group| GroupImage {
        group,
        entries: 10,
        bytes: vec![group as u8; 100].into(),
    };
    let groups = StateData::Groups(vec![group(subtask * 64), group(subtask * 64 + 1)]);
    let splits = StateData::Elements(vec![vec![1; 8]; 3]);
    SubtaskImage {
        barrier: Barrier::checkpoint(id),
        task: 1,
        subtask,
        operators: vec![OperatorImage {
            uid: "count-by-user".to_owned(),
            name: "count".to_owned(),
            max_parallelism: 128,
            parallelism: 2,
            watermark: Timestamp(1_700_000_000_000),
            states: vec![
                state("counts", StateKind::Keyed, groups),
                state("splits", StateKind::List, splits),
            ],
        }],
        timing: Timing::default(),
        positions: vec![format!("orders, partition {subtask}: offset 1200")],
    }
}

struct Job {
    folder: TempDir,
}

impl Job {
    /// Two complete checkpoints and the beginning of a third.
    fn new() -> Self {
        let job = Job {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let storage = LocalStorage::new(job.path());
        for id in [8, 9] {
            let number = CheckpointId(id);
            let mut metadata = CheckpointMetadata::new(number, BarrierKind::Checkpoint, "totals");
            metadata.created = Timestamp(1_700_000_000_000);
            for subtask in 0..2 {
                let written = write_image(&storage, number, &image(id, subtask));
                metadata.subtasks.push(written.expect("writes"));
            }
            publish(&storage, &metadata).expect("publishes");
        }
        write_image(&storage, CheckpointId(10), &image(10, 0)).expect("writes");
        job
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("totals")
    }

    /// A state file of a checkpoint.
    fn state_file(&self, checkpoint: &str) -> PathBuf {
        let mut files: Vec<PathBuf> = fs::read_dir(self.path().join(checkpoint))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| !path.ends_with("_metadata"))
            .collect();
        files.sort();
        files.remove(0)
    }
}

/// Two checkpoints whose state is in the same file.
fn sharing() -> (Job, PathBuf) {
    let job = Job {
        folder: tempfile::tempdir().expect("a temporary folder"),
    };
    let storage = LocalStorage::new(job.path());
    let content = b"entries";
    storage.write("shared/abc", &[content]).expect("writes");
    for id in [8, 9] {
        let number = CheckpointId(id);
        let mut metadata = CheckpointMetadata::new(number, BarrierKind::Checkpoint, "totals");
        let mut image = image(id, 0);
        let index = FilesIndex {
            format: "rocksdb".to_owned(),
            groups: Some((0, 127)),
            entries: 7,
            files: vec![SharedFile {
                name: "000012.sst".to_owned(),
                since: CheckpointId(8),
                file: FileRef {
                    path: "shared/abc".to_owned(),
                    length: content.len() as u64,
                    checksum: Checksum::of(content),
                },
            }],
        };
        image.operators[0].states[0].data = StateData::Files(FilesImage {
            index,
            manifest: b"MANIFEST-000004\n...".to_vec(),
            ..FilesImage::default()
        });
        let written = write_image(&storage, number, &image);
        metadata.subtasks.push(written.expect("writes"));
        metadata.name_shared();
        publish(&storage, &metadata).expect("publishes");
    }
    let shared = job.path().join("shared/abc");
    (job, shared)
}

#[test]
fn shared_files_are_shown_verified_once_and_swept_when_nothing_names_them() {
    let (job, shared) = sharing();
    let (code, text, _) = tidegate("verify", &job.path(), &[]);
    assert_eq!(
        (code, text.matches("shared/abc").count()),
        (Some(0), 1),
        "{text}"
    );
    let (_, text, _) = tidegate("inspect", &job.path(), &[]);
    for words in ["format 2", "2 (1 shared)", "in 1 shared file", "rocksdb"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    flip(&shared, 3);
    let (code, text, _) = tidegate("verify", &job.path(), &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("DAMAGED") && text.contains("shared/abc"),
        "{text}"
    );
    let sweep = |dry: &[&str]| {
        let more = [&["--older-than", "0"], dry].concat();
        tidegate("sweep", &job.path(), &more).1
    };
    std::thread::park_timeout(std::time::Duration::from_millis(20));
    assert!(sweep(&[]).contains("deleted: 0 files"));
    for id in [8, 9] {
        let folder = job.path().join(format!("chk-{id}"));
        fs::remove_file(folder.join("_metadata")).expect("removes");
    }
    assert!(sweep(&["--dry-run"]).contains("shared/abc"));
    assert!(shared.exists());
    sweep(&[]);
    assert!(!shared.exists());
}

/// The exit code, what was printed, what was complained.
fn tidegate(command: &str, folder: &Path, more: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["checkpoint", command])
        .arg(folder)
        .args(more)
        .output()
        .expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("reads");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("writes");
}

#[test]
fn list_shows_the_checkpoints_of_a_job_of_all_jobs_and_one() {
    let job = Job::new();
    let (code, text, errors) = tidegate("list", &job.path(), &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].contains("id  kind") && lines[0].contains("complete"));
    assert!(
        lines[2].contains("9  checkpoint  2023-11-14T22:13:20"),
        "{text}"
    );
    assert!(lines[3].contains("10  checkpoint") && lines[3].contains("  no  "));
    assert_eq!(
        tidegate("list", job.folder.path(), &[]).1,
        text,
        "from the root"
    );
    let (_, one, _) = tidegate("list", &job.path().join("chk-8"), &[]);
    assert_eq!(one.lines().count(), 2, "{one}");
    let (_, json, _) = tidegate("list", &job.path(), &["--json"]);
    let all: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(all[1]["id"], 9);
    assert_eq!(all[1]["job"], "totals");
    assert_eq!(
        (&all[1]["files"], &all[1]["complete"]),
        (&2.into(), &true.into())
    );
    assert_eq!(all[2]["complete"], false);
}

#[test]
fn inspect_shows_states_without_reading_them() {
    let job = Job::new();
    fs::remove_file(job.state_file("chk-9")).expect("deletes");
    let (code, text, errors) = tidegate("inspect", &job.path(), &[]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert!(text.contains("checkpoint  9 (checkpoint)"), "{text}");
    let line = |words: [&str; 2]| {
        let found = text.lines().find(|l| words.iter().all(|w| l.contains(w)));
        let words = found.unwrap_or_else(|| panic!("{text}")).split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    let counts = line(["counts", "keyed"]);
    assert!(
        counts.starts_with("count-by-user counts keyed u64 i32 40 400 B 4 "),
        "{counts}"
    );
    let splits = line(["splits", "list"]);
    assert!(
        splits.starts_with("count-by-user splits list i32 6 "),
        "{splits}"
    );
    let position = line(["count-by-user", "partition 1"]);
    assert_eq!(position, "count-by-user 1 orders, partition 1: offset 1200");
    let (_, json, _) = tidegate("inspect", &job.path().join("chk-8"), &["--json"]);
    let all: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(all["metadata"]["id"], 8);
}

#[test]
fn verify_is_content_with_what_is_intact() {
    let job = Job::new();
    let (code, text, _) = tidegate("verify", &job.path(), &[]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        text.lines().filter(|l| l.starts_with("ok ")).count(),
        6,
        "{text}"
    );
    assert!(
        text.contains("ignored  ") && text.contains("chk-10"),
        "{text}"
    );
    let last = text.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("intact: 2 checkpoints, 6 files, "),
        "{text}"
    );
}

#[test]
fn verify_names_the_file_with_one_flipped_byte() {
    let job = Job::new();
    let file = job.state_file("chk-9");
    flip(&file, 20);
    for folder in [job.path(), job.path().join("chk-9")] {
        let (code, text, _) = tidegate("verify", &folder, &[]);
        assert_eq!(code, Some(1), "{text}");
        let damaged = text
            .lines()
            .find(|l| l.starts_with("DAMAGED"))
            .expect("a line");
        assert!(damaged.contains("operator 'count-by-user', state 'counts', key group"));
        let last = text.lines().last().unwrap_or_default();
        assert!(last.starts_with("damaged: 1 of "), "{text}");
        let name = file.file_name().and_then(|n| n.to_str()).expect("a name");
        assert!(last.ends_with(name), "{text}");
    }
    let (code, text, _) = tidegate("verify", &job.path(), &["--json"]);
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((code, &all["good"]), (Some(1), &false.into()));
    assert_eq!(
        tidegate("verify", &job.path().join("chk-8"), &[]).0,
        Some(0)
    );
}

#[test]
fn damaged_metadata_is_named_too() {
    let job = Job::new();
    flip(&job.path().join("chk-9/_metadata"), 100);
    let (code, text, _) = tidegate("verify", &job.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(
        text.lines()
            .last()
            .unwrap_or_default()
            .ends_with("chk-9/_metadata"),
        "{text}"
    );
    assert!(tidegate("list", &job.path(), &[]).1.contains("unreadable"));
    let (code, _, errors) = tidegate("inspect", &job.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(errors.starts_with("error: ") && errors.contains("chk-9/_metadata is damaged"));
}

#[test]
fn a_folder_without_checkpoints_is_an_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for path in [folder.path().to_owned(), folder.path().join("nowhere")] {
        let (code, _, errors) = tidegate("verify", &path, &[]);
        assert_eq!(code, Some(1));
        assert!(
            errors.contains("there is no complete checkpoint"),
            "{errors}"
        );
    }
}

#[test]
fn a_copied_checkpoint_loads_from_any_folder() {
    let job = Job::new();
    let copy = job.folder.path().join("mine");
    fs::create_dir(&copy).expect("creates");
    for entry in fs::read_dir(job.path().join("chk-8")).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), copy.join(entry.file_name())).expect("copies");
    }
    assert_eq!(load_path(&copy).expect("loads").job.id, CheckpointId(8));
    assert_eq!(
        load_path(&job.path()).expect("loads").job.id,
        CheckpointId(9)
    );
    let (code, text, _) = tidegate("verify", &copy, &[]);
    assert_eq!(code, Some(0), "{text}");
    assert!(tidegate("inspect", &copy, &[]).1.contains("8 (checkpoint)"));
}
