//! Windows of more keys than memory holds: those of one key at a time are open, and those of the others
//! are kept by key, with their timers.
//!
//! A key has an entry in the order of time for each moment at which one of its windows has a timer. One
//! that was taken back leaves its entry behind, and nothing is found when that comes due.

use super::{Pane, Panes, SavedPane, Timer};
use crate::checkpoint::stored_name;
use crate::checkpoint::stream::EntryStream;
use crate::checkpoint::{
    Entries, Key, KeyedPart, KeyedSection, OpenBacking, RestoredFiles, StateData, StateValue,
    StateVisitor,
};
use crate::fault::{Fault, Flow};
use crate::hash::key_hash;
use crate::state::{BackedTable, SpilledDue};
use crate::time::Timestamp;
use crate::window::TimeKind;
use std::marker::PhantomData;

/// Keys that a load takes in before it makes room.
const LOADED_AT_ONCE: usize = 1024;

/// See the module.
pub(super) struct SpilledPanes<K, C, S> {
    table: BackedTable<K, Vec<SavedPane<C, S>>>,
    event: SpilledDue<K>,
    processing: SpilledDue<K>,
    /// The key whose windows are open, and the timers that they had.
    open: Option<(u64, K)>,
    known: Vec<(TimeKind, Timestamp)>,
}

impl<K, C, S> Default for SpilledPanes<K, C, S> {
    fn default() -> Self {
        SpilledPanes {
            table: BackedTable::default(),
            event: SpilledDue::default(),
            processing: SpilledDue::default(),
            open: None,
            known: Vec::new(),
        }
    }
}

impl<K: Key, C: StateValue, S: StateValue> SpilledPanes<K, C, S> {
    fn due(&mut self, kind: TimeKind) -> &mut SpilledDue<K> {
        match kind {
            TimeKind::Event => &mut self.event,
            TimeKind::Processing => &mut self.processing,
        }
    }

    /// Enters the timers of a window.
    fn enter_timers(&mut self, hash: u64, key: &K, saved: &SavedPane<C, S>) -> Flow {
        for (kind, at, _) in &saved.timers {
            if !self.known.contains(&(*kind, *at)) {
                self.due(*kind).push(at.0, hash, key)?;
            }
        }
        Ok(())
    }
}

impl<K: Key, C: StateValue, S: StateValue + Default> Panes<K, C, S> {
    /// Opens the windows of a key, whose turn it is. Where all are in memory they always are.
    #[inline]
    pub fn open_key(&mut self, hash: u64, key: &K) -> Flow {
        if self.spilled.is_none() {
            return Ok(());
        }
        self.open_spilled(hash, key)
    }

    #[cold]
    fn open_spilled(&mut self, hash: u64, key: &K) -> Flow {
        let Some(spilled) = &mut self.spilled else {
            return Ok(());
        };
        spilled.open = Some((hash, key.clone()));
        spilled.known.clear();
        let saved = match spilled.table.get_mut(hash, key)? {
            Some(saved) => std::mem::take(saved),
            None => Vec::new(),
        };
        let timers = saved.iter().flat_map(|saved| &saved.timers);
        spilled
            .known
            .extend(timers.map(|(kind, at, _)| (*kind, *at)));
        for saved in saved {
            self.take(hash, key, saved);
        }
        Ok(())
    }

    /// The key's turn is over.
    #[inline]
    pub fn close_key(&mut self) -> Flow {
        if self.spilled.is_none() {
            return Ok(());
        }
        self.close_spilled()
    }

    #[cold]
    fn close_spilled(&mut self) -> Flow {
        let mut all = Vec::new();
        for id in 0..self.slots.len() {
            if let Some(pane) = self.slots[id].take() {
                all.push(saved(pane));
            }
        }
        self.forget_all();
        let Some(spilled) = &mut self.spilled else {
            return Ok(());
        };
        let Some((hash, key)) = spilled.open.take() else {
            return Ok(());
        };
        for saved in &all {
            spilled.enter_timers(hash, &key, saved)?;
        }
        if all.is_empty() {
            return spilled.table.remove(hash, &key).map(drop);
        }
        spilled.table.set(hash, key, all)
    }

    /// Takes the next moment at which a key has a timer of this kind, if it is due by `now`, and opens the
    /// key's windows.
    pub fn open_next_due(&mut self, kind: TimeKind, now: Timestamp) -> Flow<Option<Timestamp>> {
        let Some(spilled) = &mut self.spilled else {
            return Ok(None);
        };
        let Some(next) = spilled.due(kind).pop(now.0)? else {
            return Ok(None);
        };
        self.open_spilled(next.hash, &next.key)?;
        if let Some(spilled) = &mut self.spilled {
            // Its entry is gone: one that is set for the same time again is a new one.
            spilled.known.retain(|timer| *timer != (kind, next.at));
        }
        Ok(Some(next.at))
    }

    /// Whether the windows of most keys may be elsewhere.
    pub fn spills(&self) -> bool {
        self.spilled.is_some()
    }

    /// When the next processing-time timer of those elsewhere is due.
    pub(super) fn next_spilled(&self) -> Option<Timestamp> {
        let spilled = self.spilled.as_ref()?;
        spilled.processing.next().map(Timestamp)
    }

    /// Keeps to the memory there is.
    pub fn maintain_spilled(&mut self) -> Flow {
        match &mut self.spilled {
            Some(spilled) => {
                spilled.table.maintain()?;
                spilled.event.maintain()?;
                spilled.processing.maintain()
            }
            None => Ok(()),
        }
    }

    /// Saves or loads the orders of time of those that spill; behind the windows themselves.
    pub fn due_state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        let Some(spilled) = &mut self.spilled else {
            return Ok(());
        };
        let rebuild = spilled.event.state(state, "event due")?;
        if spilled.processing.state(state, "processing due")? || rebuild {
            let (event, processing) = (&mut spilled.event, &mut spilled.processing);
            spilled.table.each(|key, all| {
                for (kind, at, _) in all.iter().flat_map(|saved| &saved.timers) {
                    let due = match kind {
                        TimeKind::Event => &mut *event,
                        TimeKind::Processing => &mut *processing,
                    };
                    due.push(at.0, key_hash(key), key)?;
                    due.maintain()?;
                }
                Ok(())
            })?;
        }
        if state.spills() {
            // Those that were in memory until now.
            self.move_all()?;
        }
        Ok(())
    }

    fn move_all(&mut self) -> Flow {
        let Some(mut spilled) = self.spilled.take() else {
            return Ok(());
        };
        for pane in self.slots.drain(..).flatten() {
            let (hash, key) = (pane.hash, pane.key.clone());
            let saved = saved(pane);
            spilled.known.clear();
            spilled.enter_timers(hash, &key, &saved)?;
            let all = spilled.table.get_or_insert_with(hash, key, Vec::new)?;
            all.push(saved);
        }
        self.forget_all();
        self.spilled = Some(spilled);
        Ok(())
    }

    /// Nothing is open.
    fn forget_all(&mut self) {
        self.slots.clear();
        self.free.clear();
        self.by_key.clear();
        self.event.clear();
        self.processing.clear();
    }
}

/// The windows of keys, one after the other.
struct OneByOne<K, C, S> {
    keys: Box<dyn EntryStream>,
    entries: Entry<K, C, S>,
}

/// What is read, for another thread too.
type Entry<K, C, S> = PhantomData<fn() -> (K, SavedPane<C, S>)>;

impl<K: Key, C: StateValue, S: StateValue> EntryStream for OneByOne<K, C, S> {
    fn next(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        let mut all = into.fresh();
        let ended = self.keys.next(&mut all, budget)?;
        one_by_one::<K, C, S>(all.into_data(), into)?;
        Ok(ended)
    }
}

fn one_by_one<K, C, S>(data: StateData, into: &mut KeyedSection) -> Flow
where
    K: Key,
    C: StateValue,
    S: StateValue,
{
    let StateData::Groups(groups) = data else {
        return Err(Fault::internal("keyed state without key groups"));
    };
    for group in groups {
        let bytes = group.bytes.joined();
        let mut entries = Entries::new(&bytes);
        while let Some((key, all)) = entries.take_next::<(K, Vec<SavedPane<C, S>>)>()? {
            for saved in all {
                into.put(key_hash(&key), &(&key, saved))?;
            }
        }
    }
    Ok(())
}

/// What is kept of a window that is not open.
fn saved<K, C, S>(pane: Pane<K, C, S>) -> SavedPane<C, S> {
    let timers = pane.timers.iter();
    let timers = timers.map(|(kind, Timer { at, drops, .. })| (*kind, *at, *drops));
    SavedPane {
        window: pane.window,
        filled: pane.filled,
        newest: pane.newest,
        timers: timers.collect(),
        contents: pane.contents,
        state: pane.state,
    }
}

impl<K, C, S> KeyedPart for SpilledPanes<K, C, S>
where
    K: Key,
    C: StateValue,
    S: StateValue + Default,
{
    fn types(&self) -> (&'static str, &'static str) {
        (stored_name::<K>(), stored_name::<(C, S)>())
    }

    fn freeze(&mut self) -> Flow {
        self.table.freeze()
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        // As those in memory save themselves: one window after the other.
        let mut all = into.fresh();
        let whole = self.table.save(&mut all, budget)?;
        into.wait(all.waits());
        match all.into_data() {
            StateData::Streamed(streamed) => {
                let (_, keys) = streamed.take()?;
                let entries: Entry<K, C, S> = PhantomData;
                into.put_stream(Box::new(OneByOne { keys, entries }));
            }
            StateData::Files(files) => into.put_files(files),
            data => one_by_one::<K, C, S>(data, into)?,
        }
        Ok(whole)
    }

    fn thaw(&mut self) {
        self.table.thaw();
    }

    fn spill(&mut self, open: &mut OpenBacking<'_>) -> Flow {
        self.table.spill(open)
    }

    fn maintain(&mut self) -> Flow {
        self.table.maintain()
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        let mut loaded = 0;
        while let Some((key, saved)) = entries.take_next::<(K, SavedPane<C, S>)>()? {
            let all = self
                .table
                .get_or_insert_with(key_hash(&key), key, Vec::new)?;
            all.push(saved);
            loaded += 1;
            if loaded % LOADED_AT_ONCE == 0 {
                self.table.maintain()?;
            }
        }
        Ok(())
    }

    fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        self.table.load_files(files)
    }
}
