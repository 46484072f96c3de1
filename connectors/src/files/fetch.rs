//! The thread that reads a subtask's splits, one after the other or all as they grow, and hands over
//! blocks of whole records.

use super::follow::Follow;
use super::open_file::{OpenFile, Piece, ReadOptions};
use super::plan::Split;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::Waker;

/// Blocks that may wait for the subtask.
const AHEAD: usize = 4;

/// The file, or range of one, that a block is from.
#[derive(Debug)]
pub(crate) struct FileMark {
    pub(crate) name: String,
    pub(crate) header: Vec<u8>,
    /// A range of a file: its lines have no numbers.
    pub(crate) ranged: bool,
    /// The number of the split among the reader's.
    pub(crate) split: usize,
    /// The header is still to come.
    pub(crate) provisional: bool,
}

impl FileMark {
    pub(crate) fn new(path: &Path, header: Vec<u8>, ranged: bool, split: usize) -> Self {
        FileMark {
            name: path.display().to_string(),
            header,
            ranged,
            split,
            provisional: false,
        }
    }

    /// Before the header was seen.
    pub(crate) fn provisional(mut self) -> Self {
        self.provisional = true;
        self
    }

    /// A place in the file.
    pub(crate) fn position(&self, line: u64, offset: u64) -> String {
        if self.ranged {
            format!("{}@{offset}", self.name)
        } else {
            format!("{}:{line}", self.name)
        }
    }
}

/// Whole records: `bytes[start..end]`, of which the first stands at `offset` on `line`.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) mark: Arc<FileMark>,
    pub(crate) bytes: Vec<u8>,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) line: u64,
    pub(crate) offset: u64,
}

/// A record that was skipped because it is too long.
#[derive(Debug)]
pub(crate) struct Oversized {
    pub(crate) mark: Arc<FileMark>,
    /// Its beginning.
    pub(crate) raw: Vec<u8>,
    pub(crate) length: u64,
    pub(crate) line: u64,
    pub(crate) offset: u64,
    /// The line and the offset behind it.
    pub(crate) behind: (u64, u64),
}

/// What the thread hands over.
pub(crate) enum Event {
    Block(Block),
    Oversized(Oversized),
    /// A new file, which is given the next number.
    Found(Split),
    /// The split of this number is read to its end; the file stays known.
    Finished(usize),
    /// The file of this number is read from its beginning again.
    Restarted(usize),
    /// The split of this number is read to its end; if the file comes again, it is a new one.
    Forgotten(usize),
    Failed(Fault),
    End,
}

/// What a thread has to read.
pub(crate) struct Work {
    pub(crate) splits: Vec<Split>,
    pub(crate) options: ReadOptions,
    pub(crate) follow: Option<Follow>,
}

/// The subtask's end of a reading thread. Dropping it ends the thread.
pub(crate) struct Fetcher {
    events: Option<Receiver<Event>>,
    emptied: Option<Sender<Vec<u8>>>,
    hungry: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Reading can't stall: only regular files are read.
    joins: bool,
}

impl Fetcher {
    /// Starts the thread.
    pub(crate) fn start(work: Work, waker: Waker) -> Flow<Self> {
        let joins = work.splits.iter().all(|s| s.path.is_file());
        let (events_in, events) = bounded(AHEAD);
        let (emptied, emptied_out) = bounded(AHEAD + 2);
        let hungry = Arc::new(AtomicBool::new(false));
        let thread = Thread {
            events: events_in,
            emptied: emptied_out,
            hungry: hungry.clone(),
            waker,
        };
        let spawned = thread::Builder::new().name("tidegate-read".into());
        let spawned = spawned.spawn(move || thread.run(work)).map_err(|error| {
            Fault::external(format_args!("can't start a thread to read files: {error}"))
        })?;
        let (events, emptied, thread) = (Some(events), Some(emptied), Some(spawned));
        Ok(Fetcher {
            events,
            emptied,
            hungry,
            thread,
            joins,
        })
    }

    /// What is there; `None` says that the waker is going to be called.
    pub(crate) fn next(&self) -> Flow<Option<Event>> {
        let Some(events) = &self.events else {
            return Ok(Some(Event::End));
        };
        if let Ok(event) = events.try_recv() {
            return Ok(Some(event));
        }
        self.hungry.store(true, SeqCst);
        match events.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Fault::internal("the reading thread is gone")),
        }
    }

    /// Gives back an emptied buffer.
    pub(crate) fn recycle(&self, buffer: Vec<u8>) {
        if let Some(emptied) = &self.emptied {
            let _ = emptied.try_send(buffer);
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.events = None;
        self.emptied = None;
        if let Some(thread) = self
            .thread
            .take()
            .filter(|thread| self.joins || thread.is_finished())
        {
            let _ = thread.join();
        }
    }
}

/// The reading thread.
pub(super) struct Thread {
    events: Sender<Event>,
    emptied: Receiver<Vec<u8>>,
    hungry: Arc<AtomicBool>,
    waker: Waker,
}

/// The subtask is gone.
pub(super) struct Gone;

impl Thread {
    fn run(self, work: Work) {
        let done = match &work.follow {
            None => self.read_all(&work),
            Some(follow) => self.follow(&work, follow),
        };
        let last = match done {
            Ok(Ok(())) => Event::End,
            Ok(Err(fault)) => Event::Failed(fault),
            Err(Gone) => return,
        };
        let _ = self.send(last);
    }

    pub(super) fn send(&self, event: Event) -> Result<(), Gone> {
        self.events.send(event).map_err(|_| Gone)?;
        if self.hungry.swap(false, SeqCst) {
            self.waker.wake();
        }
        Ok(())
    }

    fn spare(&self) -> Vec<u8> {
        self.emptied.try_recv().unwrap_or_default()
    }

    fn read_all(&self, work: &Work) -> Result<Flow, Gone> {
        for (number, split) in work.splits.iter().enumerate() {
            let mut file = match self.open(split, number, work.options)? {
                Ok(file) => file,
                Err(fault) => return Ok(Err(fault)),
            };
            if let Err(fault) = self.drain(&mut file, true)? {
                return Ok(Err(fault));
            }
            self.send(Event::Forgotten(number))?;
        }
        Ok(Ok(()))
    }

    /// Opens a split where an earlier attempt got to.
    pub(super) fn open(
        &self,
        split: &Split,
        number: usize,
        options: ReadOptions,
    ) -> Result<Flow<OpenFile>, Gone> {
        let mut file = match OpenFile::open(split, number, options) {
            Ok(file) => file,
            Err(fault) => return Ok(Err(fault)),
        };
        loop {
            match file.skip_some() {
                Ok(true) if self.abandoned() => return Err(Gone),
                Ok(true) => {}
                Ok(false) => return Ok(Ok(file)),
                Err(fault) => return Ok(Err(fault)),
            }
        }
    }

    /// Whether the subtask is gone: then nobody gives back buffers any more.
    fn abandoned(&self) -> bool {
        matches!(self.emptied.try_recv(), Err(TryRecvError::Disconnected))
    }

    /// Hands over what a file holds now.
    pub(super) fn drain(&self, file: &mut OpenFile, complete: bool) -> Result<Flow, Gone> {
        loop {
            match file.next(complete, &mut || self.spare()) {
                Ok(Piece::Block(block)) => self.send(Event::Block(block))?,
                Ok(Piece::Oversized(oversized)) => self.send(Event::Oversized(oversized))?,
                Ok(Piece::Dry) => return Ok(Ok(())),
                Err(fault) => return Ok(Err(fault)),
            }
        }
    }

    /// Waits for a while, or until the subtask is gone: then nobody gives back buffers any more.
    pub(super) fn pause(&self, pause: Duration) -> Result<(), Gone> {
        let until = std::time::Instant::now() + pause;
        loop {
            match self.emptied.recv_deadline(until) {
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Gone),
            }
        }
    }
}
