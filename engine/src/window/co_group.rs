//! Windows in which two streams meet: per key and window, the records of both.
//!
//! Records are kept by slice, like accumulators. A window that has ended is walked through key by
//! key; only the group at hand is put together from its slices, so a window costs no second copy of
//! itself. Whatever doesn't find room downstream waits, and nothing is added to the slices meanwhile.

use super::group_function::{Group, GroupFunction, Pace};
use super::slices::{Layout, Slices};
use super::spilled;
use super::{Aligned, TimeWindow};
use crate::build::OpenContext;
use crate::checkpoint::stored_name;
use crate::checkpoint::{Key, StateValue, StateVisitor};
use crate::exchange::{Either, Keyed};
use crate::fault::Flow;
use crate::hash::key_hash;
use crate::observe::SubtaskStats;
use crate::operator::{Operator, Progress};
use crate::side::{SideBuffer, SideOutput};
use crate::stage::Collector;
use crate::state::KeyTable;
use crate::time::{Timestamp, millis};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// The records of a key in a slice.
#[derive(Clone, Serialize, Deserialize)]
struct Both<A, B> {
    first: Vec<A>,
    second: Vec<B>,
}

impl<A, B> Both<A, B> {
    fn new() -> Self {
        Both {
            first: Vec::new(),
            second: Vec::new(),
        }
    }

    #[inline(always)]
    fn add(&mut self, value: Either<A, B>) {
        match value {
            Either::First(value) => self.first.push(value),
            Either::Second(value) => self.second.push(value),
        }
    }

    /// Adds those of another slice.
    fn extend(&mut self, other: &Both<A, B>)
    where
        A: Clone,
        B: Clone,
    {
        self.first.extend_from_slice(&other.first);
        self.second.extend_from_slice(&other.second);
    }

    fn into_group<K>(self, key: K, window: TimeWindow) -> Group<K, A, B> {
        let Both { first, second } = self;
        Group {
            key,
            window,
            first,
            second,
        }
    }
}

/// A window that is being emitted, and what is left of it.
enum Firing<K, A, B> {
    /// Its only slice, which no other window needs.
    Sole(TimeWindow, Vec<(K, Both<A, B>)>),
    /// Its keys; their records are in its slices.
    Merged(i64, Vec<K>),
    /// The next keys, where slices spill, and what is still in those.
    Spilled(
        i64,
        Vec<(K, Both<A, B>)>,
        Option<Box<spilled::Firing<K, Both<A, B>>>>,
    ),
}

/// A record that came while others were being emitted, and its time.
type Waiting<K, A, B> = (Timestamp, Keyed<K, Either<A, B>>);

/// Joins or groups the records of two streams by key and event-time window.
pub struct CoGroupWindows<K, A, B, G> {
    function: G,
    spec: Aligned,
    layout: Layout,
    /// In milliseconds.
    lateness: i64,
    late_output: Option<SideOutput<Either<A, B>>>,
    slices: Slices<K, Both<A, B>>,
    watermark: Timestamp,
    /// All windows before this one have fired.
    next_window: i64,
    /// Before this moment there is nothing to fire and nothing to drop.
    due: Timestamp,
    /// What is being emitted: the rest of a window, and the group at hand.
    firing: Option<Firing<K, A, B>>,
    group: Option<Group<K, A, B>>,
    /// Windows that fired before and have got one more record, by key.
    refined: VecDeque<(i64, u64, K)>,
    pace: Pace,
    /// A watermark waits until all that it made due is out; so do records that come meanwhile.
    suspended: bool,
    waiting: Vec<Waiting<K, A, B>>,
    late: SideBuffer<Either<A, B>>,
    stats: Arc<SubtaskStats>,
}

impl<K: Hash + Eq, A, B, G: Clone> Clone for CoGroupWindows<K, A, B, G> {
    fn clone(&self) -> Self {
        let fresh = CoGroupWindows::new(self.spec, self.function.clone());
        let late_output = self.late_output.clone();
        CoGroupWindows {
            lateness: self.lateness,
            late_output,
            ..fresh
        }
    }
}

impl<K: Hash + Eq, A, B, G> CoGroupWindows<K, A, B, G> {
    /// Windows as `spec` says, whose groups `function` emits.
    pub fn new(spec: Aligned, function: G) -> Self {
        CoGroupWindows {
            function,
            spec,
            layout: spec.layout(),
            lateness: 0,
            late_output: None,
            slices: Slices::default(),
            watermark: Timestamp::MIN,
            next_window: i64::MIN,
            due: Timestamp::MAX,
            firing: None,
            group: None,
            refined: VecDeque::new(),
            pace: Pace::default(),
            suspended: false,
            waiting: Vec::new(),
            late: SideBuffer::default(),
            stats: Arc::default(),
        }
    }

    /// Windows are kept so long after they ended; each record that comes for one has its key's group
    /// emitted again.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = millis(lateness);
        self
    }

    /// Where records go that come after all their windows are gone.
    pub fn late_output(mut self, tag: Option<SideOutput<Either<A, B>>>) -> Self {
        self.late_output = tag;
        self
    }

    /// When a window is dropped.
    fn expires(&self, window: i64) -> Timestamp {
        self.layout.expires(window, self.lateness)
    }

    #[cold]
    fn put_aside(&mut self, at: Timestamp, value: Either<A, B>) {
        self.stats.late.fetch_add(1, Relaxed);
        self.late.collect(at, value);
    }

    fn busy(&self) -> bool {
        self.group.is_some() || self.firing.is_some() || !self.refined.is_empty()
    }
}

impl<K, A, B, G> CoGroupWindows<K, A, B, G>
where
    K: Key,
    A: StateValue + Clone,
    B: StateValue + Clone,
    G: GroupFunction<K, A, B>,
{
    /// The next window that has something to fire.
    fn next_to_fire(&self) -> Option<i64> {
        let unfired = self.layout.slices_of(self.next_window).start;
        let slice = self.slices.first_from(unfired)?;
        Some(self.next_window.max(self.layout.first_window(slice)))
    }

    /// The first slice that is still needed: by a window to be fired or to be refined.
    fn first_needed(&self) -> i64 {
        let mut window = self.next_window;
        if self.lateness > 0 && self.watermark != Timestamp::MAX {
            let kept = Timestamp(self.watermark.0.saturating_sub(self.lateness));
            window = window.min(self.layout.first_open(kept));
        }
        self.layout.slices_of(window).start
    }

    fn schedule(&mut self) {
        let fires = self.next_to_fire().map(|k| self.layout.completes(k));
        let oldest = self.slices.first_from(i64::MIN);
        let drops = oldest.map(|slice| self.expires(self.layout.last_window(slice)));
        let due = fires.into_iter().chain(drops).min();
        self.due = due.unwrap_or(Timestamp::MAX);
    }

    /// Takes a record that isn't in the current slice.
    #[inline(never)]
    fn elsewhere<C>(
        &mut self,
        at: Timestamp,
        record: Keyed<K, Either<A, B>>,
        out: &mut C,
    ) -> Flow<bool>
    where
        C: Collector<G::Out>,
    {
        if at == Timestamp::MIN {
            return Err(super::no_event_time());
        }
        let slice = self.layout.slice_of(at);
        let last = self.layout.last_window(slice);
        if self.expires(last) <= self.watermark {
            self.put_aside(at, record.value);
            return Ok(true);
        }
        let first = self.layout.first_window(slice);
        let all_settled = self.slices.settled.over(first);
        if !all_settled && self.is_settled(last, &record) {
            self.put_aside(at, record.value);
            return Ok(true);
        }
        let (place, new) = self.slices.enter(slice);
        if new {
            self.next_window = self.next_window.max(self.layout.first_open(self.watermark));
        }
        let Keyed { hash, key, value } = record;
        let refines = self.lateness > 0 && (first < self.next_window || !all_settled);
        if refines {
            let settled = |k| self.slices.settled.has(k, hash, &key);
            let fired = (first..=last).filter(|k| *k < self.next_window || settled(*k));
            let kept = fired.filter(|k| self.expires(*k) > self.watermark);
            let again: Vec<_> = kept.map(|k| (k, hash, key.clone())).collect();
            self.refined.extend(again);
        }
        self.slices.entry(place, hash, key, Both::new)?.add(value);
        if new {
            self.schedule();
        }
        if refines {
            return self.emit(out);
        }
        if all_settled && self.slices.spilled.is_none() {
            self.slices.set_current(&self.layout, place);
        }
        Ok(true)
    }

    /// Whether a record's last window has fired and nothing refines it.
    #[cold]
    fn is_settled(&self, last: i64, record: &Keyed<K, Either<A, B>>) -> bool {
        let settled = &self.slices.settled;
        self.lateness == 0 && settled.has(last, record.hash, &record.key)
    }

    /// Emits all that is due. False if the rest has to wait for room.
    fn emit<C: Collector<G::Out>>(&mut self, out: &mut C) -> Flow<bool> {
        self.slices.forget_current();
        loop {
            if let Some(group) = &self.group
                && !self.function.emit(group, &mut self.pace, out)?
            {
                return Ok(false);
            }
            self.group = self.next_group()?;
            if self.group.is_some() {
                continue;
            }
            match self.next_to_fire() {
                Some(k) if self.layout.completes(k) <= self.watermark => self.fire(k)?,
                _ => break,
            }
        }
        if self.watermark >= self.due {
            self.next_window = self.next_window.max(self.layout.first_open(self.watermark));
            self.slices.drop_before(self.first_needed())?;
            self.slices.settle(self.next_window);
            self.schedule();
        }
        Ok(true)
    }

    /// Begins to emit a window.
    fn fire(&mut self, k: i64) -> Flow {
        self.next_window = k.saturating_add(1);
        let (slices, needed) = (self.layout.slices_of(k), self.first_needed());
        if let Some(firing) = self.slices.fire(slices.clone(), needed)? {
            self.firing = Some(Firing::Spilled(k, Vec::new(), Some(Box::new(firing))));
            return Ok(());
        }
        if let Some(mut table) = self.slices.take_sole(slices.clone(), needed)? {
            let mut groups: Vec<_> = table.drain().collect();
            self.slices.recycle(table, groups.len());
            if !self.slices.settled.over(k) {
                groups.retain(|(key, _)| !self.slices.settled.has(k, key_hash(key), key));
            }
            self.firing = Some(Firing::Sole(self.layout.window(k), groups));
            return Ok(());
        }
        let mut keys = KeyTable::default();
        for table in self.slices.tables(slices) {
            for (key, _) in table.iter() {
                keys.upsert(key_hash(key), key, |()| (), || ());
            }
        }
        let keys = keys.drain().map(|(key, ())| key);
        let settled = &self.slices.settled;
        let keys = keys.filter(|key| !settled.has(k, key_hash(key), key));
        self.firing = Some(Firing::Merged(k, keys.collect()));
        Ok(())
    }

    /// The next group of those that are to be emitted: of refined windows first, then of the window
    /// that fires.
    fn next_group(&mut self) -> Flow<Option<Group<K, A, B>>> {
        while let Some((k, hash, key)) = self.refined.pop_front() {
            let group = self.gather(k, hash, key)?;
            if yields::<K, A, B, G>(&group) {
                return Ok(Some(group));
            }
        }
        while let Some(firing) = &mut self.firing {
            let group = match firing {
                Firing::Sole(window, groups) => {
                    let window = *window;
                    let next = groups.pop();
                    next.map(|(key, both)| both.into_group(key, window))
                }
                Firing::Merged(k, keys) => {
                    let (k, key) = (*k, keys.pop());
                    let gather = |key: K| self.gather(k, key_hash(&key), key);
                    key.map(gather).transpose()?
                }
                Firing::Spilled(k, ..) => {
                    let window = self.layout.window(*k);
                    let next = self.next_spilled()?;
                    next.map(|(key, both)| both.into_group(key, window))
                }
            };
            match group {
                Some(group) if yields::<K, A, B, G>(&group) => return Ok(Some(group)),
                Some(_) => {}
                None => {
                    self.firing = None;
                    self.slices.drop_before(self.first_needed())?;
                }
            }
        }
        Ok(None)
    }

    /// A key's records in a window.
    fn gather(&mut self, k: i64, hash: u64, key: K) -> Flow<Group<K, A, B>> {
        let mut all = Both::new();
        let slices = self.layout.slices_of(k);
        self.slices
            .each_of_key(slices, hash, &key, |both| all.extend(both))?;
        Ok(all.into_group(key, self.layout.window(k)))
    }

    /// The next key of a window whose slices spill, and its records.
    fn next_spilled(&mut self) -> Flow<Option<(K, Both<A, B>)>> {
        let Some(Firing::Spilled(k, keys, left)) = &mut self.firing else {
            return Ok(None);
        };
        while let (true, Some(firing)) = (keys.is_empty(), left.as_mut()) {
            if self.slices.next_piece(firing, Both::extend, keys)? {
                *left = None;
            }
            let settled = &self.slices.settled;
            if !settled.over(*k) {
                keys.retain(|(key, _)| !settled.has(*k, key_hash(key), key));
            }
        }
        Ok(keys.pop())
    }

    /// Takes the records that waited, once all that was due is out.
    fn go_on<C: Collector<G::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        if !self.emit(out)? {
            self.suspended = true;
            return Ok(Progress::Suspended);
        }
        self.suspended = false;
        for (at, record) in std::mem::take(&mut self.waiting) {
            self.elsewhere(at, record, out)?;
        }
        Ok(Progress::Forward)
    }
}

/// Whether a group is worth showing to a function.
fn yields<K, A, B, G: GroupFunction<K, A, B>>(group: &Group<K, A, B>) -> bool {
    let (first, second) = (!group.first.is_empty(), !group.second.is_empty());
    if G::INNER {
        first && second
    } else {
        first || second
    }
}

impl<K, A, B, G> Operator<Keyed<K, Either<A, B>>> for CoGroupWindows<K, A, B, G>
where
    K: Key,
    A: StateValue + Clone,
    B: StateValue + Clone,
    G: GroupFunction<K, A, B>,
{
    type Out = G::Out;

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
        if let Some(table) = self.slices.current(at) {
            let Keyed { hash, key, value } = record;
            table.get_or_insert_with(hash, key, Both::new).add(value);
            return Ok(());
        }
        if self.suspended {
            self.waiting.push((at, record));
            return Ok(());
        }
        self.elsewhere(at, record, out).map(drop)
    }

    fn watermark<C: Collector<Self::Out>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        self.watermark = self.watermark.max(at);
        if self.watermark < self.due && !self.busy() {
            return Ok(Progress::Forward);
        }
        self.go_on(out)
    }

    fn resume<C: Collector<Self::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        self.go_on(out)
    }

    fn next_timer(&self) -> Option<Timestamp> {
        (!self.suspended && self.busy()).then_some(Timestamp::MIN)
    }

    fn timer<C: Collector<Self::Out>>(&mut self, _now: Timestamp, out: &mut C) -> Flow {
        self.emit(out).map(drop)
    }

    fn emitting(&self) -> bool {
        self.suspended || self.busy()
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        let reached = self.layout.first_open(self.watermark);
        let (slices, values) = (&mut self.slices, stored_name::<(A, B)>());
        slices.state(state, &mut self.next_window, reached, None, values)?;
        if state.loads() {
            self.schedule();
        }
        Ok(())
    }
}
