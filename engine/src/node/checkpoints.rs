//! An operator's part in checkpoints: what is frozen at a barrier, saved in the turns behind it, and loaded again.

use super::Node;
use crate::checkpoint::visitor::Capture;
use crate::checkpoint::{
    Barrier, BarrierKind, CheckpointMode, OperatorImage, Participant, StateImage, StateVisitor,
};
use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::{Collector, Stage};
use crate::time::Timestamp;

/// Bytes of state by key that an operator saves in one turn, about: some milliseconds of work where values are large.
const SAVED_BYTES_IN_A_TURN: usize = 1 << 20;
/// Entries that are saved before anything is known of their size, and at least.
const FIRST_STEP: usize = 64;

/// By what an operator is known in checkpoints.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its stable id.
    pub uid: String,
    /// The number of this subtask.
    pub me: u32,
    /// How many subtasks it has.
    pub parallelism: u32,
    /// The number of its key groups.
    pub max_parallelism: u32,
}

impl Identity {
    /// The image of its states in this subtask.
    pub fn image(
        &self,
        name: &str,
        watermark: Timestamp,
        states: Vec<StateImage>,
    ) -> OperatorImage {
        OperatorImage {
            uid: self.uid.clone(),
            name: name.to_owned(),
            max_parallelism: self.max_parallelism,
            parallelism: self.parallelism,
            watermark,
            states,
        }
    }
}

/// An operator's part in checkpoints.
pub(super) struct Part {
    participant: Participant,
    identity: Identity,
    pub(super) saving: Option<Saving>,
}

/// State that was frozen at a barrier and is being saved.
pub(super) struct Saving {
    pub(super) barrier: Barrier,
    /// The last watermark before it.
    watermark: Timestamp,
    capture: Capture,
    /// Entries that have as many bytes as a turn saves, by what is known of them.
    step: usize,
}

impl<In, Op, D> Node<In, Op, D>
where
    Op: Operator<In>,
    D: Collector<Op::Out> + Stage,
{
    /// Takes part in checkpoints, and begins with what an earlier attempt saved.
    pub fn participate(mut self, participant: Participant, identity: Identity) -> Flow<Self> {
        if participant.spills_at_once() {
            self.spill(&participant, &identity)?;
        }
        if let Some(job) = participant.restored().cloned() {
            let Identity {
                uid,
                me,
                parallelism,
                max_parallelism,
            } = &identity;
            let restored = job.operator(uid, *me, *parallelism, *max_parallelism);
            if let Some(mut saved) = restored.map_err(|fault| self.named(fault))? {
                let mut watermark = saved.watermark();
                if participant.mode() == CheckpointMode::AtLeastOnce {
                    // Some records come again: the last watermark is behind them, and yet to come.
                    watermark = watermark.min(Timestamp(Timestamp::MAX.0 - 1));
                }
                self.guarded(|op, _| {
                    let mut visitor = StateVisitor::load(&mut saved);
                    op.state(&mut visitor)?;
                    visitor.finish()
                })?;
                self.watermark = watermark;
                self.seen_before = watermark;
                // It has seen this watermark, and all that is due by it has left; so nothing is emitted.
                if watermark > Timestamp::MIN {
                    self.guarded(|op, down| op.watermark(watermark, down))?;
                }
            }
        }
        self.part = Some(Part {
            participant,
            identity,
            saving: None,
        });
        Ok(self)
    }

    /// Has the operator's state spill from now on, where it may.
    fn spill(&mut self, participant: &Participant, identity: &Identity) -> Flow {
        if let (Some(spill), true) = (participant.spill(), self.present) {
            let mut open = |state: &str| {
                let backing = spill.open(&identity.uid, state, identity.max_parallelism)?;
                Ok((identity.max_parallelism, backing, spill.memory().claim()))
            };
            self.spilled = true;
            self.guarded(|op, _| op.state(&mut StateVisitor::spill(&mut open)))?;
        }
        Ok(())
    }

    /// State that is in memory until that is short moves, at a moment when nothing else is under way.
    pub(super) fn move_if_short(&mut self) -> Flow {
        let busy = self.spilled || self.suspended || self.op.emitting();
        let Some(part) = self
            .part
            .as_ref()
            .filter(|part| !busy && part.saving.is_none())
        else {
            return Ok(());
        };
        if part
            .participant
            .spill()
            .is_none_or(|spill| !spill.memory().is_short())
        {
            return Ok(());
        }
        let (participant, identity) = (part.participant.clone(), part.identity.clone());
        self.spill(&participant, &identity)
    }

    /// A barrier is here: what has to be saved of this moment is frozen.
    pub(super) fn freeze(&mut self, barrier: Barrier) -> Flow {
        self.save(usize::MAX)?;
        let Some(part) = &self.part else {
            return Ok(());
        };
        if !self.present || !part.participant.begin(barrier) {
            return Ok(());
        }
        let shares_files = barrier.kind == BarrierKind::Checkpoint;
        let mut capture = Capture::new(part.identity.max_parallelism)
            .sharing_files(shares_files)
            .streaming(!shares_files);
        self.guarded(|op, _| op.state(&mut StateVisitor::freeze(&mut capture)))?;
        if let Some(part) = &mut self.part {
            part.saving = Some(Saving {
                barrier,
                watermark: self.watermark,
                capture,
                step: FIRST_STEP,
            });
        }
        // A part that can't be frozen writes all of it now, whatever the budget.
        self.save_some()
    }

    /// Saves as much as a turn may take: so many entries, or so many bytes.
    pub(super) fn save_some(&mut self) -> Flow {
        let Some(part) = &mut self.part else {
            return Ok(());
        };
        let Some(saving) = &mut part.saving else {
            return Ok(());
        };
        let (before, mut step) = (saving.capture.bytes(), saving.step);
        let at_most = part.participant.saved_in_a_turn();
        let mut entries = 0;
        while entries < at_most {
            step = step.min(at_most - entries);
            self.save(step)?;
            entries += step;
            let saving = self.part.as_mut().and_then(|part| part.saving.as_mut());
            let Some(saving) = saving else {
                return Ok(());
            };
            // The next ones will be about as large as these.
            let bytes = saving.capture.bytes() - before;
            let each = (bytes / entries).max(1);
            saving.step = (SAVED_BYTES_IN_A_TURN / each).max(FIRST_STEP);
            if bytes >= SAVED_BYTES_IN_A_TURN || saving.capture.waits() {
                break;
            }
            step = ((SAVED_BYTES_IN_A_TURN - bytes) / each).max(FIRST_STEP);
        }
        Ok(())
    }

    /// Goes on saving. What is whole goes to the subtask's image.
    fn save(&mut self, budget: usize) -> Flow {
        let saving = self.part.as_mut().and_then(|part| part.saving.take());
        let Some(mut saving) = saving else {
            return Ok(());
        };
        let capture = &mut saving.capture;
        self.guarded(|op, _| op.state(&mut StateVisitor::save(capture, budget)))?;
        let Some(part) = &mut self.part else {
            return Ok(());
        };
        if !saving.capture.complete() {
            part.saving = Some(saving);
            return Ok(());
        }
        let Saving {
            barrier, watermark, ..
        } = saving;
        let states = saving.capture.into_states();
        let image =
            (!states.is_empty()).then(|| part.identity.image(&self.name, watermark, states));
        part.participant.saved(barrier, image);
        Ok(())
    }

    /// Whether it saves; if so, whether all that is left is to wait for other threads.
    pub(super) fn saves(&self) -> Option<bool> {
        let saving = self.part.as_ref()?.saving.as_ref()?;
        Some(saving.capture.waits())
    }
}
