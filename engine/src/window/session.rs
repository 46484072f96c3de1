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
use crate::clock::Clock;
use crate::exchange::Keyed;
use crate::fault::{Fault, Flow};
use crate::hash::key_hash;
use crate::observe::SubtaskStats;
use crate::operator::{Operator, Progress};
use crate::side::{SideBuffer, SideOutput};
use crate::stage::{Collector, Signal};
use crate::state::KeyTable;
use crate::time::{Timestamp, millis};
use std::collections::binary_heap::PeekMut;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

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
    sessions: KeyTable<K, KeySessions<A::Acc>>,
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
            sessions: KeyTable::default(),
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
    K: Hash + Eq + Clone + 'static,
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
        let known = self.sessions.remove(hash, &key);
        let alone = known
            .as_ref()
            .is_none_or(|known| known.stands_alone(window, gone));
        if alone && window.end.0 <= gone {
            if let Some(known) = known {
                self.sessions.insert(hash, key, known);
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
                self.live -= inserted.swallowed.unwrap_or(0);
                (known, inserted.at)
            }
        };
        if alone {
            self.live += 1;
            self.due.push(window.end.0 - 1, hash, key.clone());
        }
        let emitted = {
            let known = self
                .sessions
                .get_or_insert_with(hash, key.clone(), || known);
            let session = known.at(place);
            aggregator.add(&mut session.acc, value);
            settle(session, self.passed, aggregator, hash, key, &mut self.due)
        };
        self.bound_due();
        match emitted {
            Some(result) => out.collect(result.window.max_timestamp(), result),
            None => Ok(()),
        }
    }

    /// Sessions that were joined leave their entries behind; sweeps them before they outnumber
    /// the living.
    fn bound_due(&mut self) {
        if self.due.len() > 2 * self.live + 64 {
            let entries = self.sessions.iter().flat_map(|(key, sessions)| {
                let hash = key_hash(key);
                sessions.iter().map(move |s| Due {
                    at: s.due,
                    hash,
                    key: key.clone(),
                })
            });
            self.due.rebuild(entries);
        }
    }

    /// Fires what has ended by `now` and forgets whose lateness is over. False where it stopped for
    /// want of room.
    fn advance<C: Collector<Windowed<K, A::Out>>>(&mut self, now: i64, out: &mut C) -> Flow<bool> {
        let mut emitted = 0u32;
        while let Some(mut entry) = self.due.first_until(now) {
            let found = self.sessions.get_mut(entry.hash, &entry.key);
            let found = found.and_then(|s| s.find_due(entry.at).map(|place| (s, place)));
            let Some((sessions, place)) = found else {
                PeekMut::pop(entry);
                continue;
            };
            let session = sessions.at(place);
            let fires = !session.fired && session.end - 1 <= entry.at;
            let next = if session.fired || fires {
                (session.end - 1).saturating_add(self.lateness)
            } else {
                session.end - 1
            };
            let result = fires.then(|| {
                session.fired = true;
                let value = self.aggregator.result(&session.acc);
                session.windowed(entry.key.clone(), value)
            });
            if next > entry.at {
                session.due = next;
                entry.at = next;
                drop(entry);
            } else {
                let entry = PeekMut::pop(entry);
                self.live -= 1;
                if !sessions.remove(place) {
                    self.sessions.remove(entry.hash, &entry.key);
                }
            }
            if let Some(result) = result {
                out.collect(result.window.max_timestamp(), result)?;
                emitted += 1;
                if emitted.is_multiple_of(256) && !out.has_room() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// What is to be emitted at once of a session that was given a record; enters when else it is due.
#[inline(never)]
fn settle<K, T, A: Aggregator<T>>(
    session: &mut LiveSession<A::Acc>,
    passed: i64,
    aggregator: &A,
    hash: u64,
    key: K,
    due: &mut DueQueue<K>,
) -> Option<Windowed<K, A::Out>> {
    match session.settle(passed) {
        Settled::Waits => None,
        Settled::Emit => Some(session.windowed(key, aggregator.result(&session.acc))),
        Settled::Enter(at) => {
            due.push(at, hash, key);
            None
        }
    }
}

impl<K, T, A, G> Operator<Keyed<K, T>> for SessionWindows<K, T, A, G>
where
    K: Hash + Eq + Clone + 'static,
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
        let known = self.sessions.get_mut(record.hash, &record.key);
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
        ) {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::OperatorHarness;
    use crate::window::Count;
    use proptest::prelude::*;

    type Windows = SessionWindows<u32, (u32, i64), Count>;
    type Harness = OperatorHarness<(u32, i64), Keyed<u32, (u32, i64)>, Windows>;
    type Row = (u32, i64, i64, u64);

    fn windows(gap: u64) -> Windows {
        SessionWindows::new(Session::event_time(Duration::from_millis(gap)), Count)
    }

    fn harness(windows: Windows) -> Harness {
        OperatorHarness::keyed(windows, |record| record.0)
    }

    fn push(harness: &mut Harness, key: u32, times: &[i64]) {
        times
            .iter()
            .for_each(|t| harness.push(*t, (key, *t)).expect("takes it"));
    }

    fn rows(harness: &mut Harness) -> Vec<Row> {
        let rows = harness.values().into_iter();
        rows.map(|w| (w.key, w.window.start.0, w.window.end.0, w.value))
            .collect()
    }

    #[test]
    fn a_session_ends_when_the_watermark_reaches_its_last_moment() {
        let mut h = harness(windows(10));
        push(&mut h, 1, &[0, 5]);
        h.watermark(13).expect("waits");
        assert_eq!(rows(&mut h), []);
        h.watermark(14).expect("fires");
        assert_eq!(h.records()[0].0, Timestamp(14));
        h.end().expect("ends");
        assert_eq!(rows(&mut h), [], "once");
    }

    #[test]
    fn one_record_joins_three_sessions_and_touching_is_enough() {
        let mut h = harness(windows(10));
        push(&mut h, 1, &[40, 0, 20, 10, 60]);
        h.end().expect("ends");
        assert_eq!(
            rows(&mut h),
            [(1, 0, 30, 3), (1, 40, 50, 1), (1, 60, 70, 1)]
        );
        let mut h = harness(windows(10));
        push(&mut h, 1, &[0, 20, 22, 10]);
        h.end().expect("ends");
        assert_eq!(rows(&mut h), [(1, 0, 32, 4)]);
    }

    #[test]
    fn sessions_leave_in_the_order_of_their_ends() {
        let mut h = harness(windows(10));
        push(&mut h, 1, &[0, 8, 16]);
        push(&mut h, 2, &[3]);
        push(&mut h, 3, &[15]);
        h.watermark(100).expect("fires");
        assert_eq!(rows(&mut h), [(2, 3, 13, 1), (3, 15, 25, 1), (1, 0, 26, 3)]);
    }

    #[test]
    fn a_late_record_is_counted_and_put_to_the_side() {
        let tag = SideOutput::new("late");
        let windows = windows(10).late_output(Some(tag.clone()));
        let (mut h, side) = OperatorHarness::keyed_with_side(windows, |r: &(u32, i64)| r.0, &tag);
        push(&mut h, 1, &[0, 12]);
        h.watermark(15).expect("fires the first");
        assert_eq!(rows(&mut h), [(1, 0, 10, 1)]);
        // Both [1, 11) and [5, 15) have passed, but the second touches a living session.
        push(&mut h, 1, &[1, 5]);
        h.end().expect("ends");
        assert_eq!(rows(&mut h), [(1, 5, 22, 2)]);
        let mut late = Vec::new();
        side.take(&mut late);
        assert_eq!(late, [(Timestamp(1), (1, 1))]);
        assert_eq!(h.stats().late.load(Relaxed), 1);
    }

    #[test]
    fn within_its_lateness_a_session_is_emitted_anew() {
        let mut h = harness(windows(10).allowed_lateness(Duration::from_millis(20)));
        push(&mut h, 1, &[0]);
        h.watermark(9).expect("fires");
        push(&mut h, 1, &[0]);
        assert_eq!(rows(&mut h), [(1, 0, 10, 1), (1, 0, 10, 2)]);
        push(&mut h, 1, &[8]);
        assert_eq!(rows(&mut h), [], "it lives again until 18");
        h.watermark(17).expect("fires");
        assert_eq!(rows(&mut h), [(1, 0, 18, 3)]);
        h.watermark(36).expect("keeps");
        push(&mut h, 1, &[1]);
        assert_eq!(rows(&mut h), [(1, 0, 18, 4)]);
        h.watermark(37).expect("forgets");
        push(&mut h, 1, &[1]);
        assert_eq!(h.stats().late.load(Relaxed), 1);
        h.end().expect("ends");
        assert_eq!(rows(&mut h), []);
    }

    #[test]
    fn firing_stops_without_room_and_goes_on() {
        let mut h = harness(windows(10));
        (0..1000).for_each(|key| push(&mut h, key, &[0]));
        h.set_room(false);
        h.watermark(100).expect("suspends");
        assert_eq!((h.values().len(), h.signals().len()), (256, 0));
        h.set_room(true);
        h.turn().expect("goes on");
        assert_eq!((h.values().len(), h.signals().len()), (744, 1));
    }

    #[test]
    fn the_gap_can_come_from_the_record() {
        let spec = Session::dynamic(|r: &(u32, i64)| Duration::from_millis(r.1 as u64));
        let mut h = OperatorHarness::keyed(SessionWindows::new(spec, Count), |r| r.0);
        for (at, gap) in [(0, 5), (6, 100), (50, 1)] {
            h.push(at, (1, gap)).expect("takes it");
        }
        h.end().expect("ends");
        let ends: Vec<_> = h
            .values()
            .iter()
            .map(|w| (w.window.end.0, w.value))
            .collect();
        assert_eq!(ends, [(5, 1), (106, 2)]);
        let fault = h
            .push(200, (1, 0))
            .expect_err("a gap of nothing")
            .to_string();
        assert!(fault.contains("at least 1 ms"), "{fault}");
    }

    #[test]
    fn by_the_clock_timers_end_sessions() {
        let spec = Session::processing_time(Duration::from_millis(10));
        let mut h = harness(SessionWindows::new(spec, Count));
        push(&mut h, 1, &[777]);
        h.advance(Duration::from_millis(6)).expect("waits");
        push(&mut h, 1, &[0]);
        h.advance(Duration::from_millis(9))
            .expect("waits: its timer moved");
        assert_eq!(rows(&mut h), []);
        h.advance(Duration::from_millis(1)).expect("fires");
        assert_eq!(rows(&mut h), [(1, 0, 16, 2)]);
        push(&mut h, 1, &[0]);
        h.end().expect("the end of the input ends all");
        assert_eq!(rows(&mut h), [(1, 16, 26, 1)]);
    }

    #[test]
    fn a_record_without_time_is_refused() {
        let fault = harness(windows(10))
            .push(i64::MIN, (1, 0))
            .expect_err("no timestamp");
        assert!(fault.to_string().contains("without event time"), "{fault}");
    }

    #[test]
    fn joined_sessions_leave_no_entries_behind() {
        let mut h = windows(10);
        let mut out = crate::testing::Collected::default();
        let keyed = |t| Keyed {
            hash: key_hash(&1u32),
            key: 1u32,
            value: (1u32, t),
        };
        for t in 0..10_000 {
            // Two sessions apart, then the record between them.
            for t in [t * 20, t * 20 + 20, t * 20 + 10] {
                h.process(Timestamp(t), keyed(t), &mut out)
                    .expect("takes it");
            }
        }
        assert_eq!(h.live, 1);
        assert!(h.due.len() <= 2 * h.live + 64, "{}", h.due.len());
    }

    /// Per key: in the order of time, split where the next record is more than a gap away.
    fn model(records: &[(u32, i64)], gap: i64) -> Vec<Row> {
        let mut sorted = records.to_vec();
        sorted.sort_unstable();
        let mut rows: Vec<Row> = Vec::new();
        for (key, t) in sorted {
            match rows.last_mut() {
                Some(row) if row.0 == key && t <= row.2 => *row = (key, row.1, t + gap, row.3 + 1),
                _ => rows.push((key, t, t + gap, 1)),
            }
        }
        rows
    }

    proptest! {
        #[test]
        fn any_order_behind_the_watermark_gives_the_sessions_of_the_sorted_records(
            records in prop::collection::vec((0u32..4, 0i64..300), 1..120),
            gap in 1i64..30,
        ) {
            let mut h = harness(windows(gap as u64));
            let mut got = Vec::new();
            for (i, (key, t)) in records.iter().enumerate() {
                push(&mut h, *key, &[*t]);
                // So far that no record comes late, and none right at the end of a session that
                // was emitted.
                if let Some(next) = records[i + 1..].iter().map(|r| r.1).min() {
                    h.watermark(next - 2).expect("fires");
                }
                got.extend(rows(&mut h));
            }
            h.end().expect("ends");
            got.extend(rows(&mut h));
            got.sort_unstable();
            prop_assert_eq!(got, model(&records, gap));
            prop_assert_eq!(h.stats().late.load(Relaxed), 0);
        }
    }
}
