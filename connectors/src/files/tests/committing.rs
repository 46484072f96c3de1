//! Output in two phases: whatever happens between two checkpoints, in the end there is exactly what the
//! complete ones cover.

use super::{Row, folder, names, row};
use crate::files::{FileSink, FileSource, FileWriter};
use crate::testing::{Attempt, Writing, read_all};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use tidegate_engine::fault::Flow;

type Writer = FileWriter<crate::files::CsvOut>;
type Committables = Vec<(u64, Vec<u8>)>;

/// What may happen to a job.
#[derive(Clone, Debug)]
enum Step {
    /// Each subtask writes so many records.
    Write(usize),
    /// A checkpoint is prepared and becomes complete; so many subtasks are told.
    Checkpoint(usize),
    /// A checkpoint is prepared and given up.
    Aborted,
    /// The process dies, or the attempt ends in good order; the next one has this parallelism.
    Crash { killed: bool, parallelism: u32 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0usize..6).prop_map(Step::Write),
        3 => (0usize..4).prop_map(Step::Checkpoint),
        1 => Just(Step::Aborted),
        2 => (any::<bool>(), 1u32..4)
            .prop_map(|(killed, parallelism)| Step::Crash { killed, parallelism }),
    ];
    prop::collection::vec(step, 0..24)
}

/// A job as its sink sees it.
struct Job {
    path: PathBuf,
    single: bool,
    sink: FileSink<crate::files::CsvOut>,
    writers: Vec<Writing<Writer>>,
    /// By subtask: prepared and not committed.
    prepared: Vec<Committables>,
    /// The newest complete checkpoint, and what it holds of the sink.
    complete: Option<(u64, Committables)>,
    checkpoint: u64,
    next: u64,
    covered: Vec<u64>,
    uncovered: Vec<u64>,
}

impl Job {
    fn start(path: PathBuf, single: bool, roll: u64) -> Flow<Job> {
        let sink = FileSink::csv(&path).sync(false).roll_records(roll);
        let sink = if single { sink.single_file() } else { sink };
        let mut job = Job {
            path,
            single,
            sink,
            writers: Vec::new(),
            prepared: Vec::new(),
            complete: None,
            checkpoint: 0,
            next: 0,
            covered: Vec::new(),
            uncovered: Vec::new(),
        };
        job.begin(2)?;
        Ok(job)
    }

    fn begin(&mut self, parallelism: u32) -> Flow {
        let parallelism = if self.single { 1 } else { parallelism };
        let committables = self.complete.clone().map(|(_, mut all)| {
            all.sort();
            all.into_iter().map(|(_, bytes)| bytes).collect()
        });
        tidegate_engine::sink::Sink::<Row>::check(&self.sink)?;
        tidegate_engine::sink::Sink::<Row>::recover(&self.sink, committables)?;
        let attempt = match &self.complete {
            Some((id, _)) => Attempt::after(*id, Vec::new()),
            None => Attempt::first(),
        };
        let open = |subtask| Writing::begin::<Row, _>(&self.sink, subtask, parallelism, &attempt);
        self.writers = (0..parallelism).map(open).collect::<Flow<_>>()?;
        self.prepared = vec![Vec::new(); parallelism as usize];
        self.uncovered.clear();
        Ok(())
    }

    fn write(&mut self, count: usize) -> Flow {
        for writer in &mut self.writers {
            for _ in 0..count {
                writer.write(row(self.next, "x"))?;
                self.uncovered.push(self.next);
                self.next += 1;
            }
        }
        Ok(())
    }

    fn prepare(&mut self) -> Flow {
        self.checkpoint += 1;
        for (writer, prepared) in self.writers.iter_mut().zip(&mut self.prepared) {
            let committable = writer.prepare::<Row>(self.checkpoint)?;
            if !committable.is_empty() {
                prepared.push((self.checkpoint, committable));
            }
        }
        Ok(())
    }

    fn complete(&mut self, told: usize, last: bool) -> Flow {
        self.prepare()?;
        let all = self.prepared.iter().flatten().cloned().collect();
        self.complete = Some((self.checkpoint, all));
        self.covered.append(&mut self.uncovered);
        for (writer, prepared) in self.writers.iter_mut().zip(&mut self.prepared).take(told) {
            let mut committables = std::mem::take(prepared).into_iter().peekable();
            while let Some((_, committable)) = committables.next() {
                writer.commit::<Row>(committable, last && committables.peek().is_none())?;
            }
        }
        Ok(())
    }

    /// A process that is killed does not tidy up.
    fn crash(&mut self, killed: bool) -> Flow {
        if !killed {
            self.writers.clear();
            return Ok(());
        }
        for writer in &mut self.writers {
            writer.flush::<Row>()?;
        }
        let folder = self.path.parent().unwrap();
        let image = image(folder);
        self.writers.clear();
        fs::remove_dir_all(folder).unwrap();
        for (path, bytes) in image {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        fs::create_dir_all(folder).unwrap();
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Flow {
        match step {
            Step::Write(count) => self.write(*count),
            Step::Checkpoint(told) => self.complete(*told, false),
            Step::Aborted => self.prepare(),
            Step::Crash {
                killed,
                parallelism,
            } => {
                self.crash(*killed)?;
                self.begin(*parallelism)
            }
        }
    }

    fn finish(&mut self) -> Flow {
        for writer in &mut self.writers {
            writer.close::<Row>()?;
        }
        self.complete(usize::MAX, true)
    }

    /// What a reader sees.
    fn visible(&self) -> Vec<u64> {
        let exists = self.path.is_file()
            || (self.path.is_dir() && !names(&self.path).iter().all(|n| n.starts_with('.')));
        if !exists {
            return Vec::new();
        }
        let read = read_all(&FileSource::csv::<Row>(&self.path), 1);
        assert_eq!(read.fault, None);
        let mut ids: Vec<_> = read.values.into_iter().map(|row| row.id).collect();
        ids.sort_unstable();
        ids
    }

    fn hidden(&self) -> Vec<String> {
        let folder = if self.single {
            self.path.parent().unwrap()
        } else {
            &self.path
        };
        names(folder)
            .into_iter()
            .filter(|name| name.starts_with('.'))
            .collect()
    }
}

/// All files below a folder.
fn image(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.append(&mut image(&path));
        } else {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_complete_checkpoints_cover_is_seen_once(
        steps in steps(),
        single: bool,
        roll in prop::sample::select(vec![2, u64::MAX]),
        die_at_last: bool,
    ) {
        let folder = folder(&[]);
        fs::create_dir(folder.path().join("out")).unwrap();
        let mut job = Job::start(folder.path().join("out/put"), single, roll).unwrap();
        for step in &steps {
            job.step(step).unwrap();
            let visible = job.visible();
            prop_assert!(visible.iter().all(|id| job.covered.contains(id)), "{visible:?}");
            if single {
                prop_assert!(visible.is_empty(), "before its end");
            }
        }
        job.finish().unwrap();
        prop_assert_eq!(job.visible(), job.covered.clone());
        prop_assert_eq!(job.hidden(), [""; 0]);
        if die_at_last {
            // It died before it could say that it was done: everything comes once more.
            job.step(&Step::Crash { killed: true, parallelism: 3 }).unwrap();
            job.finish().unwrap();
            job.crash(false).unwrap();
            prop_assert_eq!(job.visible(), job.covered.clone());
            prop_assert_eq!(job.hidden(), [""; 0]);
        }
    }
}

#[test]
fn a_single_file_has_one_header_and_goes_on_where_a_savepoint_stopped_it() {
    let folder = folder(&[]);
    let mut job = Job::start(folder.path().join("out.csv"), true, u64::MAX).unwrap();
    job.write(2).unwrap();
    // Stopped with a savepoint: the last checkpoint, but not the end of the input.
    job.complete(1, true).unwrap();
    job.crash(false).unwrap();
    assert_eq!(names(folder.path()), [".out.csv.inprogress"]);
    job.begin(1).unwrap();
    job.write(1).unwrap();
    job.finish().unwrap();
    assert_eq!(names(folder.path()), ["out.csv"]);
    let text = fs::read_to_string(folder.path().join("out.csv")).unwrap();
    assert_eq!(text, "id,name\n0,x\n1,x\n2,x\n");
}

#[test]
fn output_that_vanished_is_told() {
    for single in [false, true] {
        let folder = folder(&[]);
        let mut job = Job::start(folder.path().join("out"), single, u64::MAX).unwrap();
        job.write(1).unwrap();
        job.complete(0, false).unwrap();
        job.crash(false).unwrap();
        for name in job.hidden() {
            let _ = fs::remove_file(folder.path().join(&name));
            let _ = fs::remove_file(folder.path().join("out").join(&name));
        }
        let fault = job.begin(1).unwrap_err().to_string();
        assert!(
            fault.contains("output that a checkpoint covers is gone"),
            "{fault}"
        );
    }
}

#[test]
fn names_tell_subtask_attempt_and_number_and_empty_epochs_leave_none() {
    let folder = folder(&[]);
    let mut job = Job::start(folder.path().join("out"), false, 2).unwrap();
    job.complete(2, false).unwrap();
    job.write(3).unwrap();
    job.complete(2, false).unwrap();
    job.complete(2, false).unwrap();
    job.step(&Step::Crash {
        killed: true,
        parallelism: 1,
    })
    .unwrap();
    job.write(1).unwrap();
    job.finish().unwrap();
    let want = [
        "part-0-0-0",
        "part-0-0-1",
        "part-0-3-0",
        "part-1-0-0",
        "part-1-0-1",
    ];
    assert_eq!(names(&folder.path().join("out")), want);
}

#[test]
fn a_fresh_start_removes_what_earlier_runs_showed_and_hid() {
    let folder = folder(&[
        ("part-0-0-0", b"old"),
        (".part-1-4-0.inprogress", b"old"),
        ("part-0-1", b"old"),
    ]);
    let mut job = Job::start(folder.path().to_owned(), false, u64::MAX).unwrap();
    assert_eq!(names(folder.path()), [""; 0]);
    job.finish().unwrap();
    assert_eq!(names(folder.path()), [""; 0]);
}

/// The points are the whole process's, and other tests run in this one: it is started once more for this alone.
#[cfg(feature = "failpoints")]
#[test]
fn a_failure_before_and_after_each_sync_and_rename_changes_nothing() {
    let alone = concat!(module_path!(), "::fails_at_each_point_in_turn");
    let (_, alone) = alone.split_once("::").unwrap();
    let ended = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", alone, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{told}");
    assert!(
        told.contains("1 passed"),
        "there is no test {alone}: {told}"
    );
}

/// Everything fails at each of the points in turn, once, and the job goes on from its last checkpoint.
#[cfg(feature = "failpoints")]
#[test]
#[ignore = "it is started by the test beside it"]
fn fails_at_each_point_in_turn() {
    let points = [
        "write",
        "sync",
        "rename",
        "sync_folder",
        "remove",
        "truncate",
    ];
    let scenario = fail::FailScenario::setup();
    for (single, roll) in [(false, 2), (false, u64::MAX), (true, u64::MAX)] {
        for point in points.iter().flat_map(|p| {
            [
                format!("file_sink::before_{p}"),
                format!("file_sink::after_{p}"),
            ]
        }) {
            for nth in 0..6 {
                let folder = folder(&[]);
                let mut job = Job::start(folder.path().join("out"), single, roll).unwrap();
                job.sink = std::mem::replace(&mut job.sink, FileSink::csv("")).sync(true);
                job.crash(false).unwrap();
                job.begin(2).unwrap();
                fail::cfg(&point, &format!("{nth}*off->1*return->off")).unwrap();
                let steps = [
                    Step::Write(3),
                    Step::Checkpoint(1),
                    Step::Write(1),
                    Step::Aborted,
                    Step::Crash {
                        killed: true,
                        parallelism: 3,
                    },
                    Step::Write(2),
                    Step::Checkpoint(3),
                ];
                for step in &steps {
                    while let Err(fault) = job.step(step) {
                        assert!(fault.to_string().contains("failpoint"), "{fault}");
                        job.crash(false).unwrap();
                        while job.begin(2).is_err() {}
                    }
                }
                while job.finish().is_err() {
                    job.crash(false).unwrap();
                    while job.begin(2).is_err() {}
                }
                job.crash(false).unwrap();
                assert_eq!(job.visible(), job.covered, "{point} {nth}");
                assert_eq!(job.hidden(), [""; 0], "{point} {nth}");
                fail::remove(&point);
            }
        }
    }
    scenario.teardown();
}
