//! What a state spills to when it is larger than the memory for it: entries as bytes, in the order of
//! their keys, and the memory that all such states of a process share.
//!
//! A key begins with its key group, big-endian, so that a range of groups is a range of keys.

pub use super::changes::{Change, Changes};
use crate::checkpoint::{FilesImage, Notice, RestoredFiles};
use crate::fault::{Fault, Flow};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The entries of one state of one subtask, outside of this process's tables.
pub trait Backing: Send {
    /// Replaces `into` by the value of a key; false where there is none.
    fn get(&mut self, key: &[u8], into: &mut Vec<u8>) -> Flow<bool>;

    /// About how many entries there are.
    fn estimate(&mut self) -> u64;

    /// Makes changes, as if in their order. What is put where a range was deleted before has to come with
    /// later changes.
    fn write(&mut self, changes: &Changes) -> Flow;

    /// Whether [`Backing::write`] would return at once.
    fn has_room(&mut self) -> bool {
        true
    }

    /// All entries as they are now, whatever is written meanwhile.
    fn scan(&mut self) -> Flow<Box<dyn Scan>>;

    /// Shows up to `budget` entries, in the order of keys, from the key `from` on and up to `until`, which
    /// is not among them and no limit if it is empty; true once there are no more.
    fn walk(
        &mut self,
        from: &[u8],
        until: &[u8],
        budget: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Flow,
    ) -> Flow<bool>;

    /// Begins to put all entries as they are now into files that checkpoints share; `None` where it has no
    /// such files. Nothing may be written before that is done.
    fn export(&mut self) -> Flow<Option<Box<dyn Export>>> {
        Ok(None)
    }

    /// Takes the place of what is there: the entries of these files, as far as they are of this subtask.
    fn import(&mut self, _files: &RestoredFiles<'_>) -> Flow {
        Err(Fault::user(
            "this state was saved as files that the state backend of this job can't read; restore it \
             with the backend that it had, or from a savepoint, which any backend reads",
        ))
    }
}

/// Entries on their way into files.
pub trait Export: Send {
    /// The files, once they are there; where it is told to `wait`, they are.
    fn poll(&mut self, wait: bool) -> Flow<Option<FilesImage>>;
}

/// A walk over all entries, in the order of keys.
pub trait Scan: Send {
    /// Waits until there is something to show, or there is no more.
    fn wait(&mut self) -> Flow {
        Ok(())
    }

    /// Shows up to `budget` entries; true once there are no more.
    fn next(&mut self, budget: usize, visit: &mut dyn FnMut(&[u8], &[u8]) -> Flow) -> Flow<bool>;
}

/// Where the states of one subtask find what they spill to.
pub trait Spill {
    /// Opens that of a state; it is empty. `uid` is the operator's stable id, `max_parallelism` how many key
    /// groups there are.
    fn open(&self, uid: &str, state: &str, max_parallelism: u32) -> Flow<Box<dyn Backing>>;

    /// The memory that they share.
    fn memory(&self) -> &StateMemory;

    /// What became of a checkpoint: files of a complete one need not be stored again.
    fn settled(&self, _notice: Notice) {}
}

/// The memory that the tables of all states of a process may use before they spill.
#[derive(Clone, Debug)]
pub struct StateMemory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
    short: AtomicBool,
}

impl StateMemory {
    /// So many bytes.
    pub fn new(limit: u64) -> Self {
        StateMemory(Arc::new(Shared {
            limit,
            used: AtomicU64::new(0),
            short: AtomicBool::new(false),
        }))
    }

    /// How many bytes there are.
    pub fn limit(&self) -> u64 {
        self.0.limit
    }

    /// How many are used.
    pub fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// What part of it is used; above 1 while tables are on their way back below the limit.
    pub fn pressure(&self) -> f64 {
        self.used() as f64 / self.limit().max(1) as f64
    }

    /// From now on, state that is in memory until that is short moves to what it spills to.
    pub fn run_short(&self) {
        self.0.short.store(true, Ordering::Relaxed);
    }

    /// Whether such state has to move.
    pub fn is_short(&self) -> bool {
        self.0.short.load(Ordering::Relaxed)
    }

    /// The use of one more table.
    pub fn claim(&self) -> Claim {
        let memory = self.clone();
        Claim { memory, bytes: 0 }
    }
}

/// What one table uses; given back when it is dropped.
#[derive(Debug)]
pub struct Claim {
    memory: StateMemory,
    bytes: u64,
}

impl Claim {
    /// From now on the table uses so many bytes.
    pub fn set(&mut self, bytes: u64) {
        let used = &self.memory.0.used;
        if bytes >= self.bytes {
            used.fetch_add(bytes - self.bytes, Ordering::Relaxed);
        } else {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
        }
        self.bytes = bytes;
    }

    /// The memory that it is a part of.
    pub fn memory(&self) -> &StateMemory {
        &self.memory
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.set(0);
    }
}
