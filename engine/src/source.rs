//! Where records come from.
//!
//! A [`Source`] is the description that a job holds; a [`SourceReader`] is what a subtask reads with.
//! A reader is asked for bounded slices and must not block: where nothing is there it says when to
//! ask again, or keeps the [`Waker`] it was given and calls it.

use crate::build::OpenContext;
use crate::checkpoint::visitor::{Capture, Opaque};
use crate::checkpoint::{
    Barrier, BarrierKind, CheckpointId, Notice, OperatorImage, Participant, StateVisitor,
};
use crate::fault::Flow;
use crate::node::Identity;
use crate::observe::SubtaskStats;
use crate::stage::{Collector, Head, Signal, Stage, Turn};
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// What a reader found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// So many records; there may be more at once.
    Read(usize),
    /// Nothing now: ask again after this long, or when the waker is called.
    Wait(Duration),
    /// The input is complete.
    End,
}

/// Asks a subtask's actor for a turn, from any thread.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Waker(Arc::new(wake))
    }

    /// A waker for readers that nobody has to wake.
    pub fn none() -> Self {
        Waker::new(|| ())
    }

    /// Asks for a turn.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

/// The description of a source.
pub trait Source: Send + Sync + 'static {
    /// The records it yields.
    type Item: 'static;
    /// What each subtask reads with.
    type Reader: SourceReader<Item = Self::Item>;

    /// Checks, before the job starts, what can be checked: does the file exist, is the option sound.
    /// An error is one line that says what, where and what to do.
    fn check(&self) -> Flow {
        Ok(())
    }

    /// Opens the reader of one subtask, which reads that subtask's share: what
    /// [`OpenContext::restored_splits`] names, where an earlier attempt got so far.
    fn open(&self, context: &mut OpenContext<'_>) -> Flow<Self::Reader>;

    /// Whether its readers go on where [`SourceReader::splits`] said. After a recovery, what a source that
    /// can't has read since the checkpoint is missing.
    fn replayable(&self) -> bool {
        false
    }

    /// Whether the input comes to an end.
    fn bounded(&self) -> bool {
        true
    }
}

/// Reads the share of one subtask.
pub trait SourceReader: 'static {
    /// The records it yields.
    type Item: 'static;

    /// Emits at most about `budget` records. Must not block.
    fn poll<C: Collector<Self::Item>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll>;

    /// Where the record that was emitted last came from, such as `flights.csv:1200`; empty where there is
    /// none.
    fn position(&self) -> String;

    /// Records so far that did not parse and were skipped or put aside.
    fn dead_letters(&self) -> u64 {
        0
    }

    /// The splits that it reads, each with the position behind the record that was emitted last, in any
    /// encoding; splits that it has read to their end need not be named. Another subtask may go on with
    /// each of them.
    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }

    /// What [`SourceReader::splits`] has just told, in words for people who look into a checkpoint, such as
    /// `orders, partition 3: offset 1200`.
    fn positions(&self) -> Vec<String> {
        Vec::new()
    }

    /// Whether everything has left this process that the reader has put aside, as it does with records that don't
    /// parse. A checkpoint waits for that after [`SourceReader::splits`] and [`SourceReader::close`].
    fn flushed(&mut self) -> Flow<bool> {
        Ok(true)
    }

    /// This checkpoint, and all before it, are complete: nobody will ask again for what they cover.
    fn completed(&mut self, _checkpoint: CheckpointId) -> Flow {
        Ok(())
    }

    /// Called after the last record or when the job ends early: release files and threads.
    fn close(&mut self) -> Flow {
        Ok(())
    }
}

/// The stage that reads: the head of a chain.
pub struct SourceHead<S: Source, D> {
    reader: Option<S::Reader>,
    name: Rc<str>,
    down: D,
    stats: Arc<SubtaskStats>,
    read: u64,
    ended: bool,
    /// It reads no further, though the input has not ended: the job is to end with this checkpoint.
    stopped: Option<CheckpointId>,
    /// It is to end its input where it is.
    drained: bool,
    participant: Participant,
    identity: Option<Identity>,
    /// Barriers whose image waits until what the reader has put aside is written, oldest first.
    saving: VecDeque<(Barrier, OperatorImage)>,
}

/// How soon a source looks again whether what was put aside is written.
const SOON: Duration = Duration::from_millis(1);
/// How often a stopped source looks whether it is to go on: hardly ever.
const STOPPED: Duration = Duration::from_secs(3600);

/// The name of the state in which a source's splits are kept.
pub const SPLITS: &str = "splits";

impl<S: Source, D> SourceHead<S, D> {
    /// Reads with `reader`; `None` in subtasks beyond the source's parallelism.
    pub fn new(
        reader: Option<S::Reader>,
        name: Rc<str>,
        stats: Arc<SubtaskStats>,
        down: D,
    ) -> Self {
        SourceHead {
            reader,
            name,
            down,
            stats,
            read: 0,
            ended: false,
            stopped: None,
            drained: false,
            participant: Participant::default(),
            identity: None,
            saving: VecDeque::new(),
        }
    }

    /// Takes part in checkpoints.
    pub fn participate(mut self, participant: Participant, identity: Identity) -> Self {
        self.participant = participant;
        self.identity = Some(identity);
        self
    }

    /// Saves where the reader is.
    fn save(&mut self, barrier: Barrier) -> Flow {
        let (Some(reader), Some(identity)) = (&mut self.reader, &self.identity) else {
            return Ok(());
        };
        if !self.participant.begin(barrier) {
            return Ok(());
        }
        let splits = if self.ended {
            Vec::new()
        } else {
            let splits = reader.splits()?;
            self.participant.positions(barrier, reader.positions());
            splits
        };
        let mut capture = Capture::new(identity.max_parallelism);
        StateVisitor::freeze(&mut capture).list(SPLITS, &mut Opaque(splits))?;
        let image = identity.image(&self.name, Timestamp::MIN, capture.into_states());
        self.saving.push_back((barrier, image));
        self.hand_over().map(drop)
    }

    /// Hands over the images that wait for nothing more. True once none is left.
    fn hand_over(&mut self) -> Flow<bool> {
        if self.saving.is_empty() {
            return Ok(true);
        }
        if let Some(reader) = &mut self.reader
            && !reader.flushed()?
        {
            return Ok(false);
        }
        for (barrier, image) in self.saving.drain(..) {
            self.participant.saved(barrier, Some(image));
        }
        Ok(true)
    }
}

impl<S: Source, D: Collector<S::Item> + Stage> Stage for SourceHead<S, D> {
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        visit(&mut self.down)
    }

    fn each_ref(&self, visit: &mut dyn FnMut(&dyn Stage)) {
        visit(&self.down);
    }

    fn notify(&mut self, notice: Notice) -> Flow {
        if let Notice::Aborted { id } = notice {
            // The job goes on.
            self.stopped = self.stopped.filter(|stop| *stop > id);
        }
        if let (Some(reader), Notice::Completed { id, .. }) = (&mut self.reader, notice) {
            let told = reader.completed(id);
            told.map_err(|fault| fault.at(&self.name))?;
        }
        if let Notice::Aborted { id } = notice
            && self.stopped.is_some_and(|stopped| stopped <= id)
        {
            self.stopped = None;
        }
        self.down.notify(notice)
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        if let Some(reader) = &self.reader {
            let bytes = self.read * size_of::<S::Item>() as u64;
            self.stats.records_in.store(self.read, Relaxed);
            self.stats.bytes_in.store(bytes, Relaxed);
            self.stats
                .dead_letters
                .store(reader.dead_letters(), Relaxed);
        }
        if !self.hand_over().map_err(|fault| fault.at(&self.name))? {
            turn.wake_at(turn.now.plus(SOON));
        }
        self.down.turn(turn)
    }
}

impl<S: Source, D: Collector<S::Item> + Stage> Head for SourceHead<S, D> {
    fn poll(&mut self, budget: usize) -> Flow<Poll> {
        let Some(reader) = &mut self.reader else {
            return Ok(Poll::End);
        };
        if self.stopped.is_some() {
            return Ok(Poll::Wait(STOPPED));
        }
        let polled = if self.drained {
            Ok(Poll::End)
        } else {
            reader.poll(budget, &mut self.down)
        };
        let found = match polled {
            Ok(found) => found,
            Err(fault) => {
                let at = reader.position();
                return Err(fault.at(&self.name).on_record(|| at));
            }
        };
        match found {
            Poll::Read(records) => self.read += records as u64,
            Poll::Wait(_) => {}
            Poll::End => {
                reader.close().map_err(|fault| fault.at(&self.name))?;
                self.ended = true;
                Stage::signal(&mut self.down, Signal::Watermark(Timestamp::MAX))?;
                Stage::signal(&mut self.down, Signal::EndOfInput)?;
            }
        }
        Ok(found)
    }

    fn trigger(&mut self, barrier: Barrier) -> Flow {
        self.save(barrier).map_err(|fault| fault.at(&self.name))?;
        // A later one tells that the stop before it was given up.
        self.stopped = (barrier.kind == BarrierKind::Stop).then_some(barrier.id);
        Stage::signal(&mut self.down, Signal::Barrier(barrier))
    }

    fn drain(&mut self) {
        self.drained = true;
    }

    fn position(&self) -> Option<String> {
        let position = self.reader.as_ref().map(SourceReader::position);
        position.filter(|position| !position.is_empty())
    }
}
