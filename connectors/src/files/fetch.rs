//! The thread that reads a subtask's splits, one after the other or all as they grow, and hands over
//! blocks of whole records.

use super::open_file::{OpenFile, Piece, ReadOptions};
use super::plan::{self, Split};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};
use std::path::{Path, PathBuf};
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
}

impl FileMark {
    pub(crate) fn new(path: &Path, header: Vec<u8>, ranged: bool) -> Self {
        FileMark {
            name: path.display().to_string(),
            header,
            ranged,
        }
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
}

/// What the thread hands over.
pub(crate) enum Event {
    Block(Block),
    Oversized(Oversized),
    Failed(Fault),
    End,
}

/// What a thread has to read.
pub(crate) struct Work {
    pub(crate) splits: Vec<Split>,
    pub(crate) options: ReadOptions,
    pub(crate) follow: Option<Follow>,
}

/// How growing files are followed.
pub(crate) struct Follow {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) every: Duration,
    /// This subtask's share of the files that are found later.
    pub(crate) share: (u32, u32),
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

struct Thread {
    events: Sender<Event>,
    emptied: Receiver<Vec<u8>>,
    hungry: Arc<AtomicBool>,
    waker: Waker,
}

/// The subtask is gone.
struct Gone;

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

    fn send(&self, event: Event) -> Result<(), Gone> {
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
        for split in &work.splits {
            let mut file = match OpenFile::open(split, work.options) {
                Ok(file) => file,
                Err(fault) => return Ok(Err(fault)),
            };
            if let Err(fault) = self.drain(&mut file, true)? {
                return Ok(Err(fault));
            }
        }
        Ok(Ok(()))
    }

    /// Hands over what a file holds now.
    fn drain(&self, file: &mut OpenFile, complete: bool) -> Result<Flow, Gone> {
        loop {
            match file.next(complete, &mut || self.spare()) {
                Ok(Piece::Block(block)) => self.send(Event::Block(block))?,
                Ok(Piece::Oversized(oversized)) => self.send(Event::Oversized(oversized))?,
                Ok(Piece::Dry) => return Ok(Ok(())),
                Err(fault) => return Ok(Err(fault)),
            }
        }
    }

    fn follow(&self, work: &Work, follow: &Follow) -> Result<Flow, Gone> {
        let mut known: Vec<Arc<Path>> = Vec::new();
        let mut open: Vec<OpenFile> = Vec::new();
        loop {
            let found = match plan::list(&follow.paths) {
                Ok(found) => found,
                Err(fault) => return Ok(Err(fault)),
            };
            for path in found.into_iter().filter(|p| mine(p, follow.share)) {
                if known.contains(&path) {
                    continue;
                }
                let split = Split {
                    path: path.clone(),
                    range: None,
                };
                match OpenFile::open(&split, work.options) {
                    Ok(file) => open.push(file),
                    Err(fault) => return Ok(Err(fault)),
                }
                known.push(path);
            }
            for file in &mut open {
                let complete = !file.can_grow();
                let restarted = file.restart_if_truncated();
                if let Err(fault) = restarted.and(self.drain(file, complete)?) {
                    return Ok(Err(fault));
                }
            }
            open.retain(OpenFile::can_grow);
            self.pause(follow.every)?;
        }
    }

    /// Waits for a while, or until the subtask is gone: then nobody gives back buffers any more.
    fn pause(&self, pause: Duration) -> Result<(), Gone> {
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

/// Whether a file is this subtask's: by the hash of its path, so that all subtasks agree whatever they
/// find first.
pub(crate) fn mine(path: &Path, (me, of): (u32, u32)) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 32) % u64::from(of.max(1)) == u64::from(me)
}
