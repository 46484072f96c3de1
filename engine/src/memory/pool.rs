//! Equal buffers for network frames: some guaranteed, a bounded number on top.
//!
//! A connection must be able to receive even when other users have spent the memory budget, and
//! must not spend all of it either. The pool takes its minimum from the [`MemoryManager`] when it
//! is made and keeps it; up to its maximum it borrows more, and returns those when they are idle.

use super::{MemoryError, MemoryManager, Segment};
use serde::Serialize;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The figures of a [`NetworkBufferPool`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NetworkBufferStats {
    /// Bytes of each buffer.
    pub buffer_size: usize,
    /// Buffers the pool keeps at least.
    pub min: usize,
    /// Buffers handed out at most.
    pub max: usize,
    /// Buffers in use.
    pub in_use: usize,
    /// Buffers that wait in the pool.
    pub idle: usize,
    /// The most buffers in use at once so far.
    pub peak_in_use: usize,
    /// Times a buffer was refused, because of the maximum or the memory budget.
    pub denied: u64,
}

struct State {
    idle: Vec<Segment>,
    in_use: usize,
    peak_in_use: usize,
    denied: u64,
}

struct Shared {
    memory: MemoryManager,
    buffer_size: usize,
    min: usize,
    max: usize,
    state: Mutex<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands out buffers of one size. Clones are cheap and share the buffers; all are thread-safe.
#[derive(Clone)]
pub struct NetworkBufferPool {
    shared: Arc<Shared>,
}

impl NetworkBufferPool {
    /// A pool of buffers of `buffer_size` bytes, that keeps `min` of them for itself from now on
    /// and hands out `max` at once at most.
    ///
    /// # Errors
    /// [`MemoryError::InvalidPool`], or what [`MemoryManager::allocate`] says of the minimum.
    pub fn new(
        memory: &MemoryManager,
        buffer_size: usize,
        min: usize,
        max: usize,
    ) -> Result<Self, MemoryError> {
        if min > max || max == 0 {
            return Err(MemoryError::InvalidPool { min, max });
        }
        if buffer_size == 0 {
            return Err(MemoryError::InvalidSize(0));
        }
        let idle = (0..min)
            .map(|_| memory.allocate(buffer_size))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            shared: Arc::new(Shared {
                memory: memory.clone(),
                buffer_size,
                min,
                max,
                state: Mutex::new(State {
                    idle,
                    in_use: 0,
                    peak_in_use: 0,
                    denied: 0,
                }),
            }),
        })
    }

    /// A buffer, or `None` when the maximum is in use or the memory budget has no room beyond the
    /// minimum. Never waits; the caller holds back its sender and tries again.
    pub fn try_acquire(&self) -> Option<NetworkBuffer> {
        let mut state = self.shared.lock();
        let segment = if state.in_use >= self.shared.max {
            None
        } else {
            let idle = state.idle.pop();
            idle.or_else(|| self.shared.memory.allocate(self.shared.buffer_size).ok())
        };
        let Some(segment) = segment else {
            state.denied += 1;
            return None;
        };
        state.in_use += 1;
        state.peak_in_use = state.peak_in_use.max(state.in_use);
        Some(NetworkBuffer {
            segment: Some(segment),
            home: Arc::clone(&self.shared),
        })
    }

    /// Returns a buffer; the same as dropping it, but said aloud.
    pub fn release(&self, buffer: NetworkBuffer) {
        drop(buffer);
    }

    /// Bytes of each buffer.
    pub fn buffer_size(&self) -> usize {
        self.shared.buffer_size
    }

    /// The figures of this moment.
    pub fn stats(&self) -> NetworkBufferStats {
        let state = self.shared.lock();
        NetworkBufferStats {
            buffer_size: self.shared.buffer_size,
            min: self.shared.min,
            max: self.shared.max,
            in_use: state.in_use,
            idle: state.idle.len(),
            peak_in_use: state.peak_in_use,
            denied: state.denied,
        }
    }
}

impl fmt::Debug for NetworkBufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NetworkBufferPool")
            .field(&self.stats())
            .finish()
    }
}

/// One buffer of a [`NetworkBufferPool`], used as a `[u8]`; it returns to the pool when dropped.
/// Its bytes are initialized, but not cleared of what an earlier user left.
pub struct NetworkBuffer {
    /// Present until `drop`.
    segment: Option<Segment>,
    home: Arc<Shared>,
}

impl Deref for NetworkBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.segment.as_deref().unwrap_or(&[])
    }
}

impl DerefMut for NetworkBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.segment.as_deref_mut().unwrap_or(&mut [])
    }
}

impl Drop for NetworkBuffer {
    fn drop(&mut self) {
        let Some(segment) = self.segment.take() else {
            return;
        };
        let mut state = self.home.lock();
        state.in_use -= 1;
        if state.in_use + state.idle.len() < self.home.min {
            state.idle.push(segment);
            return;
        }
        // Beyond the minimum: back to the manager, outside this pool's lock.
        drop(state);
        drop(segment);
    }
}

impl fmt::Debug for NetworkBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkBuffer")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 32 * 1024;

    #[test]
    fn keeps_the_minimum_and_stops_at_the_maximum() {
        let memory = MemoryManager::new(10 * SIZE);
        let pool = memory.network_buffer_pool(SIZE, 2, 3).expect("fits");
        assert_eq!(memory.stats().segments_in_use, 2);
        let mut held: Vec<_> = (0..3)
            .map(|_| pool.try_acquire().expect("below max"))
            .collect();
        held[0].fill(9);
        assert_eq!(held[0].len(), SIZE);
        assert!(pool.try_acquire().is_none());
        let stats = pool.stats();
        assert_eq!(
            (stats.in_use, stats.idle, stats.denied, stats.peak_in_use),
            (3, 0, 1, 3)
        );
        drop(held);
        assert_eq!((pool.stats().in_use, pool.stats().idle), (0, 2));
        assert_eq!(memory.stats().segments_in_use, 2, "the third went back");
        drop(pool);
        assert_eq!(memory.stats().segments_in_use, 0);
    }

    #[test]
    fn the_minimum_is_there_when_the_budget_is_spent() {
        let memory = MemoryManager::new(4 * SIZE);
        let pool = NetworkBufferPool::new(&memory, SIZE, 1, 8).expect("fits");
        let others = memory.allocate(2 * SIZE).expect("fits");
        let more = memory.allocate(SIZE).expect("fits");
        let own = pool.try_acquire().expect("guaranteed");
        assert!(pool.try_acquire().is_none(), "the budget is spent");
        drop((others, more));
        let second = pool.try_acquire().expect("room again");
        drop(pool);
        drop((own, second));
        assert_eq!(
            memory.stats().segments_in_use,
            0,
            "buffers may outlive the pool"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let memory = MemoryManager::new(4 * SIZE);
        let pool = |size, min, max| NetworkBufferPool::new(&memory, size, min, max).err();
        assert_eq!(
            pool(SIZE, 2, 1),
            Some(MemoryError::InvalidPool { min: 2, max: 1 })
        );
        assert_eq!(
            pool(SIZE, 0, 0),
            Some(MemoryError::InvalidPool { min: 0, max: 0 })
        );
        assert_eq!(pool(0, 0, 1), Some(MemoryError::InvalidSize(0)));
        assert!(matches!(
            pool(SIZE, 5, 5),
            Some(MemoryError::BudgetExceeded { .. })
        ));
        assert_eq!(memory.stats().segments_in_use, 0);
    }
}
