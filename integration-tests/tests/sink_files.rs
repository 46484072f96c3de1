//! Output of a two-phase sink that lies in files of its own while it waits: checkpoints keep these, savepoints
//! too, wherever they are moved, and a recovery reads them back.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::{Checkpointing, Restore, Target};
use tidegate::connectors::Generator;
use tidegate::engine::checkpoint::{
    CheckpointId, CheckpointSettings, LocalFiles, SavepointKind, StoredFiles,
};
use tidegate::engine::sink::{RecoveryContext, TwoPhase};
use tidegate::prelude::*;

/// Commits nothing while it runs: what is seen came through a checkpoint, and back.
#[derive(Clone, Default)]
struct Filed {
    seen: Arc<Mutex<Vec<String>>>,
}

impl Filed {
    fn seen(&self) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *seen)
    }
}

impl Sink<u64> for Filed {
    type Writer = FiledWriter;

    fn recover_in(
        &self,
        context: &RecoveryContext<'_>,
        committables: Option<Vec<Vec<u8>>>,
    ) -> Flow {
        for name in committables.into_iter().flatten() {
            let bytes = context.read(&String::from_utf8_lossy(&name))?;
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(String::from_utf8_lossy(&bytes).into_owned());
        }
        Ok(())
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<FiledWriter> {
        Ok(FiledWriter {
            subtask: context.subtask(),
            epoch: String::new(),
            prepared: VecDeque::new(),
            files: Vec::new(),
        })
    }
}

struct FiledWriter {
    subtask: u32,
    epoch: String,
    prepared: VecDeque<Vec<u8>>,
    files: Vec<(String, String)>,
}

impl SinkWriter<u64> for FiledWriter {
    fn write(&mut self, _: Timestamp, n: u64) -> Flow {
        self.epoch += &format!("{n} ");
        Ok(())
    }

    fn two_phase(&mut self) -> Option<&mut dyn TwoPhase> {
        Some(self)
    }
}

impl TwoPhase for FiledWriter {
    fn prepare(&mut self, checkpoint: CheckpointId) -> Flow {
        let name = format!("{}-{checkpoint}", self.subtask);
        self.prepared.push_back(name.clone().into_bytes());
        self.files.push((name, std::mem::take(&mut self.epoch)));
        Ok(())
    }

    fn prepared(&mut self) -> Flow<Option<Vec<u8>>> {
        Ok(self.prepared.pop_front())
    }

    fn commit(&mut self, _: Vec<u8>, _: bool) -> Flow {
        Ok(())
    }

    fn committed(&mut self) -> Flow<bool> {
        Ok(false)
    }

    fn files(
        &mut self,
        committables: &[&[u8]],
        stored: &StoredFiles,
    ) -> Flow<Option<Arc<dyn LocalFiles>>> {
        let files = self.files.iter();
        let files = files.filter(|(name, _)| committables.contains(&name.as_bytes()));
        Ok(Some(Arc::new(Kept(
            files.cloned().collect(),
            stored.clone(),
        ))))
    }
}

struct Kept(Vec<(String, String)>, StoredFiles);

impl LocalFiles for Kept {
    fn names(&self) -> Result<Vec<String>, String> {
        Ok(self.0.iter().map(|(name, _)| name.clone()).collect())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let found = self.0.iter().find(|(known, _)| known == name);
        let (_, text) = found.ok_or("it is not there")?;
        Ok(text.clone().into_bytes())
    }

    fn stored(&self) -> &StoredFiles {
        &self.1
    }
}

fn start(sink: &Filed, folder: &Path, restore: Restore) -> RunningJob {
    let mut env = StreamEnv::with_parallelism(2);
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(Duration::from_millis(20)));
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder)));
    checkpointing.restore = restore;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    let numbers = Generator::new(u64::MAX, |n| n).per_second(20_000.0);
    // One source, so that a checkpoint covers the first so many.
    env.source("numbers", numbers)
        .parallelism(1)
        .sink("out", sink.clone())
        .parallelism(2);
    env.start("filed").expect("it starts")
}

/// Waits until so many checkpoints are complete.
fn checkpoints(folder: &Path, at_least: usize) {
    let started = std::time::Instant::now();
    let complete = || {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let complete = entries.filter(|entry| entry.path().join("_metadata").is_file());
        complete.count()
    };
    while complete() < at_least {
        assert!(started.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What a job reads back that goes on from there.
fn recovered(sink: &Filed, folder: &Path, restore: Restore) -> Vec<String> {
    let job = start(sink, folder, restore);
    let started = std::time::Instant::now();
    let mut seen = Vec::new();
    while seen.is_empty() && !job.ended() {
        assert!(started.elapsed() < Duration::from_secs(60), "nothing came");
        std::thread::park_timeout(Duration::from_millis(5));
        seen = sink.seen();
    }
    job.cancel();
    if let Err(error) = job.wait() {
        let error = error.to_string();
        assert!(error.contains("cancelled"), "{error}");
    }
    // The second subtask's may have come after the first one's.
    seen.extend(sink.seen());
    seen
}

/// The numbers in the files, which must be those from 0 on.
fn numbers(files: &[String]) -> usize {
    let words = files.iter().flat_map(|file| file.split_whitespace());
    let mut all: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
    all.sort_unstable();
    assert!(
        all.iter().copied().eq(0..all.len() as u64),
        "{} numbers",
        all.len()
    );
    all.len()
}

#[test]
fn a_checkpoint_keeps_the_files_of_all_that_is_not_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = Filed::default();
    let job = start(&sink, folder.path(), Restore::Nothing);
    checkpoints(folder.path(), 3);
    job.cancel();
    let _ = job.wait();
    assert!(sink.seen().is_empty(), "nothing was recovered yet");
    let seen = recovered(&sink, folder.path(), Restore::Latest);
    assert!(seen.len() >= 6, "{} epochs of two subtasks", seen.len());
    assert!(numbers(&seen) > 0);
}

#[test]
fn a_savepoint_holds_them_itself_wherever_it_is_moved() {
    let folder = tempfile::tempdir().expect("a folder");
    let sink = Filed::default();
    let job = start(&sink, folder.path(), Restore::Nothing);
    checkpoints(folder.path(), 2);
    let place = job
        .savepoint(SavepointKind::Savepoint, None)
        .expect("a savepoint");
    job.cancel();
    let _ = job.wait();
    let elsewhere = tempfile::tempdir().expect("a folder");
    let moved = elsewhere.path().join("mine");
    std::fs::rename(&place, &moved).expect("it is moved");
    drop(folder);
    let (storage, name) = LocalStorage::of_checkpoint(&moved);
    let target = Target {
        storage: Arc::new(storage),
        folder: name,
    };
    let fresh = tempfile::tempdir().expect("a folder");
    let seen = recovered(&sink, fresh.path(), Restore::From(target));
    assert!(numbers(&seen) > 0);
}
