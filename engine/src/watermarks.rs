//! Where event time comes from: timestamps read from records, watermarks generated from timestamps.
//!
//! A strategy is a timestamp assigner and a generator. Watermarks leave at the end of a turn, so a
//! slice of a source yields one, not one a record; punctuated ones leave with their record.

use crate::alignment::{Alignment, AlignmentMember, LOOK_INTERVAL};
use crate::build::OpenContext;
use crate::checkpoint::StateVisitor;
use crate::clock::Clock;
use crate::fault::Flow;
use crate::operator::{Operator, Progress};
use crate::splits::SplitTrack;
use crate::stage::{Collector, Signal};
use crate::time::Timestamp;
use per_split::{Combined, PerSplit};
use std::marker::PhantomData;
use std::time::Duration;

mod per_split;

/// Turns the timestamps of a subtask's records into watermarks.
pub trait WatermarkGenerator<T>: Clone + Send + 'static {
    /// Sees a record. A watermark that is returned leaves right behind it.
    fn on_record(&mut self, value: &T, at: Timestamp) -> Option<Timestamp>;

    /// The watermark at the end of a turn, where there is one.
    fn periodic(&mut self) -> Option<Timestamp>;

    /// Shows what it knows, to be saved and loaded. The watermark that it gave last is taken care of.
    fn state(&mut self, _state: &mut StateVisitor<'_>) -> Flow {
        Ok(())
    }
}

/// Reads the event time of a record; `at` is what the source gave it.
pub trait TimestampAssigner<T>: Clone + Send + 'static {
    /// The record's event time.
    fn timestamp(&self, value: &T, at: Timestamp) -> Timestamp;
}

impl<T, F, R> TimestampAssigner<T> for F
where
    F: Fn(&T) -> R + Clone + Send + 'static,
    R: Into<Timestamp>,
{
    #[inline(always)]
    fn timestamp(&self, value: &T, _at: Timestamp) -> Timestamp {
        self(value).into()
    }
}

/// Keeps the timestamps that the source gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct SourceTimestamps;

impl<T> TimestampAssigner<T> for SourceTimestamps {
    #[inline(always)]
    fn timestamp(&self, _value: &T, at: Timestamp) -> Timestamp {
        at
    }
}

/// Watermarks a fixed delay behind the highest timestamp seen.
#[derive(Clone, Debug)]
pub struct BoundedOutOfOrderness {
    delay: Duration,
    highest: Timestamp,
}

impl<T> WatermarkGenerator<T> for BoundedOutOfOrderness {
    #[inline(always)]
    fn on_record(&mut self, _value: &T, at: Timestamp) -> Option<Timestamp> {
        self.highest = self.highest.max(at);
        None
    }

    fn periodic(&mut self) -> Option<Timestamp> {
        // A later record may still carry the same timestamp, so the watermark stays 1 ms below it.
        (self.highest != Timestamp::MIN).then(|| {
            self.highest
                .minus(self.delay)
                .minus(Duration::from_millis(1))
        })
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        state.value("highest", &mut self.highest, Timestamp::min)
    }
}

/// A watermark for those records for which the function returns one.
#[derive(Clone)]
pub struct Punctuated<F>(F);

impl<T, F> WatermarkGenerator<T> for Punctuated<F>
where
    F: Fn(&T, Timestamp) -> Option<Timestamp> + Clone + Send + 'static,
{
    fn on_record(&mut self, value: &T, at: Timestamp) -> Option<Timestamp> {
        (self.0)(value, at)
    }

    fn periodic(&mut self) -> Option<Timestamp> {
        None
    }
}

/// No watermarks but the one at the end of the input.
#[derive(Clone, Copy, Debug)]
pub struct NoWatermarks;

impl<T> WatermarkGenerator<T> for NoWatermarks {
    #[inline(always)]
    fn on_record(&mut self, _value: &T, _at: Timestamp) -> Option<Timestamp> {
        None
    }

    fn periodic(&mut self) -> Option<Timestamp> {
        None
    }
}

/// How a stream gets its event time: assigner, generator, when it counts as idle, and which others it
/// keeps in step with.
pub struct WatermarkStrategy<T, G, A = SourceTimestamps> {
    generator: G,
    assigner: A,
    idle_after: Option<Duration>,
    alignment: Option<Alignment>,
    record: PhantomData<fn(T)>,
}

impl<T, G: Clone, A: Clone> Clone for WatermarkStrategy<T, G, A> {
    fn clone(&self) -> Self {
        WatermarkStrategy {
            generator: self.generator.clone(),
            assigner: self.assigner.clone(),
            idle_after: self.idle_after,
            alignment: self.alignment.clone(),
            record: PhantomData,
        }
    }
}

impl<T> WatermarkStrategy<T, BoundedOutOfOrderness> {
    /// For streams in which no record comes more than `delay` of event time behind one with a higher
    /// timestamp. Records that do are late.
    pub fn bounded_out_of_orderness(delay: Duration) -> Self {
        Self::custom(BoundedOutOfOrderness {
            delay,
            highest: Timestamp::MIN,
        })
    }

    /// For streams whose timestamps never go back.
    pub fn monotonous() -> Self {
        Self::bounded_out_of_orderness(Duration::ZERO)
    }
}

impl<T> WatermarkStrategy<T, NoWatermarks> {
    /// For streams without event time.
    pub fn none() -> Self {
        Self::custom(NoWatermarks)
    }
}

impl<T, F> WatermarkStrategy<T, Punctuated<F>>
where
    F: Fn(&T, Timestamp) -> Option<Timestamp> + Clone + Send + 'static,
{
    /// A watermark behind each record for which `watermark(record, its timestamp)` returns one.
    pub fn punctuated(watermark: F) -> Self {
        Self::custom(Punctuated(watermark))
    }
}

impl<T, G> WatermarkStrategy<T, G> {
    /// Watermarks from a generator of the user's own.
    pub fn custom(generator: G) -> Self {
        let assigner = SourceTimestamps;
        WatermarkStrategy {
            generator,
            assigner,
            idle_after: None,
            alignment: None,
            record: PhantomData,
        }
    }
}

impl<T, G, A> WatermarkStrategy<T, G, A> {
    /// Reads each record's event time with `assigner`, such as `|o: &Order| o.order_time`.
    pub fn timestamps<B: TimestampAssigner<T>>(self, assigner: B) -> WatermarkStrategy<T, G, B> {
        let WatermarkStrategy {
            generator,
            idle_after,
            alignment,
            ..
        } = self;
        WatermarkStrategy {
            generator,
            assigner,
            idle_after,
            alignment,
            record: PhantomData,
        }
    }

    /// Counts a subtask without records for this long (processing time) as idle: others go on without
    /// waiting for its watermark.
    pub fn idle_after(mut self, timeout: Duration) -> Self {
        self.idle_after = Some(timeout);
        self
    }

    /// Keeps all sources of the job that name the same group together in event time: a subtask whose
    /// watermark is more than `max_drift` ahead of the group's least one stops reading until the others
    /// catch up. Who is idle or has ended holds nobody back; who has no watermark yet does, so give
    /// streams that may be silent an [`WatermarkStrategy::idle_after`]. A subtask reads a slice at a
    /// time and may be ahead by one slice more. A source of several splits, such as the partitions of a topic, reads
    /// on those that are not ahead. The strategy must stand right behind its source.
    ///
    /// ```
    /// use tidegate_engine::prelude::*;
    ///
    /// let strategy = WatermarkStrategy::<u64, _>::monotonous()
    ///     .timestamps(|seconds: &u64| Timestamp(*seconds as i64 * 1000))
    ///     .idle_after(Duration::from_secs(5))
    ///     .align("orders and payments", Duration::from_secs(60));
    /// ```
    pub fn align(mut self, group: &str, max_drift: Duration) -> Self {
        self.alignment = Some(Alignment {
            group: group.to_owned(),
            max_drift,
        });
        self
    }

    /// Whether it keeps in step with others.
    pub(crate) fn is_aligned(&self) -> bool {
        self.alignment.is_some()
    }
}

/// The operator that a strategy becomes.
pub struct AssignWatermarks<T, G, A> {
    strategy: WatermarkStrategy<T, G, A>,
    emitted: Timestamp,
    clock: Clock,
    active_since: Timestamp,
    records: u64,
    seen: u64,
    idle: bool,
    /// What was restored is to be said again at the end of the first turn.
    unsaid: bool,
    aligned: Option<Aligned>,
    splits: PerSplit<T, G>,
}

/// A subtask's part in an alignment group.
struct Aligned {
    member: AlignmentMember,
    /// It is too far ahead and does not take records.
    waits: bool,
    looked_at: Timestamp,
}

impl Aligned {
    /// Tells the others how far this subtask has come, and looks where they are.
    fn look(&mut self, now: Timestamp, emitted: Timestamp, idle: bool) {
        if idle {
            self.member.idle();
        } else {
            self.member.publish(emitted);
        }
        self.waits = !idle && emitted != Timestamp::MAX && self.member.is_ahead(emitted);
        self.looked_at = now;
    }
}

impl<T, G: WatermarkGenerator<T>, A: Clone> Clone for AssignWatermarks<T, G, A> {
    fn clone(&self) -> Self {
        AssignWatermarks {
            strategy: self.strategy.clone(),
            clock: self.clock.clone(),
            aligned: None,
            splits: PerSplit::new(SplitTrack::default()),
            ..*self
        }
    }
}

impl<T, G: WatermarkGenerator<T>, A> AssignWatermarks<T, G, A> {
    /// The operator of a strategy.
    pub fn new(strategy: WatermarkStrategy<T, G, A>) -> Self {
        AssignWatermarks {
            strategy,
            emitted: Timestamp::MIN,
            clock: Clock::System,
            active_since: Timestamp::MIN,
            records: 0,
            seen: 0,
            idle: false,
            unsaid: false,
            aligned: None,
            splits: PerSplit::new(SplitTrack::default()),
        }
    }

    fn newer(&mut self, at: Timestamp) -> Option<Signal> {
        if at <= self.emitted {
            return None;
        }
        self.emitted = at;
        Some(Signal::Watermark(at))
    }
}

impl<T, G: WatermarkGenerator<T>, A> AssignWatermarks<T, G, A> {
    /// What those behind are to hear of how far the splits are.
    fn say(&mut self, combined: Combined) -> Option<Signal> {
        if combined == Combined::Idle {
            return (!std::mem::replace(&mut self.idle, true)).then_some(Signal::Idle);
        }
        let back = std::mem::take(&mut self.idle) | std::mem::take(&mut self.unsaid);
        let newer = match combined {
            Combined::At(at) => self.newer(at),
            Combined::Idle | Combined::Waiting => None,
        };
        newer.or_else(|| back.then_some(Signal::Watermark(self.emitted)))
    }

    /// The signal at the end of a turn.
    fn generate(&mut self, now: Timestamp) -> Option<Signal> {
        if self.emitted == Timestamp::MAX {
            return None; // the input has ended, and nothing comes behind that
        }
        if self.splits.told() {
            let (idle_after, generator) = (self.strategy.idle_after, &self.strategy.generator);
            let combined = self.splits.advance(generator, now, idle_after);
            return self.say(combined);
        }
        if self.records != self.seen {
            self.seen = self.records;
            self.active_since = now;
            let back = std::mem::take(&mut self.idle) | std::mem::take(&mut self.unsaid);
            let periodic = self.strategy.generator.periodic();
            return match periodic {
                Some(at) => self
                    .newer(at)
                    .or_else(|| back.then_some(Signal::Watermark(self.emitted))),
                None => back.then_some(Signal::Watermark(self.emitted)),
            };
        }
        let timeout = self.strategy.idle_after?;
        if !self.idle && self.active_since.plus(timeout) <= now && self.emitted != Timestamp::MAX {
            self.idle = true;
            return Some(Signal::Idle);
        }
        None
    }
}

impl<T, G, A> Operator<T> for AssignWatermarks<T, G, A>
where
    T: 'static,
    G: WatermarkGenerator<T>,
    A: TimestampAssigner<T>,
{
    type Out = T;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.clock = context.clock();
        self.active_since = self.clock.now();
        self.splits = PerSplit::new(context.split_track());
        if let Some(alignment) = &self.strategy.alignment {
            self.aligned = Some(Aligned {
                member: context.align(alignment)?,
                waits: false,
                looked_at: self.active_since,
            });
        }
        Ok(())
    }

    #[inline(always)]
    fn process<C: Collector<T>>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow {
        let at = self.strategy.assigner.timestamp(&value, at);
        self.records += 1;
        let watermark = if self.splits.told() {
            self.splits.on_record(&self.strategy.generator, &value, at)
        } else {
            self.strategy.generator.on_record(&value, at)
        };
        match watermark {
            None => out.collect(at, value),
            Some(watermark) => {
                out.collect(at, value)?;
                match self.newer(watermark) {
                    Some(signal) => out.signal(signal),
                    None => Ok(()),
                }
            }
        }
    }

    fn watermark<C: Collector<T>>(&mut self, at: Timestamp, _out: &mut C) -> Flow<Progress> {
        // Watermarks from before this operator end here, except the last one.
        if at == Timestamp::MAX {
            self.emitted = at;
            // Nothing is told behind the end, also not that it is back.
            self.idle = false;
            if let Some(aligned) = &mut self.aligned {
                aligned.member.end();
                aligned.waits = false;
            }
            return Ok(Progress::Forward);
        }
        Ok(Progress::Swallow)
    }

    fn turn(&mut self, now: Timestamp) -> Option<Signal> {
        let signal = self.generate(now);
        if let Some(aligned) = &mut self.aligned {
            aligned.look(now, self.emitted, self.idle);
            if self.splits.told() {
                self.splits.hold(aligned.member.limit());
            }
        }
        signal
    }

    #[inline(always)]
    fn room(&self) -> bool {
        self.aligned.as_ref().is_none_or(|aligned| !aligned.waits)
    }

    fn held_back(&mut self, now: Timestamp) {
        self.active_since = now;
        self.splits.held_back(now);
    }

    fn next_timer(&self) -> Option<Timestamp> {
        if let Some(aligned) = self.aligned.as_ref().filter(|a| a.waits) {
            return Some(aligned.looked_at.plus(LOOK_INTERVAL));
        }
        let timeout = self.strategy.idle_after?;
        if self.splits.told() {
            let next = self.splits.next_idle(timeout);
            return next.filter(|_| self.emitted != Timestamp::MAX);
        }
        (!self.idle && self.emitted != Timestamp::MAX).then(|| {
            self.active_since
                .plus(timeout)
                .plus(Duration::from_millis(1))
        })
    }

    fn timer<C: Collector<T>>(&mut self, now: Timestamp, out: &mut C) -> Flow {
        match Operator::<T>::turn(self, now) {
            Some(signal) => out.signal(signal),
            None => {
                self.active_since = now;
                Ok(())
            }
        }
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        let mut reached = (self.idle, self.emitted);
        state.value("emitted", &mut reached, behind)?;
        self.strategy.generator.state(state)?;
        // The end of the input is for its source to say.
        if state.loads() && reached.1 != Timestamp::MAX && reached.1 != Timestamp::MIN {
            self.emitted = reached.1;
            // Those behind hear of it at the end of the first turn, as of one that was idle. It is not:
            // a checkpoint may come before that turn.
            (self.idle, self.unsaid) = (false, true);
            self.seen = self.records.wrapping_sub(1);
        }
        Ok(())
    }
}

/// Of what two subtasks have emitted, where all go on from: nobody waits for one that was idle.
fn behind(one: (bool, Timestamp), other: (bool, Timestamp)) -> (bool, Timestamp) {
    // Who was not idle comes before who was.
    if one.0 && other.0 {
        one.max(other)
    } else {
        one.min(other)
    }
}

#[cfg(test)]
mod tests;
