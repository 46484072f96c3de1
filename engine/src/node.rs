//! The one stage that hosts every operator in a chain: it calls the hooks in the right order, and takes
//! care of the operator's state at barriers.

use crate::checkpoint::visitor::Capture;
use crate::checkpoint::{
    Barrier, BarrierKind, CheckpointMode, Notice, OperatorImage, Participant, StateImage,
    StateVisitor,
};
use crate::fault::{Fault, Flow, PanicMark};
use crate::operator::{Operator, Progress};
use crate::stage::{Collector, Signal, Stage, Turn};
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

/// Bytes of state by key that an operator saves in one turn, about: some milliseconds of work where values are large.
const SAVED_BYTES_IN_A_TURN: usize = 1 << 20;
/// Entries that are saved before anything is known of their size, and at least.
const FIRST_STEP: usize = 64;
/// When a turn looks again at what other threads do for its state.
const LOOKS_AGAIN_AFTER: Duration = Duration::from_millis(1);

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
struct Part {
    participant: Participant,
    identity: Identity,
    saving: Option<Saving>,
}

/// State that was frozen at a barrier and is being saved.
struct Saving {
    barrier: Barrier,
    /// The last watermark before it.
    watermark: Timestamp,
    capture: Capture,
    /// Entries that have as many bytes as a turn saves, by what is known of them.
    step: usize,
}

/// The stage of an operator: calls its hooks in the right order and passes on what it doesn't want.
pub struct Node<In, Op, D> {
    op: Op,
    down: D,
    name: Rc<str>,
    /// Its vertex has a part in this subtask; else the operator was not opened and is never called.
    present: bool,
    suspended: bool,
    held: VecDeque<Signal>,
    /// It is suspended only for the sake of a barrier behind it: the operator has nothing half-emitted and
    /// has not seen the signal that is held first.
    unshown: bool,
    /// Its input has ended: timers that are still set never fire.
    ended: bool,
    /// The last watermark that it was shown.
    watermark: Timestamp,
    /// The watermark that its state had seen when this attempt began.
    seen_before: Timestamp,
    part: Option<Part>,
    /// Its state may be larger than memory.
    spilled: bool,
    input: PhantomData<fn(In)>,
}

impl<In, Op, D> Node<In, Op, D>
where
    Op: Operator<In>,
    D: Collector<Op::Out> + Stage,
{
    /// Hosts an opened operator in front of `down`.
    pub fn new(op: Op, name: Rc<str>, down: D) -> Self {
        Node {
            op,
            down,
            name,
            present: true,
            suspended: false,
            held: VecDeque::new(),
            unshown: false,
            ended: false,
            watermark: Timestamp::MIN,
            seen_before: Timestamp::MIN,
            part: None,
            spilled: false,
            input: PhantomData,
        }
    }

    /// The place of an operator whose vertex has no part in this subtask, though one behind it may.
    pub fn absent(mut self) -> Self {
        self.present = false;
        self
    }

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
                let backing = spill.open(&identity.uid, state)?;
                Ok((identity.max_parallelism, backing, spill.memory().claim()))
            };
            self.spilled = true;
            self.guarded(|op, _| op.state(&mut StateVisitor::spill(&mut open)))?;
        }
        Ok(())
    }

    /// State that is in memory until that is short moves, at a moment when nothing else is under way.
    fn move_if_short(&mut self) -> Flow {
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
    fn freeze(&mut self, barrier: Barrier) -> Flow {
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
    fn save_some(&mut self) -> Flow {
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

    /// Runs a hook; its error is given this operator's name, and so is its panic.
    #[inline(always)]
    fn guarded<R>(&mut self, hook: impl FnOnce(&mut Op, &mut D) -> Flow<R>) -> Flow<R> {
        let mark = PanicMark::new(&self.name);
        let result = hook(&mut self.op, &mut self.down);
        mark.passed();
        match result {
            Ok(value) => Ok(value),
            Err(fault) => Err(self.named(fault)),
        }
    }

    #[cold]
    fn named(&self, fault: Fault) -> Fault {
        fault.at(&self.name)
    }

    fn handle(&mut self, signal: Signal) -> Flow {
        match signal {
            // What the operator emits for it would overtake a barrier.
            Signal::Watermark(_) if self.down.holds_barrier() => {
                self.suspended = true;
                self.unshown = true;
                self.held.push_back(signal);
                Ok(())
            }
            Signal::Watermark(at) => {
                // A later attempt hears again of moments that its state has seen.
                let at = at.max(self.seen_before);
                let signal = Signal::Watermark(at);
                match self.show(at)? {
                    Progress::Forward => self.forward(signal),
                    Progress::Swallow => Ok(()),
                    Progress::Suspended => {
                        self.suspended = true;
                        self.held.push_back(signal);
                        Ok(())
                    }
                }
            }
            Signal::Barrier(_) if self.present && self.op.emitting() => {
                self.suspended = true;
                self.held.push_back(signal);
                Ok(())
            }
            Signal::Barrier(barrier) => {
                self.freeze(barrier)?;
                Stage::signal(&mut self.down, signal)
            }
            Signal::Idle => Stage::signal(&mut self.down, signal),
            Signal::EndOfInput => {
                self.ended = true;
                Stage::signal(&mut self.down, signal)
            }
        }
    }

    /// Whether it saves; if so, whether all that is left is to wait for other threads.
    fn saves(&self) -> Option<bool> {
        let saving = self.part.as_ref()?.saving.as_ref()?;
        Some(saving.capture.waits())
    }

    fn show(&mut self, at: Timestamp) -> Flow<Progress> {
        self.watermark = at;
        self.guarded(|op, down| op.watermark(at, down))
    }

    fn forward(&mut self, signal: Signal) -> Flow {
        if signal == Signal::Watermark(Timestamp::MAX) {
            self.guarded(|op, down| op.finish(down))?;
        }
        Stage::signal(&mut self.down, signal)
    }

    /// The watermark that was held back first, unless it was a barrier.
    fn take_held_watermark(&mut self) -> Option<Signal> {
        let first = self.held.front().copied();
        let watermark = first.filter(|signal| matches!(signal, Signal::Watermark(_)))?;
        self.held.pop_front();
        Some(watermark)
    }

    fn resume(&mut self) -> Flow {
        if std::mem::take(&mut self.unshown) {
            return self.release();
        }
        match self.guarded(|op, down| op.resume(down))? {
            Progress::Suspended => return Ok(()),
            Progress::Forward => {
                if let Some(signal) = self.take_held_watermark() {
                    self.forward(signal)?;
                }
            }
            Progress::Swallow => {
                self.take_held_watermark();
            }
        }
        self.release()
    }

    /// Nothing is half-emitted any more: takes up the signals that were held back.
    fn release(&mut self) -> Flow {
        self.suspended = false;
        let held = std::mem::take(&mut self.held);
        for signal in held {
            Stage::signal(self, signal)?;
        }
        Ok(())
    }
}

impl<In, Op, D> Collector<In> for Node<In, Op, D>
where
    Op: Operator<In>,
    D: Collector<Op::Out> + Stage,
{
    #[inline(always)]
    fn collect(&mut self, at: Timestamp, value: In) -> Flow {
        // As `guarded` does, but without a closure: the compiler may choose to call that per record.
        let mark = PanicMark::new(&self.name);
        let result = self.op.process(at, value, &mut self.down);
        mark.passed();
        match result {
            Ok(()) => Ok(()),
            Err(fault) => Err(self.named(fault)),
        }
    }

    fn has_room(&self) -> bool {
        self.room()
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<In, Op, D> Stage for Node<In, Op, D>
where
    Op: Operator<In>,
    D: Collector<Op::Out> + Stage,
{
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        visit(&mut self.down)
    }

    fn each_ref(&self, visit: &mut dyn FnMut(&dyn Stage)) {
        visit(&self.down);
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        if self.suspended {
            self.held.push_back(signal);
            return Ok(());
        }
        self.handle(signal)
    }

    fn holds_barrier(&self) -> bool {
        let barrier = |signal: &Signal| matches!(signal, Signal::Barrier(_));
        self.held.iter().any(barrier) || self.down.holds_barrier()
    }

    /// What is half-emitted holds a barrier up, however it is to pass what comes then.
    fn overtake(&mut self, barrier: Barrier) -> Flow {
        for held in &mut self.held {
            if let Signal::Barrier(held) = held
                && held.id == barrier.id
            {
                held.passing = barrier.passing;
            }
        }
        self.down.overtake(barrier)
    }

    fn notify(&mut self, notice: Notice) -> Flow {
        if let (Notice::Aborted { id }, Some(part)) = (notice, &mut self.part)
            && part.saving.as_ref().is_some_and(|s| s.barrier.id <= id)
        {
            part.saving = None;
            self.guarded(|op, _| op.state(&mut StateVisitor::thaw()))?;
        }
        self.down.notify(notice)
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        if !self.present {
            return self.down.turn(turn);
        }
        if self.saves().is_some() {
            self.save_some()?;
            match self.saves() {
                Some(true) => turn.wake_at(turn.now.plus(LOOKS_AGAIN_AFTER)),
                Some(false) => turn.again = true,
                None => {}
            }
        }
        self.move_if_short()?;
        if self.spilled {
            self.guarded(|op, _| op.state(&mut StateVisitor::maintain()))?;
        }
        if self.suspended && self.down.room() {
            self.resume()?;
            // Either there is more to emit, or room again for a batch that waits before this chain.
            turn.again = true;
        }
        if turn.held_back {
            self.op.held_back(turn.now);
        }
        if let Some(signal) = self.op.turn(turn.now) {
            Stage::signal(&mut self.down, signal)?;
        }
        let mut waits = self.suspended;
        while let Some(at) = self.op.next_timer().filter(|_| !self.ended) {
            if at > turn.now {
                turn.wake_at(at);
                break;
            }
            if !self.down.room() {
                waits = true;
                break;
            }
            let now = turn.now;
            self.guarded(|op, down| op.timer(now, down))?;
        }
        self.down.turn(turn)?;
        // What stood in the way may have left just now, and nobody else tells of it.
        if waits && self.down.room() {
            turn.again = true;
        }
        Ok(())
    }

    fn room(&self) -> bool {
        !self.suspended && self.op.room() && self.down.room()
    }

    fn finished(&self) -> bool {
        !self.suspended && self.down.finished()
    }
}
