//! The built-in triggers.

use super::trigger::{Trigger, TriggerContext, TriggerResult};
use super::{TimeKind, TimeWindow};
use crate::checkpoint::StateValue;
use crate::time::{Timestamp, millis};
use std::time::Duration;

/// Fires when time of a kind has passed the window, and then for each late record. What windows by
/// time do unless they are given another trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeTrigger(TimeKind);

/// Makes a [`TimeTrigger`] by event time.
#[derive(Clone, Copy, Debug)]
pub enum EventTimeTrigger {}

impl EventTimeTrigger {
    /// Fires when the watermark has passed the window.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> TimeTrigger {
        TimeTrigger(TimeKind::Event)
    }
}

/// Makes a [`TimeTrigger`] by the clock.
#[derive(Clone, Copy, Debug)]
pub enum ProcessingTimeTrigger {}

impl ProcessingTimeTrigger {
    /// Fires when the clock has passed the window.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> TimeTrigger {
        TimeTrigger(TimeKind::Processing)
    }
}

impl TimeTrigger {
    /// Fires when time of this kind has passed the window.
    pub fn new(kind: TimeKind) -> Self {
        TimeTrigger(kind)
    }
}

impl<T> Trigger<T> for TimeTrigger {
    type State = ();

    fn on_element(
        &mut self,
        _value: &T,
        _at: Timestamp,
        window: TimeWindow,
        _state: &mut (),
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        let end = window.max_timestamp();
        if end <= context.time(self.0) {
            return TriggerResult::Fire;
        }
        context.register(self.0, end);
        TriggerResult::Continue
    }

    fn on_event_time(
        &mut self,
        at: Timestamp,
        window: TimeWindow,
        _state: &mut (),
        _context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        fire_if(at == window.max_timestamp())
    }

    fn on_processing_time(
        &mut self,
        at: Timestamp,
        window: TimeWindow,
        _state: &mut (),
        _context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        fire_if(at == window.max_timestamp())
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn on_merge(&mut self, window: TimeWindow, _state: &mut (), context: &mut TriggerContext<'_>) {
        if window.max_timestamp() > context.time(self.0) {
            context.register(self.0, window.max_timestamp());
        }
    }
}

fn fire_if(yes: bool) -> TriggerResult {
    if yes {
        TriggerResult::Fire
    } else {
        TriggerResult::Continue
    }
}

/// Never fires: what global windows do unless they are given another trigger.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeverTrigger;

impl<T> Trigger<T> for NeverTrigger {
    type State = ();

    fn on_element(
        &mut self,
        _value: &T,
        _at: Timestamp,
        _window: TimeWindow,
        _state: &mut (),
        _context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        TriggerResult::Continue
    }

    fn can_merge(&self) -> bool {
        true
    }
}

/// Fires with every so many records.
#[derive(Clone, Copy, Debug)]
pub struct CountTrigger(u64);

impl CountTrigger {
    /// Fires with every `n`-th record.
    pub fn new(n: u64) -> Self {
        CountTrigger(n)
    }
}

impl<T> Trigger<T> for CountTrigger {
    type State = u64;

    fn on_element(
        &mut self,
        _value: &T,
        _at: Timestamp,
        _window: TimeWindow,
        count: &mut u64,
        _context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        *count += 1;
        if *count < self.0 {
            return TriggerResult::Continue;
        }
        *count = 0;
        TriggerResult::Fire
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn merge(&mut self, into: &mut u64, other: u64) {
        *into += other;
    }
}

/// Purges the window whenever another trigger fires it.
#[derive(Clone, Copy, Debug)]
pub struct PurgingTrigger<Tr>(Tr);

impl<Tr> PurgingTrigger<Tr> {
    /// Fires when `trigger` does.
    pub fn of(trigger: Tr) -> Self {
        PurgingTrigger(trigger)
    }
}

fn purging(result: TriggerResult) -> TriggerResult {
    if result.fires() {
        TriggerResult::FireAndPurge
    } else {
        result
    }
}

impl<T, Tr: Trigger<T>> Trigger<T> for PurgingTrigger<Tr> {
    type State = Tr::State;

    fn on_element(
        &mut self,
        value: &T,
        at: Timestamp,
        window: TimeWindow,
        state: &mut Tr::State,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        purging(self.0.on_element(value, at, window, state, context))
    }

    fn on_event_time(
        &mut self,
        at: Timestamp,
        window: TimeWindow,
        state: &mut Tr::State,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        purging(self.0.on_event_time(at, window, state, context))
    }

    fn on_processing_time(
        &mut self,
        at: Timestamp,
        window: TimeWindow,
        state: &mut Tr::State,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        purging(self.0.on_processing_time(at, window, state, context))
    }

    fn can_merge(&self) -> bool {
        self.0.can_merge()
    }

    fn merge(&mut self, into: &mut Tr::State, other: Tr::State) {
        self.0.merge(into, other);
    }

    fn on_merge(
        &mut self,
        window: TimeWindow,
        state: &mut Tr::State,
        context: &mut TriggerContext<'_>,
    ) {
        self.0.on_merge(window, state, context);
    }

    fn clear(&mut self, window: TimeWindow, state: &mut Tr::State) {
        self.0.clear(window, state);
    }
}

/// Fires when a record differs by more than a threshold from the one of the last firing.
#[derive(Clone)]
pub struct DeltaTrigger<F> {
    threshold: f64,
    delta: F,
}

impl<F> DeltaTrigger<F> {
    /// Fires when `delta(record at the last firing, record)` exceeds `threshold`.
    pub fn new(threshold: f64, delta: F) -> Self {
        DeltaTrigger { threshold, delta }
    }
}

impl<T, F> Trigger<T> for DeltaTrigger<F>
where
    T: StateValue + Clone + Send,
    F: Fn(&T, &T) -> f64 + Clone + Send + 'static,
{
    type State = Option<T>;

    fn on_element(
        &mut self,
        value: &T,
        _at: Timestamp,
        _window: TimeWindow,
        last: &mut Option<T>,
        _context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        let fires = match last {
            Some(last) => (self.delta)(last, value) > self.threshold,
            None => {
                *last = Some(value.clone());
                false
            }
        };
        if fires {
            *last = Some(value.clone());
        }
        fire_if(fires)
    }
}

/// Fires at regular moments while the window is open, and at its end.
#[derive(Clone, Copy, Debug)]
pub struct ContinuousTrigger {
    kind: TimeKind,
    interval: i64,
}

/// Makes a [`ContinuousTrigger`] by event time.
#[derive(Clone, Copy, Debug)]
pub enum ContinuousEventTimeTrigger {}

impl ContinuousEventTimeTrigger {
    /// Fires at multiples of `interval`, once where the watermark passes several, and at the end.
    pub fn of(interval: Duration) -> ContinuousTrigger {
        ContinuousTrigger {
            kind: TimeKind::Event,
            interval: millis(interval).max(1),
        }
    }
}

/// Makes a [`ContinuousTrigger`] by the clock.
#[derive(Clone, Copy, Debug)]
pub enum ContinuousProcessingTimeTrigger {}

impl ContinuousProcessingTimeTrigger {
    /// Fires at multiples of `interval` on the clock, and when the clock comes to the window's end.
    pub fn of(interval: Duration) -> ContinuousTrigger {
        ContinuousTrigger {
            kind: TimeKind::Processing,
            interval: millis(interval).max(1),
        }
    }
}

impl ContinuousTrigger {
    fn next(&self, after: Timestamp) -> Timestamp {
        let before = after
            .0
            .div_euclid(self.interval)
            .saturating_mul(self.interval);
        Timestamp(before.saturating_add(self.interval))
    }

    fn on_time(
        &self,
        at: Timestamp,
        window: TimeWindow,
        next: &mut Option<Timestamp>,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        if *next == Some(at) {
            *next = None;
            let time = context.time(self.kind);
            // A window by event time that outlives the clock's moment for it goes on firing.
            if self.kind == TimeKind::Processing || time < window.max_timestamp() {
                self.set(self.next(time.max(at)), next, context);
            }
            return TriggerResult::Fire;
        }
        fire_if(at == window.max_timestamp())
    }

    fn set(&self, at: Timestamp, next: &mut Option<Timestamp>, context: &mut TriggerContext<'_>) {
        *next = Some(at);
        context.register(self.kind, at);
    }
}

impl<T> Trigger<T> for ContinuousTrigger {
    /// When it fires next.
    type State = Option<Timestamp>;

    fn on_element(
        &mut self,
        _value: &T,
        at: Timestamp,
        window: TimeWindow,
        next: &mut Option<Timestamp>,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        let time = context.time(self.kind);
        if self.kind == TimeKind::Event && window.max_timestamp() <= time {
            return TriggerResult::Fire;
        }
        let from = if self.kind == TimeKind::Event {
            at.max(time)
        } else {
            time
        };
        if next.is_none() {
            self.set(self.next(from), next, context);
        }
        if window.max_timestamp() > time {
            context.register(self.kind, window.max_timestamp());
        }
        TriggerResult::Continue
    }

    fn on_event_time(
        &mut self,
        at: Timestamp,
        window: TimeWindow,
        next: &mut Option<Timestamp>,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        self.on_time(at, window, next, context)
    }

    fn on_processing_time(
        &mut self,
        at: Timestamp,
        window: TimeWindow,
        next: &mut Option<Timestamp>,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        self.on_time(at, window, next, context)
    }

    fn can_merge(&self) -> bool {
        true
    }

    fn merge(&mut self, into: &mut Option<Timestamp>, other: Option<Timestamp>) {
        *into = (*into).into_iter().chain(other).min();
    }

    fn on_merge(
        &mut self,
        window: TimeWindow,
        next: &mut Option<Timestamp>,
        context: &mut TriggerContext<'_>,
    ) {
        if let Some(next) = *next {
            context.register(self.kind, next);
        }
        if window.max_timestamp() > context.time(self.kind) {
            context.register(self.kind, window.max_timestamp());
        }
    }
}
