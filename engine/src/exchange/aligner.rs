//! Where barriers of several channels meet: a checkpoint passes when all channels have brought it.
//!
//! With exactly-once, a channel that has brought the barrier waits for the others: what comes on it
//! belongs to the next checkpoint. A channel that has ended holds nobody up. See Carbone and others,
//! "Lightweight Asynchronous Snapshots for Distributed Dataflows" (2015).

use crate::checkpoint::{Barrier, CheckpointId, CheckpointMode};
use std::collections::VecDeque;

#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    /// The last barrier that it brought.
    brought: CheckpointId,
    ended: bool,
}

/// What the channels of one gate have brought.
#[derive(Debug)]
pub(super) struct Aligner {
    channels: Vec<Channel>,
    mode: CheckpointMode,
    /// The checkpoints that are known to have begun and have not passed, in order.
    begun: VecDeque<Barrier>,
    /// No barrier up to this one passes any more: it has, or was given up.
    settled: CheckpointId,
}

impl Aligner {
    /// Of channels that have brought nothing.
    pub fn new(channels: usize, mode: CheckpointMode) -> Self {
        Aligner {
            channels: vec![Channel::default(); channels],
            mode,
            begun: VecDeque::new(),
            settled: CheckpointId::default(),
        }
    }

    /// A barrier came on a channel. [`Aligner::pass`] tells what follows.
    pub fn barrier(&mut self, channel: usize, barrier: Barrier) {
        let before = std::mem::replace(&mut self.channels[channel].brought, barrier.id);
        // What this channel left out was given up where it comes from: it would wait for ever.
        let given_up = |b: &Barrier| before < b.id && b.id < barrier.id;
        self.begun.retain(|b| !given_up(b));
        self.nudge(barrier);
    }

    /// A checkpoint began, and the side where this is learned from has no open channel here.
    pub fn nudge(&mut self, barrier: Barrier) {
        let known = self.begun.iter().any(|b| b.id == barrier.id);
        if barrier.id > self.settled && !known {
            let at = self.begun.partition_point(|b| b.id < barrier.id);
            self.begun.insert(at, barrier);
        }
    }

    /// A channel is complete.
    pub fn end(&mut self, channel: usize) {
        self.channels[channel].ended = true;
    }

    /// A checkpoint, and all before it, were given up.
    pub fn abort(&mut self, id: CheckpointId) {
        self.settled = self.settled.max(id);
        self.begun.retain(|barrier| barrier.id > id);
    }

    /// Takes out a barrier that all channels have brought.
    pub fn pass(&mut self) -> Option<Barrier> {
        let first = *self.begun.front()?;
        let there = |c: &Channel| c.ended || c.brought >= first.id;
        if !self.channels.iter().all(there) {
            return None;
        }
        self.settled = first.id;
        self.begun.pop_front()
    }

    /// Whether a channel has to wait.
    #[inline]
    pub fn blocks(&self, channel: usize) -> bool {
        let Some(first) = self.begun.front() else {
            return false;
        };
        let Channel { brought, ended } = self.channels[channel];
        self.mode == CheckpointMode::ExactlyOnce && !ended && brought >= first.id
    }

    /// Whether some channels have yet to bring a barrier.
    pub fn aligns(&self) -> bool {
        !self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn aligner(channels: usize) -> Aligner {
        Aligner::new(channels, CheckpointMode::ExactlyOnce)
    }

    fn b(id: u64) -> Barrier {
        Barrier::checkpoint(id)
    }

    impl Aligner {
        fn brings(&mut self, channel: usize, id: u64) -> Option<Barrier> {
            self.barrier(channel, b(id));
            self.pass()
        }

        fn ends(&mut self, channel: usize) -> Option<Barrier> {
            self.end(channel);
            self.pass()
        }

        fn nudged(&mut self, id: u64) -> Option<Barrier> {
            self.nudge(b(id));
            self.pass()
        }
    }

    #[test]
    fn a_channel_waits_for_the_others_and_an_ended_one_holds_nobody_up() {
        let mut gate = aligner(3);
        assert_eq!(gate.brings(0, 1), None);
        assert!(gate.blocks(0) && !gate.blocks(1));
        assert_eq!(gate.brings(2, 1), None);
        assert_eq!(gate.ends(1), Some(b(1)));
        assert!(!gate.blocks(0) && !gate.aligns());
        assert_eq!(gate.brings(2, 2), None);
        assert_eq!(gate.brings(0, 2), Some(b(2)));
    }

    #[test]
    fn a_nudge_begins_a_checkpoint_that_no_open_channel_is_told_of() {
        let mut gate = aligner(1);
        assert_eq!(gate.nudged(1), None);
        assert!(!gate.blocks(0), "it has not brought the barrier");
        assert_eq!(
            gate.nudged(2),
            None,
            "and the first one is not given up for it"
        );
        assert_eq!(gate.ends(0), Some(b(1)));
        assert_eq!(gate.pass(), Some(b(2)));
        assert_eq!(gate.nudged(1), None, "it has passed");
        assert_eq!(gate.nudged(3), Some(b(3)), "nothing is open");
        assert_eq!(aligner(0).nudged(7), Some(b(7)));
    }

    #[test]
    fn what_was_given_up_blocks_nobody_and_never_passes() {
        let mut gate = aligner(2);
        gate.barrier(0, b(1));
        gate.abort(CheckpointId(1));
        assert!(!gate.blocks(0));
        assert_eq!(gate.brings(1, 1), None);
        assert!(!gate.aligns());
        assert_eq!(gate.brings(0, 2), None);
        assert!(gate.blocks(0));
        assert_eq!(
            gate.brings(1, 3),
            None,
            "the second was given up at that producer"
        );
        assert!(!gate.blocks(0) && gate.blocks(1));
        assert_eq!(gate.brings(0, 3), Some(b(3)));
    }

    #[test]
    fn at_least_once_blocks_nobody() {
        let mut gate = Aligner::new(2, CheckpointMode::AtLeastOnce);
        assert_eq!(gate.brings(0, 1), None);
        assert_eq!(gate.brings(0, 2), None);
        assert!(!gate.blocks(0));
        assert_eq!(gate.brings(1, 1), Some(b(1)));
        assert_eq!(gate.brings(1, 2), Some(b(2)));
    }

    proptest! {
        /// Whatever the order between channels, each checkpoint passes once, in order, and not before
        /// its last channel.
        #[test]
        fn each_passes_once_in_order(order in proptest::collection::vec(0usize..3, 0..60)) {
            let mut gate = aligner(3);
            let (mut brought, mut passed) = ([0u64; 3], 0);
            for channel in order {
                if gate.blocks(channel) {
                    continue;
                }
                brought[channel] += 1;
                if let Some(barrier) = gate.brings(channel, brought[channel]) {
                    passed += 1;
                    prop_assert_eq!(barrier.id.0, passed);
                    prop_assert!(brought.iter().all(|n| *n == passed));
                }
            }
            prop_assert_eq!(passed, *brought.iter().min().expect("three channels"));
        }
    }
}
