//! Which key is to be looked at when: an index by time that may be too early, never too late.
//!
//! A session's end moves with each of its records. Moving its entry each time would cost more than
//! the record itself, so an entry stays where it is: whoever looks at it too early puts it where it
//! belongs by then. Entries whose session is gone are ignored when their time comes.

use crate::checkpoint::{Key, KeyedPart, StateVisitor};
use crate::fault::Flow;
use crate::state::{SpilledDue, Timer};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// A key and when to look at it.
#[derive(Clone)]
pub(super) struct Due<K> {
    pub at: i64,
    pub hash: u64,
    pub key: K,
}

impl<K> PartialEq for Due<K> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<K> Eq for Due<K> {}

impl<K> Ord for Due<K> {
    /// The earliest is the greatest, as a heap hands out its greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.hash).cmp(&(self.at, self.hash))
    }
}

impl<K> PartialOrd for Due<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Entries in the order of their time.
pub(super) struct DueQueue<K> {
    heap: BinaryHeap<Due<K>>,
    /// Where they are instead if they may be more than memory holds.
    spilled: SpilledDue<K>,
}

impl<K> Default for DueQueue<K> {
    fn default() -> Self {
        DueQueue {
            heap: BinaryHeap::new(),
            spilled: SpilledDue::default(),
        }
    }
}

impl<K: Key> DueQueue<K> {
    pub fn push(&mut self, at: i64, hash: u64, key: K) -> Flow {
        if self.spilled.spills() {
            return self.spilled.push(at, hash, &key);
        }
        self.heap.push(Due { at, hash, key });
        Ok(())
    }

    pub fn next(&self) -> Option<i64> {
        match self.heap.peek() {
            Some(due) => Some(due.at),
            None => self.spilled.next(),
        }
    }

    /// The first entry in memory, if its time is at most `now`; to be moved or removed.
    pub fn first_until(&mut self, now: i64) -> Option<PeekMut<'_, Due<K>>> {
        self.heap.peek_mut().filter(|due| due.at <= now)
    }

    /// Whether entries are elsewhere. Then there are none in memory.
    pub fn spills(&self) -> bool {
        self.spilled.spills()
    }

    /// Takes out the first of those entries, if its time is at most `now`.
    pub fn pop_spilled(&mut self, now: i64) -> Flow<Option<Due<K>>> {
        let first = self.spilled.pop(now)?;
        Ok(first.map(|Timer { at, hash, key }| Due {
            at: at.0,
            hash,
            key,
        }))
    }

    /// How many entries there are in memory.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Replaces all entries in memory.
    pub fn rebuild(&mut self, entries: impl Iterator<Item = Due<K>>) {
        let mut all = std::mem::take(&mut self.heap).into_vec();
        all.clear();
        all.extend(entries);
        self.heap = all.into();
    }

    /// Keeps to the memory there is.
    pub fn maintain(&mut self) -> Flow {
        match self.spills() {
            true => self.spilled.maintain(),
            false => Ok(()),
        }
    }

    /// See [`SpilledDue::state`].
    pub fn state(&mut self, visitor: &mut StateVisitor<'_>, name: &str) -> Flow<bool> {
        let rebuild = self.spilled.state(visitor, name)?;
        if visitor.spills() {
            for due in self.heap.drain() {
                self.spilled.push(due.at, due.hash, &due.key)?;
            }
        }
        Ok(rebuild)
    }
}
