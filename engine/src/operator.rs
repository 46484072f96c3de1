//! What an operator is, and the one stage that hosts every operator in a chain.
//!
//! An operator is a plain struct. [`Operator::process`] takes a record and emits any number of
//! records; every other hook has a default that passes on. The struct that a job is defined with is
//! a prototype: each subtask works on a clone of it, opened once.

use crate::build::OpenContext;
use crate::exchange::Outbox;
use crate::fault::{Fault, Flow, PanicMark};
use crate::stage::{Collector, Signal, Stage, Turn};
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;

/// What became of a watermark that an operator was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on downstream.
    Forward,
    /// It ends here: this operator makes watermarks of its own.
    Swallow,
    /// There is more to emit before it may go on: [`Operator::resume`] is called when there is room.
    Suspended,
}

/// One step of a job between its input and its output.
///
/// ```
/// use tidegate_engine::prelude::*;
///
/// /// Emits each value and the one before it.
/// #[derive(Clone)]
/// struct Pairs { last: Option<u64> }
///
/// impl Operator<u64> for Pairs {
///     type Out = (u64, u64);
///     fn process<C: Collector<(u64, u64)>>(&mut self, at: Timestamp, value: u64, out: &mut C) -> Flow {
///         match self.last.replace(value) {
///             Some(before) => out.collect(at, (before, value)),
///             None => Ok(()),
///         }
///     }
/// }
/// ```
pub trait Operator<In>: Sized + 'static {
    /// What it emits.
    type Out: 'static;

    /// Called once in each subtask, before the first record.
    fn open(&mut self, _context: &mut OpenContext<'_>) -> Flow {
        Ok(())
    }

    /// Takes a record. Errors fail the job, with this operator's name and the record's origin.
    fn process<C: Collector<Self::Out>>(&mut self, at: Timestamp, value: In, out: &mut C) -> Flow;

    /// Event time has come to `at`. What is emitted here goes downstream before the watermark.
    fn watermark<C: Collector<Self::Out>>(
        &mut self,
        _at: Timestamp,
        _out: &mut C,
    ) -> Flow<Progress> {
        Ok(Progress::Forward)
    }

    /// Goes on with what [`Progress::Suspended`] left.
    fn resume<C: Collector<Self::Out>>(&mut self, _out: &mut C) -> Flow<Progress> {
        Ok(Progress::Forward)
    }

    /// The end of a turn. A generator of watermarks returns its new one here.
    fn turn(&mut self, _now: Timestamp) -> Option<Signal> {
        None
    }

    /// Whether it takes records. One that doesn't must set a timer for when it will look again.
    #[inline(always)]
    fn room(&self) -> bool {
        true
    }

    /// The end of a turn since whose predecessor the subtask could not take input: that no record
    /// came says nothing about its source.
    fn held_back(&mut self, _now: Timestamp) {}

    /// The earliest processing time for which a timer is set.
    fn next_timer(&self) -> Option<Timestamp> {
        None
    }

    /// Processing time has come to [`Operator::next_timer`].
    fn timer<C: Collector<Self::Out>>(&mut self, _now: Timestamp, _out: &mut C) -> Flow {
        Ok(())
    }

    /// The input is complete. What is emitted here goes downstream before the last watermark.
    fn finish<C: Collector<Self::Out>>(&mut self, _out: &mut C) -> Flow {
        Ok(())
    }
}

/// What a job is defined with and each subtask gets an operator from. An operator that can be cloned
/// and sent is its own blueprint; one that holds handles of its thread (state, side outputs) has a
/// separate one.
pub trait Blueprint<In>: Clone + Send + 'static {
    /// The operator.
    type Op: Operator<In>;

    /// A fresh operator, not opened yet.
    fn operator(self) -> Self::Op;
}

impl<In, Op: Operator<In> + Clone + Send> Blueprint<In> for Op {
    type Op = Op;

    fn operator(self) -> Op {
        self
    }
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
            Signal::Watermark(at) => match self.guarded(|op, down| op.watermark(at, down))? {
                Progress::Forward => self.forward(signal),
                Progress::Swallow => Ok(()),
                Progress::Suspended => {
                    self.suspended = true;
                    self.held.push_back(signal);
                    Ok(())
                }
            },
            Signal::Idle | Signal::EndOfInput => Stage::signal(&mut self.down, signal),
        }
    }

    fn forward(&mut self, signal: Signal) -> Flow {
        if signal == Signal::Watermark(Timestamp::MAX) {
            self.guarded(|op, down| op.finish(down))?;
        }
        Stage::signal(&mut self.down, signal)
    }

    fn resume(&mut self) -> Flow {
        match self.guarded(|op, down| op.resume(down))? {
            Progress::Suspended => return Ok(()),
            Progress::Forward => {
                if let Some(signal) = self.held.pop_front() {
                    self.forward(signal)?;
                }
            }
            Progress::Swallow => {
                self.held.pop_front();
            }
        }
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
        self.guarded(|op, down| op.process(at, value, down))
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

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        if !self.present {
            return self.down.turn(turn);
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
        while let Some(at) = self.op.next_timer() {
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

/// An outbox for chains that have no other subtask to send to.
pub struct NoOutbox;

impl Outbox for NoOutbox {
    fn send(&mut self, edge: crate::exchange::EdgeId, to: u32, _message: crate::exchange::Message) {
        unreachable!("edge {edge:?} to subtask {to} in a chain without edges");
    }
}
