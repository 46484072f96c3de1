//! What an operator is.
//!
//! An operator is a plain struct. [`Operator::process`] takes a record and emits any number of
//! records; every other hook has a default that passes on. The struct that a job is defined with is
//! a prototype: each subtask works on a clone of it, opened once.

use crate::build::OpenContext;
use crate::checkpoint::StateVisitor;
use crate::exchange::Outbox;
use crate::fault::Flow;
use crate::stage::{Collector, Signal};
use crate::time::Timestamp;

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

    /// Shows the state that outlives this attempt: each part once, under a name of its own. The same call
    /// saves and loads, see [`crate::checkpoint::visitor`]. After loading, the watermark that the state
    /// had seen is shown to [`Operator::watermark`] again.
    fn state(&mut self, _state: &mut StateVisitor<'_>) -> Flow {
        Ok(())
    }

    /// Whether something that it has begun to emit waits for room. A barrier waits until all of it is
    /// out, so that [`Operator::state`] never meets half of it; [`Operator::resume`] goes on with it.
    fn emitting(&self) -> bool {
        false
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

/// An outbox for chains that have no other subtask to send to.
pub struct NoOutbox;

impl Outbox for NoOutbox {
    fn send(&mut self, edge: crate::exchange::EdgeId, to: u32, _message: crate::exchange::Message) {
        unreachable!("edge {edge:?} to subtask {to} in a chain without edges");
    }
}
