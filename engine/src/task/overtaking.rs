//! Checkpoints whose barriers overtake what waits in a subtask.
//!
//! The first sign of such a checkpoint, be it the trigger or the barrier of any channel, begins it in the whole
//! chain: its head is told, and every stage lets the barrier by. What waits in a channel whose barrier has
//! come is recorded over the next turns, or when the chain takes it.

use super::Subtask;
use super::queues::Queued;
use crate::checkpoint::{Barrier, CheckpointId};
use crate::exchange::{AnyBatch, EdgeId};
use crate::fault::Flow;
use crate::stage::Delivery;

impl Subtask {
    /// A checkpoint's barriers overtake from now on.
    pub(super) fn overtake(&mut self, barrier: Barrier) -> Flow {
        let known = barrier.id <= self.overtakes;
        if known || self.participant.is_settled(barrier.id) {
            return Ok(());
        }
        self.overtakes = barrier.id;
        self.tell_head(barrier)?;
        self.head.overtake(barrier)?;
        for (edge, from) in self.queues.channels_with(barrier.id) {
            self.arrived_ahead(edge, from, barrier)?;
        }
        Ok(())
    }

    /// A barrier of a channel came behind the records of a batch.
    pub(super) fn arrived_in_order(&mut self, edge: EdgeId, from: u32, barrier: Barrier) -> Flow {
        if barrier.overtakes() {
            // It can't on this edge, and does on others.
            return self.overtake(barrier);
        }
        if barrier.id == self.overtakes {
            return self.arrived_ahead(edge, from, barrier.ahead());
        }
        Ok(())
    }

    /// A barrier of a channel is ahead of what waits of it.
    pub(super) fn arrived_ahead(&mut self, edge: EdgeId, from: u32, barrier: Barrier) -> Flow {
        let ahead_of = self.queues.before(edge, from, barrier.id);
        let mut record = false;
        let mut delivery = Delivery::Barrier {
            from,
            barrier,
            ahead_of,
            record: &mut record,
        };
        self.head.deliver(edge, &mut delivery)?;
        if record {
            self.queues.owe(edge, from, barrier.id, ahead_of);
        }
        Ok(())
    }

    /// Records some of what barriers have overtaken. True if there is more.
    pub(super) fn record_some(&mut self) -> Flow<bool> {
        let mut budget = self.participant.saved_in_a_turn();
        while self.queues.owes() && budget > 0 {
            let Some((edge, id, queued)) = self.queues.next_owed() else {
                break;
            };
            let mut records = 0;
            let mut delivery = delivery(id, &queued.batch, &mut records);
            self.head.deliver(edge, &mut delivery)?;
            budget = budget.saturating_sub(records);
        }
        Ok(self.queues.owes())
    }

    /// A batch is about to be taken: what is owed of it is recorded now.
    pub(super) fn record(&mut self, edge: EdgeId, queued: &Queued) -> Flow {
        let Some(id) = queued.owed_to else {
            return Ok(());
        };
        let mut records = 0;
        let mut delivery = delivery(id, &queued.batch, &mut records);
        self.head.deliver(edge, &mut delivery).map(drop)
    }
}

fn delivery<'a>(id: CheckpointId, batch: &'a AnyBatch, records: &'a mut usize) -> Delivery<'a> {
    Delivery::Record { id, batch, records }
}
