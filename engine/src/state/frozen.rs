//! A table as it was at a barrier, while records go on changing it.
//!
//! A cursor walks over the buckets and saves what they hold. A change of a bucket that the cursor has
//! not come to saves the bucket's entry first and marks the bucket as done: so an entry is copied only
//! where a record and the cursor race for it, and what is saved is what was there at the barrier.

use super::table::Table;
use crate::checkpoint::{EncodedEntries, KeyedSection};
use crate::fault::{Fault, Flow};
use crate::hash::key_hash;
use std::hash::Hash;
use std::ops::Range;

/// How an entry becomes bytes. The table itself knows nothing of encoding.
pub(super) type Encode<K, V> = fn(&K, &V, &mut Vec<u8>) -> Flow;

/// The effort that a save step spends on an entry of an ordinary size, about a hundred bytes. To pass a bucket by is one
/// of them.
const ENTRY: usize = 16;
/// The effort of the smallest entries.
const SMALLEST: usize = 4;
/// So many bytes, in memory or encoded, are one more: large values must not make a step long.
const BYTES: usize = 8;

/// What is still to be saved of a table.
pub(super) struct Frozen<K, V> {
    encode: Encode<K, V>,
    /// What each entry's bytes begin with.
    prefix: Vec<u8>,
    /// The buckets before it are done.
    cursor: usize,
    /// Of those behind it, the ones that are done.
    done: Marks,
    /// What was saved before the cursor came to it, and has not been handed on.
    early: EncodedEntries,
    fault: Option<Fault>,
}

impl<K, V> Frozen<K, V> {
    pub fn new(entries: &Table<K, V>, encode: Encode<K, V>, prefix: Vec<u8>) -> Self {
        Frozen {
            encode,
            prefix,
            cursor: 0,
            done: Marks::new(entries.num_buckets()),
            early: EncodedEntries::default(),
            fault: None,
        }
    }

    /// Without a branch for what the cursor has passed: where keys are many, that would be guessed wrong every other
    /// time.
    #[inline]
    fn is_done(&self, bucket: usize) -> bool {
        (bucket < self.cursor) | self.done.contains(bucket)
    }

    /// A bucket was empty and holds something now.
    pub fn filled(&mut self, bucket: usize) {
        if bucket >= self.cursor {
            self.done.insert(bucket);
        }
    }
}

impl<K: Hash, V> Frozen<K, V> {
    /// A bucket is about to change.
    pub fn keep(&mut self, bucket: usize, entries: &Table<K, V>) {
        if self.is_done(bucket) {
            return;
        }
        self.done.insert(bucket);
        if let Some(entry) = entries.get_bucket(bucket) {
            self.encode_early(entry);
        }
    }

    fn encode_early(&mut self, (key, value): &(K, V)) {
        let (encode, prefix) = (self.encode, &self.prefix);
        let put = self.early.put(key_hash(key), |bytes| {
            bytes.extend_from_slice(prefix);
            encode(key, value, bytes)
        });
        if let Err(fault) = put {
            self.fault.get_or_insert(fault);
        }
    }

    /// All buckets are about to change.
    pub fn keep_all(&mut self, entries: &Table<K, V>) {
        for bucket in self.cursor..entries.num_buckets() {
            if !self.done.contains(bucket)
                && let Some(entry) = entries.get_bucket(bucket)
            {
                self.encode_early(entry);
            }
        }
        self.cursor = usize::MAX;
        self.done = Marks::default();
    }

    /// Moves all entries into `larger`. What was not done stays so, in its new bucket.
    pub fn relocate(&mut self, entries: &mut Table<K, V>, mut larger: Table<K, V>) -> Table<K, V> {
        let left = self.cursor < entries.num_buckets();
        let mut done = if left {
            Marks::full(larger.num_buckets())
        } else {
            Marks::default()
        };
        let mut old = std::mem::take(entries);
        for bucket in 0..old.num_buckets() {
            let Ok(entry) = old.get_bucket_entry(bucket) else {
                continue;
            };
            let (entry, _) = entry.remove();
            let hash = key_hash(&entry.0);
            let moved = larger.insert_unique(hash, entry, |(k, _)| key_hash(k));
            if !self.is_done(bucket) {
                done.remove(moved.bucket_index());
            }
        }
        self.cursor = if left { 0 } else { usize::MAX };
        self.done = done;
        larger
    }

    /// Takes out what was saved early.
    pub fn take_early(&mut self) -> Flow<EncodedEntries> {
        match self.fault.take() {
            Some(fault) => Err(fault),
            None => Ok(std::mem::take(&mut self.early)),
        }
    }

    /// Saves about `budget` entries of an ordinary size, more small ones and fewer large ones, each encoded by `encode`,
    /// which does what [`Frozen::new`] was given and can be inlined here; true once nothing is left.
    pub fn save(
        &mut self,
        entries: &Table<K, V>,
        into: &mut KeyedSection,
        budget: usize,
        encode: impl Fn(&K, &V, &mut Vec<u8>) -> Flow,
    ) -> Flow<bool> {
        into.extend(&self.take_early()?);
        let end = entries.num_buckets();
        let mut effort = budget.saturating_mul(ENTRY);
        let prefix = &self.prefix;
        while self.cursor < end && effort > 0 {
            let word = self.cursor / 64 * 64..end.min(self.cursor / 64 * 64 + 64);
            let mut left =
                holding(entries, self.cursor..word.end) & !self.done.of_word(self.cursor);
            effort = effort.saturating_sub(word.end - self.cursor);
            self.cursor = word.end;
            while left != 0 {
                let bucket = word.start + left.trailing_zeros() as usize;
                left &= left - 1;
                let Some((key, value)) = entries.get_bucket(bucket) else {
                    continue;
                };
                let mut length = 0;
                into.put_with(key_hash(key), |bytes| {
                    let before = bytes.len();
                    if !prefix.is_empty() {
                        bytes.extend_from_slice(prefix);
                    }
                    encode(key, value, bytes)?;
                    length = bytes.len() - before;
                    Ok(())
                })?;
                let length = length.max(size_of::<(K, V)>());
                effort = effort.saturating_sub(SMALLEST - 1 + length / BYTES);
                if effort == 0 && left != 0 {
                    self.cursor = bucket + 1;
                    break;
                }
            }
        }
        Ok(self.cursor >= end)
    }
}

/// Those of at most 64 buckets that hold something, as the bits of a word that their numbers say: to go from one to
/// the next without a branch for each that is empty, which would be guessed wrong every other time.
#[inline]
fn holding<K, V>(entries: &Table<K, V>, buckets: Range<usize>) -> u64 {
    buckets.fold(0, |word, bucket| {
        word | u64::from(entries.get_bucket(bucket).is_some()) << (bucket % 64)
    })
}

/// A set of bucket numbers. Memory is taken where there are marks, so that an empty set of a million
/// buckets is made in a moment.
#[derive(Default)]
struct Marks {
    chunks: Vec<Option<Box<[u64; CHUNK / 64]>>>,
}

/// Buckets that share a piece of memory.
const CHUNK: usize = 4096;

impl Marks {
    fn new(buckets: usize) -> Self {
        let mut chunks = Vec::new();
        chunks.resize_with(buckets.div_ceil(CHUNK), || None);
        Marks { chunks }
    }

    fn full(buckets: usize) -> Self {
        let mut chunks = Vec::new();
        chunks.resize_with(buckets.div_ceil(CHUNK), || {
            Some(Box::new([u64::MAX; CHUNK / 64]))
        });
        Marks { chunks }
    }

    fn contains(&self, bucket: usize) -> bool {
        self.of_word(bucket) & bit(bucket) != 0
    }

    /// Those of this bucket and the ones that share its word.
    fn of_word(&self, bucket: usize) -> u64 {
        match self.chunks.get(bucket / CHUNK) {
            Some(Some(words)) => words[bucket % CHUNK / 64],
            _ => 0,
        }
    }

    fn insert(&mut self, bucket: usize) {
        if let Some(chunk) = self.chunks.get_mut(bucket / CHUNK) {
            let words = chunk.get_or_insert_with(|| Box::new([0; CHUNK / 64]));
            words[bucket % CHUNK / 64] |= bit(bucket);
        }
    }

    fn remove(&mut self, bucket: usize) {
        if let Some(Some(words)) = self.chunks.get_mut(bucket / CHUNK) {
            words[bucket % CHUNK / 64] &= !bit(bucket);
        }
    }
}

fn bit(bucket: usize) -> u64 {
    1 << (bucket % 64)
}
