//! When a window is emitted: a trigger sees each record and each of its timers, and decides.

use super::{TimeKind, TimeWindow};
use crate::checkpoint::StateValue;
use crate::time::Timestamp;

/// What becomes of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TriggerResult {
    /// Nothing for now.
    Continue,
    /// It is emitted and keeps its records.
    Fire,
    /// It loses its records.
    Purge,
    /// It is emitted and loses its records.
    FireAndPurge,
}

impl TriggerResult {
    /// Whether the window is emitted.
    pub fn fires(self) -> bool {
        matches!(self, TriggerResult::Fire | TriggerResult::FireAndPurge)
    }

    /// Whether its records go.
    pub fn purges(self) -> bool {
        matches!(self, TriggerResult::Purge | TriggerResult::FireAndPurge)
    }
}

/// A trigger's wish about a timer of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimerRequest {
    pub kind: TimeKind,
    pub at: Timestamp,
    pub set: bool,
}

/// What a trigger knows and can ask for. Timers belong to the key and window at hand; setting the
/// same one twice sets it once.
pub struct TriggerContext<'a> {
    pub(super) watermark: Timestamp,
    pub(super) now: Timestamp,
    pub(super) requests: &'a mut Vec<TimerRequest>,
}

impl TriggerContext<'_> {
    /// How far event time has come.
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Processing time.
    pub fn processing_time(&self) -> Timestamp {
        self.now
    }

    /// The last moment that the time of a kind has passed: on the clock, the millisecond before the
    /// present one, in which records may still come.
    pub fn time(&self, kind: TimeKind) -> Timestamp {
        match kind {
            TimeKind::Event => self.watermark,
            TimeKind::Processing if self.now == Timestamp::MAX => Timestamp::MAX,
            TimeKind::Processing => Timestamp(self.now.0.saturating_sub(1)),
        }
    }

    /// Asks for [`Trigger::on_event_time`] once the watermark has come to `at`.
    pub fn register_event_time(&mut self, at: Timestamp) {
        self.register(TimeKind::Event, at);
    }

    /// Asks for [`Trigger::on_processing_time`] once the clock has passed `at`.
    pub fn register_processing_time(&mut self, at: Timestamp) {
        self.register(TimeKind::Processing, at);
    }

    /// Takes back [`TriggerContext::register_event_time`].
    pub fn delete_event_time(&mut self, at: Timestamp) {
        self.delete(TimeKind::Event, at);
    }

    /// Takes back [`TriggerContext::register_processing_time`].
    pub fn delete_processing_time(&mut self, at: Timestamp) {
        self.delete(TimeKind::Processing, at);
    }

    /// Sets a timer of either kind.
    pub fn register(&mut self, kind: TimeKind, at: Timestamp) {
        self.requests.push(TimerRequest {
            kind,
            at,
            set: true,
        });
    }

    /// Takes back a timer of either kind.
    pub fn delete(&mut self, kind: TimeKind, at: Timestamp) {
        self.requests.push(TimerRequest {
            kind,
            at,
            set: false,
        });
    }
}

/// Decides when windows are emitted. State that differs by key and window goes into
/// [`Trigger::State`]; the trigger itself is shared by all windows of a subtask.
pub trait Trigger<T>: Clone + Send + 'static {
    /// What is kept per key and window.
    type State: StateValue + Default + Send;

    /// A record, with its event time, was added to the window.
    fn on_element(
        &mut self,
        value: &T,
        at: Timestamp,
        window: TimeWindow,
        state: &mut Self::State,
        context: &mut TriggerContext<'_>,
    ) -> TriggerResult;

    /// An event-time timer of the window has come.
    fn on_event_time(
        &mut self,
        _at: Timestamp,
        _window: TimeWindow,
        _state: &mut Self::State,
        _context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        TriggerResult::Continue
    }

    /// A processing-time timer of the window has come.
    fn on_processing_time(
        &mut self,
        _at: Timestamp,
        _window: TimeWindow,
        _state: &mut Self::State,
        _context: &mut TriggerContext<'_>,
    ) -> TriggerResult {
        TriggerResult::Continue
    }

    /// Whether it works with windows that merge, as sessions do.
    fn can_merge(&self) -> bool {
        false
    }

    /// Takes in the state of a window that merges into this one.
    fn merge(&mut self, _into: &mut Self::State, _other: Self::State) {}

    /// The window grew or took others in: all timers of these are gone, set those of `window`.
    fn on_merge(
        &mut self,
        _window: TimeWindow,
        _state: &mut Self::State,
        _context: &mut TriggerContext<'_>,
    ) {
    }

    /// The window is gone, and its state and timers with it.
    fn clear(&mut self, _window: TimeWindow, _state: &mut Self::State) {}
}
