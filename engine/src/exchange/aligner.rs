//! Where barriers of several channels meet: a checkpoint passes when all channels have brought it.
//!
//! With exactly-once, a channel that has brought the barrier waits for the others: what comes on it
//! belongs to the next checkpoint. A channel that has ended holds nobody up. See Carbone and others,
//! "Lightweight Asynchronous Snapshots for Distributed Dataflows" (2015). A barrier that overtakes waits
//! for nobody; what a channel brings between its passage and the channel's own barrier is recorded.

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
    /// Whether barriers may overtake.
    overtakes: bool,
    /// The checkpoint whose barrier has passed before all channels brought it.
    records: Option<CheckpointId>,
}

impl Aligner {
    /// Of channels that have brought nothing.
    pub fn new(channels: usize, mode: CheckpointMode) -> Self {
        Aligner {
            channels: vec![Channel::default(); channels],
            mode,
            begun: VecDeque::new(),
            settled: CheckpointId::default(),
            overtakes: false,
            records: None,
        }
    }

    /// Barriers may overtake from now on.
    pub fn let_overtake(&mut self) {
        self.overtakes = true;
    }

    /// Whether barriers may overtake.
    pub fn overtakes(&self) -> bool {
        self.overtakes
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
        if barrier.overtakes() && self.overtakes {
            return self.overtake(barrier);
        }
        let known = self.begun.iter().any(|b| b.id == barrier.id);
        if barrier.id > self.settled && !known {
            let at = self.begun.partition_point(|b| b.id < barrier.id);
            self.begun.insert(at, barrier);
        }
    }

    /// A checkpoint's barrier passes here next, whoever has brought it. Older ones were given up: one that
    /// overtakes is never triggered beside another.
    fn overtake(&mut self, barrier: Barrier) {
        if barrier.id > self.settled {
            self.begun.retain(|b| b.id > barrier.id);
            self.begun.push_front(barrier);
        }
    }

    /// Whether a channel has brought a checkpoint's barrier.
    pub fn has_brought(&self, channel: usize, id: CheckpointId) -> bool {
        self.channels[channel].brought >= id
    }

    /// Whether what a channel brings belongs before a barrier that has passed.
    #[inline]
    pub fn records(&self, channel: usize) -> bool {
        let Channel { brought, ended } = self.channels[channel];
        self.records.is_some_and(|id| !ended && brought < id)
    }

    /// Whether that is so of any channel.
    pub fn records_some(&self) -> bool {
        (0..self.channels.len()).any(|channel| self.records(channel))
    }

    /// A channel is complete.
    pub fn end(&mut self, channel: usize) {
        self.channels[channel].ended = true;
    }

    /// A checkpoint, and all before it, were given up.
    pub fn abort(&mut self, id: CheckpointId) {
        self.settled = self.settled.max(id);
        self.begun.retain(|barrier| barrier.id > id);
        self.records.take_if(|recorded| *recorded <= id);
    }

    /// Takes out a barrier that all channels have brought.
    pub fn pass(&mut self) -> Option<Barrier> {
        let first = *self.begun.front()?;
        let there = |c: &Channel| c.ended || c.brought >= first.id;
        let all = self.channels.iter().all(there);
        let ahead = first.overtakes() && self.overtakes;
        if !all && !ahead {
            return None;
        }
        self.settled = first.id;
        self.records = (!all).then_some(first.id);
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

        fn nudged_ahead(&mut self, id: u64) -> Option<Barrier> {
            self.nudge(b(id).ahead());
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

    #[test]
    fn one_that_overtakes_waits_for_nobody_and_the_rest_is_recorded() {
        let mut gate = aligner(3);
        gate.let_overtake();
        assert_eq!(gate.brings(0, 1), None);
        assert!(gate.blocks(0));
        assert_eq!(gate.nudged_ahead(1), Some(b(1).ahead()));
        assert!(!gate.blocks(0) && !gate.records(0), "it has brought it");
        assert!(gate.records(1) && gate.records(2));
        assert_eq!(gate.brings(1, 1), None, "it has passed");
        assert!(!gate.records(1) && gate.records_some());
        assert_eq!(gate.ends(2), None);
        assert!(!gate.records_some(), "what has ended brings nothing");
    }

    #[test]
    fn one_that_overtakes_does_away_with_older_ones_and_with_what_they_record() {
        let mut gate = aligner(2);
        gate.let_overtake();
        assert_eq!(gate.brings(0, 1), None);
        assert_eq!(gate.nudged_ahead(2), Some(b(2).ahead()));
        assert_eq!(gate.brings(1, 1), None, "the first was given up");
        assert!(gate.records(0) && gate.records(1));
        gate.abort(CheckpointId(2));
        assert!(!gate.records_some());
        assert_eq!(gate.nudged_ahead(2), None);
        assert_eq!(gate.nudged_ahead(3), Some(b(3).ahead()));
        assert!(gate.records(0));
    }

    #[test]
    fn where_none_may_overtake_it_waits_as_any_other() {
        let mut gate = aligner(2);
        assert_eq!(gate.nudged_ahead(1), None);
        gate.barrier(0, b(1).ahead());
        assert_eq!(gate.pass(), None);
        assert!(gate.blocks(0) && !gate.records_some());
        assert!(gate.brings(1, 1).is_some());
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
