//! The beginning of a chain that is fed by other actors: union, connect, joins, vertices by hand.

use super::exchange::receive;
use super::gate::Gate;
use super::{Batch, ChannelSettings, Distribution, EdgeId};
use crate::checkpoint::{Barrier, Notice, Participant};
use crate::fault::{Fault, Flow};
use crate::observe::VertexMeter;
use crate::stage::{Accept, Collector, Delivery, Head, Stage, Turn};
use std::marker::PhantomData;

/// Receives one or more edges of the same record type.
pub struct GateHead<T, P, D> {
    me: u32,
    active: bool,
    gate: Gate,
    partition: P,
    down: D,
    received: VertexMeter,
    input: PhantomData<fn(T)>,
}

impl<T, P, D> GateHead<T, P, D> {
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
            input: PhantomData,
        }
    }

    /// Takes part in checkpoints as this subtask.
    pub fn participate(mut self, participant: Participant) -> Self {
        self.gate.participate(participant);
        self
    }
}

impl<T, P, D: Stage> GateHead<T, P, D> {
    /// Passes on the barriers that all channels have brought.
    fn pass(&mut self) -> Flow {
        while let Some(signal) = self.gate.pass() {
            Stage::signal(&mut self.down, signal)?;
        }
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
        if self.active {
            self.gate.turn(self.me, turn);
            self.received
                .publish(self.gate.records, self.gate.watermark());
        }
        self.down.turn(turn)
    }

    fn deliver(&mut self, edge: EdgeId, delivery: &mut Delivery<'_>) -> Flow<bool> {
        let Some(index) = self.gate.edge_index(edge) else {
            return self.down.deliver(edge, delivery);
        };
        if let Delivery::Batch {
            from,
            batch,
            queued,
        } = delivery
        {
            let Some(Ok(mut batch)) = batch.take().map(|b| b.downcast::<Batch<T>>()) else {
                return Err(Fault::internal(format_args!(
                    "edge {edge:?}: a foreign batch"
                )));
            };
            self.gate.begins(index, *from, batch.records.len())?;
            let (partition, down) = (&self.partition, &mut self.down);
            let records = receive(&mut batch, *from, |record| {
                down.collect(record.at, partition.lift(record.hash, record.value))
            })?;
            for signal in std::mem::take(&mut batch.signals) {
                let follows = self.gate.signal(index, *from, signal)?;
                for signal in follows.into_iter().flatten() {
                    Stage::signal(&mut self.down, signal)?;
                }
            }
            self.pass()?;
            self.gate.emptied(index, *from, records, batch, *queued);
        }
        Ok(true)
    }

    fn accepts(&self, edge: EdgeId, from: u32) -> Option<Accept> {
        match self.gate.edge_index(edge) {
            Some(index) if self.gate.blocks(index, from) => Some(Accept::Blocked),
            Some(_) if self.down.room() => Some(Accept::Now),
            Some(_) => Some(Accept::NoRoom),
            None => self.down.accepts(edge, from),
        }
    }

    fn notify(&mut self, notice: Notice) -> Flow {
        if let Notice::Aborted { id } = notice {
            self.gate.abort(id);
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
