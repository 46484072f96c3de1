//! Session windows: per key, stretches of activity that end when nothing came for a while.
//!
//! A record opens a window from its time to its time plus gap; windows of a key that overlap or
//! touch are one. So a record may extend a session, open one, or join several.
//!
//! A session is emitted when the watermark reaches its last moment, `end - 1`, so that its result is
//! not late downstream. A record right at `end` joins it only if it comes before that.

use super::due::{Due, DueQueue};
use super::session_list::{KeySessions, LiveSession, Settled};
use super::session_spec::{FixedGap, Session, SessionGap};
use super::{Aggregator, TimeKind, TimeWindow, Windowed};
use crate::build::OpenContext;
use crate::checkpoint::stored_name;
use crate::checkpoint::{Key, KeyedPart, Named, StateVisitor};
use crate::clock::Clock;
use crate::exchange::Keyed;
use crate::fault::{Fault, Flow};
use crate::hash::key_hash;
use crate::observe::SubtaskStats;
use crate::operator::{Operator, Progress};
use crate::side::{SideBuffer, SideOutput};
use crate::stage::{Collector, Signal};
use crate::state::BackedTable;
use crate::time::{Timestamp, millis};
use std::collections::binary_heap::PeekMut;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How many sessions are emitted before the operator asks for room again.
const BETWEEN_ASKING: u32 = 256;

/// Computes an aggregate per key and session.
pub struct SessionWindows<K, T, A: Aggregator<T>, G = FixedGap> {
    aggregator: A,
    spec: Session<G>,
    lateness: i64,
    late_tag: Option<SideOutput<T>>,
    late: SideBuffer<T>,
    stats: Arc<SubtaskStats>,
    clock: Clock,
    /// Processing time of this turn; read at its first record.
    now: Option<Timestamp>,
    sessions: BackedTable<K, KeySessions<A::Acc>>,
    due: DueQueue<K>,
    /// How many sessions there are; bounds the due queue.
    live: usize,
    /// The greatest end that event time has passed; `MIN` by the clock, which passes at timers.
    passed: i64,
    /// The greatest end whose allowed lateness is over too.
    gone: i64,
    records: PhantomData<fn(T)>,
}

impl<K, T, A: Aggregator<T>, G: Clone> Clone for SessionWindows<K, T, A, G> {
    fn clone(&self) -> Self {
        SessionWindows {
            lateness: self.lateness,
            late_tag: self.late_tag.clone(),
            ..SessionWindows::new(self.spec.clone(), self.aggregator.clone())
        }
    }
}

impl<K, T, A: Aggregator<T>, G> SessionWindows<K, T, A, G> {
    /// The aggregate of each session.
    pub fn new(spec: Session<G>, aggregator: A) -> Self {
        SessionWindows {
            aggregator,
            spec,
            lateness: 0,
            late_tag: None,
            late: SideBuffer::default(),
            stats: Arc::default(),
            clock: Clock::System,
            now: None,
            sessions: BackedTable::default(),
            due: DueQueue::default(),
            live: 0,
            passed: i64::MIN,
            gone: i64::MIN,
            records: PhantomData,
        }
    }

    /// For so long after its end a session takes late records, each of which emits it anew.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = millis(lateness);
        self
    }

    /// Records that come later still go to this side output.
    pub fn late_output(mut self, tag: Option<SideOutput<T>>) -> Self {
        self.late_tag = tag;
        self
    }

    #[cold]
    fn late(&mut self, at: Timestamp, value: T) -> Flow {
        self.stats.late.fetch_add(1, Relaxed);
        self.late.collect(at, value);
        Ok(())
    }
}

#[cold]
fn refused(window: TimeWindow) -> Fault {
    if window.start == Timestamp::MIN {
        return super::no_event_time();
    }
    super::assigner::short_gap()
}

impl<K, T, A, G> SessionWindows<K, T, A, G>
where
    K: Key,
    A: Aggregator<T>,
    G: SessionGap<T>,
{
    /// A record that opens a session, or joins or precedes others of its key.
    #[inline(never)]
    fn insert<C: Collector<Windowed<K, A::Out>>>(
        &mut self,
        at: Timestamp,
        record: Keyed<K, T>,
        window: TimeWindow,
        out: &mut C,
    ) -> Flow {
        let Keyed { hash, key, value } = record;
        let (gone, aggregator) = (self.gone, &self.aggregator);
        let known = self.sessions.remove(hash, &key)?;
        let alone = known
            .as_ref()
            .is_none_or(|known| known.stands_alone(window, gone));
        if alone && window.end.0 <= gone {
            if let Some(known) = known {
                self.sessions.set(hash, key, known)?;
            }
            return self.late(at, value);
        }
        let (known, place) = match known {
            None => (
                KeySessions::new(LiveSession::new(window, aggregator.create())),
                0,
            ),
            Some(known) => {
                let merge = |into: &mut A::Acc, other: &A::Acc| aggregator.merge(into, other);
                let make = || aggregator.create();
                let (known, inserted) = known.insert(window, gone, make, merge);
                let swallowed = inserted.swallowed.unwrap_or(0);
                self.live = self.live.saturating_sub(swallowed);
                (known, inserted.at)
            }
        };
        if alone {
            self.live += 1;
            self.due.push(window.end.0 - 1, hash, key.clone())?;
        }
        let emitted = {
            let known = self.sessions.insert_new(hash, key.clone(), known)?;
            let session = known.at(place);
            aggregator.add(&mut session.acc, value);
            settle(session, self.passed, aggregator, hash, key, &mut self.due)?
        };
        self.bound_due()?;
        match emitted {
            Some(result) => out.collect(result.window.max_timestamp(), result),
            None => Ok(()),
        }
    }

    /// Sessions that were joined leave their entries behind; sweeps them before they outnumber
    /// the living.
    fn bound_due(&mut self) -> Flow {
        if self.due.len() > 2 * self.live + 64 {
            self.rebuild_due()?;
        }
        Ok(())
    }

    fn rebuild_due(&mut self) -> Flow {
        if self.due.spills() {
            let due = &mut self.due;
            return self.sessions.each(|key, sessions| {
                let hash = key_hash(key);
                for session in sessions.iter() {
                    due.push(session.due, hash, key.clone())?;
                }
                due.maintain()
            });
        }
        let mut entries = Vec::new();
        self.sessions.each(|key, sessions| {
            let hash = key_hash(key);
            entries.extend(sessions.iter().map(|s| Due {
                at: s.due,
                hash,
                key: key.clone(),
            }));
            Ok(())
        })?;
        self.due.rebuild(entries.into_iter());
        Ok(())
    }

    /// Fires what has ended by `now` and forgets whose lateness is over. False where it stopped for
    /// want of room.
    fn advance<C: Collector<Windowed<K, A::Out>>>(&mut self, now: i64, out: &mut C) -> Flow<bool> {
        if self.due.spills() {
            return self.advance_spilled(now, out);
        }
        let mut emitted = 0u32;
        while let Some(mut entry) = self.due.first_until(now) {
            let found = self.sessions.get_mut(entry.hash, &entry.key)?;
            let found = found.and_then(|s| s.find_due(entry.at).map(|place| (s, place)));
            let Some((sessions, place)) = found else {
                PeekMut::pop(entry);
                continue;
            };
            let session = sessions.at(place);
            let (next, fires) = session.comes_due(entry.at, self.lateness);
            let result = fires.then(|| {
                let value = self.aggregator.result(&session.acc);
                session.windowed(entry.key.clone(), value)
            });
            if next > entry.at {
                entry.at = next;
                drop(entry);
            } else {
                let entry = PeekMut::pop(entry);
                self.live -= 1;
                if !sessions.remove(place) {
                    self.sessions.remove(entry.hash, &entry.key)?;
                }
            }
            if let Some(result) = result {
                out.collect(result.window.max_timestamp(), result)?;
                emitted += 1;
                if emitted.is_multiple_of(BETWEEN_ASKING) && !out.has_room() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// The same where the queue is not in memory: it holds a key and a time once, so all of the key's
    /// sessions with that time are looked at.
    #[cold]
    fn advance_spilled<C>(&mut self, now: i64, out: &mut C) -> Flow<bool>
    where
        C: Collector<Windowed<K, A::Out>>,
    {
        let mut looked = 0u32;
        while let Some(Due { at, hash, key }) = self.due.pop_spilled(now)? {
            while let Some(sessions) = self.sessions.get_mut(hash, &key)?
                && let Some(place) = sessions.find_due(at)
            {
                let session = sessions.at(place);
                let (next, fires) = session.comes_due(at, self.lateness);
                let result = fires.then(|| {
                    let value = self.aggregator.result(&session.acc);
                    session.windowed(key.clone(), value)
                });
                if next > at {
                    self.due.push(next, hash, key.clone())?;
                } else {
                    self.live = self.live.saturating_sub(1);
                    if !sessions.remove(place) {
                        self.sessions.remove(hash, &key)?;
                    }
                }
                if let Some(result) = result {
                    out.collect(result.window.max_timestamp(), result)?;
                }
            }
            looked += 1;
            if looked.is_multiple_of(BETWEEN_ASKING) {
                // Many may end at once, of which few are in memory.
                self.sessions.maintain()?;
                self.due.maintain()?;
                if !out.has_room() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// What is to be emitted at once of a session that was given a record; enters when else it is due.
#[inline(never)]
fn settle<K: Key, T, A: Aggregator<T>>(
    session: &mut LiveSession<A::Acc>,
    passed: i64,
    aggregator: &A,
    hash: u64,
    key: K,
    due: &mut DueQueue<K>,
) -> Flow<Option<Windowed<K, A::Out>>> {
    Ok(match session.settle(passed) {
        Settled::Waits => None,
        Settled::Emit => Some(session.windowed(key, aggregator.result(&session.acc))),
        Settled::Enter(at) => {
            due.push(at, hash, key)?;
            None
        }
    })
}

impl<K, T, A, G> Operator<Keyed<K, T>> for SessionWindows<K, T, A, G>
where
    K: Key,
    T: 'static,
    A: Aggregator<T>,
    G: SessionGap<T>,
{
    type Out = Windowed<K, A::Out>;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.stats = context.stats();
        self.clock = context.clock();
        if let Some(tag) = &self.late_tag {
            self.late = context.side_output(tag);
        }
        Ok(())
    }

    #[inline(always)]
    fn process<C: Collector<Self::Out>>(
        &mut self,
        at: Timestamp,
        record: Keyed<K, T>,
        out: &mut C,
    ) -> Flow {
        let gap = self.spec.gap.gap(&record.value);
        let start = match self.spec.time {
            TimeKind::Event => at,
            TimeKind::Processing => *self.now.get_or_insert_with(|| self.clock.now()),
        };
        let window = TimeWindow {
            start,
            end: Timestamp(start.0.saturating_add(gap)),
        };
        if gap <= 0 || start == Timestamp::MIN {
            return Err(refused(window));
        }
        let known = self.sessions.get_mut(record.hash, &record.key)?;
        let Some(session) = known.and_then(|s| s.only_last(window, self.gone)) else {
            return self.insert(at, record, window, out);
        };
        session.cover(window);
        self.aggregator.add(&mut session.acc, record.value);
        if !session.fired && session.end > self.passed {
            return Ok(());
        }
        let Keyed { hash, key, .. } = record;
        match settle(
            session,
            self.passed,
            &self.aggregator,
            hash,
            key,
            &mut self.due,
        )? {
            Some(result) => out.collect(result.window.max_timestamp(), result),
            None => Ok(()),
        }
    }

    fn watermark<C: Collector<Self::Out>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        if self.spec.time == TimeKind::Event || at == Timestamp::MAX {
            self.passed = at.0.saturating_add(1);
            self.gone = if at == Timestamp::MAX {
                i64::MAX
            } else {
                self.passed.saturating_sub(self.lateness)
            };
            return self.resume(out);
        }
        Ok(Progress::Forward)
    }

    fn resume<C: Collector<Self::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        let now = self.passed.saturating_sub(1);
        let done = self.advance(now, out)?;
        Ok(if done {
            Progress::Forward
        } else {
            Progress::Suspended
        })
    }

    fn turn(&mut self, _now: Timestamp) -> Option<Signal> {
        self.now = None;
        None
    }

    fn next_timer(&self) -> Option<Timestamp> {
        match self.spec.time {
            TimeKind::Event => None,
            // The last moment of a session must have passed, as records may still come in it.
            TimeKind::Processing => self.due.next().map(|at| Timestamp(at.saturating_add(1))),
        }
    }

    fn timer<C: Collector<Self::Out>>(&mut self, now: Timestamp, out: &mut C) -> Flow {
        self.advance(now.0 - 1, out).map(|_| ())
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        let types = (stored_name::<K>(), stored_name::<A::Acc>());
        state.keyed("sessions", &mut Named(&mut self.sessions, types))?;
        if self.due.state(state, "due")? {
            self.rebuild_due()?;
            self.live = self.due.len();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
