//! A subtask's duties towards checkpoints: to write its images where they belong, and to end only after
//! the last one.

use crate::checkpointing::Target;
use crate::coordinator::CheckpointCoordinator;
use crate::failpoints::failpoint;
use crate::protocol::{CheckpointEvent, TriggerCheckpoint};
use actix::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tidegate_engine::checkpoint::shared::{delete_files, store_files};
use tidegate_engine::checkpoint::{
    self as checkpoint, BarrierKind, Below, CheckpointId, CheckpointStorage, Event, Notice, Phase,
    SubtaskFile, SubtaskImage, SubtaskRef, write_image_to,
};
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::Flow;
use tidegate_engine::metrics::{Counter, Histogram};
use tidegate_engine::task::Subtask;

/// What one subtask still owes its coordinator.
pub struct Snapshots {
    coordinator: Addr<CheckpointCoordinator>,
    me: SubtaskRef,
    clock: Clock,
    /// Checkpoints that were triggered and are not settled.
    triggered: BTreeMap<CheckpointId, Triggered>,
    /// Images whose trigger has not come yet: a barrier may be faster.
    early: Vec<SubtaskImage>,
    figures: Figures,
    drained: bool,
    last: bool,
    released: bool,
}

/// Where it is counted what checkpoints cost one subtask.
pub struct Figures {
    /// The longest turns in which a barrier passed, in microseconds.
    pub pauses: Histogram,
    /// Bytes of records in flight that became part of a checkpoint.
    pub persisted: Counter,
}

struct Triggered {
    order: TriggerCheckpoint,
    /// Milliseconds from the trigger to its arrival here.
    delay: i64,
    /// The longest turn in which its barrier passed.
    pause: Duration,
    /// When it passed the last time.
    passed: Instant,
}

impl Snapshots {
    /// Nothing owed yet.
    pub fn new(
        coordinator: Addr<CheckpointCoordinator>,
        me: SubtaskRef,
        clock: Clock,
        figures: Figures,
    ) -> Self {
        Snapshots {
            coordinator,
            me,
            clock,
            triggered: BTreeMap::new(),
            early: Vec::new(),
            figures,
            drained: false,
            last: false,
            released: false,
        }
    }

    /// A checkpoint begins. If its barriers are to overtake what waits after some time, this comes once more.
    pub fn trigger(&mut self, order: TriggerCheckpoint) {
        failpoint!("snapshots::before_barrier");
        let delay = (self.clock.now().0 - order.at.0).max(0);
        let id = order.barrier.id;
        self.triggered.entry(id).or_insert(Triggered {
            order,
            delay,
            pause: Duration::ZERO,
            passed: Instant::now(),
        });
    }

    /// A checkpoint is settled, and so are those before it.
    pub fn settled(&mut self, notice: Notice) {
        let id = match notice {
            Notice::Completed { id, last } => {
                self.last |= last;
                id
            }
            Notice::Aborted { id } => id,
        };
        self.triggered.retain(|known, _| *known > id);
        self.early.retain(|image| image.barrier.id > id);
    }

    /// The subtask may end.
    pub fn release(&mut self) {
        self.released = true;
    }

    /// Looks what a turn has brought: a barrier that passed, an image that is whole.
    pub fn after_turn(&mut self, subtask: &mut Subtask, took: Duration) {
        if subtask.take_barrier_passed() {
            failpoint!("snapshots::after_barrier");
            self.figures.pauses.record(took.as_micros() as u64);
            for triggered in self.triggered.values_mut() {
                triggered.pause = triggered.pause.max(took);
                triggered.passed = Instant::now();
            }
        }
        while let Some(image) = subtask.take_image(self.me.task) {
            self.early.push(image);
        }
        for image in std::mem::take(&mut self.early) {
            match self.triggered.get(&image.barrier.id) {
                Some(triggered) => self.write(image, triggered),
                None => self.early.push(image),
            }
        }
    }

    fn write(&self, mut image: SubtaskImage, triggered: &Triggered) {
        self.figures.persisted.add(image.timing.persisted);
        image.timing.start_delay = triggered.delay;
        image.timing.sync_micros = triggered.pause.as_micros() as u64;
        let (target, subtask) = (triggered.order.target.clone(), self.me);
        let coordinator = self.coordinator.clone();
        let passed = triggered.passed;
        tokio::task::spawn_blocking(move || {
            let id = image.barrier.id;
            failpoint!("snapshots::before_write");
            let written = write(&target, &mut image, passed);
            failpoint!("snapshots::after_write");
            let event = match written {
                Ok((file, shared)) => Event::SnapshotDone {
                    id,
                    subtask,
                    bytes: file.file.length + shared,
                    file,
                    timing: image.timing,
                },
                Err(error) => Event::SnapshotDeclined {
                    id,
                    subtask,
                    reason: error.to_string(),
                    phase: Phase::Async,
                },
            };
            coordinator.do_send(CheckpointEvent(event));
        });
    }

    /// All input has ended and all output has left: the coordinator takes the last checkpoint.
    pub fn drained(&mut self) {
        if !std::mem::replace(&mut self.drained, true) {
            failpoint!("snapshots::before_drained");
            let subtask = self.me;
            self.coordinator
                .do_send(CheckpointEvent(Event::Drained { subtask }));
            failpoint!("snapshots::after_drained");
        }
    }

    /// Whether the subtask may end now.
    pub fn may_end(&self, subtask: &mut Subtask) -> Flow<bool> {
        Ok(self.released && (!self.last || subtask.committed()?))
    }
}

/// Writes an image and those of its shared files that are new; the bytes of the latter. The barrier passed at
/// `passed`: what it took to save since then is part of the file.
fn write(
    target: &Target,
    image: &mut SubtaskImage,
    passed: Instant,
) -> checkpoint::Result<(SubtaskFile, u64)> {
    let storage = &*target.storage;
    // A savepoint stands alone: its files lie in its own folder.
    let below = Below::new(target.storage.clone(), target.folder.as_str());
    let files: &dyn CheckpointStorage = match image.barrier.kind {
        BarrierKind::Checkpoint => storage,
        BarrierKind::Savepoint | BarrierKind::Stop => &below,
    };
    failpoint!("snapshots::before_shared");
    let fresh = store_files(files, image.barrier.id, image)?;
    failpoint!("snapshots::after_shared");
    image.timing.save = passed.elapsed().as_millis() as i64;
    match write_image_to(storage, &target.folder, image) {
        Ok(file) => Ok((file, fresh.iter().map(|file| file.length).sum())),
        Err(error) => {
            delete_files(files, &fresh);
            Err(error)
        }
    }
}
