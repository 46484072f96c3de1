//! Where the rows of a job go: each subtask folds its own, and they are joined when it closes. If asked for, they also
//! go to files, exactly once.

use crate::digest::{Outcome, Row, RowSink};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate::connectors::files::{FileWriter, LinesOut};
use tidegate::engine::sink::TwoPhase;
use tidegate::prelude::*;

/// The rows of a job; clones share the outcome.
#[derive(Clone, Default)]
pub struct RowsOut {
    unused: RowSink,
    output: Option<PathBuf>,
    total: Arc<Mutex<Outcome>>,
}

impl RowsOut {
    /// Rows of which each subtask's go to a clone of `unused`, and to a folder of parts.
    pub fn new(unused: RowSink, output: Option<PathBuf>) -> Self {
        RowsOut {
            unused,
            output,
            total: Arc::default(),
        }
    }

    /// What came in, once the job has ended.
    pub fn outcome(&self) -> Outcome {
        *self.total.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn files<R: Row + 'static>(&self) -> Option<FileSink<Lines<R>>> {
        let folder = self.output.as_ref()?;
        let write: WriteLine<R> = write_row;
        Some(FileSink::lines_with(folder, write))
    }
}

type WriteLine<R> = fn(&R, &mut dyn Write) -> io::Result<()>;
type Lines<R> = LinesOut<R, WriteLine<R>>;

fn write_row<R: Row>(row: &R, out: &mut dyn Write) -> io::Result<()> {
    out.write_all(row.csv().as_bytes())
}

impl<R: Row + 'static> Sink<R> for RowsOut {
    type Writer = RowWriter<R>;

    fn check(&self) -> Flow {
        self.files::<R>().map_or(Ok(()), |files| files.check())
    }

    fn recover(&self, committables: Option<Vec<Vec<u8>>>) -> Flow {
        let files = self.files::<R>();
        files.map_or(Ok(()), |files| files.recover(committables))
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<RowWriter<R>> {
        Ok(RowWriter {
            sink: self.unused.clone(),
            file: self.files().map(|f| f.open(context)).transpose()?,
            total: self.total.clone(),
        })
    }
}

/// The rows of one subtask.
pub struct RowWriter<R: Row + 'static> {
    sink: RowSink,
    file: Option<FileWriter<Lines<R>>>,
    total: Arc<Mutex<Outcome>>,
}

impl<R: Row + 'static> RowWriter<R> {
    /// Out of the way of runs that only digest their rows.
    #[cold]
    fn write_to_file(&mut self, at: Timestamp, row: R) -> Flow {
        let file = self.file.as_mut();
        file.map_or(Ok(()), |file| file.write(at, row))
    }
}

impl<R: Row + 'static> SinkWriter<R> for RowWriter<R> {
    #[inline(always)]
    fn write(&mut self, at: Timestamp, row: R) -> Flow {
        self.sink.emit(&row);
        if self.file.is_some() {
            return self.write_to_file(at, row);
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.file.as_ref().is_none_or(SinkWriter::has_room)
    }

    fn turn(&mut self, now: Timestamp) -> Flow<Timestamp> {
        let file = self.file.as_mut();
        file.map_or(Ok(Timestamp::MAX), |file| file.turn(now))
    }

    fn two_phase(&mut self) -> Option<&mut dyn TwoPhase> {
        self.file.as_mut().and_then(SinkWriter::two_phase)
    }

    fn close(&mut self) -> Flow {
        let mut total = self.total.lock().unwrap_or_else(PoisonError::into_inner);
        *total = total.plus(self.sink.outcome());
        self.file.as_mut().map_or(Ok(()), SinkWriter::close)
    }

    fn closed(&self) -> bool {
        self.file.as_ref().is_none_or(SinkWriter::closed)
    }
}
