//! The channel from a subtask to itself: a direct call, unless it has to wait or is recorded.
//!
//! It waits while its barrier has come and those of others have not, while a barrier that has passed is held up
//! further on, and while what an earlier attempt had in flight is handed on. It is recorded between the passage
//! of a barrier that overtakes and its own barrier.

use super::{Exchange, Waiting};
use crate::checkpoint::Barrier;
use crate::exchange::{Distribution, Rec};
use crate::fault::Flow;
use crate::stage::{Collector, Signal, Stage};
use crate::time::Timestamp;

impl<T, P, D> Exchange<T, P, D>
where
    T: Send + 'static,
    P: Distribution<T>,
    D: Collector<P::Local> + Stage,
{
    /// The gate lets a barrier by. If it overtakes, what waits of this subtask's own channel belongs before
    /// it, unless the channel has brought it.
    pub(super) fn passed(&mut self, barrier: Barrier) -> Flow {
        self.arrivals.passed(&self.gate, barrier);
        let me = self.placement.me;
        let recorded = self.arrivals.records_for() == Some(barrier.id);
        if !recorded || !self.own_channel() || self.gate.has_brought(0, me, barrier.id) {
            return Ok(());
        }
        let its =
            |w: &Waiting<_>| matches!(w, Waiting::Signal(Signal::Barrier(b)) if b.id == barrier.id);
        let waiting = std::mem::take(&mut self.waiting);
        let stands = waiting.iter().position(its);
        for (place, waits) in waiting.into_iter().enumerate() {
            match waits {
                _ if stands == Some(place) => self.gate.overtaken(0, me, barrier),
                Waiting::Record(at, hash, local) if stands.is_none_or(|stands| place < stands) => {
                    let local = self.record_own(at, hash, local)?;
                    self.waiting.push_back(Waiting::Record(at, hash, local));
                }
                waits => self.waiting.push_back(waits),
            }
        }
        Ok(())
    }

    /// Whether this subtask's own channel waits for the barriers of others.
    pub(super) fn own_waits(&self) -> bool {
        self.own_channel() && self.gate.blocks(0, self.placement.me)
    }

    /// Whether what this subtask's own channel brings belongs before a barrier that has passed.
    pub(super) fn records_own(&self) -> bool {
        self.own_channel() && self.gate.records(0, self.placement.me)
    }

    /// Whether this subtask has an open channel to itself.
    fn own_channel(&self) -> bool {
        self.produces() && self.consumes() && !self.local_ended
    }

    /// Takes a signal across to this subtask's own gate.
    pub(super) fn cross(&mut self, signal: Signal) -> Flow {
        if self.own_channel() {
            self.gate.crossed(self.placement.me, self.local)?;
            self.local_ended |= signal == Signal::EndOfInput;
            return self.apply(self.placement.me, signal);
        }
        match signal {
            Signal::Barrier(barrier) => {
                self.gate.nudge(barrier);
                self.pass()
            }
            _ => Ok(()),
        }
    }

    /// This subtask's own channel brings a barrier ahead of what waits of it.
    #[cold]
    pub(super) fn cross_ahead(&mut self, barrier: Barrier) -> Flow {
        self.gate.nudge(barrier);
        while let Some(signal) = self.gate.pass() {
            self.forward(signal)?;
        }
        if self.own_channel() {
            self.gate.overtaken(0, self.placement.me, barrier);
        }
        self.pass()
    }

    #[cold]
    pub(super) fn own(&mut self, at: Timestamp, hash: u64, mut local: P::Local) -> Flow {
        if self.records_own() {
            local = self.record_own(at, hash, local)?;
        }
        if self.waits {
            self.waiting.push_back(Waiting::Record(at, hash, local));
            return Ok(());
        }
        self.local += 1;
        self.down.collect(at, local)
    }

    fn record_own(&mut self, at: Timestamp, hash: u64, local: P::Local) -> Flow<P::Local> {
        let value = P::strip(local);
        let record = Rec { at, hash, value };
        self.arrivals.record(0, std::slice::from_ref(&record))?;
        Ok(self.partition.lift(hash, record.value))
    }
}
