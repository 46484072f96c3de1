//! Tumbling and sliding windows per key: a record goes to one slice, a window is merged when it ends.
//!
//! As long as records stay in one slice, each costs a range check and a table access, however long
//! the windows are and however many overlap. A window that is a single slice is emptied in place.

use super::slices::{Layout, Slices};
use super::spilled::Firing;
use super::{Aggregator, Aligned, TimeKind, TimeWindow, Windowed};
use crate::build::OpenContext;
use crate::checkpoint::stored_name;
use crate::checkpoint::{Key, StateVisitor};
use crate::clock::Clock;
use crate::exchange::Keyed;
use crate::fault::Flow;
use crate::observe::SubtaskStats;
use crate::operator::{Operator, Progress};
use crate::side::{SideBuffer, SideOutput};
use crate::stage::Collector;
use crate::state::KeyTable;
use crate::time::{Timestamp, millis};
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

mod fire;

/// How many results are emitted before the operator asks for room again.
const BETWEEN_ASKING: u32 = 256;

/// Aggregates the records of each key in each window.
pub struct SlicedWindows<K, T, A: Aggregator<T>> {
    aggregator: A,
    spec: Aligned,
    by_clock: bool,
    layout: Layout,
    /// In milliseconds.
    lateness: i64,
    late_output: Option<SideOutput<T>>,
    slices: Slices<K, A::Acc>,
    /// How far time has come, by whichever clock.
    watermark: Timestamp,
    /// All windows before this one have fired.
    next_window: i64,
    /// Before this moment there is nothing to fire and nothing to drop.
    due: Timestamp,
    /// The window that is being emitted, and what of it waits for room.
    window: TimeWindow,
    unsent: Vec<(K, A::Acc)>,
    /// The same where slices spill: what of it is still in them.
    firing: Option<Firing<K, A::Acc>>,
    suspended: bool,
    /// How far time shall move on once that is out.
    upcoming: Timestamp,
    since_asking: u32,
    /// After how many results the operator asks for room.
    pub(super) between_asking: u32,
    /// Records that came while a window waited for room.
    waiting: Vec<(Timestamp, Keyed<K, T>)>,
    /// Where slices are merged; empty between windows.
    total: KeyTable<K, A::Acc>,
    clock: Clock,
    /// Processing time of this turn; read at its first record.
    now: Option<Timestamp>,
    late: SideBuffer<T>,
    stats: Arc<SubtaskStats>,
}

impl<K, T, A: Aggregator<T>> Clone for SlicedWindows<K, T, A>
where
    K: Hash + Eq,
{
    fn clone(&self) -> Self {
        let fresh = SlicedWindows::new(self.spec, self.aggregator.clone());
        let late_output = self.late_output.clone();
        let (lateness, between_asking) = (self.lateness, self.between_asking);
        SlicedWindows {
            lateness,
            between_asking,
            late_output,
            ..fresh
        }
    }
}

impl<K: Hash + Eq, T, A: Aggregator<T>> SlicedWindows<K, T, A> {
    /// Windows as `spec` says, aggregated by `aggregator`.
    pub fn new(spec: Aligned, aggregator: A) -> Self {
        SlicedWindows {
            aggregator,
            spec,
            by_clock: spec.time() == TimeKind::Processing,
            layout: spec.layout(),
            lateness: 0,
            late_output: None,
            slices: Slices::default(),
            watermark: Timestamp::MIN,
            next_window: i64::MIN,
            due: Timestamp::MAX,
            window: TimeWindow::new(0, 0),
            unsent: Vec::new(),
            firing: None,
            suspended: false,
            upcoming: Timestamp::MIN,
            since_asking: 0,
            between_asking: BETWEEN_ASKING,
            waiting: Vec::new(),
            total: KeyTable::default(),
            clock: Clock::System,
            now: None,
            late: SideBuffer::default(),
            stats: Arc::default(),
        }
    }

    /// Windows are kept so long after they ended, and refined by each record that comes for them.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = millis(lateness);
        self
    }

    /// Where records go that come after all their windows are gone.
    pub fn late_output(mut self, tag: Option<SideOutput<T>>) -> Self {
        self.late_output = tag;
        self
    }

    /// The processing time of a record: never before a window that has fired.
    #[inline]
    fn stamp(&mut self) -> Timestamp {
        match self.now {
            Some(now) => now,
            None => {
                let least = Timestamp(self.watermark.0.saturating_add(1));
                *self.now.insert(self.clock.now().max(least))
            }
        }
    }

    /// When a window is dropped.
    fn expires(&self, window: i64) -> Timestamp {
        self.layout.expires(window, self.lateness)
    }
}

impl<K, T, A> SlicedWindows<K, T, A>
where
    K: Key,
    T: 'static,
    A: Aggregator<T>,
{
    /// Takes a record that isn't in the current slice.
    #[inline(never)]
    fn elsewhere<C>(&mut self, at: Timestamp, record: Keyed<K, T>, out: &mut C) -> Flow
    where
        C: Collector<Windowed<K, A::Out>>,
    {
        if self.suspended {
            self.waiting.push((at, record));
            return Ok(());
        }
        if at == Timestamp::MIN {
            return Err(super::no_event_time());
        }
        let slice = self.layout.slice_of(at);
        let last = self.layout.last_window(slice);
        if self.expires(last) <= self.watermark {
            self.put_aside(at, record.value);
            return Ok(());
        }
        let first = self.layout.first_window(slice);
        let all_settled = self.slices.settled.over(first);
        if !all_settled && self.is_settled(last, &record) {
            self.put_aside(at, record.value);
            return Ok(());
        }
        let (place, new) = self.slices.enter(slice);
        if new {
            self.next_window = self.next_window.max(self.layout.first_open(self.watermark));
        }
        let refines = self.lateness > 0 && (first < self.next_window || !all_settled);
        let key = refines.then(|| (record.hash, record.key.clone()));
        let (
            aggregator,
            Keyed {
                hash,
                key: k,
                value,
            },
        ) = (&self.aggregator, record);
        let acc = self.slices.entry(place, hash, k, || aggregator.create())?;
        aggregator.add(acc, value);
        if new {
            self.schedule();
        }
        match key {
            Some((hash, key)) => self.refine(first..=last, hash, &key, out),
            None => {
                if all_settled && self.slices.spilled.is_none() {
                    self.slices.set_current(&self.layout, place);
                }
                Ok(())
            }
        }
    }

    /// Whether a record's last window has fired and nothing refines it.
    #[cold]
    fn is_settled(&self, last: i64, record: &Keyed<K, T>) -> bool {
        let settled = &self.slices.settled;
        self.lateness == 0 && settled.has(last, record.hash, &record.key)
    }

    #[cold]
    fn put_aside(&mut self, at: Timestamp, value: T) {
        self.stats.late.fetch_add(1, Relaxed);
        self.late.collect(at, value);
    }
}

fn progress(done: bool) -> Progress {
    if done {
        Progress::Forward
    } else {
        Progress::Suspended
    }
}

impl<K, T, A> Operator<Keyed<K, T>> for SlicedWindows<K, T, A>
where
    K: Key,
    T: 'static,
    A: Aggregator<T>,
{
    type Out = Windowed<K, A::Out>;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.clock = context.clock();
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
        record: Keyed<K, T>,
        out: &mut C,
    ) -> Flow {
        let at = if self.by_clock { self.stamp() } else { at };
        if let Some(table) = self.slices.current(at) {
            let (aggregator, Keyed { hash, key, value }) = (&self.aggregator, record);
            let first = |value| {
                let mut acc = aggregator.create();
                aggregator.add(&mut acc, value);
                acc
            };
            table.take_in(hash, key, value, |acc, v| aggregator.add(acc, v), first);
            return Ok(());
        }
        self.elsewhere(at, record, out)
    }

    fn watermark<C: Collector<Self::Out>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        // The end of the input ends all windows, by whichever clock.
        if self.by_clock && at != Timestamp::MAX {
            return Ok(Progress::Forward);
        }
        if self.suspended && !self.go_on(out)? {
            self.upcoming = at;
            return Ok(Progress::Suspended);
        }
        Ok(progress(self.advance(at, out)?))
    }

    fn resume<C: Collector<Self::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        Ok(progress(!self.suspended || self.go_on(out)?))
    }

    fn turn(&mut self, _now: Timestamp) -> Option<crate::stage::Signal> {
        self.now = None;
        None
    }

    fn next_timer(&self) -> Option<Timestamp> {
        if !self.by_clock {
            return None;
        }
        if self.suspended {
            return Some(Timestamp::MIN);
        }
        let due = self.due;
        (due != Timestamp::MAX).then(|| Timestamp(due.0 + 1))
    }

    fn timer<C: Collector<Self::Out>>(&mut self, now: Timestamp, out: &mut C) -> Flow {
        if self.suspended && !self.go_on(out)? {
            return Ok(());
        }
        self.now = None;
        self.advance(now.minus(Duration::from_millis(1)), out)?;
        Ok(())
    }

    fn emitting(&self) -> bool {
        self.suspended
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        if self.by_clock {
            state.value("clock", &mut self.watermark, Timestamp::max)?;
        }
        let by_clock = self.by_clock.then(|| self.next_to_fire());
        let reached = self.layout.first_open(self.watermark);
        let (slices, values) = (&mut self.slices, stored_name::<A::Acc>());
        slices.state(state, &mut self.next_window, reached, by_clock, values)?;
        if state.loads() {
            self.schedule();
        }
        Ok(())
    }
}
