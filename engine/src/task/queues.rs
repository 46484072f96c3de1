//! Batches that have arrived and wait for the chain to take them.

use crate::checkpoint::{Barrier, CheckpointId};
use crate::exchange::{AnyBatch, EdgeId};
use crate::stage::Accept;
use std::collections::VecDeque;

/// A batch that waits.
pub(super) struct Queued {
    /// The producer's subtask number.
    pub from: u32,
    pub batch: AnyBatch,
    /// The barrier behind its records.
    barrier: Option<Barrier>,
    /// The checkpoint whose barrier has overtaken it and that its records are not part of yet.
    pub owed_to: Option<CheckpointId>,
}

impl Queued {
    pub fn new(from: u32, batch: AnyBatch, barrier: Option<Barrier>) -> Self {
        Queued {
            from,
            batch,
            barrier,
            owed_to: None,
        }
    }

    fn brings(&self, id: CheckpointId) -> bool {
        self.barrier.is_some_and(|barrier| barrier.id == id)
    }
}

/// What waits, by edge.
#[derive(Default)]
pub(super) struct Queues {
    edges: Vec<(EdgeId, VecDeque<Queued>)>,
    /// All that waits.
    length: usize,
    /// How much of that is owed to a checkpoint.
    owed: usize,
}

impl Queues {
    pub fn push(&mut self, edge: EdgeId, queued: Queued) {
        let at = self.edges.iter().position(|(e, _)| *e == edge);
        let at = at.unwrap_or_else(|| {
            self.edges.push((edge, VecDeque::new()));
            self.edges.len() - 1
        });
        self.edges[at].1.push_back(queued);
        self.length += 1;
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many wait of one edge.
    pub fn waiting(&self, edge: EdgeId) -> usize {
        let queue = self.edges.iter().find(|(e, _)| *e == edge);
        queue.map_or(0, |(_, queue)| queue.len())
    }

    /// Takes out a batch that the chain accepts; tells if one had to stay for lack of room.
    pub fn take(
        &mut self,
        accepts: impl Fn(EdgeId, u32) -> Option<Accept>,
        pressed: &mut bool,
    ) -> Option<(EdgeId, Queued)> {
        for (edge, queue) in &mut self.edges {
            let Some(place) = takeable(&accepts, *edge, queue) else {
                *pressed |= !queue.is_empty();
                continue;
            };
            if let Some(queued) = queue.remove(place) {
                self.length -= 1;
                self.owed -= usize::from(queued.owed_to.is_some());
                return Some((*edge, queued));
            }
        }
        None
    }

    /// Whether a batch waits that the chain accepts.
    pub fn can_take(&self, accepts: impl Fn(EdgeId, u32) -> Option<Accept>) -> bool {
        let mut edges = self.edges.iter();
        self.length > 0 && edges.any(|(edge, queue)| takeable(&accepts, *edge, queue).is_some())
    }

    /// The channels in which a checkpoint's barrier waits behind records.
    pub fn channels_with(&self, id: CheckpointId) -> Vec<(EdgeId, u32)> {
        let with = |(edge, queue): &(EdgeId, VecDeque<Queued>)| {
            let queue = queue.iter().filter(|queued| queued.brings(id));
            queue.map(|queued| (*edge, queued.from)).collect::<Vec<_>>()
        };
        self.edges.iter().flat_map(with).collect()
    }

    /// How many batches of a channel belong before a checkpoint's barrier: up to it where it waits there, else
    /// all.
    pub fn before(&self, edge: EdgeId, from: u32, id: CheckpointId) -> usize {
        let Some((_, queue)) = self.edges.iter().find(|(e, _)| *e == edge) else {
            return 0;
        };
        let mut of_channel = queue.iter().filter(|queued| queued.from == from);
        let all = of_channel.clone().count();
        of_channel
            .position(|queued| queued.brings(id))
            .map_or(all, |place| place + 1)
    }

    /// The first so many batches of a channel are owed to a checkpoint.
    pub fn owe(&mut self, edge: EdgeId, from: u32, id: CheckpointId, batches: usize) {
        let Some((_, queue)) = self.edges.iter_mut().find(|(e, _)| *e == edge) else {
            return;
        };
        let of_channel = queue.iter_mut().filter(|queued| queued.from == from);
        for queued in of_channel.take(batches) {
            self.owed += usize::from(queued.owed_to.is_none());
            queued.owed_to = Some(id);
        }
    }

    /// Whether anything is owed to a checkpoint.
    pub fn owes(&self) -> bool {
        self.owed > 0
    }

    /// The oldest batch that is owed to a checkpoint; it is not any more.
    pub fn next_owed(&mut self) -> Option<(EdgeId, CheckpointId, &Queued)> {
        for (edge, queue) in &mut self.edges {
            for queued in queue {
                if let Some(id) = queued.owed_to.take() {
                    self.owed -= 1;
                    return Some((*edge, id, queued));
                }
            }
        }
        None
    }
}

/// The place of the first batch of an edge that the chain can take now. Batches of one channel stay in
/// order; those of a channel that waits for the barriers of others let the others by.
fn takeable(
    accepts: &impl Fn(EdgeId, u32) -> Option<Accept>,
    edge: EdgeId,
    queue: &VecDeque<Queued>,
) -> Option<usize> {
    for (place, queued) in queue.iter().enumerate() {
        match accepts(edge, queued.from)? {
            Accept::Now => return Some(place),
            Accept::NoRoom => return None,
            Accept::Blocked => {}
        }
    }
    None
}
