//! One subtask's part in checkpoints: what its stages have saved, and when all of them have.

use super::barrier::{Barrier, CheckpointId, CheckpointMode};
use super::image::{OperatorImage, SubtaskImage};
use super::restore::RestoredJob;
use crate::state::backing::Spill;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

/// What a checkpoint cost one subtask's stream, in milliseconds where nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// From the trigger to the first barrier.
    pub start_delay: i64,
    /// From the first barrier of a gate to its last, the longest of the subtask.
    pub alignment: i64,
    /// The longest turn in which a barrier passed, in microseconds.
    pub sync_micros: u64,
    /// From the barrier's last passage until everything was saved and could be written to the subtask's file.
    pub save: i64,
    /// Bytes of records in flight that became part of the checkpoint.
    pub persisted: u64,
    /// Its barrier overtook what waited.
    pub unaligned_checkpoint: bool,
}

/// Entries of state that a stage saves in one turn: a millisecond or two. The sooner all is saved, the fewer changes
/// have to keep what they change.
const SAVED_IN_A_TURN: usize = 32768;

/// Shared by all stages of one subtask.
#[derive(Clone, Default)]
pub struct Participant(Rc<Shared>);

#[derive(Default)]
struct Shared {
    me: u32,
    /// Entries of state that a stage saves in one turn, where a test says so.
    saved_in_a_turn: Option<usize>,
    mode: CheckpointMode,
    restored: Option<Arc<RestoredJob>>,
    spill: Option<Rc<dyn Spill>>,
    spills_when_short: bool,
    leaves: Cell<u32>,
    under_way: RefCell<VecDeque<UnderWay>>,
    /// No barrier up to this one is of use any more.
    settled: Cell<CheckpointId>,
    /// The newest that the head was told of.
    newest: Cell<CheckpointId>,
    barrier_passed: Cell<bool>,
}

struct UnderWay {
    barrier: Barrier,
    /// The head has been told of it. Where a subtask's own channel has ended, the barriers of others come
    /// to the ends of the chain before that, and what is ahead of them has saved nothing yet.
    triggered: bool,
    /// The ends of the chain and of its parts that the barrier has not come to.
    leaves: u32,
    /// Stages that still save.
    saving: u32,
    operators: Vec<OperatorImage>,
    alignment: i64,
    /// Bytes of records in flight.
    persisted: u64,
    /// Some barrier of it overtook what waited.
    unaligned: bool,
    positions: Vec<String>,
}

impl Participant {
    /// Of subtask `me`, which begins with its part of `restored`.
    pub fn new(me: u32, mode: CheckpointMode, restored: Option<Arc<RestoredJob>>) -> Self {
        Participant(Rc::new(Shared {
            me,
            mode,
            restored,
            ..Shared::default()
        }))
    }

    /// Gives its states something to spill to. To be called before any stage has it.
    pub fn spilling(mut self, spill: Rc<dyn Spill>) -> Self {
        if let Some(shared) = Rc::get_mut(&mut self.0) {
            shared.spill = Some(spill);
        }
        self
    }

    /// Has states stay in memory until that is short. To be called before any stage has it.
    pub fn when_short(mut self) -> Self {
        if let Some(shared) = Rc::get_mut(&mut self.0) {
            shared.spills_when_short = true;
        }
        self
    }

    /// Whether states spill from the beginning; those that begin with files do anyway.
    pub fn spills_at_once(&self) -> bool {
        let restored = self.0.restored.as_ref();
        !self.0.spills_when_short || restored.is_some_and(|job| job.has_files())
    }

    /// Has stages save no more than so many entries of state in one turn. To be called before any stage has it.
    pub fn saving_at_most(mut self, entries: usize) -> Self {
        if let Some(shared) = Rc::get_mut(&mut self.0) {
            shared.saved_in_a_turn = Some(entries.max(1));
        }
        self
    }

    /// How many entries of state a stage saves in one turn.
    pub fn saved_in_a_turn(&self) -> usize {
        self.0.saved_in_a_turn.unwrap_or(SAVED_IN_A_TURN)
    }

    /// What states spill to where they may become larger than memory.
    pub fn spill(&self) -> Option<&Rc<dyn Spill>> {
        self.0.spill.as_ref()
    }

    /// Whether channels wait for each other's barriers.
    pub fn mode(&self) -> CheckpointMode {
        self.0.mode
    }

    /// What this attempt begins with.
    pub fn restored(&self) -> Option<&Arc<RestoredJob>> {
        self.0.restored.as_ref()
    }

    /// One more end of the chain, or of a part of it that an exchange divides from the rest: it will tell when
    /// a barrier has come to it. Where barriers overtake, they come to a part behind an exchange by themselves.
    pub fn add_leaf(&self) {
        self.0.leaves.set(self.0.leaves.get() + 1);
    }

    fn with<R>(&self, barrier: Barrier, change: impl FnOnce(&mut UnderWay) -> R) -> Option<R> {
        if barrier.id <= self.0.settled.get() {
            return None;
        }
        let mut all = self.0.under_way.borrow_mut();
        let at = match all.iter().position(|u| u.barrier.id == barrier.id) {
            Some(at) => at,
            None => {
                all.push_back(UnderWay {
                    barrier,
                    triggered: false,
                    leaves: self.0.leaves.get(),
                    saving: 0,
                    operators: Vec::new(),
                    alignment: 0,
                    persisted: 0,
                    unaligned: false,
                    positions: Vec::new(),
                });
                all.len() - 1
            }
        };
        all[at].unaligned |= barrier.overtakes();
        Some(change(&mut all[at]))
    }

    /// A stage begins to save at this barrier; false where it is of no use any more.
    pub fn begin(&self, barrier: Barrier) -> bool {
        self.0.barrier_passed.set(true);
        self.with(barrier, |u| u.saving += 1).is_some()
    }

    /// A stage has saved everything; `None` where it had nothing.
    pub fn saved(&self, barrier: Barrier, image: Option<OperatorImage>) {
        self.with(barrier, |u| {
            u.saving = u.saving.saturating_sub(1);
            u.operators.extend(image);
        });
    }

    /// Whether the head of the chain is yet to be told that this checkpoint begins: it is told once, and in order.
    pub fn is_news(&self, barrier: Barrier) -> bool {
        barrier.id > self.0.newest.get()
    }

    /// The head of the chain was told that this checkpoint begins.
    pub fn triggered(&self, barrier: Barrier) {
        self.0.newest.set(barrier.id);
        self.with(barrier, |u| u.triggered = true);
    }

    /// The barrier has come to an end of the chain or of a part of it.
    pub fn passed_leaf(&self, barrier: Barrier) {
        self.0.barrier_passed.set(true);
        self.with(barrier, |u| u.leaves = u.leaves.saturating_sub(1));
    }

    /// A gate waited so long, in milliseconds, for the last of a barrier's channels.
    pub fn aligned(&self, barrier: Barrier, millis: i64) {
        self.with(barrier, |u| u.alignment = u.alignment.max(millis));
    }

    /// A source is so far in its splits.
    pub fn positions(&self, barrier: Barrier, positions: Vec<String>) {
        self.with(barrier, |u| u.positions = positions);
    }

    /// So many bytes of records in flight were kept for a barrier that overtook what waited.
    pub fn persisted(&self, barrier: Barrier, bytes: u64) {
        self.with(barrier, |u| u.persisted += bytes);
    }

    /// Whether a checkpoint is not, or not any more, of use.
    pub fn is_settled(&self, id: CheckpointId) -> bool {
        id <= self.0.settled.get()
    }

    /// Whether a barrier passed some stage since this was last asked.
    pub fn take_barrier_passed(&self) -> bool {
        self.0.barrier_passed.take()
    }

    /// A checkpoint, and all before it, will not be taken any more.
    pub fn abort(&self, id: CheckpointId) {
        self.0.settled.set(self.0.settled.get().max(id));
        self.0.under_way.borrow_mut().retain(|u| u.barrier.id > id);
    }

    /// Takes out the image of the oldest checkpoint that this subtask has done its part of.
    pub fn take_image(&self, task: u32) -> Option<SubtaskImage> {
        let mut all = self.0.under_way.borrow_mut();
        let whole = |u: &UnderWay| u.triggered && u.leaves == 0 && u.saving == 0;
        let at = all.iter().position(whole)?;
        let done = all.remove(at)?;
        Some(SubtaskImage {
            barrier: done.barrier,
            task,
            subtask: self.0.me,
            operators: done.operators,
            timing: Timing {
                alignment: done.alignment,
                persisted: done.persisted,
                unaligned_checkpoint: done.unaligned,
                ..Timing::default()
            },
            positions: done.positions,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_waits_for_the_head_for_the_ends_and_for_all_that_saves() {
        let participant = Participant::new(0, CheckpointMode::ExactlyOnce, None);
        participant.add_leaf();
        let barrier = Barrier::checkpoint(1);
        participant.passed_leaf(barrier);
        assert!(
            participant.take_image(0).is_none(),
            "the barriers of others were here before the head knew"
        );
        assert!(participant.begin(barrier));
        participant.triggered(barrier);
        assert!(participant.take_image(0).is_none(), "the head saves");
        participant.saved(barrier, None);
        assert!(participant.take_image(0).is_some());
        assert!(participant.take_image(0).is_none());
    }

    #[test]
    fn what_was_given_up_is_not_taken_up_again() {
        let participant = Participant::new(0, CheckpointMode::ExactlyOnce, None);
        let barrier = Barrier::checkpoint(1);
        participant.abort(barrier.id);
        participant.triggered(barrier);
        assert!(!participant.begin(barrier));
        assert!(participant.take_image(0).is_none());
    }
}
