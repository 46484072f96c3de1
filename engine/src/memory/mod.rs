//! Memory with a hard budget, kept apart from the general allocator's busy path.
//!
//! For user code that needs buffers of its own, and for sources and sinks: `OpenContext::memory` hands out
//! the job's [`MemoryManager`]. Taken from the general allocator, buffers that come and go fragment the heap, and
//! nothing says stop before the machine does. Here they are page-aligned segments: pooled when returned, counted
//! while in use, and refused beyond the budget, so resident memory stays flat; a job's back
//! pressure rises as the budget runs short. A
//! [`NetworkBufferPool`] carves equal buffers out of the same budget, for frames.
//!
//! What the engine itself holds is bounded elsewhere: batches by the credits of their channels, which go round and are
//! used again, and state by the backend that it spills to. Large tables of state lie on [`HugePages`].

mod huge_pages;
mod manager;
mod pool;
mod segment;

pub use huge_pages::HugePages;
pub use manager::{DEFAULT_MAX_MEMORY, MemoryManager, MemoryStats};
pub use pool::{NetworkBuffer, NetworkBufferPool, NetworkBufferStats};
pub use segment::{SEGMENT_ALIGNMENT, Segment};

/// Why memory was refused. Nothing is taken from the budget when it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// The budget has no room; release segments or raise the budget.
    #[error("{requested} bytes do not fit: {used} of {max} bytes are in use")]
    BudgetExceeded {
        /// Bytes asked for, rounded up to what a segment takes.
        requested: usize,
        /// Bytes of all segments in use.
        used: usize,
        /// The budget in bytes.
        max: usize,
    },
    /// A segment of no bytes, or of more than the address space has, was asked for.
    #[error("a segment cannot have {0} bytes")]
    InvalidSize(usize),
    /// The operating system refused, though the budget had room.
    #[error("the system has no {0} bytes left")]
    SystemExhausted(usize),
    /// A buffer pool was asked for with a minimum above its maximum, or a maximum of zero.
    #[error("a buffer pool needs min <= max and max > 0, got min {min}, max {max}")]
    InvalidPool {
        /// Buffers kept at least.
        min: usize,
        /// Buffers handed out at most.
        max: usize,
    },
}
