//! Keeps streams together in event time: who is too far ahead of the others waits for them.
//!
//! A join or a union keeps in memory what one stream brings before the other has come as far. So the
//! members of an *alignment group*, which are subtasks of any sources of a job, write their watermarks
//! on a board, and a member that is further ahead of the least of them than the group's drift stops
//! reading. A member that is idle or has ended holds nobody back.
//!
//! The board is of one process: members find each other through the numbers that they share.

use crate::time::{Timestamp, millis};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// How often a member that waits looks whether the others have come.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Which group a stream is in, and how far ahead of its slowest member it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alignment {
    /// The group's name.
    pub group: String,
    /// How far a member's watermark may be ahead of the least one.
    pub max_drift: Duration,
}

/// The watermarks of all groups of a job.
#[derive(Debug, Default)]
pub struct AlignmentBoard(Mutex<HashMap<String, Arc<Group>>>);

#[derive(Debug, Default)]
struct Group(RwLock<Vec<Arc<AtomicI64>>>);

impl AlignmentBoard {
    /// Enters a member that has no watermark yet: until it has one, it is idle, or it ends, the others
    /// wait for it.
    pub fn join(&self, alignment: &Alignment) -> AlignmentMember {
        let mut groups = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let group = groups.entry(alignment.group.clone()).or_default().clone();
        let mine = Arc::new(AtomicI64::new(Timestamp::MIN.0));
        let mut members = group.0.write().unwrap_or_else(PoisonError::into_inner);
        // Only the group itself still knows of a member that was dropped.
        members.retain(|member| Arc::strong_count(member) > 1);
        members.push(mine.clone());
        drop(members);
        AlignmentMember {
            group,
            mine,
            max_drift: alignment.max_drift,
        }
    }
}

/// One subtask's place in its group. Dropping it is like [`AlignmentMember::end`].
#[derive(Debug)]
pub struct AlignmentMember {
    group: Arc<Group>,
    mine: Arc<AtomicI64>,
    max_drift: Duration,
}

impl AlignmentMember {
    /// Tells how far this member has come. It counts again if it was idle.
    pub fn publish(&self, watermark: Timestamp) {
        self.mine.store(watermark.0, Relaxed);
    }

    /// Nothing comes here for now: nobody waits for this member.
    pub fn idle(&self) {
        self.publish(Timestamp::MAX);
    }

    /// Nothing comes here any more.
    pub fn end(&self) {
        self.publish(Timestamp::MAX);
    }

    /// The least watermark of the members that are neither idle nor ended; `Timestamp::MAX` where there
    /// are none.
    pub fn least(&self) -> Timestamp {
        let members = self.group.0.read().unwrap_or_else(PoisonError::into_inner);
        let least = members.iter().map(|m| m.load(Relaxed)).min();
        Timestamp(least.unwrap_or(Timestamp::MAX.0))
    }

    /// The furthest that a member may be.
    pub fn limit(&self) -> Timestamp {
        Timestamp(self.least().0.saturating_add(millis(self.max_drift)))
    }

    /// Whether a member at `watermark` has to wait for the others.
    pub fn is_ahead(&self, watermark: Timestamp) -> bool {
        watermark > self.limit()
    }
}

impl Drop for AlignmentMember {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn within(max_drift: i64) -> Alignment {
        Alignment {
            group: "g".into(),
            max_drift: Duration::from_millis(max_drift as u64),
        }
    }

    #[test]
    fn who_is_more_than_the_drift_ahead_waits() {
        let board = AlignmentBoard::default();
        let (fast, slow) = (board.join(&within(100)), board.join(&within(100)));
        fast.publish(Timestamp(50));
        assert!(fast.is_ahead(Timestamp(50)), "the other has said nothing");
        slow.publish(Timestamp(0));
        fast.publish(Timestamp(100));
        assert!(
            !fast.is_ahead(Timestamp(100)),
            "exactly the drift is allowed"
        );
        assert!(fast.is_ahead(Timestamp(101)));
        assert!(!slow.is_ahead(Timestamp(0)));
        slow.publish(Timestamp(1));
        assert!(!fast.is_ahead(Timestamp(101)), "it has caught up");
    }

    #[test]
    fn idle_and_ended_members_hold_nobody_and_a_member_that_comes_back_does() {
        let board = AlignmentBoard::default();
        let (fast, slow, gone) = (
            board.join(&within(10)),
            board.join(&within(10)),
            board.join(&within(10)),
        );
        fast.publish(Timestamp(1_000));
        slow.publish(Timestamp(5));
        drop(gone);
        assert_eq!(fast.least(), Timestamp(5));
        slow.idle();
        assert!(!fast.is_ahead(Timestamp(1_000)));
        slow.publish(Timestamp(5));
        assert!(fast.is_ahead(Timestamp(1_000)));
        slow.end();
        fast.end();
        assert_eq!(fast.least(), Timestamp::MAX);
    }

    #[test]
    fn groups_don_t_wait_for_each_other() {
        let board = AlignmentBoard::default();
        let one = board.join(&within(10));
        let other = Alignment {
            group: "other".into(),
            ..within(10)
        };
        let _silent = board.join(&other);
        one.publish(Timestamp(1_000));
        assert!(!one.is_ahead(Timestamp(1_000)));
    }

    proptest! {
        /// Members that step forward unless they have to wait: no step is taken from beyond the
        /// drift, and somebody can always step until all have ended.
        #[test]
        fn drift_is_bounded_and_somebody_can_always_go_on(
            steps in prop::collection::vec(1i64..200, 1..6),
            order in prop::collection::vec(0usize..6, 1..200),
            drift in 0i64..300,
        ) {
            let board = AlignmentBoard::default();
            let members: Vec<_> = steps.iter().map(|_| board.join(&within(drift))).collect();
            let mut at = vec![0i64; steps.len()];
            members.iter().for_each(|m| m.publish(Timestamp(0)));
            for turn in order {
                let going = (0..at.len()).filter(|i| !members[*i].is_ahead(Timestamp(at[*i])));
                prop_assert!(going.count() > 0, "all wait: {at:?}");
                let i = turn % at.len();
                if members[i].is_ahead(Timestamp(at[i])) {
                    continue;
                }
                at[i] += steps[i];
                members[i].publish(Timestamp(at[i]));
                let least = at.iter().min().copied().unwrap_or(0);
                prop_assert!(at[i] - least <= drift + steps[i], "{at:?}");
            }
        }
    }
}
