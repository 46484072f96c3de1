//! The open windows of a subtask by key, with their timers in the order of time.
//!
//! A timer belongs to one window, is set once, and goes with it. So watermark and clock visit what
//! is due and nothing else, and nothing is left behind.

mod spilled;

use self::spilled::SpilledPanes;
use super::{TimeKind, TimeWindow};
use crate::checkpoint::stored_name;
use crate::checkpoint::{
    Entries, Key, KeyedPart, KeyedSection, OpenBacking, RestoredFiles, StateValue,
};
use crate::fault::Flow;
use crate::hash::key_hash;
use crate::state::KeyTable;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::hash::Hash;

/// The number of an open window; free for another one once it is gone.
pub(super) type PaneId = usize;

/// A timer. At the same time, triggers come before windows are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Timer {
    pub at: Timestamp,
    pub drops: bool,
    pub pane: PaneId,
}

/// An open window of a key.
pub(super) struct Pane<K, C, S> {
    pub hash: u64,
    pub key: K,
    pub window: TimeWindow,
    pub contents: C,
    /// Whether a record was added since it was created or purged.
    pub filled: bool,
    /// The greatest timestamp of its records.
    pub newest: Timestamp,
    pub state: S,
    timers: Vec<(TimeKind, Timer)>,
}

/// What a checkpoint keeps of a window; its key stands before it.
#[derive(Serialize, Deserialize)]
struct SavedPane<C, S> {
    window: TimeWindow,
    contents: C,
    filled: bool,
    newest: Timestamp,
    state: S,
    /// Their kinds, their times, and whether they drop the window.
    timers: Vec<(TimeKind, Timestamp, bool)>,
}

/// All open windows.
pub(super) struct Panes<K, C, S> {
    slots: Vec<Option<Pane<K, C, S>>>,
    free: Vec<PaneId>,
    /// The windows of a key, in their order.
    by_key: KeyTable<K, Vec<(TimeWindow, PaneId)>>,
    event: BTreeSet<Timer>,
    processing: BTreeSet<Timer>,
    /// Where those of other keys are than the one whose turn it is, if they may be larger than memory.
    spilled: Option<Box<SpilledPanes<K, C, S>>>,
}

impl<K, C, S> Default for Panes<K, C, S> {
    fn default() -> Self {
        Panes {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: KeyTable::default(),
            event: BTreeSet::new(),
            processing: BTreeSet::new(),
            spilled: None,
        }
    }
}

impl<K: Hash + Eq + Clone, C, S: Default> Panes<K, C, S> {
    pub fn get(&mut self, id: PaneId) -> &mut Pane<K, C, S> {
        self.slots[id]
            .as_mut()
            .expect("a timer or list names only open windows")
    }

    pub fn find(&self, hash: u64, key: &K, window: TimeWindow) -> Option<PaneId> {
        let list = self.by_key.get(hash, key)?;
        let at = list
            .binary_search_by_key(&window, |(window, _)| *window)
            .ok()?;
        Some(list[at].1)
    }

    /// The windows of a key that overlap or touch one, in order, without those that `gone` names.
    pub fn touching(
        &self,
        hash: u64,
        key: &K,
        window: TimeWindow,
        gone: impl Fn(TimeWindow) -> bool,
    ) -> Vec<PaneId> {
        let list = self
            .by_key
            .get(hash, key)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let touches = |w: TimeWindow| w.start <= window.end && window.start <= w.end;
        list.iter()
            .filter(|(w, _)| touches(*w) && !gone(*w))
            .map(|(_, id)| *id)
            .collect()
    }

    pub fn create(&mut self, hash: u64, key: &K, window: TimeWindow, contents: C) -> PaneId {
        let pane = Pane {
            hash,
            key: key.clone(),
            window,
            contents,
            filled: false,
            newest: Timestamp::MIN,
            state: S::default(),
            timers: Vec::new(),
        };
        let id = self.free.pop().unwrap_or(self.slots.len());
        if id == self.slots.len() {
            self.slots.push(Some(pane));
        } else {
            self.slots[id] = Some(pane);
        }
        self.list(id);
        id
    }

    /// Removes a window with its timers.
    pub fn remove(&mut self, id: PaneId) -> Pane<K, C, S> {
        self.clear_timers(id);
        self.unlist(id);
        self.free.push(id);
        self.slots[id]
            .take()
            .expect("only open windows are removed")
    }

    /// Gives a window another extent.
    pub fn move_to(&mut self, id: PaneId, window: TimeWindow) {
        self.unlist(id);
        self.get(id).window = window;
        self.list(id);
    }

    fn list(&mut self, id: PaneId) {
        let pane = self.slots[id]
            .as_ref()
            .expect("only open windows are listed");
        let entry = (pane.window, id);
        let list = self
            .by_key
            .get_or_insert_with(pane.hash, pane.key.clone(), Vec::new);
        list.insert(list.partition_point(|other| *other < entry), entry);
    }

    fn unlist(&mut self, id: PaneId) {
        let pane = self.slots[id]
            .as_ref()
            .expect("only open windows are listed");
        let Some(list) = self.by_key.get_mut(pane.hash, &pane.key) else {
            return;
        };
        list.retain(|(_, other)| *other != id);
        if list.is_empty() {
            self.by_key.remove(pane.hash, &pane.key);
        }
    }

    fn timers(&mut self, kind: TimeKind) -> &mut BTreeSet<Timer> {
        match kind {
            TimeKind::Event => &mut self.event,
            TimeKind::Processing => &mut self.processing,
        }
    }

    /// Sets a timer once, however often it is asked for.
    pub fn set_timer(&mut self, kind: TimeKind, timer: Timer) {
        if self.timers(kind).insert(timer) {
            self.get(timer.pane).timers.push((kind, timer));
        }
    }

    pub fn delete_timer(&mut self, kind: TimeKind, timer: Timer) {
        if self.timers(kind).remove(&timer) {
            self.get(timer.pane)
                .timers
                .retain(|set| *set != (kind, timer));
        }
    }

    /// Takes back all timers of a window.
    pub fn clear_timers(&mut self, id: PaneId) {
        for (kind, timer) in std::mem::take(&mut self.get(id).timers) {
            self.timers(kind).remove(&timer);
        }
    }

    /// Takes the earliest timer of a kind if it is due by `now`.
    pub fn next_due(&mut self, kind: TimeKind, now: Timestamp) -> Option<Timer> {
        let timer = *self.timers(kind).first()?;
        if timer.at > now {
            return None;
        }
        self.delete_timer(kind, timer);
        Some(timer)
    }

    /// How many timers are set, how many windows are open and how many keys have one.
    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize, usize) {
        let timers = self.event.len() + self.processing.len();
        (
            timers,
            self.slots.len() - self.free.len(),
            self.by_key.len(),
        )
    }
}

impl<K: Key, C: StateValue, S: StateValue + Default> Panes<K, C, S> {
    /// When the next processing-time timer is due.
    pub fn next_processing_timer(&self) -> Option<Timestamp> {
        match self.processing.first() {
            Some(timer) => Some(timer.at),
            None => self.next_spilled(),
        }
    }

    /// Takes a window that was saved.
    fn take(&mut self, hash: u64, key: &K, saved: SavedPane<C, S>) {
        let id = self.create(hash, key, saved.window, saved.contents);
        let pane = self.get(id);
        (pane.filled, pane.newest, pane.state) = (saved.filled, saved.newest, saved.state);
        for (kind, at, drops) in saved.timers {
            let pane = id;
            self.set_timer(kind, Timer { at, drops, pane });
        }
    }
}

/// All windows are saved at once: they are as many as keys are active, and those of sessions merge.
impl<K, C, S> KeyedPart for Panes<K, C, S>
where
    K: Key,
    C: StateValue,
    S: StateValue + Default,
{
    fn types(&self) -> (&'static str, &'static str) {
        (stored_name::<K>(), stored_name::<(C, S)>())
    }

    fn freeze(&mut self) -> Flow {
        match &mut self.spilled {
            Some(spilled) => spilled.freeze(),
            None => Ok(()),
        }
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        if let Some(spilled) = &mut self.spilled {
            return spilled.save(into, budget);
        }
        for pane in self.slots.iter().flatten() {
            let timers = pane.timers.iter();
            let saved = SavedPane {
                window: pane.window,
                contents: &pane.contents,
                filled: pane.filled,
                newest: pane.newest,
                state: &pane.state,
                timers: timers.map(|(kind, t)| (*kind, t.at, t.drops)).collect(),
            };
            into.put(pane.hash, &(&pane.key, saved))?;
        }
        Ok(true)
    }

    fn thaw(&mut self) {
        if let Some(spilled) = &mut self.spilled {
            spilled.thaw();
        }
    }

    fn spill(&mut self, open: &mut OpenBacking<'_>) -> Flow {
        self.spilled.get_or_insert_default().spill(open)
    }

    fn maintain(&mut self) -> Flow {
        match &mut self.spilled {
            Some(spilled) => spilled.maintain(),
            None => Ok(()),
        }
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        if let Some(spilled) = &mut self.spilled {
            return spilled.load(entries);
        }
        while let Some((key, saved)) = entries.take_next::<(K, SavedPane<C, S>)>()? {
            self.take(key_hash(&key), &key, saved);
        }
        Ok(())
    }

    fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        match &mut self.spilled {
            Some(spilled) => spilled.load_files(files),
            None => Err(files.in_memory()),
        }
    }
}
