//! The table of a cache: typed, each slot with what is known of its entry behind.

use super::behind::Behind;
use crate::checkpoint::codec::encode_into;
use crate::checkpoint::{Key, StateValue};
use crate::fault::Flow;
use crate::hash::{key_group, key_hash};
use hashbrown::HashTable;

/// One of so many entries of a budget is written back rather than passed.
const WRITTEN_OF: usize = 8;

/// Where the entries of a table are behind it. All begin with the key group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Alone.
    Plain,
    /// Beside others, each of which has a number: before the key stands what [`Place::prefix`] says.
    Numbered(i64),
}

/// A set of key groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupSet(Vec<u64>);

impl GroupSet {
    pub fn insert(&mut self, group: u32) {
        let word = group as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (group % 64);
    }

    pub fn contains(&self, group: u32) -> bool {
        let word = self.0.get(group as usize / 64);
        word.is_some_and(|word| word >> (group % 64) & 1 == 1)
    }

    /// Takes in those of another.
    pub fn extend(&mut self, other: &GroupSet) {
        other.iter().for_each(|group| self.insert(group));
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        let words = self.0.iter().zip(0u32..);
        words.flat_map(|(word, n)| {
            (0..64)
                .filter(move |b| word >> b & 1 == 1)
                .map(move |b| n * 64 + b)
        })
    }
}

/// What stands behind the key group of a numbered entry, and before its number.
const NUMBERED: u8 = 1;

impl Place {
    /// Appends what the entries of a key group begin with.
    pub fn prefix(self, group: u32, into: &mut Vec<u8>) {
        into.extend((group as u16).to_be_bytes());
        if let Place::Numbered(number) = self {
            into.push(NUMBERED);
            // So that the order of bytes is that of numbers.
            into.extend((number as u64 ^ 1 << 63).to_be_bytes());
        }
    }

    /// Appends the key under which an entry is stored.
    pub fn encode_key<K: Key>(self, key: &K, max_parallelism: u32, into: &mut Vec<u8>) -> Flow {
        self.prefix(key_group(key_hash(key), max_parallelism), into);
        encode_into(key, into)
    }
}

/// The key group that an encoded key begins with, and what stands behind it.
pub(crate) fn split_group(key: &[u8]) -> (u32, &[u8]) {
    let (group, key) = key.split_at(key.len().min(2));
    let group = group.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
    (group, key)
}

/// The first key that is greater than this one.
pub(crate) fn behind_key(mut key: Vec<u8>) -> Vec<u8> {
    key.push(0);
    key
}

/// The number that stands behind a key group, and the key behind that; `None` where there is none.
pub(crate) fn split_number(rest: &[u8]) -> Option<(i64, &[u8])> {
    let (number, key) = rest.strip_prefix(&[NUMBERED])?.split_first_chunk()?;
    Some(((u64::from_be_bytes(*number) ^ 1 << 63) as i64, key))
}

pub(crate) struct Slot<K, V> {
    pub key: K,
    /// `None` where the key was removed.
    pub value: Option<V>,
    /// The epoch in which it became different from what is behind; 0 where it is not.
    pub dirty: u32,
    /// It was used since the hand came by.
    pub used: bool,
    /// There may be an entry of it behind.
    pub stored: bool,
}

/// See the module.
pub(crate) struct Slots<K, V> {
    pub table: HashTable<Slot<K, V>>,
    pub place: Place,
    pub dirty: usize,
    hand: usize,
    /// The buckets before it have been written back for a snapshot.
    flushed: usize,
    /// Slots that were made since room was made last.
    pub made: usize,
    /// The key groups that may have entries behind.
    pub groups: GroupSet,
    /// How many entries are behind only; more than there can be where that is not known.
    pub away: u64,
}

impl<K: Key, V: StateValue> Slots<K, V> {
    pub fn new(place: Place) -> Self {
        Slots {
            table: HashTable::new(),
            place,
            dirty: 0,
            hand: 0,
            flushed: 0,
            made: 0,
            groups: GroupSet::default(),
            away: 0,
        }
    }

    /// The bucket of a key that has a slot.
    #[inline]
    pub fn find(&self, hash: u64, key: &K) -> Option<usize> {
        self.table.find_bucket_index(hash, |slot| slot.key == *key)
    }

    /// The bucket of a key that has a slot, or gets one of what is behind.
    #[inline(never)]
    pub fn fetch(&mut self, behind: &mut Behind, hash: u64, key: &K) -> Flow<Option<usize>> {
        let Some(value) = behind.get(self.place, key)? else {
            return Ok(None);
        };
        self.away = self.away.saturating_sub(1);
        Ok(Some(self.make(
            hash,
            Slot {
                key: key.clone(),
                value: Some(value),
                dirty: 0,
                used: true,
                stored: true,
            },
        )))
    }

    fn make(&mut self, hash: u64, slot: Slot<K, V>) -> usize {
        self.made += 1;
        if self.table.len() == self.table.capacity() {
            // Slots move; those that are done are clean or of this epoch.
            self.flushed = 0;
        }
        let entry = self
            .table
            .insert_unique(hash, slot, |slot| key_hash(&slot.key));
        entry.bucket_index()
    }

    /// A slot of a key that has none; `stored` says whether there may be an entry of it behind.
    pub fn make_new(&mut self, epoch: u32, hash: u64, key: K, value: V, stored: bool) -> usize {
        self.dirty += 1;
        let slot = Slot {
            key,
            value: Some(value),
            dirty: epoch,
            used: true,
            stored,
        };
        self.make(hash, slot)
    }

    /// A slot is about to change. It is written first if the walk of a snapshot is to come to it.
    #[inline]
    pub fn changing(&mut self, behind: &mut Behind, bucket: usize) -> Flow<&mut Slot<K, V>> {
        let slot = self.table.get_bucket_mut(bucket);
        let slot = slot.expect("a bucket that was found is full");
        slot.used = true;
        if slot.dirty != behind.epoch {
            if slot.dirty == 0 {
                self.dirty += 1;
            } else if behind.flushes() {
                write_back(slot, self.place, behind, &mut self.groups)?;
            }
            slot.dirty = behind.epoch;
        }
        Ok(slot)
    }

    pub fn has_value(&self, bucket: usize) -> bool {
        let slot = self.table.get_bucket(bucket);
        slot.is_some_and(|slot| slot.value.is_some())
    }

    /// Drops a slot.
    pub fn forget(&mut self, bucket: usize) {
        if let Ok(entry) = self.table.get_bucket_entry(bucket) {
            let (slot, _) = entry.remove();
            self.dirty -= usize::from(slot.dirty != 0);
        }
    }

    /// A barrier is here.
    pub fn freeze(&mut self) {
        self.flushed = 0;
    }

    /// Adds to the changes what was dirty at the barrier; true once all is. What it costs is taken from
    /// the budget.
    pub fn flush(&mut self, behind: &mut Behind, budget: &mut usize) -> Flow<bool> {
        let end = self.table.num_buckets();
        let mut bucket = self.flushed.min(end);
        let until = bucket.saturating_add(budget.saturating_mul(4)).min(end);
        // What is written costs far more than what is passed.
        let mut left = (*budget / WRITTEN_OF).max(1);
        let (begun, may) = (bucket, left);
        while bucket < until && left > 0 {
            if let Some(slot) = self.table.get_bucket_mut(bucket)
                && slot.dirty != 0
                && slot.dirty != behind.epoch
            {
                write_back(slot, self.place, behind, &mut self.groups)?;
                slot.dirty = 0;
                self.dirty -= 1;
                left -= 1;
            }
            bucket += 1;
        }
        self.flushed = bucket;
        let spent = (bucket - begun) / 4 + (may - left).saturating_mul(WRITTEN_OF);
        *budget = budget.saturating_sub(spent);
        Ok(bucket == end)
    }

    /// Adds to the changes what was dirty at the barrier, all that is left of it.
    pub fn rescue(&mut self, behind: &mut Behind) -> Flow {
        match behind.flushes() {
            true => self.flush(behind, &mut usize::MAX.clone()).map(drop),
            false => Ok(()),
        }
    }

    /// Adds to the changes all that is dirty.
    pub fn write_all(&mut self, behind: &mut Behind) -> Flow {
        for slot in self.table.iter_mut().filter(|slot| slot.dirty != 0) {
            write_back(slot, self.place, behind, &mut self.groups)?;
            slot.dirty = 0;
        }
        self.dirty = 0;
        Ok(())
    }

    /// Drops up to `evict` slots that were not used for a whole round, and adds to the changes those of
    /// them that are dirty. What is used all the time is never written before a checkpoint needs it.
    /// True once the hand has come round.
    pub fn turn_hand(
        &mut self,
        behind: &mut Behind,
        steps: &mut usize,
        evict: &mut u64,
    ) -> Flow<bool> {
        let holds_back = behind.holds_back();
        while *steps > 0 && *evict > 0 {
            if self.hand >= self.table.num_buckets() {
                self.hand = 0;
                return Ok(true);
            }
            *steps -= 1;
            let bucket = self.hand;
            self.hand += 1;
            let Some(slot) = self.table.get_bucket_mut(bucket) else {
                continue;
            };
            if std::mem::take(&mut slot.used) || (slot.dirty != 0 && holds_back) {
                continue;
            }
            if slot.dirty != 0 {
                let before = behind.changes.bytes();
                write_back(slot, self.place, behind, &mut self.groups)?;
                slot.dirty = 0;
                self.dirty -= 1;
                behind.spilled = true;
                behind.seen(behind.changes.bytes() - before);
            }
            self.away = self.away.saturating_add(u64::from(slot.value.is_some()));
            self.forget(bucket);
            *evict -= 1;
        }
        Ok(false)
    }

    /// Gives back memory where few slots are left of many.
    pub fn shrink(&mut self) {
        if self.table.len() * 4 < self.table.num_buckets() {
            // Slots move.
            (self.flushed, self.hand) = (0, 0);
            self.table
                .shrink_to(self.table.len() * 2, |slot| key_hash(&slot.key));
        }
    }

    /// What a slot takes, with its part of those that are empty.
    pub fn slot_bytes(behind: &Behind) -> u64 {
        // A map is between seven sixteenths and seven eighths full.
        (size_of::<Slot<K, V>>() + 1) as u64 * 3 / 2 + behind.elsewhere::<K, V>()
    }
}

/// Adds what a slot holds to the changes. It counts as stored even if it is deleted, since the changes
/// may not be made yet when somebody looks behind the table.
fn write_back<K: Key, V: StateValue>(
    slot: &mut Slot<K, V>,
    place: Place,
    behind: &mut Behind,
    groups: &mut GroupSet,
) -> Flow {
    behind.write_back(place, &slot.key, slot.value.as_ref())?;
    if place != Place::Plain {
        groups.insert(key_group(key_hash(&slot.key), behind.max_parallelism));
    }
    slot.stored = true;
    Ok(())
}
