//! The links of a chain: what flows down, what control each link must pass on.
//!
//! A chain is built from its sink to its source: each [`Stage`] owns the next one, so the compiler
//! sees a whole chain as one type and inlines it into one loop. Records take the typed road
//! ([`Collector`]), without dynamic dispatch. Everything that is rare (signals, turns, batches from
//! other subtasks) takes the untyped road of [`Stage`], whose defaults pass on.
//!
//! The grammar of what a stage sees between `open` and the end, on each channel:
//!
//! ```text
//! stream  = { record | Watermark | Idle | Barrier } EndOfInput
//! ```
//!
//! with watermarks that never go back, the last of them `Timestamp::MAX`, barriers whose numbers grow,
//! and nothing behind `EndOfInput`. Inside a chain a barrier may come behind `EndOfInput`: it asks the
//! stages for the state that they were left with. [`crate::testing::GrammarCheck`] checks it.

use crate::checkpoint::{Barrier, CheckpointId, Notice};
use crate::exchange::{AnyBatch, EdgeId, Outbox};
use crate::fault::Flow;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Takes records. `collect` is called once a record and must not block.
pub trait Collector<T> {
    /// Takes one record with its event time (`Timestamp::MIN` where it has none).
    fn collect(&mut self, at: Timestamp, value: T) -> Flow;

    /// Whether there is room downstream. An operator that emits much at once (a window that fires)
    /// asks now and then, and goes on later where there is none.
    fn has_room(&self) -> bool {
        true
    }

    /// Passes a signal behind the records collected so far; for operators that make watermarks.
    fn signal(&mut self, signal: Signal) -> Flow;
}

/// What flows between the records of a channel, in order with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Signal {
    /// No record with this or a smaller timestamp follows, except late ones.
    Watermark(Timestamp),
    /// Nothing flows here for now: do not wait for this channel's watermark.
    Idle,
    /// What came before belongs to this checkpoint, what comes behind does not.
    Barrier(Barrier),
    /// The channel is complete.
    EndOfInput,
}

/// Whether a subtask's stage takes a batch of a channel now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accept {
    /// It does.
    Now,
    /// There is no room behind it.
    NoRoom,
    /// This channel waits for the barriers of others.
    Blocked,
}

/// One turn of a subtask as its stages see it.
pub struct Turn<'a> {
    /// Processing time at the beginning of the turn.
    pub now: Timestamp,
    /// Where batches and credits for other subtasks go.
    pub outbox: &'a mut dyn Outbox,
    /// Since the turn before, the subtask was for some time unable to take input, for lack of room or
    /// by order: who measures idleness does not count that time.
    pub held_back: bool,
    /// A stage has more to do at once.
    pub again: bool,
    /// The earliest processing time at which a stage wants another turn.
    pub wake_at: Timestamp,
}

impl<'a> Turn<'a> {
    /// A turn that begins at `now`.
    pub fn new(now: Timestamp, outbox: &'a mut dyn Outbox) -> Self {
        Turn {
            now,
            outbox,
            held_back: false,
            again: false,
            wake_at: Timestamp::MAX,
        }
    }

    /// Asks for a turn at `at` or earlier.
    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake_at = self.wake_at.min(at);
    }
}

/// A message of an edge on its way to the stage that owns the edge's end in this subtask.
pub enum Delivery<'a> {
    /// Records of producer subtask `from`, with the signals behind them.
    Batch {
        /// The producer's subtask number.
        from: u32,
        /// The batch, taken by the stage that it is for.
        batch: &'a mut Option<AnyBatch>,
        /// How many batches wait behind it, if they had to wait for room; else 0.
        queued: usize,
    },
    /// A barrier of producer subtask `from`, ahead of batches that wait here.
    Barrier {
        /// The producer's subtask number.
        from: u32,
        /// The barrier.
        barrier: Barrier,
        /// How many batches it is ahead of.
        ahead_of: usize,
        /// Whether these are to be recorded, as the stage says.
        record: &'a mut bool,
    },
    /// A batch that a barrier has overtaken, for its records to become part of the checkpoint.
    Record {
        /// The checkpoint.
        id: CheckpointId,
        /// The batch, which still waits.
        batch: &'a AnyBatch,
        /// How many records there are, as the stage says.
        records: &'a mut usize,
    },
    /// Consumer subtask `from` welcomes more records.
    Credit {
        /// The consumer's subtask number.
        from: u32,
        /// How many records more.
        records: u32,
        /// Emptied batches for reuse.
        buffers: &'a mut Vec<AnyBatch>,
    },
}

/// The control side of a link. Defaults pass on to the stages behind.
pub trait Stage {
    /// Visits the stages directly behind this one.
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow;

    /// Visits the stages directly behind this one, for reading.
    fn each_ref(&self, visit: &mut dyn FnMut(&dyn Stage));

    /// Passes a signal, in order with the records.
    fn signal(&mut self, signal: Signal) -> Flow {
        self.each(&mut |next| next.signal(signal))
    }

    /// The end of a turn: fire due timers, emit watermarks, resume what was suspended, hand full or
    /// old batches to the outbox. Called at least once after each input and each wake-up.
    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        self.each(&mut |next| next.turn(turn))
    }

    /// Brings a message to the stage that owns `edge`. True once it arrived.
    fn deliver(&mut self, edge: EdgeId, delivery: &mut Delivery<'_>) -> Flow<bool> {
        let mut arrived = false;
        self.each(&mut |next| {
            arrived = arrived || next.deliver(edge, delivery)?;
            Ok(())
        })?;
        Ok(arrived)
    }

    /// Whether everything from here on can take records now.
    fn room(&self) -> bool {
        let mut room = true;
        self.each_ref(&mut |next| room = room && next.room());
        room
    }

    /// Whether the stage that receives `edge` can take a batch of producer `from` now; `None` where it
    /// is not here.
    fn accepts(&self, edge: EdgeId, from: u32) -> Option<Accept> {
        let mut found = None;
        self.each_ref(&mut |next| found = found.or_else(|| next.accepts(edge, from)));
        found
    }

    /// Whether a barrier waits somewhere behind here: what is emitted now would overtake it.
    fn holds_barrier(&self) -> bool {
        let mut holds = false;
        self.each_ref(&mut |next| holds = holds || next.holds_barrier());
        holds
    }

    /// A checkpoint's barriers overtake what waits: none of them is to wait any longer. The first stages are
    /// told first.
    fn overtake(&mut self, barrier: Barrier) -> Flow {
        self.each(&mut |next| next.overtake(barrier))
    }

    /// What became of a checkpoint.
    fn notify(&mut self, notice: Notice) -> Flow {
        self.each(&mut |next| next.notify(notice))
    }

    /// Whether everything that the job's last checkpoint covers can be seen outside.
    fn committed(&mut self) -> Flow<bool> {
        let mut committed = true;
        self.each(&mut |next| {
            committed &= next.committed()?;
            Ok(())
        })?;
        Ok(committed)
    }

    /// Whether all input has ended and all output has left, or waits for the last checkpoint only.
    fn finished(&self) -> bool {
        let mut finished = true;
        self.each_ref(&mut |next| finished = finished && next.finished());
        finished
    }
}

/// The first link of a subtask's chain.
pub trait Head: Stage {
    /// Opens what the chain reads from. Called once before anything else.
    fn open(&mut self) -> Flow {
        Ok(())
    }

    /// Reads one bounded slice of input of its own; heads that only receive have none.
    fn poll(&mut self, _budget: usize) -> Flow<crate::source::Poll> {
        Ok(crate::source::Poll::End)
    }

    /// A checkpoint begins: what was read so far belongs to it. A head that only receives learns of it
    /// by its channels, and is told so that one without any takes part too.
    fn trigger(&mut self, barrier: Barrier) -> Flow;

    /// To read no further, as if the input ended here.
    fn drain(&mut self) {}

    /// Where the record came from that was read last.
    fn position(&self) -> Option<String> {
        None
    }
}
