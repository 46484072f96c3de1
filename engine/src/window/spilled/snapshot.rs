//! Slices that spill, in a checkpoint: as files with all that is behind their tables, or as the same
//! entries that slices in memory save.
//!
//! A *marker* behind the tables tells for a key group how far it had fired at the barrier, and which
//! slices have something of it: so files tell by themselves what they hold, whoever reads them.

use super::{SpilledSlice, SpilledSlices, UNKNOWN};
use crate::checkpoint::codec::{decode, encode_into};
use crate::checkpoint::{Entries, Key, KeyedSection, RestoredFiles, StateValue};
use crate::fault::Flow;
use crate::hash::{key_group, key_hash};
use crate::state::cache::{Behind, GroupSet, Transform, split_group, split_number};
use std::collections::BTreeMap;

/// Keys that a load takes in before it makes room.
const LOADED_AT_ONCE: usize = 1024;
/// Bytes of a part of a slice.
const PART: usize = 64 << 10;

/// How far a key group had fired, and its slices as runs: `(first, how many)`.
type Marker = (i64, Vec<(i64, u64)>);

/// How far key groups had fired where that is more than others had.
pub(in crate::window) type GroupsFired = BTreeMap<u32, i64>;

/// A snapshot that is under way.
#[derive(Default)]
pub(super) struct Frozen {
    /// The slices before it are written back.
    flushed: i64,
    /// The first window that had not fired at the barrier, for all and for some key groups.
    unfired: i64,
    ahead: GroupsFired,
    /// Slices that went after the barrier.
    left: Vec<(i64, GroupSet)>,
}

impl Frozen {
    /// A slice goes.
    pub fn left<K, V>(&mut self, slice: &SpilledSlice<K, V>, behind: &Behind) {
        if behind.flushes() {
            self.left.push((slice.number, slice.slots.groups.clone()));
        }
    }

    fn parts(&self) -> Parts {
        Parts {
            unfired: self.unfired,
            ahead: self.ahead.clone(),
            current: None,
        }
    }
}

fn unfired_of(unfired: i64, ahead: &GroupsFired, group: u32) -> i64 {
    ahead
        .get(&group)
        .map_or(unfired, |ahead| unfired.max(*ahead))
}

/// The key of a group's marker: before all its entries.
fn marker_key(group: u32) -> [u8; 3] {
    let [high, low] = (group as u16).to_be_bytes();
    [high, low, 0]
}

impl<K: Key, V: StateValue> SpilledSlices<K, V> {
    /// A barrier is here. `unfired` is the first window that has not fired; some key groups are ahead.
    pub fn freeze(&mut self, unfired: i64, ahead: &GroupsFired) {
        self.behind.freeze();
        self.ring.iter_mut().for_each(|slice| slice.slots.freeze());
        self.frozen = Frozen {
            flushed: i64::MIN,
            unfired,
            ahead: ahead.clone(),
            left: Vec::new(),
        };
    }

    /// The checkpoint was given up.
    pub fn thaw(&mut self) {
        self.behind.thaw();
    }

    /// Goes on with a snapshot; true once it is whole.
    pub fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        loop {
            let whole = match self.behind.flushes() {
                true => self.flush(into, budget)?,
                false => {
                    let mut parts = self.frozen.parts();
                    self.behind.save(into, budget, &mut parts)?
                }
            };
            if whole {
                return Ok(true);
            }
            if budget != usize::MAX {
                return Ok(false);
            }
        }
    }

    /// Writes back what was dirty at the barrier, as much as the budget allows; true where nothing is left
    /// to do.
    fn flush(&mut self, into: &mut KeyedSection, mut budget: usize) -> Flow<bool> {
        loop {
            let place = self.place(self.frozen.flushed).unwrap_or_else(|p| p);
            let Some(slice) = self.ring.get_mut(place) else {
                break;
            };
            if !slice.slots.flush(&mut self.behind, &mut budget)? {
                self.behind.write_changes()?;
                return Ok(false);
            }
            self.frozen.flushed = slice.number.saturating_add(1);
        }
        self.mark()?;
        let frozen = &self.frozen;
        self.behind.flushed(into, || Box::new(frozen.parts()))
    }

    /// Writes the markers.
    fn mark(&mut self) -> Flow {
        let mut slices: BTreeMap<u32, Vec<(i64, u64)>> = BTreeMap::new();
        let mut all = std::mem::take(&mut self.frozen.left);
        let ring = self.ring.iter();
        all.extend(ring.map(|slice| (slice.number, slice.slots.groups.clone())));
        all.sort_by_key(|(number, _)| *number);
        for (number, groups) in &all {
            for group in groups.iter() {
                let runs = slices.entry(group).or_default();
                match runs.last_mut() {
                    Some((first, count)) if first.saturating_add_unsigned(*count) == *number => {
                        *count += 1;
                    }
                    _ => runs.push((*number, 1)),
                }
            }
        }
        for group in self.frozen.ahead.keys() {
            slices.entry(*group).or_default();
        }
        let changes = &mut self.behind.changes;
        let before = std::mem::take(&mut self.marked);
        for (group, runs) in slices {
            self.marked.insert(group);
            let Frozen { unfired, ahead, .. } = &self.frozen;
            let marker: Marker = (unfired_of(*unfired, ahead, group), runs);
            changes.put(|bytes| {
                bytes.extend(marker_key(group));
                let key_end = bytes.len();
                encode_into(&marker, bytes)?;
                Ok(key_end)
            })?;
        }
        for group in before.iter().filter(|group| !self.marked.contains(*group)) {
            changes.delete(|bytes| {
                bytes.extend(marker_key(group));
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Takes a part of a slice.
    pub fn load(&mut self, number: i64, part: &mut Entries<'_>) -> Flow<GroupSet> {
        let (mut loaded, mut groups) = (0, GroupSet::default());
        while let Some((key, value)) = part.take_next::<(K, V)>()? {
            let (hash, mut value) = (key_hash(&key), Some(value));
            groups.insert(key_group(hash, self.behind.max_parallelism));
            let (place, _) = self.enter(number);
            let make = || value.take().expect("a value is made once");
            let kept = self.entry(place, hash, key, make)?;
            if let Some(value) = value {
                *kept = value;
            }
            loaded += 1;
            if loaded % LOADED_AT_ONCE == 0 {
                self.keep_to_memory()?;
            }
        }
        Ok(groups)
    }

    /// Begins with what was saved as files; how far each key group had fired.
    pub fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow<GroupsFired> {
        self.behind.import(files)?;
        let mut fired = GroupsFired::new();
        for group in files.groups.clone() {
            let Some(marker) = self.behind.get_encoded(&marker_key(group))? else {
                continue;
            };
            let (unfired, runs): Marker = decode(marker)?;
            fired.insert(group, unfired);
            self.marked.insert(group);
            for (first, count) in runs {
                for number in first..first.saturating_add_unsigned(count) {
                    let (place, _) = self.enter(number);
                    let slots = &mut self.ring[place].slots;
                    slots.groups.insert(group);
                    slots.away = UNKNOWN;
                }
            }
        }
        Ok(fired)
    }
}

/// Entries on their way into a section, as parts of slices.
struct Parts {
    unfired: i64,
    ahead: GroupsFired,
    /// The group, the slice, and the entries so far.
    current: Option<(u32, i64, KeyedSection, usize)>,
}

impl Transform for Parts {
    fn put(&mut self, into: &mut KeyedSection, key: &[u8], value: &[u8]) -> Flow {
        let (group, rest) = split_group(key);
        let Some((number, key)) = split_number(rest) else {
            return Ok(());
        };
        let fits = |(g, n, _, bytes): &(u32, i64, KeyedSection, usize)| {
            (*g, *n) == (group, number) && *bytes < PART
        };
        if !self.current.as_ref().is_some_and(fits) {
            self.end(into)?;
        }
        let begin = || (group, number, into.fresh(), 0);
        let (_, _, part, bytes) = self.current.get_or_insert_with(begin);
        part.put_encoded(group, &[key, value]);
        *bytes += key.len() + value.len();
        Ok(())
    }

    fn end(&mut self, into: &mut KeyedSection) -> Flow {
        match self.current.take() {
            Some((group, number, part, _)) => {
                let unfired = unfired_of(self.unfired, &self.ahead, group);
                into.append_part(&(number, unfired), part)
            }
            None => Ok(()),
        }
    }
}
