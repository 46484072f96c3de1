//! Memory of large tables, on huge pages where the system has some.
//!
//! A look-up in a table of millions of keys may fall on any of its pages. With pages of 4 KiB the processor has to
//! look up the page first, nearly each time; with those of 2 MiB it knows them all. A growing table also costs one
//! fault for 512 of them. Smaller tables, and those of other systems than Linux, come from the program's allocator.

#![allow(unsafe_code)]

use allocator_api2::alloc::{AllocError, Allocator, Global};
use std::alloc::Layout;
use std::ptr::NonNull;

/// An allocator for few large pieces that live long.
#[derive(Clone, Copy, Debug, Default)]
pub struct HugePages;

/// Pieces from this size on have pages of their own, so that giving them back is no part of a busy path.
const LEAST: usize = 4 << 20;

// SAFETY: a piece stays where it is until it is given back, and is given back to where it came from: which of the two
// that is depends on the layout's size alone. All values of this type are alike.
unsafe impl Allocator for HugePages {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if has_own_pages(layout) {
            return pages::take(layout.size()).ok_or(AllocError);
        }
        Global.allocate(layout)
    }

    #[inline]
    unsafe fn deallocate(&self, piece: NonNull<u8>, layout: Layout) {
        if has_own_pages(layout) {
            // SAFETY: the caller vouches that `allocate` gave the piece for this layout, so it came from `take` with
            // this size, and that nobody uses it any more.
            unsafe { pages::give_back(piece, layout.size()) }
        } else {
            // SAFETY: as above, and so it came from `Global`.
            unsafe { Global.deallocate(piece, layout) }
        }
    }
}

fn has_own_pages(layout: Layout) -> bool {
    cfg!(target_os = "linux") && layout.size() >= LEAST && layout.align() <= pages::UNIT
}

#[cfg(target_os = "linux")]
mod pages {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    use std::ptr::{self, NonNull};

    /// Sizes are multiples of it: no system has larger pages by default.
    pub(super) const UNIT: usize = 64 << 10;
    /// A huge page. Memory that does not begin with one has fewer of them.
    const HUGE: usize = 2 << 20;

    /// Memory that begins with a huge page; `None` where there is none left.
    pub(super) fn take(size: usize) -> Option<NonNull<[u8]>> {
        let size = size.checked_next_multiple_of(UNIT)?;
        let whole = size.checked_add(HUGE)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: it maps new memory wherever the system likes to, and no file.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), whole, access, MapFlags::PRIVATE) };
        let start = start.ok()?.cast::<u8>();
        let ahead = start.addr().wrapping_neg() % HUGE;
        let first = start.wrapping_add(ahead);
        // SAFETY: both pieces lie in what was mapped just now, at its two ends, and nobody knows of them.
        unsafe {
            unmap(start, ahead);
            unmap(first.wrapping_add(size), HUGE - ahead);
        }
        // A system without huge pages refuses, and goes on with others.
        // SAFETY: the memory is this function's own, and the advice changes nothing that can be seen in it.
        let _ = unsafe { madvise(first.cast(), size, Advice::LinuxHugepage) };
        NonNull::new(ptr::slice_from_raw_parts_mut(first, size))
    }

    /// # Safety
    ///
    /// The piece is from [`take`] with this size, and nobody uses it any more.
    pub(super) unsafe fn give_back(piece: NonNull<u8>, size: usize) {
        // SAFETY: it is what `take` has left mapped, as the caller vouches.
        unsafe { unmap(piece.as_ptr(), size.next_multiple_of(UNIT)) }
    }

    /// # Safety
    ///
    /// All of it is mapped by [`take`], and nobody uses it any more.
    unsafe fn unmap(start: *mut u8, size: usize) {
        if size > 0 {
            // SAFETY: as the caller vouches. What the system refuses to take back stays mapped.
            let _ = unsafe { munmap(start.cast(), size) };
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod pages {
    use std::ptr::NonNull;

    pub(super) const UNIT: usize = 0;

    pub(super) fn take(_: usize) -> Option<NonNull<[u8]>> {
        None
    }

    pub(super) unsafe fn give_back(_: NonNull<u8>, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use hashbrown::HashTable;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 16).expect("a sound layout")
    }

    #[test]
    fn pieces_of_all_sizes_can_be_written_to_the_end_and_given_back() {
        for size in [1, 4096, LEAST - 1, LEAST, LEAST + 1, 3 * LEAST + 12_345] {
            let piece = HugePages.allocate(layout(size)).expect("memory");
            let start = piece.cast::<u8>();
            assert!(piece.len() >= size);
            assert!(!has_own_pages(layout(size)) || start.addr().get().is_multiple_of(2 << 20));
            // SAFETY: so many bytes were allocated just now, and are given back behind this.
            unsafe {
                start.as_ptr().write_bytes(7, size);
                assert_eq!(*start.as_ptr().add(size - 1), 7);
                HugePages.deallocate(start, layout(size));
            }
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        // In all more than the processor can address.
        let large = layout(1 << 30);
        for _ in 0..140_000 {
            let piece = HugePages.allocate(large).expect("there is room again");
            // SAFETY: it was allocated just now, and is not used.
            unsafe { HugePages.deallocate(piece.cast(), large) }
        }
    }

    #[test]
    fn there_is_an_error_where_there_is_no_memory() {
        let most = layout(isize::MAX as usize - 15);
        assert!(HugePages.allocate(most).is_err());
    }

    #[test]
    fn a_table_grows_over_the_limit_and_back() {
        let mut table = HashTable::new_in(HugePages);
        let hash = |n: &u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for n in 0..600_000u64 {
            table.insert_unique(hash(&n), n, hash);
        }
        assert!(table.allocation_size() > LEAST);
        assert!((0..600_000).all(|n| table.find(hash(&n), |m| *m == n).is_some()));
        table.retain(|n| *n < 10);
        table.shrink_to_fit(hash);
        assert!(table.allocation_size() < LEAST && table.len() == 10);
        drop(table.clone());
    }
}
