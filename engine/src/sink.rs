//! Where records go in the end.

use crate::build::OpenContext;
use crate::fault::{Fault, Flow, PanicMark};
use crate::observe::SubtaskStats;
use crate::stage::{Collector, Signal, Stage, Turn};
use crate::time::Timestamp;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The description of a sink; each subtask opens a writer of its own.
pub trait Sink<T>: Send + Sync + 'static {
    /// What a subtask writes with.
    type Writer: SinkWriter<T>;

    /// Checks, before the job starts, what can be checked.
    fn check(&self) -> Flow {
        Ok(())
    }

    /// Opens the writer of one subtask.
    fn open(&self, context: &mut OpenContext<'_>) -> Flow<Self::Writer>;
}

/// Writes the records of one subtask.
pub trait SinkWriter<T>: 'static {
    /// Takes a record. Must not block.
    fn write(&mut self, at: Timestamp, value: T) -> Flow;

    /// Whether it can take more now. While it can't, input stops, back to the source.
    fn has_room(&self) -> bool {
        true
    }

    /// The end of a turn: a chance to hand on what is buffered. Returns when it wants another turn,
    /// at the latest; `Timestamp::MAX` for none.
    fn turn(&mut self, _now: Timestamp) -> Flow<Timestamp> {
        Ok(Timestamp::MAX)
    }

    /// The input is complete: write out everything. Must not block; [`SinkWriter::closed`] tells when
    /// it is done.
    fn close(&mut self) -> Flow {
        Ok(())
    }

    /// Everything is written.
    fn closed(&self) -> bool {
        true
    }
}

/// The last stage of a chain.
pub struct SinkStage<T, W> {
    /// Absent in subtasks beyond the sink's parallelism, which are given no record.
    writer: Option<W>,
    name: Rc<str>,
    stats: Arc<SubtaskStats>,
    written: u64,
    published: u64,
    ended: bool,
    input: PhantomData<fn(T)>,
}

impl<T, W: SinkWriter<T>> SinkStage<T, W> {
    /// Writes with an opened writer.
    pub fn new(writer: Option<W>, name: Rc<str>, stats: Arc<SubtaskStats>) -> Self {
        let input = PhantomData;
        SinkStage {
            writer,
            name,
            stats,
            written: 0,
            published: 0,
            ended: false,
            input,
        }
    }

    #[cold]
    fn named(&self, fault: Fault) -> Fault {
        fault.at(&self.name)
    }
}

impl<T, W: SinkWriter<T>> Collector<T> for SinkStage<T, W> {
    #[inline(always)]
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let mark = PanicMark::new(&self.name);
        let result = writer.write(at, value);
        mark.passed();
        self.written += 1;
        result.map_err(|fault| self.named(fault))
    }

    fn has_room(&self) -> bool {
        self.writer.as_ref().is_none_or(SinkWriter::has_room)
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<T, W: SinkWriter<T>> Stage for SinkStage<T, W> {
    fn each(&mut self, _visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        Ok(())
    }

    fn each_ref(&self, _visit: &mut dyn FnMut(&dyn Stage)) {}

    fn signal(&mut self, signal: Signal) -> Flow {
        if signal == Signal::EndOfInput {
            self.ended = true;
            if let Some(writer) = &mut self.writer {
                writer.close().map_err(|fault| fault.at(&self.name))?;
            }
        }
        Ok(())
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        if let Some(writer) = &mut self.writer {
            turn.wake_at(
                writer
                    .turn(turn.now)
                    .map_err(|fault| fault.at(&self.name))?,
            );
        }
        let more = self.written - std::mem::replace(&mut self.published, self.written);
        if more > 0 {
            self.stats.records_out.fetch_add(more, Relaxed);
            let bytes = more * size_of::<T>() as u64;
            self.stats.bytes_out.fetch_add(bytes, Relaxed);
        }
        Ok(())
    }

    fn room(&self) -> bool {
        self.writer.as_ref().is_none_or(SinkWriter::has_room)
    }

    fn finished(&self) -> bool {
        self.writer
            .as_ref()
            .is_none_or(|writer| self.ended && writer.closed())
    }
}
