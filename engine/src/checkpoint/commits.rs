//! What one writer of a two-phase sink has prepared and not yet seen committed.
//!
//! An epoch's output is *prepared* at its barrier and committed once the epoch's checkpoint is complete:
//! "complete n" commits everything prepared up to n, each thing once and in order. A snapshot holds all
//! that isn't known to be committed, as the process may die between a checkpoint's completion and
//! the commit; whoever restores it commits all of it again, so commits must be harmless when repeated. The
//! output of a checkpoint that was given up stays and goes with the next one.
//!
//! ```
//! # use tidegate_engine::checkpoint::{CheckpointId, Commits};
//! let mut commits = Commits::default();
//! commits.prepared(CheckpointId(1), b"part-1".to_vec());
//! let saved = commits.to_save(CheckpointId(1)); // into the snapshot of checkpoint 1
//! assert_eq!(commits.completed(CheckpointId(1)), [b"part-1"]);
//! commits.committed(CheckpointId(1)); // the outside has it
//! assert!(commits.is_empty());
//!
//! let again = Commits::default().restore(saved.iter().map(Vec::as_slice));
//! assert_eq!(again.unwrap(), [b"part-1"]); // a later attempt commits it again
//! ```

use super::barrier::CheckpointId;
use crate::fault::{Fault, Flow};
use std::collections::VecDeque;

/// The epochs of one writer.
#[derive(Clone, Debug, Default)]
pub struct Commits {
    /// In the order of their epochs; those being committed come first.
    open: VecDeque<Committable>,
    /// How many of them were handed out to be committed.
    handed_out: usize,
}

#[derive(Clone, Debug)]
struct Committable {
    epoch: CheckpointId,
    bytes: Vec<u8>,
}

/// Before the bytes of a saved committable: its epoch.
const EPOCH_BYTES: usize = 8;

impl Commits {
    /// The epoch that ends with this barrier left something to commit. An epoch may leave several.
    pub fn prepared(&mut self, epoch: CheckpointId, bytes: Vec<u8>) {
        let after = |last: &Committable| last.epoch <= epoch;
        debug_assert!(self.open.back().is_none_or(after), "epochs come in order");
        self.open.push_back(Committable { epoch, bytes });
    }

    /// All that this checkpoint covers and that isn't known to be committed.
    pub fn covered(&self, id: CheckpointId) -> impl Iterator<Item = &[u8]> {
        let covered = self.open.iter().filter(move |c| c.epoch <= id);
        covered.map(|c| c.bytes.as_slice())
    }

    /// What the snapshot of this checkpoint has to hold: all that it covers and that isn't known to be
    /// committed.
    pub fn to_save(&self, id: CheckpointId) -> Vec<Vec<u8>> {
        let covered = self.open.iter().filter(|c| c.epoch <= id);
        covered
            .map(|c| {
                let mut saved = Vec::with_capacity(EPOCH_BYTES + c.bytes.len());
                saved.extend(c.epoch.0.to_le_bytes());
                saved.extend(&c.bytes);
                saved
            })
            .collect()
    }

    /// This checkpoint and all before it are complete: what has to be committed now, in order. What was
    /// handed out before is not handed out again; notices may come late, twice or never.
    pub fn completed(&mut self, id: CheckpointId) -> Vec<Vec<u8>> {
        let from = self.handed_out;
        let due = self.open.iter().take_while(|c| c.epoch <= id).count();
        self.handed_out = from.max(due);
        let due = self.open.range(from..self.handed_out);
        due.map(|c| c.bytes.clone()).collect()
    }

    /// So many of those that were handed out are committed, oldest first.
    pub fn oldest_committed(&mut self, count: usize) {
        let count = count.min(self.handed_out);
        self.open.drain(..count);
        self.handed_out -= count;
    }

    /// All that was handed out up to this epoch is committed.
    pub fn committed(&mut self, id: CheckpointId) {
        while self.handed_out > 0 && self.open.front().is_some_and(|c| c.epoch <= id) {
            self.open.pop_front();
            self.handed_out -= 1;
        }
    }

    /// What was handed out and isn't known to be committed, to try it again.
    pub fn unconfirmed(&self) -> Vec<Vec<u8>> {
        let handed_out = self.open.range(..self.handed_out);
        handed_out.map(|c| c.bytes.clone()).collect()
    }

    /// Takes over what a checkpoint holds; returns what has to be committed before anything else, which
    /// is all of it. Call [`Commits::committed`] with the checkpoint's id when that is done.
    pub fn restore<'a>(&mut self, saved: impl IntoIterator<Item = &'a [u8]>) -> Flow<Vec<Vec<u8>>> {
        for element in saved {
            let Some((epoch, bytes)) = element.split_first_chunk::<EPOCH_BYTES>() else {
                let length = element.len();
                return Err(Fault::user(format_args!(
                    "a sink's saved output is damaged: {length} bytes where its epoch alone has \
                     {EPOCH_BYTES}"
                )));
            };
            self.open.push_back(Committable {
                epoch: CheckpointId(u64::from_le_bytes(*epoch)),
                bytes: bytes.to_vec(),
            });
        }
        // Several writers' output may meet here, each in order.
        self.open.make_contiguous().sort_by_key(|c| c.epoch);
        self.handed_out = self.open.len();
        Ok(self.unconfirmed())
    }

    /// Nothing waits to be committed.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many things wait to be committed.
    pub fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u64) -> CheckpointId {
        CheckpointId(n)
    }

    fn part(n: u64) -> Vec<u8> {
        vec![n as u8]
    }

    #[test]
    fn a_completed_checkpoint_commits_all_before_it_once_and_in_order() {
        let mut commits = Commits::default();
        for n in 1..=4 {
            commits.prepared(id(n), part(n));
        }
        assert_eq!(commits.completed(id(3)), [part(1), part(2), part(3)]);
        assert!(commits.completed(id(3)).is_empty(), "the notice came twice");
        assert!(commits.completed(id(2)).is_empty(), "the notice came late");
        assert_eq!(commits.to_save(id(4)).len(), 4, "nothing is confirmed yet");
        assert_eq!(commits.unconfirmed().len(), 3);
        commits.oldest_committed(1);
        assert_eq!(commits.unconfirmed(), [part(2), part(3)]);
        commits.committed(id(4));
        assert_eq!(commits.len(), 1, "what was never handed out can't be done");
        commits.oldest_committed(1);
        assert_eq!(commits.len(), 1, "nor so");
        assert_eq!(commits.completed(id(9)), [part(4)]);
    }

    #[test]
    fn a_snapshot_holds_only_what_its_checkpoint_covers() {
        let mut commits = Commits::default();
        commits.prepared(id(1), part(1));
        commits.prepared(id(2), part(2));
        assert_eq!(commits.to_save(id(1)).len(), 1);
    }

    #[test]
    fn what_several_writers_saved_is_committed_again_in_order() {
        let (mut one, mut two) = (Commits::default(), Commits::default());
        one.prepared(id(1), part(1));
        one.prepared(id(3), part(3));
        two.prepared(id(2), part(2));
        let mut saved = one.to_save(id(3));
        saved.extend(two.to_save(id(3)));
        let mut restored = Commits::default();
        let due = restored.restore(saved.iter().map(Vec::as_slice)).unwrap();
        assert_eq!(due, [part(1), part(2), part(3)]);
        assert_eq!(restored.to_save(id(4)).len(), 3, "until it is confirmed");
        restored.committed(id(3));
        assert!(restored.is_empty());
        assert!(restored.restore([[1u8, 2].as_slice()]).is_err(), "damaged");
    }

    proptest! {
        /// Whatever is completed, confirmed or forgotten, and wherever it restarts: the commits of the
        /// outside, repetitions aside, are all epochs up to the last completed one, in order.
        #[test]
        fn nothing_is_lost_or_out_of_order(steps in prop::collection::vec(0u8..5, 1..80)) {
            let (mut commits, mut epoch, mut done) = (Commits::default(), 0u64, 0u64);
            let (mut outside, mut saved) = (Vec::<u64>::new(), (0u64, Vec::new()));
            let commit = |outside: &mut Vec<u64>, due: Vec<Vec<u8>>| {
                for bytes in due {
                    let n = u64::from(bytes[0]);
                    if outside.last().is_none_or(|last| *last < n) {
                        outside.push(n);
                    }
                }
            };
            for step in steps {
                match step {
                    0 | 1 => {
                        epoch += 1;
                        commits.prepared(id(epoch), part(epoch));
                    }
                    2 => {
                        done = epoch;
                        saved = (done, commits.to_save(id(done)));
                        commit(&mut outside, commits.completed(id(done)));
                    }
                    3 => commits.committed(id(done)),
                    _ => {
                        (commits, epoch) = (Commits::default(), saved.0);
                        let due = commits.restore(saved.1.iter().map(Vec::as_slice)).unwrap();
                        commit(&mut outside, due);
                    }
                }
                prop_assert!(outside.iter().copied().eq(1..=done));
            }
        }
    }
}
