//! The timers of an operator of keyed records: when they fire, and in what surroundings.
//!
//! Event timers fire when the watermark comes, before it goes on; a long run of them is cut where
//! there is no room downstream. Processing timers fire in a turn, at most one round a millisecond, so
//! that a timer that sets itself for the present does not keep the subtask from its input.

use super::context::{ProcessContext, RecordContext, TimeDomain, TimerContext};
use crate::build::OpenContext;
use crate::checkpoint::{Key, StateVisitor};
use crate::clock::Clock;
use crate::fault::Flow;
use crate::observe::SubtaskStats;
use crate::operator::Progress;
use crate::stage::Collector;
use crate::state::{Timer, TimerQueue};
use crate::time::Timestamp;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Names that no user's state should have.
const EVENT_TIMERS: &str = "$event timers";
const PROCESSING_TIMERS: &str = "$processing timers";

/// Timers that fire between two looks for room downstream.
const BETWEEN_LOOKS: usize = 64;

/// Timers that fire at one watermark before other work gets its turn.
const AT_ONCE: usize = 4096;

/// Both kinds of timers of one operator, and the time.
pub(crate) struct TimerService<K> {
    event: RefCell<TimerQueue<K>>,
    processing: RefCell<TimerQueue<K>>,
    watermark: Timestamp,
    /// The processing time of the last complete round.
    fired: Timestamp,
    clock: Clock,
    stats: Arc<SubtaskStats>,
    published: u64,
    /// A watermark that was seen before a restore and is about to be shown again.
    replayed: Option<Timestamp>,
}

impl<K> Default for TimerService<K> {
    /// Without a clock that moves, until it is opened.
    fn default() -> Self {
        TimerService {
            event: RefCell::default(),
            processing: RefCell::default(),
            watermark: Timestamp::MIN,
            fired: Timestamp::MIN,
            clock: Clock::manual(Timestamp::MIN),
            stats: Arc::default(),
            published: 0,
            replayed: None,
        }
    }
}

impl<K: Key> TimerService<K> {
    /// Takes the subtask's clock and numbers.
    pub(crate) fn open(&mut self, context: &OpenContext<'_>) {
        self.clock = context.clock();
        self.stats = context.stats();
    }

    /// The surroundings of a record.
    #[inline(always)]
    pub(crate) fn context<'a>(
        &'a self,
        hash: u64,
        key: &'a K,
        timestamp: Timestamp,
    ) -> ProcessContext<'a, K> {
        ProcessContext {
            hash,
            key,
            timestamp,
            watermark: self.watermark,
            clock: &self.clock,
            event: &self.event,
            processing: &self.processing,
        }
    }

    /// The surroundings of a record without a key.
    pub(crate) fn record(&self, timestamp: Timestamp) -> RecordContext<'_> {
        RecordContext {
            timestamp,
            watermark: self.watermark,
            clock: &self.clock,
        }
    }

    /// Event time has come to `watermark`; says whether timers fire.
    pub(crate) fn advance(&mut self, watermark: Timestamp) -> bool {
        self.watermark = watermark;
        // Those that were set for a time before it wait for the next one, restored or not.
        self.replayed.take() != Some(watermark)
    }

    /// Saves or loads both kinds of timers.
    pub(crate) fn state(&mut self, visitor: &mut StateVisitor<'_>) -> Flow {
        visitor.keyed(EVENT_TIMERS, self.event.get_mut())?;
        visitor.keyed(PROCESSING_TIMERS, self.processing.get_mut())?;
        let restored = visitor.restored_watermark();
        self.replayed = restored.filter(|at| *at > Timestamp::MIN);
        Ok(())
    }

    /// Fires the event timers that are due, until there is no room.
    pub(crate) fn fire_event<O, C: Collector<O>>(
        &self,
        out: &mut C,
        mut fire: impl FnMut(&TimerContext<'_, K>, Timestamp, &mut C) -> Flow,
    ) -> Flow<Progress> {
        for count in 0..=AT_ONCE {
            let next = self.event.borrow().next();
            if next.is_none_or(|at| at > self.watermark) {
                return Ok(Progress::Forward);
            }
            if count % BETWEEN_LOOKS == 0 && !out.has_room() {
                return Ok(Progress::Suspended);
            }
            let Some(timer) = self.event.borrow_mut().pop_due(self.watermark)? else {
                // There was none by then among those that are not in memory.
                return Ok(Progress::Forward);
            };
            self.fire_one(&timer, TimeDomain::Event, out, &mut fire)?;
        }
        Ok(Progress::Suspended)
    }

    /// Fires the processing timers that are due and were set before, until there is no room.
    pub(crate) fn fire_processing<O, C: Collector<O>>(
        &mut self,
        now: Timestamp,
        out: &mut C,
        mut fire: impl FnMut(&TimerContext<'_, K>, Timestamp, &mut C) -> Flow,
    ) -> Flow {
        let set = self.processing.borrow().len();
        for count in 0..set {
            if count % BETWEEN_LOOKS == 0 && !out.has_room() {
                return Ok(());
            }
            let Some(timer) = self.processing.borrow_mut().pop_due(now)? else {
                break;
            };
            self.fire_one(&timer, TimeDomain::Processing, out, &mut fire)?;
        }
        self.fired = now;
        Ok(())
    }

    fn fire_one<C>(
        &self,
        timer: &Timer<K>,
        domain: TimeDomain,
        out: &mut C,
        fire: &mut impl FnMut(&TimerContext<'_, K>, Timestamp, &mut C) -> Flow,
    ) -> Flow {
        let context = self.context(timer.hash, &timer.key, timer.at);
        fire(&TimerContext { context, domain }, timer.at, out)
    }

    /// When [`TimerService::fire_processing`] is to be called.
    pub(crate) fn next_processing(&self) -> Option<Timestamp> {
        let next_round = self.fired.plus(Duration::from_millis(1));
        self.processing.borrow().next().map(|at| at.max(next_round))
    }

    /// Publishes how many timers are set. Operators of one vertex add up.
    pub(crate) fn publish(&mut self) {
        let now = (self.event.borrow().len() + self.processing.borrow().len()) as u64;
        let before = std::mem::replace(&mut self.published, now);
        if now != before {
            self.stats
                .timers
                .fetch_add(now.wrapping_sub(before), Relaxed);
        }
    }
}
