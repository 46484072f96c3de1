//! Where the rows of a job go: each subtask folds its own, and they are joined when it closes.

use crate::digest::{Outcome, Row, RowSink};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate::prelude::*;

/// The rows of a job; clones share the outcome.
#[derive(Clone, Default)]
pub struct RowsOut {
    unused: RowSink,
    total: Arc<Mutex<Outcome>>,
}

impl RowsOut {
    /// Rows of which each subtask's go to a clone of `unused`.
    pub fn new(unused: RowSink) -> Self {
        RowsOut {
            unused,
            total: Arc::default(),
        }
    }

    /// What came in, once the job has ended.
    pub fn outcome(&self) -> Outcome {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Row + 'static> Sink<R> for RowsOut {
    type Writer = RowWriter;

    fn open(&self, _context: &mut OpenContext<'_>) -> Flow<RowWriter> {
        Ok(RowWriter {
            sink: self.unused.clone(),
            total: self.total.clone(),
        })
    }
}

/// The rows of one subtask.
pub struct RowWriter {
    sink: RowSink,
    total: Arc<Mutex<Outcome>>,
}

impl<R: Row + 'static> SinkWriter<R> for RowWriter {
    #[inline(always)]
    fn write(&mut self, _at: Timestamp, row: R) -> Flow {
        self.sink.emit(&row);
        Ok(())
    }

    fn close(&mut self) -> Flow {
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        *total = total.plus(self.sink.outcome());
        Ok(())
    }
}
