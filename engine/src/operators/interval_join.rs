//! Records of two streams that belong together because their times are near each other.
//!
//! Both sides are kept per key in the order of time, as long as the watermark lets a partner come.
//! A record finds its partners by two binary searches. Keys are swept in the order in which their
//! records expire, in steps of a quarter of the interval, so that a key is visited a few times per
//! interval however often the watermark moves.

mod sweep;

use crate::build::OpenContext;
use crate::checkpoint::stored_name;
use crate::checkpoint::{Key, Named, StateValue, StateVisitor};
use crate::exchange::{Either, Keyed};
use crate::fault::{Fault, Flow};
use crate::observe::SubtaskStats;
use crate::operator::{Operator, Progress};
use crate::side::{SideBuffer, SideOutput};
use crate::stage::Collector;
use crate::state::{BackedTable, SpilledDue};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// How many pairs are emitted before the operator asks for room again.
const BETWEEN_ASKING: u32 = 256;

/// Which records are near: `first + lower <= second <= first + upper`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// How much later than the first record (earlier where negative) the second is at least.
    pub lower: i64,
    /// How much later than the first record (earlier where negative) the second is at most.
    pub upper: i64,
}

impl Interval {
    /// What is wrong with it, as a sentence for the plan's report.
    pub fn problem(&self) -> Option<String> {
        (self.lower > self.upper).then(|| {
            format!(
                "no record lies between {} ms and {} ms after another; give a lower bound that is \
                 at most the upper one (exclusive bounds take away 1 ms each)",
                self.lower, self.upper
            )
        })
    }

    /// When no partner of a record of the first stream can come any more.
    #[inline]
    fn first_expires(&self, at: Timestamp) -> Timestamp {
        Timestamp(at.0.saturating_add(self.upper))
    }

    /// When no partner of a record of the second stream can come any more.
    #[inline]
    fn second_expires(&self, at: Timestamp) -> Timestamp {
        Timestamp(at.0.saturating_sub(self.lower))
    }

    /// The length of a step in which keys are swept.
    fn step(&self) -> i64 {
        (self.upper.saturating_sub(self.lower) / 4).max(1)
    }

    /// The first step whose end is at `at` or later.
    fn step_of(&self, at: Timestamp) -> i64 {
        let step = self.step();
        at.0.div_euclid(step) + i64::from(at.0.rem_euclid(step) > 0)
    }
}

/// What is known of a pair besides its two records.
#[derive(Clone, Copy, Debug)]
pub struct Pair<'a, K> {
    /// The key of both records.
    pub key: &'a K,
    /// The time of the record of the first stream.
    pub first_at: Timestamp,
    /// The time of the record of the second stream.
    pub second_at: Timestamp,
}

/// Records in the order of time; those of the same time in the order in which they came.
type Line<T> = VecDeque<(Timestamp, T)>;

#[derive(Serialize, Deserialize)]
struct Sides<A, B> {
    first: Line<A>,
    second: Line<B>,
}

impl<A, B> Sides<A, B> {
    fn new() -> Self {
        Sides {
            first: VecDeque::new(),
            second: VecDeque::new(),
        }
    }

    /// Drops the records whose partners are all past.
    #[inline]
    fn prune(&mut self, interval: &Interval, watermark: Timestamp) {
        while self
            .first
            .front()
            .is_some_and(|(at, _)| interval.first_expires(*at) <= watermark)
        {
            self.first.pop_front();
        }
        while self
            .second
            .front()
            .is_some_and(|(at, _)| interval.second_expires(*at) <= watermark)
        {
            self.second.pop_front();
        }
    }

    /// When the next record expires.
    fn expires(&self, interval: &Interval) -> Option<Timestamp> {
        let first = self
            .first
            .front()
            .map(|(at, _)| interval.first_expires(*at));
        let second = self
            .second
            .front()
            .map(|(at, _)| interval.second_expires(*at));
        first.into_iter().chain(second).min()
    }
}

/// Puts a record in its place; returns it.
#[inline]
fn insert<T>(line: &mut Line<T>, at: Timestamp, value: T) -> usize {
    let place = match line.back() {
        Some((last, _)) if *last > at => line.partition_point(|(other, _)| *other <= at),
        _ => line.len(),
    };
    line.insert(place, (at, value));
    place
}

/// The places of the records from `from` to `to`, both included.
#[inline]
fn between<T>(line: &Line<T>, from: i64, to: i64) -> (usize, usize) {
    let begin = line.partition_point(|(at, _)| at.0 < from);
    (begin, line.partition_point(|(at, _)| at.0 <= to).max(begin))
}

/// A record and those of its partners that wait for room, by their places.
struct Matching<K> {
    hash: u64,
    key: K,
    /// The record's place on its side.
    of: Either<usize, usize>,
    next: usize,
    end: usize,
}

impl<K> Matching<K> {
    /// Emits the record's pairs. False if the rest has to wait for room.
    #[inline]
    fn emit<A, B, F, I, C>(
        &mut self,
        sides: &Sides<A, B>,
        function: &mut F,
        since_asking: &mut u32,
        out: &mut C,
    ) -> Flow<bool>
    where
        F: FnMut(Pair<'_, K>, &A, &B) -> I,
        I: IntoIterator,
        C: Collector<I::Item>,
    {
        while self.next < self.end {
            if *since_asking >= BETWEEN_ASKING {
                if !out.has_room() {
                    return Ok(false);
                }
                *since_asking = 0;
            }
            let (i, j) = match self.of {
                Either::First(i) => (i, self.next),
                Either::Second(j) => (self.next, j),
            };
            let ((first_at, first), (second_at, second)) = (&sides.first[i], &sides.second[j]);
            let pair = Pair {
                key: &self.key,
                first_at: *first_at,
                second_at: *second_at,
            };
            let at = (*first_at).max(*second_at);
            for value in function(pair, first, second) {
                out.collect(at, value)?;
                *since_asking = since_asking.saturating_add(1);
            }
            self.next += 1;
        }
        Ok(true)
    }
}

/// A record that came while others were being emitted, and its time.
type Waiting<K, A, B> = (Timestamp, Keyed<K, Either<A, B>>);

/// Emits what a function makes of each pair of records whose times are near each other, at the
/// later one's time.
///
/// A record that isn't newer than the watermark is late: it is counted, put to the side output if
/// there is one, and joined with nothing.
pub struct IntervalJoin<K, A, B, F> {
    interval: Interval,
    function: F,
    late_output: Option<SideOutput<Either<A, B>>>,
    sides: BackedTable<K, Sides<A, B>>,
    /// Each key once, by the step in which it is to be swept.
    sweeps: BTreeMap<i64, Vec<(u64, K)>>,
    /// Where they are instead if they may be more than memory holds.
    spilled_sweeps: SpilledDue<K>,
    /// What is older comes too late.
    watermark: Timestamp,
    /// The watermark as far as it has gone on: what can't find a partner behind it is forgotten.
    passed: Timestamp,
    /// What waits for room: the record at hand and those behind it.
    matching: Option<Matching<K>>,
    waiting: VecDeque<Waiting<K, A, B>>,
    since_asking: u32,
    late: SideBuffer<Either<A, B>>,
    stats: Arc<SubtaskStats>,
}

impl<K, A, B, F: Clone> Clone for IntervalJoin<K, A, B, F>
where
    K: Hash + Eq,
{
    fn clone(&self) -> Self {
        IntervalJoin::new(self.interval, self.function.clone())
            .late_output(self.late_output.clone())
    }
}

impl<K: Hash + Eq, A, B, F> IntervalJoin<K, A, B, F> {
    /// Joins records as near as `interval` says; `function(pair, first, second)` returns what is
    /// emitted.
    pub fn new(interval: Interval, function: F) -> Self {
        IntervalJoin {
            interval,
            function,
            late_output: None,
            sides: BackedTable::default(),
            sweeps: BTreeMap::new(),
            spilled_sweeps: SpilledDue::default(),
            watermark: Timestamp::MIN,
            passed: Timestamp::MIN,
            matching: None,
            waiting: VecDeque::new(),
            since_asking: 0,
            late: SideBuffer::default(),
            stats: Arc::default(),
        }
    }

    /// Where late records go.
    pub fn late_output(mut self, tag: Option<SideOutput<Either<A, B>>>) -> Self {
        self.late_output = tag;
        self
    }

    /// The step in which a key is swept that has only this record.
    fn first_sweep(&self, at: Timestamp, value: &Either<A, B>) -> i64 {
        self.interval.step_of(match value {
            Either::First(_) => self.interval.first_expires(at),
            Either::Second(_) => self.interval.second_expires(at),
        })
    }

    #[cold]
    fn put_aside(&mut self, at: Timestamp, value: Either<A, B>) -> Flow {
        if at == Timestamp::MIN {
            return Err(Fault::user(
                "a record without event time came to an interval join; \
                 assign timestamps with .watermarks(...)",
            ));
        }
        self.stats.late.fetch_add(1, Relaxed);
        self.late.collect(at, value);
        Ok(())
    }
}

impl<K, A, B, F, I> IntervalJoin<K, A, B, F>
where
    K: Key,
    A: StateValue,
    B: StateValue,
    F: FnMut(Pair<'_, K>, &A, &B) -> I + 'static,
    I: IntoIterator,
{
    #[inline(always)]
    fn join<C>(&mut self, at: Timestamp, record: Keyed<K, Either<A, B>>, out: &mut C) -> Flow<bool>
    where
        C: Collector<I::Item>,
    {
        let Keyed { hash, key, value } = record;
        let (interval, passed) = (self.interval, self.passed);
        let Interval { lower, upper } = interval;
        let sides = match self.sides.get_mut(hash, &key)? {
            Some(sides) => sides,
            None => {
                let step = self.first_sweep(at, &value);
                self.sweep_at(step, hash, key.clone())?;
                self.sides.insert_new(hash, key.clone(), Sides::new())?
            }
        };
        sides.prune(&interval, passed);
        let (of, (next, end)) = match value {
            Either::First(value) => {
                let near = (at.0.saturating_add(lower), at.0.saturating_add(upper));
                let place = insert(&mut sides.first, at, value);
                (Either::First(place), between(&sides.second, near.0, near.1))
            }
            Either::Second(value) => {
                let near = (at.0.saturating_sub(upper), at.0.saturating_sub(lower));
                let place = insert(&mut sides.second, at, value);
                (Either::Second(place), between(&sides.first, near.0, near.1))
            }
        };
        if next == end {
            return Ok(true);
        }
        let mut matching = Matching {
            hash,
            key,
            of,
            next,
            end,
        };
        let done = matching.emit(sides, &mut self.function, &mut self.since_asking, out)?;
        if !done {
            self.matching = Some(matching);
        }
        Ok(done)
    }

    /// Goes on with what waited for room. True once all of it is out.
    #[cold]
    fn go_on<C: Collector<I::Item>>(&mut self, out: &mut C) -> Flow<bool> {
        if let Some(matching) = &mut self.matching {
            if let Some(sides) = self.sides.get(matching.hash, &matching.key)?
                && !matching.emit(sides, &mut self.function, &mut self.since_asking, out)?
            {
                return Ok(false);
            }
            self.matching = None;
        }
        while let Some((at, record)) = self.waiting.pop_front() {
            if !self.join(at, record, out)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl<K, A, B, F, I> Operator<Keyed<K, Either<A, B>>> for IntervalJoin<K, A, B, F>
where
    K: Key,
    A: StateValue,
    B: StateValue,
    F: FnMut(Pair<'_, K>, &A, &B) -> I + 'static,
    I: IntoIterator,
    I::Item: 'static,
{
    type Out = I::Item;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.stats = context.stats();
        if let Some(tag) = &self.late_output {
            self.late = context.side_output(tag);
        }
        Ok(())
    }

    #[inline(always)]
    fn process<C: Collector<Self::Out>>(
        &mut self,
        at: Timestamp,
        record: Keyed<K, Either<A, B>>,
        out: &mut C,
    ) -> Flow {
        if at <= self.watermark {
            return self.put_aside(at, record.value);
        }
        if self.matching.is_some() {
            self.waiting.push_back((at, record));
            return Ok(());
        }
        self.join(at, record, out).map(drop)
    }

    fn watermark<C: Collector<Self::Out>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        self.watermark = self.watermark.max(at);
        self.resume(out)
    }

    fn resume<C: Collector<Self::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        // Records that wait still need those that the watermark makes useless to all others.
        if self.matching.is_some() && !self.go_on(out)? {
            return Ok(Progress::Suspended);
        }
        self.passed = self.watermark;
        self.sweep()?;
        Ok(Progress::Forward)
    }

    fn next_timer(&self) -> Option<Timestamp> {
        self.matching.is_some().then_some(Timestamp::MIN)
    }

    fn timer<C: Collector<Self::Out>>(&mut self, _now: Timestamp, out: &mut C) -> Flow {
        if self.matching.is_some() {
            self.go_on(out)?;
        }
        Ok(())
    }

    fn emitting(&self) -> bool {
        self.matching.is_some()
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        let types = (stored_name::<K>(), stored_name::<(A, B)>());
        state.keyed("sides", &mut Named(&mut self.sides, types))?;
        let rebuild = self.spilled_sweeps.state(state, "sweeps")?;
        if state.spills() {
            for (step, keys) in std::mem::take(&mut self.sweeps) {
                for (hash, key) in keys {
                    self.spilled_sweeps.push(step, hash, &key)?;
                }
            }
        }
        match rebuild {
            true => self.rebuild_sweeps(),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
