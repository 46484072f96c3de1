//! Where event time comes from: timestamps read from records, watermarks generated from timestamps.
//!
//! A strategy is a timestamp assigner and a generator. Watermarks leave at the end of a turn, so a
//! slice of a source yields one, not one a record; punctuated ones leave with their record.

use crate::build::OpenContext;
use crate::clock::Clock;
use crate::fault::Flow;
use crate::operator::{Operator, Progress};
use crate::stage::{Collector, Signal};
use crate::time::Timestamp;
use std::marker::PhantomData;
use std::time::Duration;

/// Turns the timestamps of a subtask's records into watermarks.
pub trait WatermarkGenerator<T>: Clone + Send + 'static {
    /// Sees a record. A watermark that is returned leaves right behind it.
    fn on_record(&mut self, value: &T, at: Timestamp) -> Option<Timestamp>;

    /// The watermark at the end of a turn, where there is one.
    fn periodic(&mut self) -> Option<Timestamp>;
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

/// How a stream gets its event time: assigner, generator, and when it counts as idle.
pub struct WatermarkStrategy<T, G, A = SourceTimestamps> {
    generator: G,
    assigner: A,
    idle_after: Option<Duration>,
    record: PhantomData<fn(T)>,
}

impl<T, G: Clone, A: Clone> Clone for WatermarkStrategy<T, G, A> {
    fn clone(&self) -> Self {
        WatermarkStrategy {
            generator: self.generator.clone(),
            assigner: self.assigner.clone(),
            idle_after: self.idle_after,
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
            ..
        } = self;
        WatermarkStrategy {
            generator,
            assigner,
            idle_after,
            record: PhantomData,
        }
    }

    /// Counts a subtask without records for this long (processing time) as idle: others go on without
    /// waiting for its watermark.
    pub fn idle_after(mut self, timeout: Duration) -> Self {
        self.idle_after = Some(timeout);
        self
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
}

impl<T, G: Clone, A: Clone> Clone for AssignWatermarks<T, G, A> {
    fn clone(&self) -> Self {
        AssignWatermarks {
            strategy: self.strategy.clone(),
            clock: self.clock.clone(),
            ..*self
        }
    }
}

impl<T, G, A> AssignWatermarks<T, G, A> {
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
        Ok(())
    }

    #[inline(always)]
    fn process<C: Collector<T>>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow {
        let at = self.strategy.assigner.timestamp(&value, at);
        self.records += 1;
        match self.strategy.generator.on_record(&value, at) {
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
            return Ok(Progress::Forward);
        }
        Ok(Progress::Swallow)
    }

    fn turn(&mut self, now: Timestamp) -> Option<Signal> {
        if self.records != self.seen {
            self.seen = self.records;
            self.active_since = now;
            let back = std::mem::take(&mut self.idle);
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

    fn next_timer(&self) -> Option<Timestamp> {
        let timeout = self.strategy.idle_after?;
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
}
