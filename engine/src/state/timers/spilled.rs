//! Timers that may be more than memory holds: the next ones in memory, the others behind, in the order of
//! key group, time, key.
//!
//! The *horizon* divides them: whatever is due before it is in memory. When all of that is gone, some more
//! are read of each key group, and the horizon moves to where one of them had more to give. When memory
//! is short the last ones go, and the horizon moves back.
//!
//! Timers of the same time come out in the order of key groups and keys.

use crate::checkpoint::codec::{decode, encode, encode_into};
use crate::checkpoint::{KeyedSection, RestoredFiles};
use crate::fault::Flow;
use crate::state::backing::{Backing, Claim};
use crate::state::cache::{
    Behind, GroupSet, Place, Room, Transform, behind_key, split_group, split_number,
};
use crate::time::Timestamp;
use std::collections::HashSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::ops::Bound;

/// Timers that are read, and kept, when memory is short, where the memory is not smaller than that.
const MOST_AT_ONCE: u64 = 4096;
/// Timers that go in one turn at most.
const EVICTED_AT_ONCE: usize = 4096;
/// What a timer takes besides its key.
const TIMER_BYTES: usize = 96;
/// One of so many timers of a budget is written back rather than passed.
const WRITTEN_OF: usize = 8;

/// When, and the key behind its group.
type Due = (i64, Box<[u8]>);

/// A timer in memory.
#[derive(Clone, Copy)]
struct Near {
    registration: u64,
    /// The barriers before it was set; 0 where it is behind as it is here.
    dirty: u32,
    /// There may be an entry of it behind.
    stored: bool,
}

/// See the module. Keys are known by their key group and their encoding.
pub(super) struct SpilledTimers {
    behind: Behind,
    near: BTreeMap<Due, Near>,
    /// Bytes of the keys in memory.
    near_bytes: usize,
    /// All timers before this time, and those at it of smaller key groups, are in memory.
    horizon: (i64, u32),
    /// There may be others, about so many, of these key groups.
    far: bool,
    far_count: u64,
    groups: GroupSet,
    /// Timers from the horizon on that are still behind and were unset.
    gone: HashSet<Vec<u8>>,
    /// The last one that a snapshot has written back.
    flushed: Option<Due>,
    registered: u64,
}

/// Where a timer is behind.
fn place(at: i64, key: &[u8]) -> Vec<u8> {
    let (group, key) = split_group(key);
    let mut bytes = Vec::with_capacity(11 + key.len());
    Place::Numbered(at).prefix(group, &mut bytes);
    bytes.extend_from_slice(key);
    bytes
}

/// The timer that is behind at a place.
fn due_of(bytes: &[u8]) -> Option<Due> {
    let (_, rest) = split_group(bytes);
    let (at, key) = split_number(rest)?;
    Some((at, [&bytes[..2], key].concat().into()))
}

/// The first place that a timer of a key group may have from this time on.
fn from_time(at: i64, group: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    Place::Numbered(at).prefix(group, &mut bytes);
    bytes
}

/// The first place behind those of a key group up to this time.
fn behind_time(at: i64, group: u32) -> Vec<u8> {
    match at.checked_add(1) {
        Some(next) => from_time(next, group),
        None => [&(group as u16).to_be_bytes()[..], &[0xff]].concat(),
    }
}

impl SpilledTimers {
    pub fn new(backing: Box<dyn Backing>, claim: Claim, max_parallelism: u32) -> Self {
        SpilledTimers {
            behind: Behind::new(backing, claim, max_parallelism),
            near: BTreeMap::new(),
            near_bytes: 0,
            horizon: (i64::MAX, u32::MAX),
            far: false,
            far_count: 0,
            groups: GroupSet::default(),
            gone: HashSet::new(),
            flushed: None,
            registered: 0,
        }
    }

    /// How many key groups there are.
    pub fn max_parallelism(&self) -> u32 {
        self.behind.max_parallelism
    }

    fn is_beyond(&self, at: i64, key: &[u8]) -> bool {
        self.far && (at, split_group(key).0) >= self.horizon
    }

    /// Whether a timer is set that is not in memory.
    fn is_far(&mut self, at: i64, key: &[u8]) -> Flow<bool> {
        if !self.is_beyond(at, key) {
            return Ok(false);
        }
        let place = place(at, key);
        Ok(!self.gone.contains(&place) && self.behind.get_encoded(&place)?.is_some())
    }

    /// Sets a timer; false if it was set already. `registration` is the next number where none is given.
    pub fn insert(&mut self, at: i64, key: &[u8], registration: Option<u64>) -> Flow<bool> {
        let due = (at, key.into());
        if self.near.contains_key(&due) || self.is_far(at, key)? {
            return Ok(false);
        }
        let registration = registration.unwrap_or(self.registered);
        self.registered = self.registered.max(registration + 1);
        self.near_bytes += key.len();
        let near = Near {
            registration,
            dirty: self.behind.epoch,
            stored: false,
        };
        self.near.insert(due, near);
        Ok(true)
    }

    /// Unsets a timer; false if it was not set.
    pub fn delete(&mut self, at: i64, key: &[u8]) -> Flow<bool> {
        let due = (at, key.into());
        if let Some(near) = self.near.remove(&due) {
            self.leave(&due, near)?;
            return Ok(true);
        }
        if !self.is_far(at, key)? {
            return Ok(false);
        }
        self.far_count = self.far_count.saturating_sub(1);
        self.unset(at, key)?;
        Ok(true)
    }

    /// A timer has left memory for good.
    fn leave(&mut self, (at, key): &Due, mut near: Near) -> Flow {
        self.near_bytes -= key.len();
        if near.dirty != 0 && near.dirty != self.behind.epoch && self.behind.flushes() {
            write(&mut self.behind, *at, key, &mut near)?;
        }
        match near.stored {
            true => self.unset(*at, key),
            false => Ok(()),
        }
    }

    /// Deletes what is behind.
    fn unset(&mut self, at: i64, key: &[u8]) -> Flow {
        let place = place(at, key);
        self.behind.newest().delete(|bytes| {
            bytes.extend_from_slice(&place);
            Ok(())
        })?;
        if self.is_beyond(at, key) {
            self.gone.insert(place);
        }
        Ok(())
    }

    /// When the earliest timer is due, at the earliest.
    pub fn next(&self) -> Option<Timestamp> {
        let near = self.near.first_key_value().map(|((at, _), _)| *at);
        let far = self.far.then_some(self.horizon.0);
        near.into_iter().chain(far).min().map(Timestamp)
    }

    /// How many timers are set, about.
    pub fn len(&self) -> usize {
        self.near.len() + self.far_count as usize
    }

    /// Takes out the earliest timer that is due at `now`, with its key behind its group.
    pub fn pop_due(&mut self, now: i64) -> Flow<Option<Due>> {
        loop {
            let first = self.near.first_key_value();
            let first = first.map(|((at, key), _)| (*at, split_group(key).0));
            if self.far && self.horizon.0 <= now && first.is_none_or(|due| due >= self.horizon) {
                self.fetch()?;
                continue;
            }
            if first.is_none_or(|(at, _)| at > now) {
                return Ok(None);
            }
            let Some((due, near)) = self.near.pop_first() else {
                return Ok(None);
            };
            self.leave(&due, near)?;
            return Ok(Some(due));
        }
    }

    /// Timers that are read, and kept, when memory is short.
    fn at_once(&self) -> usize {
        let limit = self.behind.claim.memory().limit();
        (limit / 4 / TIMER_BYTES as u64).clamp(4, MOST_AT_ONCE) as usize
    }

    /// Moves the horizon on, and reads what is before it then.
    fn fetch(&mut self) -> Flow {
        let (at, first) = self.horizon;
        let groups: Vec<u32> = self.groups.iter().collect();
        let budget = (self.at_once() / groups.len().max(1)).max(2);
        let mut found: Vec<(Due, u64)> = Vec::new();
        // The groups that have more to give, with the time of the last that they gave.
        let mut more: Vec<(i64, u32)> = Vec::new();
        for group in groups {
            let from = match group >= first {
                true => from_time(at, group),
                false => behind_time(at, group),
            };
            let until = behind_time(i64::MAX, group);
            if !self.read(&from, &until, budget, &mut found)? {
                more.extend(found.last().map(|((at, _), _)| (*at, group)));
            }
        }
        let Some((limit, group)) = more.into_iter().min() else {
            (self.far, self.far_count) = (false, 0);
            self.groups = GroupSet::default();
            self.take(found);
            self.horizon = (i64::MAX, u32::MAX);
            return Ok(());
        };
        if limit > at {
            self.horizon = (limit, 0);
        } else {
            // More of one time than are read at once: a group at a time.
            found.retain(|((_, key), _)| split_group(key).0 != group);
            let (mut from, until) = (from_time(at, group), behind_time(at, group));
            loop {
                let ended = self.read(&from, &until, budget.max(1024), &mut found)?;
                if ended {
                    break;
                }
                if let Some(((at, key), _)) = found.last() {
                    from = behind_key(place(*at, key));
                }
            }
            self.horizon = (at, group + 1);
        }
        let horizon = self.horizon;
        found.retain(|((at, key), _)| (*at, split_group(key).0) < horizon);
        self.take(found);
        Ok(())
    }

    /// Reads timers that are behind; true at the end of the range.
    fn read(
        &mut self,
        from: &[u8],
        until: &[u8],
        budget: usize,
        found: &mut Vec<(Due, u64)>,
    ) -> Flow<bool> {
        self.behind.walk(from, until, budget, &mut |bytes, value| {
            if let Some(due) = due_of(bytes) {
                found.push((due, decode(value)?));
            }
            Ok(())
        })
    }

    /// Takes timers that were read into memory, but for those that were unset.
    fn take(&mut self, found: Vec<(Due, u64)>) {
        for ((at, key), registration) in found {
            if !self.gone.is_empty() && self.gone.remove(&place(at, &key)) {
                continue;
            }
            let bytes = key.len();
            let near = Near {
                registration,
                dirty: 0,
                stored: true,
            };
            if let Entry::Vacant(vacant) = self.near.entry((at, key)) {
                vacant.insert(near);
                self.near_bytes += bytes;
                self.far_count = self.far_count.saturating_sub(1);
            }
        }
    }

    /// Called between turns: keeps to the memory there is.
    pub fn keep_to_memory(&mut self) -> Flow {
        self.claim();
        let over = match self.behind.room()? {
            Room::Over(over) if !self.behind.holds_back() => over,
            _ => {
                self.behind.write_gathered()?;
                if !self.behind.has_changes() {
                    self.gone.clear();
                }
                return Ok(());
            }
        };
        // What was unset has to be gone before the horizon moves back.
        self.behind.write_changes()?;
        self.gone.clear();
        let each = (self.near_bytes / self.near.len().max(1) + TIMER_BYTES) as u64;
        let evict = over.div_ceil(each).min(EVICTED_AT_ONCE as u64) as usize;
        let evict = evict.min(self.near.len().saturating_sub(self.at_once()));
        for _ in 0..evict {
            let Some(((at, key), mut near)) = self.near.pop_last() else {
                break;
            };
            if near.dirty != 0 {
                write(&mut self.behind, at, &key, &mut near)?;
            }
            let group = split_group(&key).0;
            self.near_bytes -= key.len();
            self.groups.insert(group);
            self.horizon = self.horizon.min((at, group));
            (self.far, self.far_count) = (true, self.far_count + 1);
        }
        self.behind.write_changes()?;
        self.claim();
        Ok(())
    }

    /// What those in memory use.
    pub fn near_bytes(&self) -> u64 {
        (self.near.len() * TIMER_BYTES + self.near_bytes) as u64
    }

    fn claim(&mut self) {
        let bytes = self.near_bytes();
        self.behind.claim.set(bytes);
    }

    /// A barrier is here.
    pub fn freeze(&mut self) {
        self.behind.freeze();
        self.flushed = None;
    }

    /// The checkpoint was given up.
    pub fn thaw(&mut self) {
        self.behind.thaw();
    }

    /// Goes on with a snapshot; true once it is whole.
    pub fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        loop {
            let whole = match self.behind.flushes() {
                true => self.flush(budget)? && self.behind.flushed(into, || Box::new(AsSaved))?,
                false => self.behind.save(into, budget, &mut AsSaved)?,
            };
            if whole {
                return Ok(true);
            }
            if budget != usize::MAX {
                return Ok(false);
            }
        }
    }

    /// Writes back what was set before the barrier; true once all is.
    fn flush(&mut self, budget: usize) -> Flow<bool> {
        let mut left = (budget / WRITTEN_OF).max(1);
        let mut passed = budget.saturating_mul(4);
        let from = match self.flushed.take() {
            Some(last) => Bound::Excluded(last),
            None => Bound::Unbounded,
        };
        let mut rest = self.near.range_mut((from, Bound::Unbounded)).peekable();
        while let Some(((at, key), near)) = rest.next() {
            if near.dirty != 0 && near.dirty != self.behind.epoch {
                write(&mut self.behind, *at, key, near)?;
                near.dirty = 0;
                left -= 1;
            }
            passed = passed.saturating_sub(1);
            if (left == 0 || passed == 0) && rest.peek().is_some() {
                self.flushed = Some((*at, key.clone()));
                break;
            }
        }
        self.behind.write_changes()?;
        Ok(self.flushed.is_none())
    }

    /// Begins with what was saved as files.
    pub fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        self.behind.import(files)?;
        self.far = true;
        self.far_count = files.images.iter().map(|image| image.index.entries).sum();
        self.registered = self.far_count;
        self.horizon = (i64::MIN, 0);
        files.groups.clone().for_each(|g| self.groups.insert(g));
        Ok(())
    }
}

/// Timers as those in memory save themselves: time, registration, key.
struct AsSaved;

impl Transform for AsSaved {
    fn put(&mut self, into: &mut KeyedSection, key: &[u8], number: &[u8]) -> Flow {
        let (group, rest) = split_group(key);
        if let Some((at, key)) = split_number(rest) {
            into.put_encoded(group, &[&encode(&Timestamp(at))?, number, key]);
        }
        Ok(())
    }
}

/// Adds a timer to the changes.
fn write(behind: &mut Behind, at: i64, key: &[u8], near: &mut Near) -> Flow {
    near.stored = true;
    behind.changes.put(|bytes| {
        bytes.extend(place(at, key));
        let key_end = bytes.len();
        encode_into(&near.registration, bytes)?;
        Ok(key_end)
    })
}
