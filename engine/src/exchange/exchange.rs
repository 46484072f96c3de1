//! An exchange inside a chain: this subtask's producer and consumer side in one stage.
//!
//! Subtask i of the producing vertex and subtask i of the consuming vertex live in one actor. A record
//! whose target is this subtask goes on by a direct call that the compiler inlines, at once or behind a few
//! others that were gathered ([`Distribution::GATHERS`]); only what belongs elsewhere is sent. With parallelism 1
//! the exchange vanishes. Where a side has fewer subtasks than the other, it is absent in the subtasks beyond its
//! parallelism.

mod own_channel;

use super::gate::Gate;
use super::in_flight::{Arrivals, Flight, Recorder, SENT};
use super::outputs::Outputs;
use super::{AnyBatch, Batch, ChannelSettings, Distribution, EdgeId, Placement, Rec, Target};
use crate::checkpoint::{Barrier, Notice, Participant};
use crate::fault::{Fault, Flow, OriginMark};
use crate::observe::{EdgeMeter, VertexMeter};
use crate::stage::{Accept, Collector, Delivery, Signal, Stage, Turn};
use crate::time::Timestamp;
use std::collections::VecDeque;

/// Both ends of an edge in one subtask.
pub struct Exchange<T, P: Distribution<T>, D> {
    edge: EdgeId,
    placement: Placement,
    partition: P,
    outputs: Outputs<T>,
    gate: Gate,
    down: D,
    /// The number of the consumer that is reached by a direct call: this subtask, or nobody while its own
    /// channel waits or is recorded.
    here: u32,
    /// This subtask's own channel waits: for the barriers of others, or for what was in flight before.
    waits: bool,
    /// What this subtask's own channel brought while it waited; no more than a turn in progress emits.
    waiting: VecDeque<Waiting<P::Local>>,
    /// Whether this subtask's own records are gathered before they are taken in. None are left at the end of
    /// a turn, and none are overtaken by a signal.
    gathers: bool,
    /// Room for those that are gathered while others are taken in.
    gathered: Vec<Rec<T>>,
    /// What is kept for checkpoints of what comes over the edge.
    arrivals: Arrivals<T>,
    /// Is told when a barrier has come here from the stages before: the gate may have let it by long since.
    participant: Participant,
    /// The end of input of this subtask's own channel has come to the gate.
    local_ended: bool,
    /// Records that crossed by a direct call.
    local: u64,
    sent: EdgeMeter,
    received: VertexMeter,
}

enum Waiting<L> {
    /// With its time and its hash.
    Record(Timestamp, u64, L),
    Signal(Signal),
}

/// The number of no subtask.
const NOBODY: u32 = u32::MAX;

impl<T: Send + 'static, P: Distribution<T>, D> Exchange<T, P, D> {
    /// The stage of `edge` in subtask `placement.me`.
    pub fn new(
        edge: EdgeId,
        placement: Placement,
        mut partition: P,
        settings: ChannelSettings,
        meters: (EdgeMeter, VertexMeter),
        down: D,
    ) -> Self {
        partition.place(placement);
        let Placement {
            me,
            producers,
            consumers,
            ..
        } = placement;
        let settings = settings.shared_by(producers);
        let targets = (0..consumers).filter(|to| *to != me && me < producers);
        let gate = if me < consumers {
            Gate::new(
                &[(edge, producers, settings)],
                (me < producers).then_some(me),
            )
        } else {
            Gate::new(&[], None)
        };
        let mut outputs = Outputs::new(edge, me, targets, consumers, settings);
        let gathers = P::GATHERS && consumers > 1 && me < consumers && me < producers;
        if gathers {
            outputs.gather_own();
        }
        Exchange {
            edge,
            placement,
            partition,
            outputs,
            gate,
            down,
            here: me,
            waits: false,
            waiting: VecDeque::new(),
            gathers,
            gathered: Vec::new(),
            arrivals: Arrivals::default(),
            participant: Participant::default(),
            local_ended: false,
            local: 0,
            sent: meters.0,
            received: meters.1,
        }
    }

    /// Takes part in checkpoints as this subtask; `flight` says how its records are kept in checkpoints, where
    /// they can be.
    pub fn participate(
        mut self,
        participant: Participant,
        flight: Option<Flight<T>>,
    ) -> Flow<Self> {
        participant.add_leaf();
        self.participant = participant.clone();
        self.gate.participate(participant);
        if self.consumes() {
            self.arrivals = Arrivals::new(vec![flight.clone()], &mut self.gate)?;
        }
        if self.arrivals.replays() {
            self.wait_for_all();
        }
        let recorder = flight.map(|flight| Recorder::new(flight, SENT));
        self.outputs = self.outputs.record_with(recorder);
        Ok(self)
    }

    fn wait_for_all(&mut self) {
        self.waits = true;
        self.here = NOBODY;
    }

    fn produces(&self) -> bool {
        self.placement.me < self.placement.producers
    }

    fn consumes(&self) -> bool {
        self.placement.me < self.placement.consumers
    }
}

impl<T, P, D> Exchange<T, P, D>
where
    T: Send + 'static,
    P: Distribution<T>,
    D: Collector<P::Local> + Stage,
{
    /// Takes a signal of a channel to the gate and passes on what follows from it.
    fn apply(&mut self, from: u32, signal: Signal) -> Flow {
        let follows = self.gate.signal(0, from, signal)?;
        for signal in follows.into_iter().flatten() {
            self.forward(signal)?;
        }
        if matches!(signal, Signal::Barrier(_) | Signal::EndOfInput) {
            self.pass()?;
        }
        Ok(())
    }

    fn forward(&mut self, signal: Signal) -> Flow {
        if let Signal::Barrier(barrier) = signal {
            self.passed(barrier)?;
        }
        Stage::signal(&mut self.down, signal)
    }

    /// Passes on the barriers that all channels have brought, and then what waited for them.
    #[cold]
    fn pass(&mut self) -> Flow {
        loop {
            while let Some(signal) = self.gate.pass() {
                self.forward(signal)?;
            }
            self.arrivals.settle(&mut self.gate);
            // What waits belongs behind the barrier, wherever that has come to.
            if self.arrivals.replays() || self.own_waits() || self.down.holds_barrier() {
                self.wait_for_all();
                return Ok(());
            }
            self.waits = false;
            self.here = if self.records_own() {
                NOBODY
            } else {
                self.placement.me
            };
            match self.waiting.pop_front() {
                None => return Ok(()),
                Some(Waiting::Record(at, _, local)) => {
                    self.local += 1;
                    self.down.collect(at, local)?;
                }
                Some(Waiting::Signal(signal)) => self.cross(signal)?,
            }
        }
    }

    /// A record for another subtask, or for this one while its own channel waits or is recorded.
    #[inline(always)]
    fn elsewhere(&mut self, to: u32, at: Timestamp, hash: u64, local: P::Local) -> Flow {
        if to == self.placement.me {
            return self.own(at, hash, local);
        }
        let value = P::strip(local);
        self.outputs.push(to, Rec { at, hash, value });
        Ok(())
    }

    fn batch(&mut self, from: u32, batch: AnyBatch, queued: usize) -> Flow {
        let mut batch = own::<T>(batch)?;
        self.gate.begins(0, from, batch.records.len())?;
        if self.gate.records(0, from) {
            self.arrivals.record(0, &batch.records)?;
        }
        let credits = batch.credits();
        let (partition, down) = (&self.partition, &mut self.down);
        let records = receive(&mut batch.records, from, |record| {
            down.collect(record.at, partition.lift(record.hash, record.value))
        })?;
        for signal in std::mem::take(&mut batch.signals) {
            self.apply(from, signal)?;
        }
        self.gate
            .processed(0, from, records, credits, batch.starved, queued);
        if let Some(batch) = self.outputs.reuse(batch) {
            self.gate.give_back(0, from, batch);
        }
        Ok(())
    }

    #[cold]
    fn send_to_all(&mut self, at: Timestamp, hash: u64, local: P::Local) -> Flow {
        self.take_gathered()?;
        let value = P::strip(local);
        let targets: Vec<u32> = self.outputs.targets().collect();
        for to in targets {
            let Some(copy) = P::copy(&value) else {
                return Err(Fault::internal(
                    "a distribution sends to all but can't copy",
                ));
            };
            self.outputs.push(
                to,
                Rec {
                    at,
                    hash,
                    value: copy,
                },
            );
        }
        if self.consumes() {
            let local = self.partition.lift(hash, value);
            return self.own(at, hash, local);
        }
        Ok(())
    }
}

impl<T, P, D> Collector<T> for Exchange<T, P, D>
where
    T: Send + 'static,
    P: Distribution<T>,
    D: Collector<P::Local> + Stage,
{
    #[inline(always)]
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        let (target, hash, local) = self.partition.prepare(value);
        match target {
            Target::One(to) if P::GATHERS && self.gathers => {
                let value = P::strip(local);
                if self.outputs.push(to, Rec { at, hash, value }) {
                    return self.take_own();
                }
                Ok(())
            }
            Target::One(to) if to == self.here => {
                self.local += 1;
                self.down.collect(at, local)
            }
            Target::One(to) => self.elsewhere(to, at, hash, local),
            Target::All => self.send_to_all(at, hash, local),
        }
    }

    fn has_room(&self) -> bool {
        self.room()
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<T, P, D> Stage for Exchange<T, P, D>
where
    T: Send + 'static,
    P: Distribution<T>,
    D: Collector<P::Local> + Stage,
{
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        visit(&mut self.down)
    }

    fn each_ref(&self, visit: &mut dyn FnMut(&dyn Stage)) {
        visit(&self.down);
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        self.take_gathered()?;
        if self.produces() {
            self.outputs.signal(signal);
        }
        if let Signal::Barrier(barrier) = signal {
            self.participant.passed_leaf(barrier);
        }
        if self.here == self.placement.me {
            return self.cross(signal);
        }
        match signal {
            Signal::Barrier(barrier) if barrier.overtakes() && self.gate.overtakes() => {
                self.cross_ahead(barrier)
            }
            _ if !self.waits => self.cross(signal),
            _ => {
                self.waiting.push_back(Waiting::Signal(signal));
                Ok(())
            }
        }
    }

    fn overtake(&mut self, barrier: Barrier) -> Flow {
        self.take_gathered()?;
        self.outputs.overtake(barrier);
        if self.gate.overtakes() {
            self.gate.nudge(barrier);
            self.pass()?;
        }
        self.down.overtake(barrier)
    }

    fn notify(&mut self, notice: Notice) -> Flow {
        if let Notice::Aborted { id } = notice {
            self.outputs.abort(id);
            self.gate.abort(id);
            self.arrivals.abort(id);
            self.pass()?;
        }
        self.down.notify(notice)
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        self.take_gathered()?;
        let replays = self.arrivals.replays();
        if replays {
            let (gate, partition) = (&mut self.gate, &mut self.partition);
            self.arrivals.replay(gate, partition, &mut self.down)?;
        }
        self.outputs.turn(turn)?;
        if self.consumes() {
            if self.produces() {
                self.gate.crossed(self.placement.me, self.local)?;
            }
            self.gate.turn(self.placement.me, turn);
        }
        // Even where this vertex has no part in the subtask, one behind it may have.
        self.down.turn(turn)?;
        if self.waits {
            self.pass()?;
            turn.again |= !self.waits || replays && self.down.room();
        }
        if self.consumes() {
            self.received
                .publish(self.gate.records + self.local, self.gate.watermark());
        }
        if self.produces() {
            self.sent.publish(
                self.outputs.records + self.local,
                self.outputs.credits(),
                self.outputs.buffered(),
            );
        }
        Ok(())
    }

    fn deliver(&mut self, edge: EdgeId, delivery: &mut Delivery<'_>) -> Flow<bool> {
        if edge != self.edge {
            return self.down.deliver(edge, delivery);
        }
        match delivery {
            Delivery::Credit {
                from,
                records,
                buffers,
            } => {
                self.outputs.credit(*from, *records, buffers);
            }
            Delivery::Batch {
                from,
                batch,
                queued,
            } => {
                let batch = batch.take().ok_or_else(|| foreign(edge))?;
                self.batch(*from, batch, *queued)?;
            }
            Delivery::Barrier {
                from,
                barrier,
                ahead_of,
                record,
            } => {
                if self.gate.overtakes() {
                    self.gate.overtaken(0, *from, *barrier);
                    while let Some(signal) = self.gate.pass() {
                        self.forward(signal)?;
                    }
                    **record = self.arrivals.owes(barrier.id, *ahead_of);
                    self.pass()?;
                }
            }
            Delivery::Record { id, batch, records } => {
                let batch = borrowed::<T>(batch)?;
                **records = batch.records.len();
                self.arrivals.pay(0, *id, &batch.records)?;
                self.arrivals.settle(&mut self.gate);
            }
        }
        Ok(true)
    }

    fn room(&self) -> bool {
        !self.waits && self.outputs.room() && self.down.room()
    }

    fn accepts(&self, edge: EdgeId, from: u32) -> Option<Accept> {
        if edge != self.edge {
            return self.down.accepts(edge, from);
        }
        Some(if self.arrivals.replays() {
            Accept::NoRoom
        } else if self.gate.blocks(0, from) {
            Accept::Blocked
        } else if self.down.room() {
            Accept::Now
        } else {
            Accept::NoRoom
        })
    }

    fn finished(&self) -> bool {
        (!self.produces() || self.outputs.finished())
            && (!self.consumes() || self.gate.ended())
            && self.down.finished()
    }
}

#[cold]
pub(super) fn foreign(edge: EdgeId) -> Fault {
    Fault::internal(format_args!("edge {edge:?}: a foreign batch"))
}

/// A batch of this edge's type.
pub(super) fn own<T: 'static>(batch: AnyBatch) -> Flow<Box<Batch<T>>> {
    let batch = batch.downcast::<Batch<T>>();
    batch.map_err(|_| Fault::internal("a foreign batch"))
}

/// The same, where it stays in its queue.
pub(super) fn borrowed<T: 'static>(batch: &AnyBatch) -> Flow<&Batch<T>> {
    let batch = batch.downcast_ref::<Batch<T>>();
    batch.ok_or_else(|| Fault::internal("a foreign batch"))
}

/// Empties a batch into `take`; a fault or panic learns which record of which producer it was on.
#[inline(always)]
pub(super) fn receive<T>(
    records: &mut Vec<Rec<T>>,
    from: u32,
    mut take: impl FnMut(Rec<T>) -> Flow,
) -> Flow<u32> {
    let count = records.len() as u32;
    let place = std::cell::Cell::new(0usize);
    let origin = || format!("record {} of a batch from subtask {from}", place.get() + 1);
    let mark = OriginMark(origin);
    let mut result = Ok(());
    for (nth, record) in records.drain(..).enumerate() {
        place.set(nth);
        result = take(record);
        if result.is_err() {
            break;
        }
    }
    mark.passed();
    match result {
        Ok(()) => Ok(count),
        Err(fault) => Err(fault.on_record(origin)),
    }
}
