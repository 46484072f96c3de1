//! Where records go in the end.
//!
//! A [`Sink`] is the description that a job holds; a [`SinkWriter`] is what a subtask writes with. One
//! whose output may only be seen once a checkpoint covers it says so with [`TwoPhase`].

mod recovery;
mod stage;
mod two_phase;

pub use recovery::RecoveryContext;
pub use stage::SinkStage;
pub use two_phase::{TwoPhase, committables};

use crate::build::OpenContext;
use crate::fault::Flow;
use crate::time::Timestamp;

/// The description of a sink; each subtask opens a writer of its own.
pub trait Sink<T>: Send + Sync + 'static {
    /// What a subtask writes with.
    type Writer: SinkWriter<T>;

    /// Checks, before the job starts, what can be checked.
    fn check(&self) -> Flow {
        Ok(())
    }

    /// Called once in each attempt, before any writer is opened: a two-phase sink makes visible what
    /// `committables` stand for, all that the checkpoint covers which the attempt goes on from, and does
    /// away with all else that earlier attempts left. `None` where it begins from scratch. May block.
    fn recover(&self, _committables: Option<Vec<Vec<u8>>>) -> Flow {
        Ok(())
    }

    /// The same, for sinks that need to know of which job they are part. It is what is called.
    fn recover_in(
        &self,
        _context: &RecoveryContext<'_>,
        committables: Option<Vec<Vec<u8>>>,
    ) -> Flow {
        self.recover(committables)
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

    /// A barrier is here: what was written before it is to leave this process. Must not block;
    /// [`SinkWriter::flushed`] tells when it has, and the checkpoint waits for that.
    fn flush(&mut self) -> Flow {
        Ok(())
    }

    /// Whether the last [`SinkWriter::flush`] is done.
    fn flushed(&mut self) -> Flow<bool> {
        Ok(true)
    }

    /// The other hooks of a writer whose output becomes visible in two phases.
    fn two_phase(&mut self) -> Option<&mut dyn TwoPhase> {
        None
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
