//! One piece of aligned memory that finds its own way home.
//!
//! A [`Segment`] is an owned `[u8]` at a page boundary. However it goes out of use (released,
//! dropped, unwound by a panic) it returns to its manager, so the budget never leaks. All of
//! its unsafe code is in `Block`, forty lines.

#![allow(unsafe_code)]

use super::MemoryError;
use super::manager::Shared;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// Segments start at a multiple of this, in bytes: a page of memory.
pub const SEGMENT_ALIGNMENT: usize = 4096;

/// An allocation that owns its bytes; all of them are initialized from the start.
pub(super) struct Block {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block owns its allocation alone and hands out access only by the usual borrow rules,
// as `Box<[u8]>` does; `u8` is Send and Sync, and the allocator may free on another thread.
unsafe impl Send for Block {}
// SAFETY: as above; `&Block` gives read access only.
unsafe impl Sync for Block {}

impl Block {
    /// Takes `size` zeroed bytes from the system. `size` must not be zero.
    pub(super) fn new(size: usize) -> Result<Self, MemoryError> {
        let layout = Layout::from_size_align(size, SEGMENT_ALIGNMENT)
            .ok()
            .filter(|layout| layout.size() > 0)
            .ok_or(MemoryError::InvalidSize(size))?;
        // SAFETY: the layout's size is above zero, as checked just now.
        let start = unsafe { alloc_zeroed(layout) };
        match NonNull::new(start) {
            Some(start) => Ok(Self { start, layout }),
            None => Err(MemoryError::SystemExhausted(size)),
        }
    }

    pub(super) fn size(&self) -> usize {
        self.layout.size()
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: `start` points to `size` bytes that this block owns, zeroed when allocated and
        // written only as `u8` since; the borrow of `self` keeps writers and `drop` away.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the exclusive borrow of `self` makes this the only access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `start` came from `alloc_zeroed` with this very layout, and is freed only here.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

/// A span of bytes from a [`MemoryManager`](super::MemoryManager), used as a `[u8]`.
///
/// The bytes are zero the first time a piece of memory is handed out; after that they are whatever
/// the last user left. A segment returns to its manager when it is dropped.
pub struct Segment {
    /// Present until `drop`.
    block: Option<Block>,
    len: usize,
    home: Arc<Shared>,
}

impl Segment {
    pub(super) fn new(block: Block, len: usize, home: Arc<Shared>) -> Self {
        debug_assert!(len <= block.size(), "a segment lies within its block");
        Self {
            block: Some(block),
            len,
            home,
        }
    }

    /// Bytes this segment takes from the budget; at least its length.
    pub fn capacity(&self) -> usize {
        self.block.as_ref().map_or(0, Block::size)
    }
}

impl Deref for Segment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |b| &b.bytes()[..self.len])
    }
}

impl DerefMut for Segment {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        match &mut self.block {
            Some(block) => &mut block.bytes_mut()[..len],
            None => &mut [],
        }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.home.take_back(block, self.len);
        }
    }
}

impl fmt::Debug for Segment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segment")
            .field("len", &self.len)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_zeroed_and_writable() {
        let mut block = Block::new(3 * SEGMENT_ALIGNMENT).expect("memory");
        assert_eq!(block.start.as_ptr() as usize % SEGMENT_ALIGNMENT, 0);
        assert!(block.bytes().iter().all(|b| *b == 0));
        block.bytes_mut().fill(7);
        let sum: u64 = block.bytes().iter().map(|b| u64::from(*b)).sum();
        assert_eq!(sum, 7 * 3 * SEGMENT_ALIGNMENT as u64);
    }

    #[test]
    fn impossible_sizes_are_errors() {
        assert_eq!(Block::new(0).err(), Some(MemoryError::InvalidSize(0)));
        assert_eq!(
            Block::new(usize::MAX).err(),
            Some(MemoryError::InvalidSize(usize::MAX))
        );
    }
}
