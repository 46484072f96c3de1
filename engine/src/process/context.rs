//! What a process function sees of its surroundings, besides the record.

use crate::checkpoint::Key;
use crate::clock::Clock;
use crate::fault::Flow;
use crate::state::{KeyScope, TimerQueue};
use crate::time::Timestamp;
use std::cell::RefCell;
use std::ops::Deref;

/// The surroundings of one call of a keyed process function: its key, the time, the key's timers.
pub struct ProcessContext<'a, K> {
    pub(super) hash: u64,
    pub(super) key: &'a K,
    pub(super) timestamp: Timestamp,
    pub(super) watermark: Timestamp,
    pub(super) clock: &'a Clock,
    pub(super) event: &'a RefCell<TimerQueue<K>>,
    pub(super) processing: &'a RefCell<TimerQueue<K>>,
}

impl<'a, K> ProcessContext<'a, K> {
    /// The current key.
    #[inline(always)]
    pub fn key(&self) -> &'a K {
        self.key
    }

    /// The event time of the record, or the time for which the timer was set.
    #[inline(always)]
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// How far event time has come.
    #[inline(always)]
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The present.
    pub fn processing_time(&self) -> Timestamp {
        self.clock.now()
    }
}

/// What a change of timers came to. Where what is spilled can't be read user code has no way on.
#[inline]
fn settled(result: Flow<bool>) -> bool {
    match result {
        Ok(value) => value,
        Err(fault) => fault.unwind(),
    }
}

impl<K: Key> ProcessContext<'_, K> {
    /// Sets a timer of the current key for when the watermark comes to `at`; one for the past fires
    /// at the next watermark. False if it is set already: it fires once.
    pub fn register_event_timer(&self, at: Timestamp) -> bool {
        settled(self.event.borrow_mut().register(at, self.hash, self.key))
    }

    /// Unsets a timer of the current key; false if it was not set.
    pub fn delete_event_timer(&self, at: Timestamp) -> bool {
        settled(self.event.borrow_mut().delete(at, self.hash, self.key))
    }

    /// Sets a timer of the current key for when processing time comes to `at`. False if it is set
    /// already. Those that are still set at the end of a bounded input never fire.
    pub fn register_processing_timer(&self, at: Timestamp) -> bool {
        let mut timers = self.processing.borrow_mut();
        settled(timers.register(at, self.hash, self.key))
    }

    /// Unsets a timer of the current key; false if it was not set.
    pub fn delete_processing_timer(&self, at: Timestamp) -> bool {
        settled(self.processing.borrow_mut().delete(at, self.hash, self.key))
    }
}

impl<K> KeyScope<K> for ProcessContext<'_, K> {
    #[inline(always)]
    fn key(&self) -> &K {
        self.key
    }

    #[inline(always)]
    fn hash(&self) -> u64 {
        self.hash
    }
}

/// The surroundings of a record without a key.
pub struct RecordContext<'a> {
    pub(crate) timestamp: Timestamp,
    pub(crate) watermark: Timestamp,
    pub(crate) clock: &'a Clock,
}

impl RecordContext<'_> {
    /// The event time of the record.
    #[inline(always)]
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// How far event time has come.
    #[inline(always)]
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// The present.
    pub fn processing_time(&self) -> Timestamp {
        self.clock.now()
    }
}

/// The surroundings of a record of a broadcast stream: with it, broadcast state can be written.
pub struct BroadcastContext<'a>(pub(crate) RecordContext<'a>);

impl<'a> Deref for BroadcastContext<'a> {
    type Target = RecordContext<'a>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// By which time a timer fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeDomain {
    /// The watermark.
    Event,
    /// The clock.
    Processing,
}

/// The surroundings of a timer that fires: those of a record, and which kind of timer it is.
pub struct TimerContext<'a, K> {
    pub(super) context: ProcessContext<'a, K>,
    pub(super) domain: TimeDomain,
}

impl<K> TimerContext<'_, K> {
    /// By which time the timer was set.
    pub fn domain(&self) -> TimeDomain {
        self.domain
    }
}

impl<'a, K> Deref for TimerContext<'a, K> {
    type Target = ProcessContext<'a, K>;

    fn deref(&self) -> &Self::Target {
        &self.context
    }
}

impl<K> KeyScope<K> for TimerContext<'_, K> {
    #[inline(always)]
    fn key(&self) -> &K {
        self.context.key
    }

    #[inline(always)]
    fn hash(&self) -> u64 {
        self.context.hash
    }
}
