//! Windows of any kind: an assigner says which, a trigger says when, a pane function says what.
//!
//! Jobs that need an aggregate per aligned window, session or count have operators of their own,
//! which are cheaper. This one serves triggers, evictors and functions over all records of a window.

use super::pane_function::{PaneContext, PaneFunction};
use super::panes::{PaneId, Panes, Timer};
use super::trigger::{TimerRequest, Trigger, TriggerContext, TriggerResult};
use super::{GlobalWindows, TimeKind, TimeWindow, WindowAssigner};
use crate::build::OpenContext;
use crate::checkpoint::stored_name;
use crate::checkpoint::{Key, Named, StateVisitor};
use crate::clock::Clock;
use crate::exchange::Keyed;
use crate::fault::{Fault, Flow};
use crate::observe::SubtaskStats;
use crate::operator::{Operator, Progress};
use crate::side::{SideBuffer, SideOutput};
use crate::stage::{Collector, Signal};
use crate::time::{Timestamp, millis};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How many timers fire before the operator asks for room again.
const BETWEEN_ASKING: u32 = 256;

/// Windows by an assigner, a trigger and a pane function.
pub struct GeneralWindows<K, T, As, Tr: Trigger<T>, Fun: PaneFunction<K, T>> {
    assigner: As,
    trigger: Tr,
    function: Fun,
    /// In milliseconds.
    lateness: i64,
    late_output: Option<SideOutput<T>>,
    late: SideBuffer<T>,
    stats: Arc<SubtaskStats>,
    clock: Clock,
    /// Processing time of this turn; read at its first record.
    now: Option<Timestamp>,
    watermark: Timestamp,
    panes: Panes<K, Fun::Pane, Tr::State>,
    /// Room for the windows of one record, and for the wishes of one trigger call.
    windows: Vec<TimeWindow>,
    requests: Vec<TimerRequest>,
}

impl<K, T, As, Tr, Fun> Clone for GeneralWindows<K, T, As, Tr, Fun>
where
    As: Clone,
    Tr: Trigger<T>,
    Fun: PaneFunction<K, T>,
{
    fn clone(&self) -> Self {
        let (assigner, trigger) = (self.assigner.clone(), self.trigger.clone());
        GeneralWindows {
            lateness: self.lateness,
            late_output: self.late_output.clone(),
            ..GeneralWindows::new(assigner, trigger, self.function.clone())
        }
    }
}

impl<K, T, As, Tr, Fun> GeneralWindows<K, T, As, Tr, Fun>
where
    Tr: Trigger<T>,
    Fun: PaneFunction<K, T>,
{
    /// Emits the windows of `assigner` through `function` when `trigger` says so.
    pub fn new(assigner: As, trigger: Tr, function: Fun) -> Self {
        GeneralWindows {
            assigner,
            trigger,
            function,
            lateness: 0,
            late_output: None,
            late: SideBuffer::default(),
            stats: Arc::default(),
            clock: Clock::System,
            now: None,
            watermark: Timestamp::MIN,
            panes: Panes::default(),
            windows: Vec::new(),
            requests: Vec::new(),
        }
    }

    /// Windows by event time are kept so long after they ended; the trigger sees late records.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = millis(lateness);
        self
    }

    /// Where records go that come after all their windows are gone.
    pub fn late_output(mut self, tag: Option<SideOutput<T>>) -> Self {
        self.late_output = tag;
        self
    }

    #[cold]
    fn put_aside(&mut self, at: Timestamp, value: T) {
        self.stats.late.fetch_add(1, Relaxed);
        self.late.collect(at, value);
    }
}

impl<K, T, As, Tr, Fun> GeneralWindows<K, T, As, Tr, Fun>
where
    K: Key,
    T: Clone + 'static,
    As: WindowAssigner<T>,
    Tr: Trigger<T>,
    Fun: PaneFunction<K, T>,
{
    /// When a window by event time is dropped.
    fn expires(&self, window: TimeWindow) -> Timestamp {
        Timestamp(window.max_timestamp().0.saturating_add(self.lateness))
    }

    /// Processing time; the same for all records of a turn.
    fn now(&mut self) -> Timestamp {
        *self.now.get_or_insert_with(|| self.clock.now())
    }

    /// The pane of a window that may be new.
    fn pane(&mut self, hash: u64, key: &K, window: TimeWindow) -> PaneId {
        if let Some(pane) = self.panes.find(hash, key, window) {
            return pane;
        }
        let pane = self.panes.create(hash, key, window, self.function.create());
        self.drop_in_time(pane, window);
        pane
    }

    /// Sets the timer by which a window is dropped.
    fn drop_in_time(&mut self, pane: PaneId, window: TimeWindow) {
        let (kind, at) = match self.assigner.time() {
            None => return,
            Some(TimeKind::Event) => (TimeKind::Event, self.expires(window)),
            Some(TimeKind::Processing) => (TimeKind::Processing, window.max_timestamp()),
        };
        if at < Timestamp::MAX {
            self.panes.set_timer(
                kind,
                Timer {
                    at,
                    drops: true,
                    pane,
                },
            );
        }
    }

    /// The pane that holds a window after all those that it touches were merged into one.
    fn merged_pane(&mut self, hash: u64, key: &K, window: TimeWindow) -> Flow<PaneId> {
        let (by_event, watermark) = (
            self.assigner.time() == Some(TimeKind::Event),
            self.watermark,
        );
        let gone = |w: TimeWindow| by_event && self.expires(w) <= watermark;
        let touched = self.panes.touching(hash, key, window, gone);
        let Some((first, others)) = touched.split_first() else {
            return Ok(self.pane(hash, key, window));
        };
        let before = self.panes.get(*first).window;
        let mut cover = before;
        for w in [window]
            .into_iter()
            .chain(others.iter().map(|id| self.panes.get(*id).window))
        {
            cover.start = cover.start.min(w.start);
            cover.end = cover.end.max(w.end);
        }
        for other in others {
            let other = self.panes.remove(*other);
            let into = self.panes.get(*first);
            self.function.absorb(&mut into.contents, other.contents);
            self.trigger.merge(&mut into.state, other.state);
            into.filled |= other.filled;
            into.newest = into.newest.max(other.newest);
        }
        if cover != before {
            self.panes.clear_timers(*first);
            self.panes.move_to(*first, cover);
            let now = self.now();
            self.ask(*first, now, |trigger, state, cx| {
                trigger.on_merge(cover, state, cx);
                TriggerResult::Continue
            });
            self.drop_in_time(*first, cover);
        }
        Ok(*first)
    }

    /// Calls the trigger for a window and does what it wants about timers.
    fn ask(
        &mut self,
        pane: PaneId,
        now: Timestamp,
        call: impl FnOnce(&mut Tr, &mut Tr::State, &mut TriggerContext<'_>) -> TriggerResult,
    ) -> TriggerResult {
        let watermark = self.watermark;
        let mut context = TriggerContext {
            watermark,
            now,
            requests: &mut self.requests,
        };
        let state = &mut self.panes.get(pane).state;
        let result = call(&mut self.trigger, state, &mut context);
        if !self.requests.is_empty() {
            self.follow(pane, now);
        }
        result
    }

    fn follow(&mut self, pane: PaneId, now: Timestamp) {
        let end = self.panes.get(pane).window.max_timestamp();
        for TimerRequest { kind, at, set } in self.requests.drain(..) {
            let timer = Timer {
                at,
                drops: false,
                pane,
            };
            let time = if kind == TimeKind::Event {
                self.watermark
            } else {
                now
            };
            if !set {
                self.panes.delete_timer(kind, timer);
            } else if time < Timestamp::MAX || at == end {
                // At the end of all time a trigger that sets a timer whenever one comes would go on
                // for ever.
                self.panes.set_timer(kind, timer);
            }
        }
    }

    fn add<C: Collector<Fun::Out>>(
        &mut self,
        id: PaneId,
        at: Timestamp,
        value: T,
        out: &mut C,
    ) -> Flow {
        let (now, window) = (self.now(), self.panes.get(id).window);
        let result = self.ask(id, now, |trigger, state, context| {
            trigger.on_element(&value, at, window, state, context)
        });
        let pane = self.panes.get(id);
        self.function.add(&mut pane.contents, at, value);
        pane.filled = true;
        pane.newest = pane.newest.max(at);
        self.act(id, now, result, out)
    }

    fn act<C: Collector<Fun::Out>>(
        &mut self,
        id: PaneId,
        now: Timestamp,
        result: TriggerResult,
        out: &mut C,
    ) -> Flow {
        if result == TriggerResult::Continue {
            return Ok(());
        }
        let pane = self.panes.get(id);
        if result.fires() && pane.filled {
            let window = pane.window;
            let at = if window == GlobalWindows::WINDOW {
                pane.newest
            } else {
                window.max_timestamp()
            };
            let watermark = self.watermark;
            let context = PaneContext {
                key: &pane.key,
                window,
                at,
                watermark,
                processing_time: now,
            };
            self.function.fire(&context, &mut pane.contents, out)?;
        }
        if result.purges() {
            pane.contents = self.function.create();
            pane.filled = false;
        }
        Ok(())
    }

    /// Fires all timers up to `until`. False where it stopped for want of room.
    fn fire_due<C: Collector<Fun::Out>>(
        &mut self,
        kind: TimeKind,
        until: Timestamp,
        out: &mut C,
    ) -> Flow<bool> {
        let now = if kind == TimeKind::Event {
            self.now()
        } else {
            after(until)
        };
        let mut fired = 0u32;
        while self.panes.spills()
            && let Some(at) = self.panes.open_next_due(kind, until)?
        {
            // No other key's windows are open now.
            while let Some(timer) = self.panes.next_due(kind, at) {
                self.fire(kind, timer, now, out)?;
            }
            self.panes.close_key()?;
            fired += 1;
            if fired.is_multiple_of(BETWEEN_ASKING) {
                self.panes.maintain_spilled()?;
                if !out.has_room() {
                    return Ok(false);
                }
            }
        }
        while let Some(timer) = self.panes.next_due(kind, until) {
            if !self.fire(kind, timer, now, out)? {
                continue;
            }
            fired += 1;
            if fired.is_multiple_of(BETWEEN_ASKING) && !out.has_room() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Does what a timer is there for; whether that was to ask the trigger.
    fn fire<C: Collector<Fun::Out>>(
        &mut self,
        kind: TimeKind,
        Timer { at, drops, pane }: Timer,
        now: Timestamp,
        out: &mut C,
    ) -> Flow<bool> {
        let window = self.panes.get(pane).window;
        if drops {
            let mut pane = self.panes.remove(pane);
            self.trigger.clear(window, &mut pane.state);
            return Ok(false);
        }
        let result = self.ask(pane, now, |trigger, state, context| match kind {
            TimeKind::Event => trigger.on_event_time(at, window, state, context),
            TimeKind::Processing => trigger.on_processing_time(at, window, state, context),
        });
        self.act(pane, now, result, out)?;
        Ok(true)
    }
}

/// Why a trigger doesn't fit windows, as a sentence, if it doesn't.
pub(crate) fn can_not_merge<T, As: WindowAssigner<T>, Tr: Trigger<T>>(
    assigner: &As,
    trigger: &Tr,
) -> Option<String> {
    (assigner.merges() && !trigger.can_merge()).then(|| {
        "this trigger can't merge windows, but sessions merge; give them another trigger".to_owned()
    })
}

/// The moment behind `at`. A clock has passed the millisecond before the one that it shows: in that
/// one records may still come.
fn after(at: Timestamp) -> Timestamp {
    Timestamp(at.0.saturating_add(1))
}

impl<K, T, As, Tr, Fun> Operator<Keyed<K, T>> for GeneralWindows<K, T, As, Tr, Fun>
where
    K: Key,
    T: Clone + 'static,
    As: WindowAssigner<T>,
    Tr: Trigger<T>,
    Fun: PaneFunction<K, T>,
{
    type Out = Fun::Out;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        if let Some(problem) = can_not_merge::<T, _, _>(&self.assigner, &self.trigger) {
            return Err(Fault::user(problem));
        }
        self.stats = context.stats();
        self.clock = context.clock();
        if let Some(tag) = &self.late_output {
            self.late = context.side_output(tag);
        }
        Ok(())
    }

    fn process<C: Collector<Self::Out>>(
        &mut self,
        at: Timestamp,
        record: Keyed<K, T>,
        out: &mut C,
    ) -> Flow {
        let Keyed { hash, key, value } = record;
        let kind = self.assigner.time();
        if kind == Some(TimeKind::Event) && at == Timestamp::MIN {
            return Err(super::no_event_time());
        }
        let time = if kind == Some(TimeKind::Processing) {
            self.now()
        } else {
            at
        };
        let mut windows = std::mem::take(&mut self.windows);
        windows.clear();
        self.assigner.assign(&value, time, &mut windows)?;
        let assigned = windows.len();
        self.panes.open_key(hash, &key)?;
        let merges = self.assigner.merges();
        if kind == Some(TimeKind::Event) {
            let watermark = self.watermark;
            let gone = |w: TimeWindow| self.expires(w) <= watermark;
            // A window that has passed is still wanted where it touches one that hasn't.
            windows.retain(|w| {
                !gone(*w) || merges && !self.panes.touching(hash, &key, *w, gone).is_empty()
            });
        }
        if windows.is_empty() && assigned > 0 {
            self.put_aside(at, value);
            self.windows = windows;
            return self.panes.close_key();
        }
        let mut value = Some(value);
        for (i, window) in windows.iter().enumerate() {
            let last = i + 1 == windows.len();
            let Some(value) = (if last { value.take() } else { value.clone() }) else {
                break;
            };
            let pane = if merges {
                self.merged_pane(hash, &key, *window)?
            } else {
                self.pane(hash, &key, *window)
            };
            self.add(pane, at, value, out)?;
        }
        self.windows = windows;
        self.panes.close_key()
    }

    fn watermark<C: Collector<Self::Out>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        // One that an earlier attempt has seen fires nothing again.
        if at <= self.watermark {
            return Ok(Progress::Forward);
        }
        self.watermark = at;
        self.resume(out)
    }

    fn resume<C: Collector<Self::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        let mut done = self.fire_due(TimeKind::Event, self.watermark, out)?;
        // The end of the input ends all windows, by whichever clock.
        let ends = self.watermark == Timestamp::MAX;
        if done && ends && self.assigner.time() == Some(TimeKind::Processing) {
            done = self.fire_due(TimeKind::Processing, Timestamp::MAX, out)?;
        }
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
        self.panes.next_processing_timer().map(after)
    }

    fn timer<C: Collector<Self::Out>>(&mut self, now: Timestamp, out: &mut C) -> Flow {
        let passed = Timestamp(now.0.saturating_sub(1));
        self.fire_due(TimeKind::Processing, passed, out).map(|_| ())
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        state.value("watermark", &mut self.watermark, Timestamp::min)?;
        let types = (stored_name::<K>(), stored_name::<(Fun::Pane, Tr::State)>());
        state.keyed("panes", &mut Named(&mut self.panes, types))?;
        self.panes.due_state(state)
    }
}

#[cfg(test)]
#[path = "general_tests.rs"]
mod tests;
