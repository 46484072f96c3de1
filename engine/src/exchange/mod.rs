//! How records change subtask: batches against credits, watermarks merged per channel.
//!
//! A *channel* leads from one producer subtask to one consumer subtask of an *edge*. Records travel
//! in batches, each against record credits that the consumer granted; signals ride behind the records
//! of a batch, so the order of a channel is the order in one queue. Where both ends of a channel are
//! the same subtask number, both live in one actor and a record crosses by a direct call, without
//! batch, message or credit: see [`exchange::Exchange`].

mod aligner;
mod batch;
mod distribution;
mod edge_out;
mod either;
#[allow(clippy::module_inception)]
mod exchange;
mod gate;
mod gate_head;
mod grammar;
pub mod in_flight;
mod kind;
mod outputs;
mod with_broadcast;

pub use batch::{AnyBatch, Batch, Rec};
pub use distribution::{
    Broadcast, ByKey, Custom, Distribution, Forward, Global, Keyed, Placement, Rebalance, Rescale,
    Shuffle, Target,
};
pub use edge_out::EdgeOut;
pub use either::{ByEitherKey, Either};
pub use exchange::Exchange;
pub use gate::Gate;
pub use gate_head::GateHead;
pub use in_flight::{Codecs, Dealing, Flight};
pub use kind::EdgeKind;
pub use outputs::Outputs;
pub use with_broadcast::WithBroadcast;

use crate::checkpoint::{Barrier, CheckpointMode};
use crate::constants;
use serde::{Deserialize, Serialize};

/// The number of an edge in its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EdgeId(pub u32);

/// What travels between the two ends of an edge.
pub enum Message {
    /// Producer to consumer.
    Batch {
        /// The producer's subtask number.
        from: u32,
        /// A `Batch<T>` of the edge's type.
        batch: AnyBatch,
        /// The barrier behind its records, for who can't look into it.
        barrier: Option<Barrier>,
    },
    /// Producer to consumer: a barrier ahead of batches that have been sent and have not.
    Barrier {
        /// The producer's subtask number.
        from: u32,
        /// The barrier.
        barrier: Barrier,
    },
    /// Consumer to producer.
    Credit {
        /// The consumer's subtask number.
        from: u32,
        /// How many more records are welcome.
        records: u32,
        /// Emptied batches for reuse.
        buffers: Vec<AnyBatch>,
    },
}

/// Where a chain hands what is meant for other subtasks. Must neither block nor reorder.
pub trait Outbox {
    /// Sends to subtask `to` at the other end of `edge`.
    fn send(&mut self, edge: EdgeId, to: u32, message: Message);
}

/// So many channels of one consumer have all the credits that a channel may have.
const CHANNELS_UNSHARED: u32 = 8;

/// How many emptied buffers are kept for reuse: by a sender besides those for each channel, and by a receiver of each
/// channel until credit goes back with them.
const KEPT_BUFFERS: usize = 8;

/// How much a channel may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelSettings {
    /// Records that a consumer grants a channel at first and when it is pressed.
    pub initial_credits: u32,
    /// Records that it grants at most, while it drains faster than it is filled.
    pub max_credits: u32,
    /// Records in a full batch.
    pub batch_records: u32,
    /// Milliseconds that a record may wait for its batch to fill; 0 sends at the end of each turn.
    pub flush_interval_ms: u64,
    /// Fail on a channel that breaks the grammar of streams ([`crate::stage`]); for tests.
    pub check_grammar: bool,
    /// Whether channels wait for each other's barriers.
    pub mode: CheckpointMode,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        ChannelSettings {
            initial_credits: constants::DEFAULT_CHANNEL_CREDITS,
            max_credits: constants::DEFAULT_MAX_CHANNEL_CREDITS,
            batch_records: constants::DEFAULT_BATCH_RECORDS,
            flush_interval_ms: constants::DEFAULT_FLUSH_INTERVAL_MS,
            check_grammar: false,
            mode: CheckpointMode::ExactlyOnce,
        }
    }
}

impl ChannelSettings {
    /// The settings of one channel among `channels` of the same consumer: more than a few share what those have, so
    /// that what is in flight grows with the subtasks of a job and not with their square. A batch is a quarter of what
    /// a channel has: the price of a message and the turns without room weigh more than the caches that are left.
    pub fn shared_by(self, channels: u32) -> Self {
        let all = u64::from(self.max_credits) * u64::from(CHANNELS_UNSHARED);
        let max = (all / u64::from(channels.max(CHANNELS_UNSHARED))) as u32;
        let max = max.max(self.initial_credits);
        let batch = self.batch_records.min(max / 4).max(1);
        ChannelSettings {
            max_credits: max,
            batch_records: batch,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_channels_share_what_a_few_have_alone() {
        let shared = |channels| {
            let settings = ChannelSettings::default().shared_by(channels);
            (settings.max_credits, settings.batch_records)
        };
        assert_eq!([shared(1), shared(8)], [(16_384, 1_024); 2]);
        assert_eq!(shared(64), (2_048, 512));
        assert_eq!(shared(1_000), (1_000, 250), "no less than at first");
        let unbounded = ChannelSettings {
            max_credits: u32::MAX,
            ..ChannelSettings::default()
        };
        assert_eq!(unbounded.shared_by(8).max_credits, u32::MAX);
    }
}
