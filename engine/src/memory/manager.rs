//! Hands out segments under a hard budget and keeps returned ones for the next user.
//!
//! Sizes are rounded up to classes, so that a returned block fits the next request of its kind:
//! powers of two from one page to 1 MiB, whole MiB above. Memory in use and memory pooled together
//! never exceed the budget: when a request finds no block of its class, pooled blocks of other
//! classes go back to the system first, and only then is the request refused.

use super::segment::{Block, SEGMENT_ALIGNMENT, Segment};
use super::{MemoryError, NetworkBufferPool};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use crate::constants::DEFAULT_MAX_MEMORY;

/// Up to here classes are powers of two; above, multiples of this. In bytes.
const LARGE: usize = 1024 * 1024;

/// The figures of a [`MemoryManager`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct MemoryStats {
    /// The budget in bytes.
    pub max_bytes: usize,
    /// Bytes of all segments in use, rounded up to their classes.
    pub current_usage: usize,
    /// The highest `current_usage` so far, in bytes.
    pub peak_usage: usize,
    /// Bytes asked for by the users of the segments in use.
    pub requested_bytes: usize,
    /// Bytes waiting in the pool; they count against the budget until they are evicted.
    pub pooled_bytes: usize,
    /// Segments in use.
    pub segments_in_use: usize,
    /// Blocks waiting in the pool.
    pub segments_pooled: usize,
    /// Share of `current_usage` lost to rounding, 0 to 1.
    pub fragmentation: f64,
    /// Segments handed out so far.
    pub allocations: u64,
    /// Those of them that came from the pool and not from the system.
    pub pool_hits: u64,
}

#[derive(Default)]
struct State {
    figures: MemoryStats,
    /// Free blocks by class size in bytes; no empty lists.
    pool: BTreeMap<usize, Vec<Block>>,
}

/// What a manager, its clones and its segments have in common.
pub(super) struct Shared {
    max: usize,
    state: Mutex<State>,
}

impl Shared {
    /// A panic in another holder leaves the figures whole: no code that can panic runs under it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_back(&self, block: Block, len: usize) {
        let size = block.size();
        let mut state = self.lock();
        state.count_out(size, len);
        state.figures.pooled_bytes += size;
        state.figures.segments_pooled += 1;
        state.pool.entry(size).or_default().push(block);
    }
}

impl State {
    fn count_in(&mut self, size: usize, len: usize) {
        let f = &mut self.figures;
        f.current_usage += size;
        f.requested_bytes += len;
        f.segments_in_use += 1;
        f.peak_usage = f.peak_usage.max(f.current_usage);
    }

    fn count_out(&mut self, size: usize, len: usize) {
        let f = &mut self.figures;
        f.current_usage -= size;
        f.requested_bytes -= len;
        f.segments_in_use -= 1;
    }

    /// Takes a free block of class `size` out of the pool.
    fn unpool(&mut self, size: usize) -> Option<Block> {
        let list = self.pool.get_mut(&size)?;
        let block = list.pop();
        if list.is_empty() {
            self.pool.remove(&size);
        }
        if block.is_some() {
            self.figures.pooled_bytes -= size;
            self.figures.segments_pooled -= 1;
        }
        block
    }

    /// Takes pooled blocks out, largest first, until at most `keep` bytes stay. The caller drops
    /// them after it has unlocked.
    fn evict(&mut self, keep: usize) -> Vec<Block> {
        let mut evicted = Vec::new();
        while self.figures.pooled_bytes > keep {
            let largest = self.pool.last_key_value().map(|(size, _)| *size);
            match largest.and_then(|size| self.unpool(size)) {
                Some(block) => evicted.push(block),
                None => break,
            }
        }
        evicted
    }
}

/// Hands out [`Segment`]s under one budget. Clones are cheap and share it; all are thread-safe.
///
/// ```
/// use tidegate_engine::memory::MemoryManager;
///
/// let memory = MemoryManager::default(); // 1 GiB
/// let mut segment = memory.allocate(64 * 1024)?;
/// segment[..5].copy_from_slice(b"bytes");
/// memory.release(segment);
/// assert_eq!(memory.stats().current_usage, 0);
/// # Ok::<(), tidegate_engine::memory::MemoryError>(())
/// ```
#[derive(Clone)]
pub struct MemoryManager {
    shared: Arc<Shared>,
}

impl Default for MemoryManager {
    fn default() -> Self {
        Self::new(DEFAULT_MAX_MEMORY)
    }
}

impl MemoryManager {
    /// A manager with a budget of `max_bytes`. Nothing is taken from the system yet.
    pub fn new(max_bytes: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                max: max_bytes,
                state: Mutex::default(),
            }),
        }
    }

    /// A segment of exactly `size` bytes at a page boundary, from the pool if possible. Its bytes
    /// are initialized, but not cleared of what an earlier user left.
    ///
    /// # Errors
    /// [`MemoryError::BudgetExceeded`], [`MemoryError::InvalidSize`] for zero bytes, and
    /// [`MemoryError::SystemExhausted`].
    pub fn allocate(&self, size: usize) -> Result<Segment, MemoryError> {
        let class = self.class_of(size)?;
        let mut state = self.shared.lock();
        let used = state.figures.current_usage;
        if class > self.shared.max - used {
            return Err(MemoryError::BudgetExceeded {
                requested: class,
                used,
                max: self.shared.max,
            });
        }
        state.count_in(class, size);
        if let Some(block) = state.unpool(class) {
            state.figures.allocations += 1;
            state.figures.pool_hits += 1;
            return Ok(Segment::new(block, size, Arc::clone(&self.shared)));
        }
        let evicted = state.evict(self.shared.max - used - class);
        drop(state);
        drop(evicted);
        match Block::new(class) {
            Ok(block) => {
                self.shared.lock().figures.allocations += 1;
                Ok(Segment::new(block, size, Arc::clone(&self.shared)))
            }
            Err(refused) => {
                self.shared.lock().count_out(class, size);
                Err(refused)
            }
        }
    }

    /// Returns a segment to its pool; the same as dropping it, but said aloud.
    pub fn release(&self, segment: Segment) {
        drop(segment);
    }

    /// Gives every pooled block back to the system and returns how many bytes that freed.
    pub fn trim(&self) -> usize {
        let evicted = self.shared.lock().evict(0);
        evicted.iter().map(Block::size).sum()
    }

    /// A pool of equal buffers within this budget; see [`NetworkBufferPool::new`].
    ///
    /// # Errors
    /// As [`NetworkBufferPool::new`].
    pub fn network_buffer_pool(
        &self,
        buffer_size: usize,
        min: usize,
        max: usize,
    ) -> Result<NetworkBufferPool, MemoryError> {
        NetworkBufferPool::new(self, buffer_size, min, max)
    }

    /// The figures of this moment.
    pub fn stats(&self) -> MemoryStats {
        let mut stats = self.shared.lock().figures;
        stats.max_bytes = self.shared.max;
        if stats.current_usage > 0 {
            stats.fragmentation = 1.0 - stats.requested_bytes as f64 / stats.current_usage as f64;
        }
        stats
    }

    /// The bytes that a segment of `size` takes from the budget.
    fn class_of(&self, size: usize) -> Result<usize, MemoryError> {
        let invalid = MemoryError::InvalidSize(size);
        let pages = size.checked_next_multiple_of(SEGMENT_ALIGNMENT);
        let pages = pages.filter(|p| *p > 0).ok_or(invalid)?;
        let class = if pages <= LARGE {
            pages.next_power_of_two()
        } else {
            pages.checked_next_multiple_of(LARGE).unwrap_or(pages)
        };
        // Rounding must not be what pushes a lone request over a small budget.
        Ok(if class > self.shared.max {
            pages
        } else {
            class
        })
    }
}

impl fmt::Debug for MemoryManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MemoryManager").field(&self.stats()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: usize = 1024;

    #[test]
    fn a_released_segment_is_used_again() {
        let memory = MemoryManager::new(KIB * KIB);
        let mut first = memory.allocate(64 * KIB).expect("fits");
        assert_eq!(first.len(), 64 * KIB);
        assert_eq!(first.as_ptr() as usize % SEGMENT_ALIGNMENT, 0);
        first.fill(3);
        let address = first.as_ptr() as usize;
        memory.release(first);
        assert_eq!(memory.stats().pooled_bytes, 64 * KIB);
        let second = memory.allocate(50 * KIB).expect("fits");
        assert_eq!(second.as_ptr() as usize, address);
        assert_eq!((second.len(), second.capacity()), (50 * KIB, 64 * KIB));
        let stats = memory.stats();
        assert_eq!((stats.allocations, stats.pool_hits), (2, 1));
        assert!((stats.fragmentation - 14.0 / 64.0).abs() < 1e-12);
    }

    #[test]
    fn the_budget_is_hard_and_pooled_blocks_make_way() {
        let memory = MemoryManager::new(256 * KIB);
        let held: Vec<_> = (0..4)
            .map(|_| memory.allocate(64 * KIB).expect("fits"))
            .collect();
        let refused = memory.allocate(1).expect_err("the budget is spent");
        assert_eq!(
            refused.to_string(),
            "4096 bytes do not fit: 262144 of 262144 bytes are in use"
        );
        drop(held);
        let large = memory
            .allocate(256 * KIB)
            .expect("pooled blocks are evicted");
        let stats = memory.stats();
        assert_eq!((stats.pooled_bytes, stats.current_usage), (0, 256 * KIB));
        assert_eq!(stats.peak_usage, 256 * KIB);
        drop(large);
        assert_eq!(memory.trim(), 256 * KIB);
        assert_eq!(memory.stats().segments_pooled, 0);
    }

    #[test]
    fn odd_sizes() {
        let memory = MemoryManager::new(100_000);
        assert_eq!(memory.allocate(0).err(), Some(MemoryError::InvalidSize(0)));
        assert!(memory.allocate(usize::MAX).is_err());
        let whole = memory
            .allocate(90_000)
            .expect("rounded to pages, not to 128 KiB");
        assert_eq!(whole.capacity(), 90_112);
        let none = MemoryManager::new(0);
        assert!(matches!(
            none.allocate(1),
            Err(MemoryError::BudgetExceeded { .. })
        ));
    }

    #[test]
    fn segments_outlive_their_manager_and_cross_threads() {
        let memory = MemoryManager::new(KIB * KIB);
        let mut segment = memory.clone().allocate(4 * KIB).expect("fits");
        let workers: Vec<_> = (0..4u8)
            .map(|n| {
                let memory = memory.clone();
                std::thread::spawn(move || {
                    for _ in 0..50 {
                        let mut own = memory.allocate(8 * KIB).expect("four fit at once");
                        own.fill(n);
                        assert!(own.iter().all(|b| *b == n), "no one else writes here");
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().expect("no worker panicked");
        }
        assert_eq!(memory.stats().segments_in_use, 1);
        drop(memory);
        segment[0] = 1;
        assert_eq!(segment[0], 1);
    }

    proptest! {
        #[test]
        fn figures_always_add_up(steps in prop::collection::vec((1usize..400_000, any::<bool>()), 0..60)) {
            let memory = MemoryManager::new(KIB * KIB);
            let mut held: Vec<Segment> = Vec::new();
            for (size, release) in steps {
                if release && !held.is_empty() {
                    memory.release(held.swap_remove(size % held.len()));
                } else if let Ok(segment) = memory.allocate(size) {
                    prop_assert_eq!(segment.len(), size);
                    held.push(segment);
                }
                let stats = memory.stats();
                prop_assert_eq!(stats.segments_in_use, held.len());
                prop_assert_eq!(stats.requested_bytes, held.iter().map(|s| s.len()).sum::<usize>());
                prop_assert_eq!(stats.current_usage, held.iter().map(Segment::capacity).sum::<usize>());
                prop_assert!(stats.current_usage + stats.pooled_bytes <= stats.max_bytes);
                prop_assert!((0.0..1.0).contains(&stats.fragmentation));
            }
            drop(held);
            prop_assert_eq!(memory.stats().current_usage, 0);
        }
    }
}
