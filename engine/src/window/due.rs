//! Which key is to be looked at when: an index by time that may be too early, never too late.
//!
//! A session's end moves with each of its records. Moving its entry each time would cost more than
//! the record itself, so an entry stays where it is: whoever looks at it too early puts it where it
//! belongs by then. Entries whose session is gone are ignored when their time comes.

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
}

impl<K> Default for DueQueue<K> {
    fn default() -> Self {
        DueQueue {
            heap: BinaryHeap::new(),
        }
    }
}

impl<K> DueQueue<K> {
    pub fn push(&mut self, at: i64, hash: u64, key: K) {
        self.heap.push(Due { at, hash, key });
    }

    pub fn next(&self) -> Option<i64> {
        self.heap.peek().map(|due| due.at)
    }

    /// The first entry, if its time is at most `now`; to be moved or removed.
    pub fn first_until(&mut self, now: i64) -> Option<PeekMut<'_, Due<K>>> {
        self.heap.peek_mut().filter(|due| due.at <= now)
    }

    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Replaces all entries.
    pub fn rebuild(&mut self, entries: impl Iterator<Item = Due<K>>) {
        let mut all = std::mem::take(&mut self.heap).into_vec();
        all.clear();
        all.extend(entries);
        self.heap = all.into();
    }
}
