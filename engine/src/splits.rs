//! Which split of its input a source reads from, told to the watermark strategy behind it.
//!
//! A subtask that reads several splits reads some of them ahead of others. Were event time taken from
//! whatever comes, the records of those behind would be late. So a source that reads splits says whose
//! record comes next, and the strategy keeps the time of each by itself. Where streams are kept in step, the strategy
//! says which splits are too far ahead, and the source reads the others meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// The splits of one subtask of a source. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct SplitTrack(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    declared: AtomicBool,
    /// Whose records come.
    current: AtomicUsize,
    /// Grows with each change of what follows.
    version: AtomicU64,
    known: Mutex<Known>,
    /// Some split is too far ahead of others.
    holds: AtomicBool,
    held: Mutex<Vec<bool>>,
}

/// What there is to read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// For each split that there ever was, whether it has ended.
    pub(crate) ended: Vec<bool>,
    /// The source has looked for splits: where there are none, none is to be waited for.
    pub(crate) complete: bool,
}

impl SplitTrack {
    /// The source is going to tell its splits. To be called when it is opened.
    pub fn declare(&self) {
        self.0.declared.store(true, Relaxed);
    }

    /// One more split; returns its number.
    pub fn add(&self) -> usize {
        self.change(|known| {
            known.ended.push(false);
            known.ended.len() - 1
        })
    }

    /// All splits that there are now have been added.
    pub fn complete(&self) {
        self.change(|known| known.complete = true);
    }

    /// The records that follow are of this split.
    #[inline(always)]
    pub fn enter(&self, split: usize) {
        self.0.current.store(split, Relaxed);
    }

    /// No record of this split follows.
    pub fn end(&self, split: usize) {
        self.change(|known| {
            if let Some(ended) = known.ended.get_mut(split) {
                *ended = true;
            }
        });
    }

    /// Whether any split is too far ahead of others.
    #[inline(always)]
    pub fn holds(&self) -> bool {
        self.0.holds.load(Relaxed)
    }

    /// Whether a split is too far ahead of others to be read now. The last turn of the strategy said it.
    #[inline(always)]
    pub fn is_held(&self, split: usize) -> bool {
        self.holds() && {
            let held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.get(split).copied().unwrap_or(false)
        }
    }

    /// For each split, whether it is too far ahead.
    pub(crate) fn hold(&self, splits: impl Iterator<Item = bool>) {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.clear();
        held.extend(splits);
        self.0.holds.store(held.contains(&true), Relaxed);
    }

    fn change<R>(&self, change: impl FnOnce(&mut Known) -> R) -> R {
        let result = change(&mut self.0.known.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.version.fetch_add(1, Relaxed);
        result
    }

    #[inline(always)]
    pub(crate) fn is_declared(&self) -> bool {
        self.0.declared.load(Relaxed)
    }

    #[inline(always)]
    pub(crate) fn current(&self) -> usize {
        self.0.current.load(Relaxed)
    }

    pub(crate) fn version(&self) -> u64 {
        self.0.version.load(Relaxed)
    }

    pub(crate) fn known(&self) -> Known {
        self.0
            .known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
