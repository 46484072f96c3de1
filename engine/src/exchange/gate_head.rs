//! The beginning of a chain that is fed by other actors: union, connect, joins, vertices by hand.

use super::exchange::{borrowed, foreign, own, receive};
use super::gate::Gate;
use super::in_flight::{Arrivals, Flight};
use super::{AnyBatch, ChannelSettings, Distribution, EdgeId};
use crate::checkpoint::{Barrier, Notice, Participant};
use crate::fault::Flow;
use crate::observe::VertexMeter;
use crate::stage::{Accept, Collector, Delivery, Head, Signal, Stage, Turn};
use std::marker::PhantomData;

/// Receives one or more edges of the same record type.
pub struct GateHead<T, P, D> {
    me: u32,
    active: bool,
    gate: Gate,
    partition: P,
    down: D,
    received: VertexMeter,
    arrivals: Arrivals<T>,
    input: PhantomData<fn(T)>,
}

impl<T: 'static, P, D> GateHead<T, P, D> {
    /// Receives `edges`, each with its number of producers, in subtask `me` of `consumers`.
    /// `partition` gives records their local form.
    pub fn new(
        edges: &[(EdgeId, u32)],
        me: u32,
        consumers: u32,
        partition: P,
        settings: ChannelSettings,
        received: VertexMeter,
        down: D,
    ) -> Self {
        let active = me < consumers;
        let edges: Vec<_> = edges
            .iter()
            .filter(|_| active)
            .map(|(edge, producers)| (*edge, *producers, settings.shared_by(*producers)))
            .collect();
        let gate = Gate::new(&edges, None);
        GateHead {
            me,
            active,
            gate,
            partition,
            down,
            received,
            arrivals: Arrivals::default(),
            input: PhantomData,
        }
    }

    /// Takes part in checkpoints as this subtask. `flights` say of each edge how its records are kept in
    /// checkpoints, where they can be.
    pub fn participate(
        mut self,
        participant: Participant,
        flights: Vec<Option<Flight<T>>>,
    ) -> Flow<Self> {
        self.gate.participate(participant);
        if self.active {
            self.arrivals = Arrivals::new(flights, &mut self.gate)?;
        }
        Ok(self)
    }
}

impl<T: 'static, P, D: Stage> GateHead<T, P, D> {
    fn forward(&mut self, signal: Signal) -> Flow {
        if let Signal::Barrier(barrier) = signal {
            self.arrivals.passed(&self.gate, barrier);
        }
        Stage::signal(&mut self.down, signal)
    }

    /// Passes on the barriers that all channels have brought.
    fn pass(&mut self) -> Flow {
        while let Some(signal) = self.gate.pass() {
            self.forward(signal)?;
        }
        self.arrivals.settle(&mut self.gate);
        Ok(())
    }
}

impl<T, P, D> GateHead<T, P, D>
where
    T: Send + 'static,
    P: Distribution<T>,
    D: Collector<P::Local> + Stage,
{
    fn batch(&mut self, index: usize, from: u32, batch: AnyBatch, queued: usize) -> Flow {
        let mut batch = own::<T>(batch)?;
        self.gate.begins(index, from, batch.records.len())?;
        if self.gate.records(index, from) {
            self.arrivals.record(index, &batch.records)?;
        }
        let credits = batch.credits();
        let (partition, down) = (&self.partition, &mut self.down);
        let records = receive(&mut batch.records, from, |record| {
            down.collect(record.at, partition.lift(record.hash, record.value))
        })?;
        for signal in std::mem::take(&mut batch.signals) {
            let follows = self.gate.signal(index, from, signal)?;
            for signal in follows.into_iter().flatten() {
                self.forward(signal)?;
            }
        }
        self.pass()?;
        self.gate
            .processed(index, from, records, credits, batch.starved, queued);
        self.gate.give_back(index, from, batch);
        Ok(())
    }
}

impl<T, P, D> Stage for GateHead<T, P, D>
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

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        let replays = self.arrivals.replays();
        if replays {
            let (gate, partition) = (&mut self.gate, &mut self.partition);
            self.arrivals.replay(gate, partition, &mut self.down)?;
        }
        if self.active {
            self.gate.turn(self.me, turn);
            self.received
                .publish(self.gate.records, self.gate.watermark());
        }
        self.down.turn(turn)?;
        turn.again |= replays && self.down.room();
        Ok(())
    }

    fn deliver(&mut self, edge: EdgeId, delivery: &mut Delivery<'_>) -> Flow<bool> {
        let Some(index) = self.gate.edge_index(edge) else {
            return self.down.deliver(edge, delivery);
        };
        match delivery {
            Delivery::Batch {
                from,
                batch,
                queued,
            } => {
                let batch = batch.take().ok_or_else(|| foreign(edge))?;
                self.batch(index, *from, batch, *queued)?;
            }
            Delivery::Barrier {
                from,
                barrier,
                ahead_of,
                record,
            } => {
                if self.gate.overtakes() {
                    self.gate.overtaken(index, *from, *barrier);
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
                self.arrivals.pay(index, *id, &batch.records)?;
                self.arrivals.settle(&mut self.gate);
            }
            Delivery::Credit { .. } => {}
        }
        Ok(true)
    }

    fn accepts(&self, edge: EdgeId, from: u32) -> Option<Accept> {
        match self.gate.edge_index(edge) {
            Some(_) if self.arrivals.replays() => Some(Accept::NoRoom),
            Some(index) if self.gate.blocks(index, from) => Some(Accept::Blocked),
            Some(_) if self.down.room() => Some(Accept::Now),
            Some(_) => Some(Accept::NoRoom),
            None => self.down.accepts(edge, from),
        }
    }

    fn overtake(&mut self, barrier: Barrier) -> Flow {
        if self.gate.overtakes() {
            self.gate.nudge(barrier);
            self.pass()?;
        }
        self.down.overtake(barrier)
    }

    fn notify(&mut self, notice: Notice) -> Flow {
        if let Notice::Aborted { id } = notice {
            self.gate.abort(id);
            self.arrivals.abort(id);
            self.pass()?;
        }
        self.down.notify(notice)
    }

    fn finished(&self) -> bool {
        (!self.active || self.gate.ended()) && self.down.finished()
    }
}

impl<T, P, D> Head for GateHead<T, P, D>
where
    T: Send + 'static,
    P: Distribution<T>,
    D: Collector<P::Local> + Stage,
{
    fn trigger(&mut self, barrier: Barrier) -> Flow {
        self.gate.nudge(barrier);
        self.pass()
    }
}
