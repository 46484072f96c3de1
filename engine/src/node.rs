//! The one stage that hosts every operator in a chain: it calls the hooks in the right order, and takes
//! care of the operator's state at barriers.

mod checkpoints;

pub use checkpoints::Identity;

use crate::checkpoint::{Barrier, Notice, StateVisitor};
use crate::fault::{Fault, Flow, PanicMark};
use crate::operator::{Operator, Progress};
use crate::stage::{Collector, Signal, Stage, Turn};
use crate::time::Timestamp;
use checkpoints::Part;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::Duration;

/// When a turn looks again at what other threads do for its state.
const LOOKS_AGAIN_AFTER: Duration = Duration::from_millis(1);

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
