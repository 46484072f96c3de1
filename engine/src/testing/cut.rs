//! Cut anywhere: a script run in one go, and run again with checkpoints in between, each followed by an
//! attempt in another number of subtasks. What comes of it must be the same.

use super::{Attempt, MemorySpill, OperatorHarness};
use crate::exchange::Keyed;
use crate::graph::JobSettings;
use crate::hash::{key_group, key_hash, owner_of_group};
use crate::operator::Operator;
use crate::side::{SideBuffer, SideOutput};
use crate::time::Timestamp;
use proptest::prelude::*;
use std::fmt::Debug;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What an operator meets.
#[derive(Clone, Debug)]
pub(crate) enum Step<T> {
    /// A record with its time.
    Record(i64, T),
    /// A watermark.
    Watermark(i64),
    /// The clock moves, by milliseconds.
    Advance(u64),
}

impl<T> Step<T> {
    /// With another record.
    pub fn map<U>(self, change: impl Fn(T) -> U) -> Step<U> {
        match self {
            Step::Record(at, value) => Step::Record(at, change(value)),
            Step::Watermark(at) => Step::Watermark(at),
            Step::Advance(by) => Step::Advance(by),
        }
    }
}

/// Where state is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    InMemory,
    /// In next to no memory; checkpoints copy what spilled.
    Copied,
    /// The same; checkpoints take what spilled as files.
    Files,
    /// In memory up to the middle of the script, and then like that.
    Moves,
}

/// Places of a script at which it is cut, each with the number of subtasks behind it.
pub(crate) type Cuts = [(prop::sample::Index, u32)];

/// A record of the tests: a key, and its place in the script, so that a result shows what made it.
pub(crate) type Numbered = (u8, u32);

/// What came of a script, in no order.
#[derive(Debug, PartialEq)]
pub(crate) struct Outcome<V, S> {
    emitted: Vec<(Timestamp, V)>,
    put_aside: Vec<(Timestamp, S)>,
    late: u64,
}

/// Records around a time that watermarks move on, and a clock that moves at times.
pub(crate) fn script() -> impl Strategy<Value = Vec<Step<Numbered>>> {
    let step = (0u8..20, 0i64..30, -25i64..25, 0u8..9);
    prop::collection::vec(step, 0..150).prop_map(|raw| {
        let mut time = 0;
        let steps = raw.into_iter().zip(0u32..);
        let step = |((kind, forward, off, key), place)| match kind {
            0..3 => {
                time += forward;
                Step::Watermark(time)
            }
            3..6 => Step::Advance(forward as u64),
            _ => Step::Record(time + off, (key, place)),
        };
        steps.map(step).collect()
    })
}

/// Where a script is cut, and the number of subtasks behind each cut.
pub(crate) fn cuts() -> impl Strategy<Value = Vec<(prop::sample::Index, u32)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 1u32..4), 1..3)
}

/// The operator under test, and what is needed to drive it.
pub(crate) struct Case<'a, T, K, Op, S> {
    /// Makes the operator, which puts late records to `tag`.
    pub make: &'a dyn Fn() -> Op,
    /// Reads the key.
    pub key: fn(&T) -> K,
    /// Where late records go.
    pub tag: &'a SideOutput<S>,
}

type Driven<T, K, Op, S> = (OperatorHarness<T, Keyed<K, T>, Op>, SideBuffer<S>);

impl<T, K, Op, S> Case<'_, T, K, Op, S>
where
    T: Clone + Debug + 'static,
    K: Hash + 'static,
    Op: Operator<Keyed<K, T>>,
    Op::Out: Ord,
    S: Ord + Clone + 'static,
{
    fn begin(
        &self,
        attempt: Attempt,
        (me, parallelism): (u32, u32),
        now: i64,
        kept: Kept,
    ) -> Driven<T, K, Op, S> {
        let mut attempt = attempt.subtask(me, parallelism).at(now);
        if kept != Kept::InMemory {
            let spill = MemorySpill::new(100).sharing_files(kept != Kept::Copied);
            attempt = attempt.spilling(Rc::new(spill));
        }
        if kept == Kept::Moves {
            attempt = attempt.when_short();
        }
        let side = attempt.side(self.tag);
        let harness = attempt.keyed((self.make)(), self.key).expect("begins");
        (harness, side)
    }

    /// Runs a script, cut at those places (in order), and says what came of it.
    pub fn run(
        &self,
        script: &[Step<T>],
        cuts: &[(usize, u32)],
        kept: Kept,
    ) -> Outcome<Op::Out, S> {
        let mut outcome = Outcome {
            emitted: Vec::new(),
            put_aside: Vec::new(),
            late: 0,
        };
        let (mut now, mut cuts) = (0, cuts.iter().peekable());
        let mut all = vec![self.begin(Attempt::new(), (0, 1), now, kept)];
        for (place, step) in script.iter().enumerate() {
            while let Some((_, parallelism)) = cuts.next_if(|(at, _)| *at <= place) {
                all = self.cut(all, *parallelism, (now, kept), &mut outcome);
            }
            if let Step::Advance(by) = step {
                now += *by as i64;
            }
            self.step(&mut all, step);
            if place >= script.len() / 2 {
                all.iter().for_each(|(harness, _)| harness.run_short());
            }
            if kept != Kept::InMemory {
                for (harness, _) in &mut all {
                    harness.turn().expect("has its turn");
                }
            }
        }
        for (harness, _) in &mut all {
            harness.end().expect("ends");
        }
        self.gather(&mut all, &mut outcome);
        outcome.emitted.sort_unstable();
        outcome.put_aside.sort_unstable();
        outcome
    }

    fn step(&self, all: &mut [Driven<T, K, Op, S>], step: &Step<T>) {
        let groups = JobSettings::default().max_parallelism;
        let parallelism = all.len() as u32;
        if let Step::Record(at, value) = step {
            let group = key_group(key_hash(&(self.key)(value)), groups);
            let owner = owner_of_group(group, groups, parallelism) as usize;
            all[owner].0.push(*at, value.clone()).expect("takes it");
            return;
        }
        for (harness, _) in all {
            match step {
                Step::Watermark(at) => harness.watermark(*at).expect("passes"),
                Step::Advance(by) => harness.advance(Duration::from_millis(*by)).expect("fires"),
                Step::Record(..) => unreachable!("it has one owner"),
            }
        }
    }

    /// Saves what there is and begins anew.
    fn cut(
        &self,
        mut all: Vec<Driven<T, K, Op, S>>,
        parallelism: u32,
        (now, kept): (i64, Kept),
        outcome: &mut Outcome<Op::Out, S>,
    ) -> Vec<Driven<T, K, Op, S>> {
        let mut images = Vec::new();
        for ((harness, _), me) in all.iter_mut().zip(0..) {
            images.push((me, harness.save().expect("saves")));
        }
        self.gather(&mut all, outcome);
        let begin = |me| {
            let attempt = Attempt::new().restored(images.clone());
            let mut begun = self.begin(attempt, (me, parallelism), now, kept);
            assert!(begun.0.records().is_empty(), "emitted while loading");
            begun
        };
        (0..parallelism).map(begin).collect()
    }

    fn gather(&self, all: &mut [Driven<T, K, Op, S>], outcome: &mut Outcome<Op::Out, S>) {
        for (harness, side) in all {
            outcome.emitted.extend(harness.records());
            outcome.put_aside.extend(side.drain());
            outcome.late += harness.stats().late.load(Relaxed);
        }
    }

    /// Whether a script has the same outcome with and without these cuts, and in next to no memory.
    pub fn holds(&self, script: &[Step<T>], cuts: &Cuts) -> Result<(), TestCaseError>
    where
        Outcome<Op::Out, S>: Debug + PartialEq,
    {
        let place = |at: &prop::sample::Index| at.index(script.len() + 1);
        let mut cuts: Vec<_> = cuts.iter().map(|(at, p)| (place(at), *p)).collect();
        cuts.sort_unstable();
        let whole = self.run(script, &[], Kept::InMemory);
        for kept in [Kept::InMemory, Kept::Copied, Kept::Files, Kept::Moves] {
            let cut = self.run(script, &cuts, kept);
            prop_assert_eq!(&cut, &whole, "{:?}", kept);
        }
        Ok(())
    }
}
