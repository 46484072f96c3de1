//! Numbers shared out among subtasks in stripes, so that any number of subtasks can go on where others
//! stopped.

use serde::{Deserialize, Serialize};
use tidegate_engine::build::OpenContext;
use tidegate_engine::checkpoint::codec;
use tidegate_engine::fault::{Fault, Flow};

/// The numbers of one stripe in `stride`, from `next` up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Lane {
    next: u64,
    /// The end of the stripe that `next` is in.
    stripe_end: u64,
    /// How far it is from the end of a stripe to the beginning of the next.
    jump: u64,
    end: u64,
}

/// What one subtask has to emit: every number of its lanes, once.
#[derive(Clone, Debug)]
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    stripe: u64,
    /// All numbers are below.
    count: u64,
    /// Where this attempt began: every number that is emitted is this or a greater one.
    base: u64,
}

impl Lanes {
    /// The share of one subtask: of all numbers below `count`, or of what a checkpoint has left of them.
    pub(crate) fn open(context: &OpenContext<'_>, stripe: u64, count: u64) -> Flow<Self> {
        let share = (context.subtask().into(), context.parallelism().into());
        match context.all_restored_splits() {
            None => Ok(Lanes::fresh(share, stripe, count)),
            Some(saved) => Lanes::restored(&saved, share, stripe, count),
        }
    }

    fn fresh(share: (u64, u64), stripe: u64, count: u64) -> Self {
        let lanes = Vec::from_iter(lane(0, share, stripe, count));
        Lanes {
            lanes,
            stripe,
            count,
            base: 0,
        }
    }

    /// Where the parallelism is what it was, each subtask takes lanes as they were. Else what lies below
    /// the farthest of them is finished lane by lane, and what lies above is shared out anew.
    fn restored(saved: &[Vec<u8>], share: (u64, u64), stripe: u64, count: u64) -> Flow<Self> {
        let decoded = saved
            .iter()
            .map(|bytes| codec::decode::<(u64, u64, Lane)>(bytes));
        let decoded = decoded.collect::<Flow<Vec<_>>>()?;
        if decoded.iter().any(|(s, c, _)| (*s, *c) != (stripe, count)) {
            return Err(Fault::user(format_args!(
                "the checkpoint was taken when the source had another number of records, and it has \
                 {count} now; give it as many as it had, or start without the checkpoint"
            )));
        }
        let mut all: Vec<Lane> = decoded.into_iter().map(|(_, _, lane)| lane).collect();
        let base = all.iter().map(|lane| lane.next).min().unwrap_or(0);
        // Those without an end of their own first, so that they are dealt out evenly.
        all.sort_by_key(|lane| (lane.end != count, lane.next));
        let open = all.iter().filter(|lane| lane.end == count);
        let stride = all.first().map_or(0, |lane| lane.jump / stripe + 1);
        // Else some lane has come to its end, and what lies beyond the others is not theirs alone.
        let whole = stride > 0 && open.count() as u64 == stride;
        let (me, of) = share;
        let mut new = None;
        if whole && stride != of {
            let farthest = all.iter().map(|lane| lane.stripe_end).max().unwrap_or(0);
            for lane in &mut all {
                lane.end = lane.end.min(farthest);
            }
            new = lane(farthest, share, stripe, count);
        }
        let mine = all
            .into_iter()
            .skip(me as usize)
            .step_by(of.max(1) as usize);
        let lanes = mine
            .chain(new)
            .filter(|lane| lane.next < lane.end)
            .collect();
        Ok(Lanes {
            lanes,
            stripe,
            count,
            base,
        })
    }

    /// The next number and the end of its run, of at most `most` numbers; `None` at the end.
    pub(crate) fn run(&self, most: u64) -> Option<(u64, u64)> {
        let lane = self.lanes.iter().min_by_key(|lane| lane.next)?;
        let end = lane.stripe_end.min(lane.end);
        Some((lane.next, end.min(lane.next.saturating_add(most))))
    }

    /// All numbers of the run below `end` have been emitted.
    pub(crate) fn emitted(&mut self, end: u64) {
        let lane = self.lanes.iter_mut().min_by_key(|lane| lane.next);
        if let Some(lane) = lane {
            lane.next = end;
            if end >= lane.stripe_end {
                lane.next = lane.stripe_end.saturating_add(lane.jump);
                lane.stripe_end = lane.next.saturating_add(self.stripe).min(self.count);
            }
        }
        self.lanes.retain(|lane| lane.next < lane.end);
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.lanes.iter().map(|lane| lane.next).min()
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Where each lane goes on.
    pub(crate) fn positions(&self) -> Vec<String> {
        let text = |lane: &Lane| match lane.end {
            u64::MAX => format!("record {}", lane.next),
            end => format!("record {} of those below {end}", lane.next),
        };
        self.lanes.iter().map(text).collect()
    }

    pub(crate) fn save(&self) -> Flow<Vec<Vec<u8>>> {
        let lanes = self.lanes.iter();
        lanes
            .map(|lane| codec::encode(&(self.stripe, self.count, lane)))
            .collect()
    }
}

/// The lane of one subtask from a stripe's beginning on.
fn lane(from: u64, (me, of): (u64, u64), stripe: u64, count: u64) -> Option<Lane> {
    let next = from.saturating_add(me.saturating_mul(stripe));
    (next < count).then(|| Lane {
        next,
        stripe_end: next.saturating_add(stripe).min(count),
        jump: (of - 1).saturating_mul(stripe),
        end: count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_number_is_emitted_once_whoever_goes_on(
            count in prop_oneof![0u64..200, Just(u64::MAX)],
            stripe in 1u64..9,
            attempts in prop::collection::vec(
                (1u64..5, prop::collection::vec(prop::collection::vec(1u64..12, 0..6), 4)), 0..6),
            last in 1u64..5,
        ) {
            let mut saved: Option<Vec<Vec<u8>>> = None;
            let mut emitted = Vec::new();
            let open = |saved: &Option<Vec<Vec<u8>>>, share| match saved {
                None => Lanes::fresh(share, stripe, count),
                Some(saved) => Lanes::restored(saved, share, stripe, count).unwrap(),
            };
            for (parallelism, bites) in attempts {
                let mut splits = Vec::new();
                for me in 0..parallelism {
                    let mut lanes = open(&saved, (me, parallelism));
                    for bite in &bites[me as usize % 4] {
                        let Some((begin, end)) = lanes.run(*bite) else { break };
                        prop_assert!(begin >= lanes.base());
                        emitted.extend(begin..end);
                        lanes.emitted(end);
                    }
                    splits.extend(lanes.save().unwrap());
                }
                saved = Some(splits);
            }
            // Of numbers without end, all that are near.
            let near = count.min(emitted.iter().max().unwrap_or(&0) + 100);
            for me in 0..last {
                let mut lanes = open(&saved, (me, last));
                while let Some((begin, end)) = lanes.run(u64::MAX) {
                    if begin >= near {
                        break;
                    }
                    emitted.extend(begin..end);
                    lanes.emitted(end);
                }
            }
            emitted.sort_unstable();
            emitted.retain(|n| *n < near);
            prop_assert_eq!(emitted, (0..near).collect::<Vec<_>>());
        }
    }

    #[test]
    fn another_parallelism_shares_out_what_is_left() {
        let mut lanes = Lanes::fresh((0, 1), 4, 100);
        lanes.emitted(2);
        let saved = lanes.save().unwrap();
        let share = |me| Lanes::restored(&saved, (me, 2), 4, 100).unwrap();
        assert_eq!(
            (share(0).run(9), share(1).run(9)),
            (Some((2, 4)), Some((8, 12)))
        );
        assert!(Lanes::restored(&saved, (0, 1), 4, 99).is_err());
    }
}
