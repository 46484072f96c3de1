//! Slices in a checkpoint: saved slice by slice, while records flow again, and loaded into the subtasks
//! that there are then.
//!
//! With each slice goes the number of the first window that had not fired when it was saved. Subtasks
//! may differ in that, by the clock above all; a later attempt begins with the least of them, and
//! remembers of the others' keys which windows are settled.

use super::slices::{Slice, Slices};
use super::spilled::{GroupsFired, SpilledSlices};
use crate::checkpoint::stored_name;
use crate::checkpoint::{
    Entries, Key, KeyedPart, KeyedSection, Named, OpenBacking, RestoredFiles, StateValue,
    StateVisitor,
};
use crate::fault::{Fault, Flow};
use crate::hash::{key_group, key_hash};
use crate::state::KeyTable;
use std::collections::VecDeque;
use std::hash::Hash;

/// A checkpoint that is under way.
pub(super) struct Saving {
    /// The slices that are still to be saved, oldest first.
    left: VecDeque<i64>,
    /// The first window that had not fired at the barrier.
    unfired: i64,
    /// Slices that went before their turn came; `None` before anything is saved.
    rescued: Option<KeyedSection>,
}

impl Saving {
    /// Saves a slice that is about to go, if that is still to be done.
    pub fn rescue<K: Key, V: StateValue>(&mut self, slice: &mut Slice<K, V>) -> Flow {
        let Some(at) = self.left.iter().position(|n| *n == slice.number) else {
            return Ok(());
        };
        self.left.remove(at);
        let Some(rescued) = &mut self.rescued else {
            return Err(Fault::internal("a slice went before anything was saved"));
        };
        let mut part = rescued.fresh();
        slice.table.save(&mut part, usize::MAX)?;
        rescued.append_part(&(slice.number, self.unfired), part)
    }
}

/// Of keys whose earlier subtask had fired more windows than others: the first that it had not.
///
/// Where slices spill it is told of whole key groups instead, as those are ahead of others as a whole.
pub(super) struct Settled<K> {
    keys: KeyTable<K, i64>,
    groups: GroupsFired,
    max_parallelism: u32,
    /// No key has one beyond.
    until: i64,
    /// A checkpoint has yet to save it.
    frozen: bool,
}

impl<K> Default for Settled<K> {
    fn default() -> Self {
        Settled {
            keys: KeyTable::default(),
            groups: GroupsFired::new(),
            max_parallelism: 1,
            until: i64::MIN,
            frozen: false,
        }
    }
}

impl<K: Hash + Eq> Settled<K> {
    /// Whether windows from this one on are settled for no key.
    #[inline]
    pub fn over(&self, window: i64) -> bool {
        window >= self.until
    }

    /// Whether a window has fired for a key, though not for all.
    pub fn has(&self, window: i64, hash: u64, key: &K) -> bool {
        if self.over(window) {
            return false;
        }
        let groups = &self.groups;
        let of_group = || groups.get(&key_group(hash, self.max_parallelism));
        let first = self.keys.get(hash, key).max(of_group());
        first.is_some_and(|first| window < *first)
    }

    fn insert(&mut self, key: K, first: i64) {
        self.until = self.until.max(first);
        self.keys.insert(key_hash(&key), key, first);
    }

    fn insert_group(&mut self, group: u32, first: i64) {
        self.until = self.until.max(first);
        let known = self.groups.entry(group).or_insert(first);
        *known = first.max(*known);
    }
}

fn both_least(a: Option<(i64, i64)>, b: Option<(i64, i64)>) -> Option<(i64, i64)> {
    match (a, b) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.min(b.1))),
        _ => a.or(b),
    }
}

/// The slices of an operator, as they are saved and loaded.
struct SlicesPart<'a, K, V> {
    slices: &'a mut Slices<K, V>,
    /// The first window that has not fired; on loading, the first that had not in any subtask.
    unfired: i64,
    /// The first window that had not fired where most had.
    furthest: i64,
}

impl<K: Key, V: StateValue> Slices<K, V> {
    /// Saves or loads the slices and `next_window`, all windows before which have fired; `reached` is
    /// the first window that is not complete. No record comes for windows before that by the clock,
    /// so there the window that fires next, if any does, tells how much is settled.
    pub fn state(
        &mut self,
        state: &mut StateVisitor<'_>,
        next_window: &mut i64,
        reached: i64,
        by_clock: Option<Option<i64>>,
        values: &'static str,
    ) -> Flow {
        let types = (stored_name::<K>(), values);
        let fired = reached.max(*next_window);
        let mut unfired = match by_clock {
            None => Some((fired, i64::MIN)),
            Some(upcoming) => upcoming.map(|k| (fired, k)),
        };
        state.value("unfired", &mut unfired, both_least)?;
        let least = unfired.map(|(fired, upcoming)| fired.max(upcoming.min(reached)));
        let mut settled = SettledPart(&mut self.settled, least.unwrap_or(i64::MAX));
        state.keyed("settled", &mut settled)?;
        let loads = state.loads();
        let mut part = SlicesPart {
            unfired: match least {
                Some(least) if loads => least,
                _ if loads => i64::MAX,
                _ => fired,
            },
            slices: self,
            furthest: i64::MIN,
        };
        state.keyed("slices", &mut Named(&mut part, types))?;
        if loads {
            *next_window = least.unwrap_or(part.furthest);
        }
        Ok(())
    }

    /// Forgets which windows were settled once all keys have come as far.
    pub fn settle(&mut self, next_window: i64) {
        let settled = &self.settled;
        if settled.until > i64::MIN && settled.over(next_window) && !settled.frozen {
            self.settled = Settled {
                max_parallelism: settled.max_parallelism,
                ..Settled::default()
            };
        }
    }
}

impl<K: Key, V: StateValue> SlicesPart<'_, K, V> {
    /// Remembers which key groups had fired more windows than others.
    fn settle_groups(&mut self, fired: GroupsFired) {
        for (group, unfired) in fired {
            if unfired > self.unfired {
                self.slices.settled.insert_group(group, unfired);
            }
        }
    }
}

impl<K: Key, V: StateValue> KeyedPart for SlicesPart<'_, K, V> {
    fn types(&self) -> (&'static str, &'static str) {
        (stored_name::<K>(), stored_name::<V>())
    }

    fn freeze(&mut self) -> Flow {
        if let Some(spilled) = &mut self.slices.spilled {
            spilled.freeze(self.unfired, &self.slices.settled.groups);
            return Ok(());
        }
        self.slices.forget_current();
        for slice in &mut self.slices.ring {
            slice.table.freeze()?;
        }
        let left = self.slices.ring.iter().map(|slice| slice.number).collect();
        self.slices.saving = Some(Saving {
            left,
            unfired: self.unfired,
            rescued: None,
        });
        Ok(())
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        if let Some(spilled) = &mut self.slices.spilled {
            return spilled.save(into, budget);
        }
        self.slices.forget_current();
        let Some(mut saving) = self.slices.saving.take() else {
            return Ok(true);
        };
        if let Some(rescued) = saving.rescued.take() {
            into.append(rescued);
        }
        saving.rescued = Some(into.fresh());
        let mut budget = budget;
        while let Some(number) = saving.left.front() {
            let mut whole = true;
            if let Ok(place) = self.slices.place(*number) {
                let mut part = into.fresh();
                whole = self.slices.ring[place].table.save(&mut part, budget)?;
                budget = budget.saturating_sub(part.entries() as usize);
                into.append_part(&(*number, saving.unfired), part)?;
            }
            if !whole {
                self.slices.saving = Some(saving);
                return Ok(false);
            }
            saving.left.pop_front();
        }
        Ok(true)
    }

    fn thaw(&mut self) {
        if let Some(spilled) = &mut self.slices.spilled {
            return spilled.thaw();
        }
        self.slices.forget_current();
        for slice in &mut self.slices.ring {
            slice.table.thaw();
        }
        self.slices.saving = None;
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        while let Some(((number, unfired), mut part)) = entries.next_part::<(i64, i64)>()? {
            self.furthest = self.furthest.max(unfired);
            if let Some(spilled) = &mut self.slices.spilled {
                let groups = spilled.load(number, &mut part)?;
                let fired = groups.iter().map(|group| (group, unfired));
                self.settle_groups(fired.collect());
                continue;
            }
            let (place, _) = self.slices.enter(number);
            if unfired <= self.unfired {
                self.slices.ring[place].table.load(&mut part)?;
                continue;
            }
            let mut table: KeyTable<K, V> = KeyTable::default();
            table.load(&mut part)?;
            for (key, value) in table {
                self.slices.settled.insert(key.clone(), unfired);
                self.slices.entry(place, key_hash(&key), key, || value)?;
            }
        }
        Ok(())
    }

    fn spill(&mut self, open: &mut OpenBacking<'_>) -> Flow {
        if self.slices.spilled.is_some() {
            return Ok(());
        }
        self.slices.forget_current();
        let (max_parallelism, backing, claim) = open()?;
        let mut spilled = Box::new(SpilledSlices::new(backing, claim, max_parallelism));
        for slice in self.slices.ring.drain(..) {
            let (place, _) = spilled.enter(slice.number);
            for (key, value) in slice.table {
                spilled.entry(place, key_hash(&key), key, || value)?;
            }
        }
        self.slices.settled.max_parallelism = max_parallelism;
        self.slices.spilled = Some(spilled);
        Ok(())
    }

    fn maintain(&mut self) -> Flow {
        match &mut self.slices.spilled {
            Some(spilled) => spilled.keep_to_memory(),
            None => Ok(()),
        }
    }

    fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        let Some(spilled) = &mut self.slices.spilled else {
            return Err(files.in_memory());
        };
        let fired = spilled.load_files(files)?;
        self.furthest = fired.values().copied().fold(self.furthest, i64::max);
        self.settle_groups(fired);
        Ok(())
    }
}

/// What is settled, and the window before which that is of no interest any more.
struct SettledPart<'a, K>(&'a mut Settled<K>, i64);

impl<K: Key> KeyedPart for SettledPart<'_, K> {
    fn types(&self) -> (&'static str, &'static str) {
        self.0.keys.types()
    }

    fn freeze(&mut self) -> Flow {
        self.0.frozen = true;
        self.0.keys.freeze()
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        let whole = self.0.keys.save(into, budget)?;
        self.0.frozen = !whole;
        Ok(whole)
    }

    fn thaw(&mut self) {
        self.0.frozen = false;
        self.0.keys.thaw();
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        let mut keys = KeyTable::default();
        keys.load(entries)?;
        for (key, first) in keys {
            if first > self.1 {
                self.0.insert(key, first);
            }
        }
        Ok(())
    }
}
