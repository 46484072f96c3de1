//! A sink that keeps everything in memory, for tests and small results.

use std::sync::{Arc, Mutex, PoisonError};
use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::Flow;
use tidegate_engine::sink::{Sink, SinkWriter};
use tidegate_engine::time::Timestamp;

/// Keeps records; clones share them. Those behind a checkpoint come again after a recovery. Read them with [`Collect::take`] when the job has ended.
pub struct Collect<T> {
    records: Arc<Mutex<Vec<(Timestamp, T)>>>,
}

impl<T> Clone for Collect<T> {
    fn clone(&self) -> Self {
        Collect {
            records: self.records.clone(),
        }
    }
}

impl<T> Default for Collect<T> {
    fn default() -> Self {
        Collect {
            records: Arc::default(),
        }
    }
}

impl<T> Collect<T> {
    /// An empty collection.
    pub fn new() -> Self {
        Collect::default()
    }

    /// Takes the records collected so far, with their timestamps. Records of one subtask are in
    /// order; those of several are mixed.
    pub fn take(&self) -> Vec<(Timestamp, T)> {
        std::mem::take(&mut self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the records collected so far.
    pub fn values(&self) -> Vec<T> {
        self.take().into_iter().map(|(_, value)| value).collect()
    }
}

impl<T: Send + 'static> Sink<T> for Collect<T> {
    type Writer = CollectWriter<T>;

    fn open(&self, _context: &mut OpenContext<'_>) -> Flow<CollectWriter<T>> {
        Ok(CollectWriter {
            kept: Vec::new(),
            into: self.clone(),
        })
    }
}

/// Collects the records of one subtask; hands them over at the end of each turn.
pub struct CollectWriter<T> {
    kept: Vec<(Timestamp, T)>,
    into: Collect<T>,
}

impl<T: Send + 'static> SinkWriter<T> for CollectWriter<T> {
    fn write(&mut self, at: Timestamp, value: T) -> Flow {
        self.kept.push((at, value));
        Ok(())
    }

    fn turn(&mut self, _now: Timestamp) -> Flow<Timestamp> {
        if !self.kept.is_empty() {
            let mut records = self
                .into
                .records
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            records.append(&mut self.kept);
        }
        Ok(Timestamp::MAX)
    }

    fn flush(&mut self) -> Flow {
        self.turn(Timestamp::MIN).map(drop)
    }
}
