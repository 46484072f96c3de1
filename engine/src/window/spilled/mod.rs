//! Slices that are larger than memory: a table for each, and behind all of them one store in the order of
//! key group, slice, key.
//!
//! A slice that is due is read by the range of each of its key groups and deleted by it; nothing else is
//! looked at. What is in its table is the truth for those keys. A slice that was never written back is
//! never looked for behind its table.

mod firing;
mod snapshot;

pub(super) use self::firing::Firing;
use self::snapshot::Frozen;
pub(super) use self::snapshot::GroupsFired;
use crate::checkpoint::{Key, StateValue};
use crate::fault::Flow;
use crate::hash::key_group;
use crate::state::backing::{Backing, Claim};
use crate::state::cache::{Behind, GroupSet, Place, Room, STEP, Slots};
use std::collections::VecDeque;
use std::ops::Range;

/// What a slice counts as away of which that is not known.
const UNKNOWN: u64 = 1 << 62;

/// See the module.
pub(super) struct SpilledSlices<K, V> {
    behind: Behind,
    /// The slices that hold something, the oldest first.
    ring: VecDeque<SpilledSlice<K, V>>,
    /// The slice that the search for what can go has come to.
    hand: i64,
    /// Slots must stay where they are: a window that fires knows them by their places.
    pinned: bool,
    frozen: Frozen,
    /// The key groups that have a marker behind, see [`snapshot`].
    marked: GroupSet,
}

/// One slice.
struct SpilledSlice<K, V> {
    number: i64,
    slots: Slots<K, V>,
}

impl<K: Key, V: StateValue> SpilledSlices<K, V> {
    /// None yet.
    pub fn new(backing: Box<dyn Backing>, claim: Claim, max_parallelism: u32) -> Self {
        SpilledSlices {
            behind: Behind::new(backing, claim, max_parallelism),
            ring: VecDeque::new(),
            hand: i64::MIN,
            pinned: false,
            frozen: Frozen::default(),
            marked: GroupSet::default(),
        }
    }

    fn place(&self, number: i64) -> Result<usize, usize> {
        match self.ring.back() {
            None => Err(0),
            Some(last) if last.number < number => Err(self.ring.len()),
            Some(_) => self
                .ring
                .binary_search_by_key(&number, |slice| slice.number),
        }
    }

    /// The number of the first slice from `from` on that holds something.
    pub fn first_from(&self, from: i64) -> Option<i64> {
        let place = self.place(from).unwrap_or_else(|place| place);
        self.ring.get(place).map(|slice| slice.number)
    }

    /// The place of a slice, and whether it was made just now.
    pub fn enter(&mut self, number: i64) -> (usize, bool) {
        match self.place(number) {
            Ok(place) => (place, false),
            Err(place) => {
                let slots = Slots::new(Place::Numbered(number));
                self.ring.insert(place, SpilledSlice { number, slots });
                (place, true)
            }
        }
    }

    /// What a key has in the slice at a place, made first where there is nothing.
    pub fn entry(
        &mut self,
        place: usize,
        hash: u64,
        key: K,
        make: impl FnOnce() -> V,
    ) -> Flow<&mut V> {
        let (slots, behind) = (&mut self.ring[place].slots, &mut self.behind);
        let mut found = slots.find(hash, &key);
        if found.is_none() && may_be_away(slots, hash, behind) {
            found = slots.fetch(behind, hash, &key)?;
        }
        let bucket = match found {
            Some(bucket) => bucket,
            None => slots.make_new(behind.epoch, hash, key, make(), false),
        };
        let slot = slots.changing(behind, bucket)?;
        Ok(slot.value.as_mut().expect("no slot of a slice is empty"))
    }

    /// Shows what a key has in the slices of a range, the oldest first.
    pub fn each_of_key(
        &mut self,
        range: Range<i64>,
        hash: u64,
        key: &K,
        mut visit: impl FnMut(&V),
    ) -> Flow {
        let from = self.place(range.start).unwrap_or_else(|place| place);
        let slices = self.ring.range(from..);
        for SpilledSlice { slots, .. } in slices.take_while(|slice| slice.number < range.end) {
            let slot = slots.table.find(hash, |slot| slot.key == *key);
            if let Some(value) = slot.and_then(|slot| slot.value.as_ref()) {
                visit(value);
            } else if may_be_away(slots, hash, &self.behind)
                && let Some(value) = self.behind.get(slots.place, key)?
            {
                visit(&value);
            }
        }
        Ok(())
    }

    /// Takes out the oldest slice; what a snapshot still needs of it is written first.
    fn take_oldest(&mut self) -> Flow<Option<SpilledSlice<K, V>>> {
        let Some(mut slice) = self.ring.pop_front() else {
            return Ok(None);
        };
        slice.slots.rescue(&mut self.behind)?;
        self.frozen.left(&slice, &self.behind);
        Ok(Some(slice))
    }

    /// Drops the slices before `until`.
    pub fn drop_before(&mut self, until: i64) -> Flow {
        while self.ring.front().is_some_and(|slice| slice.number < until) {
            if let Some(slice) = self.take_oldest()? {
                self.delete(&slice);
            }
        }
        Ok(())
    }

    /// Deletes what is behind a slice that was taken out.
    fn delete(&mut self, slice: &SpilledSlice<K, V>) {
        let changes = self.behind.newest();
        for group in slice.slots.groups.iter() {
            let (from, until) = range_of(slice.number, group);
            changes.delete_range(&from, &until);
        }
    }

    /// What all slots use.
    fn bytes(&self) -> u64 {
        let slots: usize = self.ring.iter().map(|slice| slice.slots.table.len()).sum();
        slots as u64 * Slots::<K, V>::slot_bytes(&self.behind)
    }

    /// Called between turns: keeps to the memory there is.
    pub fn keep_to_memory(&mut self) -> Flow {
        self.behind.claim.set(self.bytes());
        let slices = self.ring.iter_mut().map(|slice| &mut slice.slots.made);
        let made: usize = slices.map(std::mem::take).sum();
        let over = match self.behind.room()? {
            Room::Over(over) if !self.ring.is_empty() => over,
            _ => return self.behind.write_gathered(),
        };
        let mut steps = STEP.max(made * 8);
        let mut evict = over.div_ceil(Slots::<K, V>::slot_bytes(&self.behind));
        // Each slice once, and that in which it began to its end.
        for _ in 0..=self.ring.len() {
            let place = self.place(self.hand).unwrap_or_else(|place| place);
            let place = if place < self.ring.len() { place } else { 0 };
            let slice = &mut self.ring[place];
            let behind = &mut self.behind;
            self.hand = slice.number;
            if !slice.slots.turn_hand(behind, &mut steps, &mut evict)? {
                break;
            }
            if !self.pinned {
                slice.slots.shrink();
            }
            self.hand = slice.number.saturating_add(1);
        }
        if !self.behind.holds_back() {
            self.behind.write_changes()?;
        }
        self.behind.claim.set(self.bytes());
        Ok(())
    }
}

/// Whether a key that has no slot may have an entry behind.
fn may_be_away<K: Key, V: StateValue>(slots: &Slots<K, V>, hash: u64, behind: &Behind) -> bool {
    slots.away > 0
        && slots
            .groups
            .contains(key_group(hash, behind.max_parallelism))
}

/// The first key that a slice may have in a key group, and the first that is not one of its.
fn range_of(number: i64, group: u32) -> (Vec<u8>, Vec<u8>) {
    let prefix = |number| {
        let mut bytes = Vec::new();
        Place::Numbered(number).prefix(group, &mut bytes);
        bytes
    };
    // The last number is that of no slice.
    (prefix(number), prefix(number.saturating_add(1)))
}

#[cfg(test)]
mod tests;
