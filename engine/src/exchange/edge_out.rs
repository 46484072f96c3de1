//! The end of a chain whose records go on in another actor.

use super::in_flight::{Flight, Recorder, SENT};
use super::outputs::Outputs;
use super::{ChannelSettings, Distribution, EdgeId, Placement, Rec, Target};
use crate::checkpoint::{Barrier, Notice, Participant};
use crate::fault::{Fault, Flow};
use crate::observe::EdgeMeter;
use crate::stage::{Collector, Delivery, Signal, Stage, Turn};
use crate::time::Timestamp;

/// The sending side of an edge between two actors.
pub struct EdgeOut<T, P> {
    edge: EdgeId,
    active: bool,
    partition: P,
    outputs: Outputs<T>,
    sent: EdgeMeter,
    participant: Participant,
}

impl<T: Send + 'static, P: Distribution<T>> EdgeOut<T, P> {
    /// The sending side of `edge` in subtask `placement.me`; `flight` says how its records are kept in
    /// checkpoints, where they can be.
    pub fn new(
        edge: EdgeId,
        placement: Placement,
        mut partition: P,
        settings: ChannelSettings,
        sent: EdgeMeter,
        participant: Participant,
        flight: Option<Flight<T>>,
    ) -> Self {
        participant.add_leaf();
        partition.place(placement);
        let Placement {
            me,
            producers,
            consumers,
            ..
        } = placement;
        let settings = settings.shared_by(producers);
        let targets = (0..consumers).filter(|_| me < producers);
        let outputs = Outputs::new(edge, me, targets, consumers, settings)
            .record_with(flight.map(|flight| Recorder::new(flight, SENT)));
        EdgeOut {
            edge,
            active: me < producers,
            partition,
            outputs,
            sent,
            participant,
        }
    }
}

impl<T: Send + 'static, P: Distribution<T>> Collector<T> for EdgeOut<T, P> {
    #[inline(always)]
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        let (target, hash, local) = self.partition.prepare(value);
        let value = P::strip(local);
        match target {
            Target::One(to) => {
                self.outputs.push(to, Rec { at, hash, value });
            }
            Target::All => {
                let targets: Vec<u32> = self.outputs.targets().collect();
                for to in targets {
                    let Some(value) = P::copy(&value) else {
                        return Err(Fault::internal(
                            "a distribution sends to all but can't copy",
                        ));
                    };
                    self.outputs.push(to, Rec { at, hash, value });
                }
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.room()
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<T: Send + 'static, P: Distribution<T>> Stage for EdgeOut<T, P> {
    fn each(&mut self, _visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        Ok(())
    }

    fn each_ref(&self, _visit: &mut dyn FnMut(&dyn Stage)) {}

    fn signal(&mut self, signal: Signal) -> Flow {
        self.outputs.signal(signal);
        if let Signal::Barrier(barrier) = signal {
            self.participant.passed_leaf(barrier);
        }
        Ok(())
    }

    fn overtake(&mut self, barrier: Barrier) -> Flow {
        self.outputs.overtake(barrier);
        Ok(())
    }

    fn notify(&mut self, notice: Notice) -> Flow {
        if let Notice::Aborted { id } = notice {
            self.outputs.abort(id);
        }
        Ok(())
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        self.outputs.turn(turn)?;
        if self.active {
            let records = self.outputs.records;
            self.sent
                .publish(records, self.outputs.credits(), self.outputs.buffered());
        }
        Ok(())
    }

    fn deliver(&mut self, edge: EdgeId, delivery: &mut Delivery<'_>) -> Flow<bool> {
        if let (
            true,
            Delivery::Credit {
                from,
                records,
                buffers,
            },
        ) = (edge == self.edge, delivery)
        {
            self.outputs.credit(*from, *records, buffers);
            return Ok(true);
        }
        Ok(false)
    }

    fn room(&self) -> bool {
        self.outputs.room()
    }

    fn finished(&self) -> bool {
        !self.active || self.outputs.finished()
    }
}
