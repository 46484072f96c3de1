//! What crosses from one subtask to another at once.

use crate::checkpoint::Barrier;
use crate::stage::Signal;
use crate::time::Timestamp;
use std::any::Any;

/// A `Batch<T>` whose type only the two ends of its edge know.
pub type AnyBatch = Box<dyn Any + Send>;

/// A record on its way: its key's hash travels along, so that it is computed once.
#[derive(Clone, Debug, PartialEq)]
pub struct Rec<T> {
    /// Event time.
    pub at: Timestamp,
    /// The key's hash on keyed edges, else 0.
    pub hash: u64,
    /// The record.
    pub value: T,
}

/// Records of one channel in order, and the signals that follow the last of them.
#[derive(Debug)]
pub struct Batch<T> {
    /// The records.
    pub records: Vec<Rec<T>>,
    /// What follows them.
    pub signals: Vec<Signal>,
    /// The producer had to wait for credit since its last batch.
    pub starved: bool,
}

impl<T> Batch<T> {
    /// An empty batch with room for `capacity` records.
    pub fn with_capacity(capacity: usize) -> Self {
        Batch {
            records: Vec::with_capacity(capacity),
            signals: Vec::new(),
            starved: false,
        }
    }

    /// The barrier behind its records: nothing follows one in the same batch.
    pub fn barrier(&self) -> Option<Barrier> {
        match self.signals.last() {
            Some(Signal::Barrier(barrier)) => Some(*barrier),
            _ => None,
        }
    }

    /// The credits that it costs: one for each record, and one where it brings nothing but news of event time, so that
    /// those too have a bound where nobody takes them. Barriers and the end of input need none.
    pub fn credits(&self) -> u32 {
        match self.signals.last() {
            Some(Signal::Watermark(_) | Signal::Idle) => self.records.len().max(1) as u32,
            _ => self.records.len() as u32,
        }
    }

    /// Neither records nor signals.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.signals.is_empty()
    }
}
