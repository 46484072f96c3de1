//! A window of slices that spill, on its way out: piece by piece, so that it takes no memory of its own.

use super::{SpilledSlice, SpilledSlices, range_of};
use crate::checkpoint::codec::decode;
use crate::checkpoint::{Key, StateValue};
use crate::fault::Flow;
use crate::hash::{key_group, key_hash};
use crate::state::KeyTable;
use crate::state::cache::{Behind, GroupSet, Slots, behind_key, split_group, split_number};
use std::ops::Range;

/// Keys of one piece, about; where slices are merged, a key group is one piece.
const PIECE: usize = if cfg!(test) { 8 } else { 1024 };

/// What is left of a window that fires.
pub(in crate::window) enum Firing<K, V> {
    /// Of its only slice, which no other window needs.
    Sole(Sole<K, V>),
    /// Of several, or of one that others need.
    Merged(Merged),
}

/// See [`Firing`].
pub(in crate::window) struct Sole<K, V> {
    slice: SpilledSlice<K, V>,
    /// The key groups to be read from behind, and from which key on in the last of them.
    groups: Vec<u32>,
    from: Vec<u8>,
    /// The first bucket that is still full, once those are read.
    bucket: usize,
}

/// See [`Firing`].
pub(in crate::window) struct Merged {
    slices: Range<i64>,
    /// The slots of the slices by key group, the greatest first: `(group, place of the slice, bucket)`.
    slots: Vec<(u32, usize, usize)>,
    /// The key groups that are still to come, the first last.
    groups: Vec<u32>,
}

impl<K: Key, V: StateValue + Clone> SpilledSlices<K, V> {
    /// Begins to fire the window of these slices; those before `needed` are of no use behind it.
    pub fn fire(&mut self, slices: Range<i64>, needed: i64) -> Flow<Firing<K, V>> {
        let first = self.place(slices.start).unwrap_or_else(|place| place);
        let count = self.ring.range(first..);
        let count = count.take_while(|s| s.number < slices.end).count();
        if first == 0 && count == 1 && self.ring[0].number < needed {
            let slice = self.take_oldest()?.expect("there is one");
            let mut groups = Vec::new();
            if slice.slots.away > 0 {
                groups.extend(slice.slots.groups.iter());
            }
            return Ok(Firing::Sole(Sole {
                slice,
                groups,
                from: Vec::new(),
                bucket: 0,
            }));
        }
        let (mut slots, mut groups) = (Vec::new(), GroupSet::default());
        for (place, slice) in self.ring.range(first..first + count).enumerate() {
            groups.extend(&slice.slots.groups);
            for bucket in 0..slice.slots.table.num_buckets() {
                if let Some(slot) = slice.slots.table.get_bucket(bucket) {
                    let group = key_group(key_hash(&slot.key), self.behind.max_parallelism);
                    groups.insert(group);
                    slots.push((group, place, bucket));
                }
            }
        }
        slots.sort_unstable_by(|a, b| b.cmp(a));
        let mut groups: Vec<u32> = groups.iter().collect();
        groups.reverse();
        self.pinned = true;
        Ok(Firing::Merged(Merged {
            slices,
            slots,
            groups,
        }))
    }

    /// The next keys of a window that fires, with what they have; true once there are no more.
    pub fn next_piece(
        &mut self,
        firing: &mut Firing<K, V>,
        merge: impl Fn(&mut V, &V),
        into: &mut Vec<(K, V)>,
    ) -> Flow<bool> {
        let done = match firing {
            Firing::Sole(sole) => sole.next_piece(&mut self.behind, into)?,
            Firing::Merged(merged) => {
                while into.len() < PIECE
                    && let Some(group) = merged.groups.pop()
                {
                    let mut total = KeyTable::default();
                    self.merge_group(merged, group, &merge, &mut total)?;
                    into.extend(total.drain());
                }
                merged.groups.is_empty()
            }
        };
        if done {
            self.pinned = false;
            if let Firing::Sole(sole) = firing {
                self.delete(&sole.slice);
            }
        }
        Ok(done)
    }

    /// Merges what the slices of a window have of a key group, the oldest first.
    fn merge_group(
        &mut self,
        merged: &mut Merged,
        group: u32,
        merge: &impl Fn(&mut V, &V),
        total: &mut KeyTable<K, V>,
    ) -> Flow {
        let first = self.place(merged.slices.start);
        let first = first.unwrap_or_else(|place| place);
        let end = self.place(merged.slices.end).unwrap_or_else(|place| place);
        for place in first..end {
            let slots = &self.ring[place].slots;
            if slots.away > 0 && slots.groups.contains(group) {
                let (mut from, until) = range_of(self.ring[place].number, group);
                let mut add = |key: K, value: V| {
                    let hash = key_hash(&key);
                    total.upsert(hash, &key, |into| merge(into, &value), || value.clone());
                };
                while !read(&mut self.behind, slots, &mut from, &until, &mut add)? {}
            }
            while let Some((_, _, bucket)) = merged
                .slots
                .pop_if(|(g, p, _)| (*g, *p) == (group, place - first))
            {
                // One that has gone meanwhile was read from behind.
                let slot = slots.table.get_bucket(bucket);
                if let Some((key, value)) = slot.and_then(|s| Some((&s.key, s.value.as_ref()?))) {
                    let hash = key_hash(key);
                    total.upsert(hash, key, |into| merge(into, value), || value.clone());
                }
            }
        }
        Ok(())
    }
}

impl<K: Key, V: StateValue> Sole<K, V> {
    fn next_piece(&mut self, behind: &mut Behind, into: &mut Vec<(K, V)>) -> Flow<bool> {
        while let (true, Some(group)) = (into.len() < PIECE, self.groups.last()) {
            let (first, until) = range_of(self.slice.number, *group);
            if self.from.is_empty() {
                self.from = first;
            }
            let mut add = |key, value| into.push((key, value));
            let slots = &self.slice.slots;
            if read(behind, slots, &mut self.from, &until, &mut add)? {
                self.groups.pop();
                self.from.clear();
            }
        }
        let table = &mut self.slice.slots.table;
        while self.groups.is_empty() && self.bucket < table.num_buckets() {
            if into.len() >= PIECE {
                return Ok(false);
            }
            if let Ok(entry) = table.get_bucket_entry(self.bucket) {
                let (slot, _) = entry.remove();
                into.extend(slot.value.map(|value| (slot.key, value)));
            }
            self.bucket += 1;
        }
        Ok(self.groups.is_empty())
    }
}

/// Shows some entries behind a slice that have no slot, from a key on, which is moved behind the last
/// that was looked at; true at the end of the range.
fn read<K: Key, V: StateValue>(
    behind: &mut Behind,
    slots: &Slots<K, V>,
    from: &mut Vec<u8>,
    until: &[u8],
    add: &mut impl FnMut(K, V),
) -> Flow<bool> {
    let mut last = Vec::new();
    let ended = behind.walk(from, until, PIECE, &mut |bytes, value| {
        last.clear();
        last.extend_from_slice(bytes);
        let Some((_, key)) = split_number(split_group(bytes).1) else {
            return Ok(());
        };
        let key: K = decode(key)?;
        if slots.find(key_hash(&key), &key).is_none() {
            add(key, decode(value)?);
        }
        Ok(())
    })?;
    if !last.is_empty() {
        *from = behind_key(last);
    }
    Ok(ended)
}
