//! The receiving ends of a gate while barriers overtake, and until what an earlier attempt had in flight is
//! handed on.

use super::Flight;
use super::recorder::{RECEIVED, Recorder};
use super::replay::Replay;
use crate::checkpoint::{Barrier, CheckpointId};
use crate::exchange::gate::Gate;
use crate::exchange::{Distribution, Rec};
use crate::fault::Flow;
use crate::stage::{Collector, Stage};
use std::collections::VecDeque;

/// How many records of an earlier attempt a gate hands on in one turn.
const REPLAYED_AT_ONCE: usize = 1024;

/// What the gate of one subtask keeps for checkpoints, edge by edge.
pub struct Arrivals<T> {
    edges: Vec<Option<Recorder<T>>>,
    replays: VecDeque<Replay<T>>,
    /// Batches that wait, of channels whose barrier has overtaken them, and are not recorded yet.
    owed: usize,
    /// The checkpoint that records are gathered for.
    barrier: Option<Barrier>,
}

impl<T> Default for Arrivals<T> {
    fn default() -> Self {
        Arrivals {
            edges: Vec::new(),
            replays: VecDeque::new(),
            owed: 0,
            barrier: None,
        }
    }
}

impl<T: 'static> Arrivals<T> {
    /// Of the edges of a gate, in its order, beginning with what the restored checkpoint holds. The gate
    /// learns whether barriers may overtake in it.
    pub fn new(flights: Vec<Option<Flight<T>>>, gate: &mut Gate) -> Flow<Self> {
        let overtakes = |f: &Option<Flight<T>>| f.as_ref().is_some_and(|f| f.overtakes);
        if !flights.is_empty() && flights.iter().all(overtakes) {
            gate.lets_overtake();
        }
        let mut arrivals = Arrivals::default();
        for flight in flights {
            if let Some(flight) = &flight {
                arrivals.replays.push_back(Replay::new(flight.clone())?);
            }
            let recorder = flight.map(|flight| Recorder::new(flight, RECEIVED));
            arrivals.edges.push(recorder);
        }
        arrivals.replays.retain(|replay| !replay.is_over());
        Ok(arrivals)
    }

    /// Whether something of an earlier attempt is still to be handed on, ahead of all else.
    pub fn replays(&self) -> bool {
        !self.replays.is_empty()
    }

    /// Hands on what an earlier attempt had in flight, while there is room. What comes now waits for that.
    #[cold]
    pub fn replay<P: Distribution<T>, D: Collector<P::Local> + Stage>(
        &mut self,
        gate: &mut Gate,
        partition: &mut P,
        down: &mut D,
    ) -> Flow {
        for _ in 0..REPLAYED_AT_ONCE {
            if !down.room() {
                break;
            }
            let Some(record) = self.next()? else {
                break;
            };
            gate.records += 1;
            let local = partition.lift(record.hash, record.value);
            down.collect(record.at, local)?;
        }
        Ok(())
    }

    /// The next record of an earlier attempt.
    fn next(&mut self) -> Flow<Option<Rec<T>>> {
        let Some(first) = self.replays.front_mut() else {
            return Ok(None);
        };
        let record = first.next()?;
        if first.is_over() {
            self.replays.pop_front();
        }
        Ok(record)
    }

    /// The gate lets a barrier by: where that overtakes, what is behind it in the gate's channels is gathered
    /// from now on.
    pub fn passed(&mut self, gate: &Gate, barrier: Barrier) {
        if !(barrier.overtakes() && gate.overtakes()) {
            return;
        }
        (self.owed, self.barrier) = (0, Some(barrier));
        for recorder in self.edges.iter_mut().flatten() {
            recorder.begin(barrier);
        }
        for replay in &self.replays {
            let uid = replay.uid();
            let mut edges = self.edges.iter_mut().flatten();
            if let Some(recorder) = edges.find(|recorder| recorder.uid() == uid) {
                replay.record(recorder);
            }
        }
    }

    /// The checkpoint that records are gathered for.
    pub fn records_for(&self) -> Option<CheckpointId> {
        self.barrier.map(|barrier| barrier.id)
    }

    /// Records of an edge that belong before a barrier that has passed the gate.
    pub fn record(&mut self, edge: usize, records: &[Rec<T>]) -> Flow {
        match &mut self.edges[edge] {
            Some(recorder) => recorder.record(records),
            None => Ok(()),
        }
    }

    /// So many batches of an edge wait that a barrier is ahead of. True if they are to be recorded.
    pub fn owes(&mut self, id: CheckpointId, batches: usize) -> bool {
        let wanted = self.records_for() == Some(id);
        self.owed += if wanted { batches } else { 0 };
        wanted
    }

    /// One of these batches.
    pub fn pay(&mut self, edge: usize, id: CheckpointId, records: &[Rec<T>]) -> Flow {
        if self.records_for() != Some(id) {
            return Ok(());
        }
        self.owed = self.owed.saturating_sub(1);
        self.record(edge, records)
    }

    /// Hands over what was gathered, once all channels have brought the barrier and nothing is owed.
    pub fn settle(&mut self, gate: &mut Gate) {
        if self.owed > 0 || gate.records_some() {
            return;
        }
        if let Some(barrier) = self.barrier.take() {
            gate.all_there(barrier);
            for recorder in self.edges.iter_mut().flatten() {
                recorder.finish();
            }
        }
    }

    /// A checkpoint, and all before it, were given up.
    pub fn abort(&mut self, id: CheckpointId) {
        if self.barrier.take_if(|barrier| barrier.id <= id).is_some() {
            self.owed = 0;
        }
        for recorder in self.edges.iter_mut().flatten() {
            recorder.abort(id);
        }
    }
}
