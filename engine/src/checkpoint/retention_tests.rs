//! Nothing that is needed is ever deleted, and what is not needed goes.

use super::*;
use crate::checkpoint::index::{DataIndex, OperatorIndex, Section, StateIndex, SubtaskIndex};
use crate::checkpoint::metadata::{FileRef, SubtaskFile};
use crate::checkpoint::{Barrier, Checksum, FilesIndex, SharedFile, StateKind, Timing, publish_to};
use crate::testing::MemoryStorage;
use proptest::collection::vec;
use proptest::prelude::*;

const QUICK: Retention = Retention {
    retain: 2,
    grace: Duration::from_millis(10),
    orphan_age: Duration::from_millis(100),
};

struct Job {
    storage: Arc<MemoryStorage>,
    registry: StorageRegistry,
    now: i64,
}

impl Job {
    fn new() -> Self {
        let storage = Arc::new(MemoryStorage::default());
        Job {
            registry: StorageRegistry::new(storage.clone()),
            storage,
            now: 0,
        }
    }

    fn pass(&mut self, millis: i64) {
        self.now += millis;
        self.storage.set_time(Timestamp(self.now));
    }

    fn write(&self, path: &str) {
        // A file that a checkpoint before wrote is there.
        drop(self.storage.write(path, &[b"x"]));
    }

    /// Takes a checkpoint with one own file and these shared ones.
    fn take(&self, id: u64, kind: BarrierKind, shared: &[u8]) {
        let folder = match kind {
            BarrierKind::Checkpoint => format!("chk-{id}"),
            _ => format!("savepoint-{id}-ab"),
        };
        self.write(&join(&folder, "state"));
        let mut metadata = CheckpointMetadata::new(CheckpointId(id), kind, "job");
        let file = |path: String| FileRef {
            path,
            length: 1,
            checksum: Checksum::of(b"x"),
        };
        metadata.subtasks.push(SubtaskFile {
            file: file("state".to_owned()),
            index: SubtaskIndex {
                barrier: Barrier::checkpoint(id),
                task: 0,
                subtask: 0,
                timing: Timing::default(),
                operators: Vec::new(),
            },
            positions: Vec::new(),
        });
        for name in shared {
            let path = format!("{SHARED}/{name}");
            self.write(&path);
            metadata.shared.push(file(path));
        }
        publish_to(&*self.storage, &folder, &metadata).expect("publishes");
    }

    fn retire(&self) -> CleanUp {
        let now = Timestamp(self.now);
        retire(&*self.storage, &self.registry, &QUICK, now).expect("retires")
    }

    fn sweep(&self, dry: bool) -> Vec<String> {
        let now = Timestamp(self.now);
        let swept = sweep(&*self.storage, &self.registry, &QUICK, now, dry).expect("sweeps");
        swept.files.into_iter().map(|file| file.path).collect()
    }

    fn has(&self, path: &str) -> bool {
        self.storage.paths().iter().any(|p| p == path)
    }
}

#[test]
fn the_last_ones_stay_and_the_others_go_after_the_grace_period() {
    let mut job = Job::new();
    for id in 1..=3 {
        job.take(id, BarrierKind::Checkpoint, &[]);
        job.pass(1);
    }
    assert_eq!(job.retire(), CleanUp::default(), "too early");
    job.pass(10);
    assert_eq!(job.retire().checkpoints, [CheckpointId(1)]);
    assert!(!job.has("chk-1/state") && !job.has("chk-1/_metadata"));
    job.pass(1000);
    assert_eq!(job.retire(), CleanUp::default(), "two stay for good");
}

#[test]
fn a_savepoint_stays_and_makes_nothing_superfluous() {
    let mut job = Job::new();
    job.take(1, BarrierKind::Checkpoint, &[]);
    job.take(2, BarrierKind::Savepoint, &[]);
    job.take(3, BarrierKind::Stop, &[]);
    job.take(4, BarrierKind::Checkpoint, &[]);
    job.pass(1000);
    assert_eq!(job.retire(), CleanUp::default());
    for id in 5..9 {
        job.take(id, BarrierKind::Checkpoint, &[]);
    }
    job.pass(1000);
    assert_eq!(job.retire().checkpoints, [1, 4, 5, 6].map(CheckpointId));
    assert!(job.has("savepoint-2-ab/state") && job.has("savepoint-3-ab/_metadata"));
}

#[test]
fn the_sweep_takes_old_files_that_nothing_names() {
    let mut job = Job::new();
    job.take(4, BarrierKind::Checkpoint, &[1]);
    job.take(5, BarrierKind::Checkpoint, &[1]);
    let orphans = [
        "chk-3/state",
        "chk-4/other",
        "chk-4/state.9.tmp",
        "shared/2",
    ];
    let others = ["notes.txt", "mine/state", "savepoint-6-ab/state"];
    orphans
        .iter()
        .chain(&others)
        .for_each(|path| job.write(path));
    job.pass(100);
    job.write("chk-6/state");
    assert!(job.sweep(true).is_empty(), "too young");
    job.pass(1);
    assert_eq!(job.sweep(true), orphans);
    assert!(job.has("shared/2"), "a dry run deletes nothing");
    assert_eq!(job.sweep(false), orphans);
    assert!(job.sweep(true).is_empty());
    for path in others {
        assert!(job.has(path), "{path}");
    }
    for path in ["chk-4/state", "chk-5/_metadata", "shared/1", "chk-6/state"] {
        assert!(job.has(path), "{path}");
    }
}

#[test]
fn nothing_is_deleted_while_metadata_can_not_be_read() {
    let mut job = Job::new();
    for id in 1..=4 {
        job.take(id, BarrierKind::Checkpoint, &[id as u8]);
    }
    job.pass(1000);
    job.storage
        .damage("chk-2/_metadata", |bytes| bytes[50] ^= 1);
    let now = Timestamp(job.now);
    let before = job.storage.paths();
    assert!(retire(&*job.storage, &job.registry, &QUICK, now).is_err());
    assert!(sweep(&*job.storage, &job.registry, &QUICK, now, false).is_err());
    assert_eq!(job.storage.paths(), before);
}

#[test]
fn a_checkpoint_that_was_given_up_leaves_nothing() {
    let job = Job::new();
    job.write("chk-9/state");
    discard(&*job.storage, "chk-9").expect("discards");
    assert!(job.storage.paths().is_empty());
    assert!(discard(&*job.storage, "").is_err());
    assert!(discard(&*job.storage, SHARED).is_err());
}

#[derive(Clone, Debug)]
enum Step {
    Take(bool, Vec<u8>),
    Pass(i64),
    Retire,
    Sweep,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any::<bool>(), vec(0u8..6, 0..4)).prop_map(|(s, files)| Step::Take(s, files)),
        2 => (0i64..150).prop_map(Step::Pass),
        2 => Just(Step::Retire),
        1 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever happens in whatever order: what is complete can be read, the newest stays.
    #[test]
    fn no_file_of_a_checkpoint_that_is_there_is_ever_deleted(steps in vec(step(), 0..40)) {
        let mut job = Job::new();
        let mut newest = None;
        for (id, step) in (1..).zip(steps) {
            match step {
                Step::Take(savepoint, mut shared) => {
                    shared.sort_unstable();
                    shared.dedup();
                    if savepoint {
                        job.take(id, BarrierKind::Savepoint, &[]);
                    } else {
                        job.take(id, BarrierKind::Checkpoint, &shared);
                        newest = Some(CheckpointId(id));
                    }
                }
                Step::Pass(millis) => job.pass(millis),
                Step::Retire => drop(job.retire()),
                Step::Sweep => drop(job.sweep(false)),
                Step::Restart => job.registry = StorageRegistry::new(job.storage.clone()),
            }
            let recorded = job.registry.recorded().expect("readable");
            for path in files_of(&recorded) {
                prop_assert!(job.has(path), "{path} is gone");
            }
            let kept = recorded.iter().filter(|r| r.kind == BarrierKind::Checkpoint);
            prop_assert_eq!(kept.map(|r| r.id).max(), newest);
        }
    }
}

#[test]
fn a_checkpoint_can_t_name_files_that_went_with_the_one_that_held_them() {
    let mut job = Job::new();
    let mut metadata = CheckpointMetadata::new(CheckpointId(9), BarrierKind::Checkpoint, "job");
    let shared = |name: u8, since| SharedFile {
        name: format!("{name}.sst"),
        since: CheckpointId(since),
        file: FileRef {
            path: format!("{SHARED}/{name}"),
            length: 1,
            checksum: Checksum::of(b"x"),
        },
    };
    // Its own are not held by any yet.
    let files = vec![shared(1, 1), shared(2, 2), shared(9, 9)];
    metadata.subtasks.push(SubtaskFile {
        file: shared(0, 9).file,
        index: index_of(files),
        positions: Vec::new(),
    });
    metadata.name_shared();
    assert_eq!((metadata.shared.len(), metadata.min_reader_version), (3, 2));
    job.take(1, BarrierKind::Checkpoint, &[1]);
    job.take(2, BarrierKind::Checkpoint, &[1, 2]);
    let lost = |job: &Job| lost_files(&job.registry, &metadata).expect("looks");
    assert_eq!(lost(&job), Vec::<String>::new());
    for id in [3, 4] {
        job.take(id, BarrierKind::Checkpoint, &[1]);
    }
    job.pass(QUICK.grace.as_millis() as i64);
    job.retire();
    assert!(!job.has("shared/2") && job.has("shared/1"));
    assert_eq!(lost(&job), ["shared/2"]);
}

fn index_of(files: Vec<SharedFile>) -> SubtaskIndex {
    let index = FilesIndex {
        files,
        ..FilesIndex::default()
    };
    let section = Section {
        offset: 12,
        length: 0,
        checksum: Checksum::of(b""),
    };
    SubtaskIndex {
        barrier: Barrier::checkpoint(9),
        task: 0,
        subtask: 0,
        timing: Timing::default(),
        operators: vec![OperatorIndex {
            uid: "count".to_owned(),
            name: "count".to_owned(),
            max_parallelism: 8,
            parallelism: 1,
            watermark: Timestamp(0),
            states: vec![StateIndex {
                name: "values".to_owned(),
                kind: StateKind::Keyed,
                key_type: "u64".to_owned(),
                value_type: "u64".to_owned(),
                data: DataIndex::Files { index, section },
            }],
        }],
    }
}

#[test]
fn a_claim_stays_and_what_was_half_written_of_one_goes() {
    let stored = |path: &str| Stored {
        path: path.to_owned(),
        length: 1,
        modified: Timestamp(0),
    };
    let all = ["claims/3", "claims/4.5af3.tmp"].map(stored);
    let now = Timestamp(i64::MAX / 2);
    let found = orphans(all.to_vec(), &[], &Retention::default(), now);
    assert_eq!(found, [stored("claims/4.5af3.tmp")]);
}
