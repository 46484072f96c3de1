//! A walk over all entries of a state as they were at one moment, read by a thread of its own so that
//! no turn waits for the disk.

use super::database::{Database, failed};
use super::layout::Layout;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::state::backing::{Change, Changes, Scan};

/// Bytes that are handed over at once, about.
const AT_ONCE: usize = 256 << 10;
/// How many of those wait to be taken.
const WAITING: usize = 4;

type Received = Result<Changes, String>;

/// See the module.
pub(super) struct ThreadScan {
    pieces: Option<Receiver<Received>>,
    /// What was received, and how much of it was shown.
    current: (Changes, usize),
    thread: Option<JoinHandle<()>>,
    database: Arc<Database>,
}

impl ThreadScan {
    /// Returns when the moment is fixed.
    pub fn begin(database: Arc<Database>, layout: Layout) -> Flow<Self> {
        let (send, pieces) = sync_channel(WAITING);
        let (begun, fixed) = sync_channel(1);
        let reads = database.clone();
        let thread = thread::Builder::new()
            .name("state-scan".to_owned())
            .spawn(move || read(&reads, &layout, &begun, &send))
            .map_err(|error| failed("start a thread", database.path(), error))?;
        let ended = |_| failed("read", database.path(), "the thread ended");
        fixed.recv().map_err(ended)?;
        Ok(ThreadScan {
            pieces: Some(pieces),
            current: Default::default(),
            thread: Some(thread),
            database,
        })
    }

    /// Whether there is a piece to show; `None` at the end.
    fn receive(&mut self, wait: bool) -> Flow<Option<bool>> {
        let Some(pieces) = &self.pieces else {
            return Ok(None);
        };
        let received = if wait {
            pieces.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            pieces.try_recv()
        };
        match received {
            Ok(Ok(piece)) => {
                self.current = (piece, 0);
                Ok(Some(true))
            }
            Ok(Err(error)) => Err(failed("read", self.database.path(), error)),
            Err(TryRecvError::Empty) => Ok(Some(false)),
            Err(TryRecvError::Disconnected) => match self.thread.take().map(JoinHandle::join) {
                Some(Err(_)) => Err(Fault::internal("the thread that reads state panicked")),
                _ => Ok(None),
            },
        }
    }
}

impl Scan for ThreadScan {
    fn wait(&mut self) -> Flow {
        if self.current.1 == self.current.0.len() {
            self.receive(true)?;
        }
        Ok(())
    }

    fn next(&mut self, budget: usize, visit: &mut dyn FnMut(&[u8], &[u8]) -> Flow) -> Flow<bool> {
        let mut left = budget;
        while left > 0 {
            let (piece, shown) = &mut self.current;
            if *shown == piece.len() {
                match self.receive(budget == usize::MAX)? {
                    Some(true) => continue,
                    Some(false) => return Ok(false),
                    None => return Ok(true),
                }
            }
            let step = left.min(piece.len() - *shown);
            for change in piece.iter().skip(*shown).take(step) {
                if let Change::Put(key, value) = change {
                    visit(key, value)?;
                }
            }
            *shown += step;
            left -= step;
        }
        Ok(false)
    }
}

impl Drop for ThreadScan {
    fn drop(&mut self) {
        // The thread ends at its next piece.
        self.pieces = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn read(database: &Database, layout: &Layout, begun: &SyncSender<()>, send: &SyncSender<Received>) {
    let pieces = layout.pieces(&[], &[]);
    // A family that is dropped while it is read stays until then.
    let families = pieces.into_iter().filter_map(|piece| {
        let family = database.family_to_read(piece.family)?;
        Some((piece, family))
    });
    let families: Vec<_> = families.collect();
    let snapshot = database.db.snapshot();
    let _ = begun.send(());
    let mut changes = Changes::default();
    for (piece, family) in families {
        let mut entries = snapshot.raw_iterator_cf_opt(&family, piece.range());
        entries.seek_to_first();
        while let Some((key, value)) = entries.item() {
            let put = changes.put(|bytes| {
                bytes.extend_from_slice(key);
                let key_end = bytes.len();
                bytes.extend_from_slice(value);
                Ok(key_end)
            });
            if put.is_ok()
                && changes.bytes() >= AT_ONCE
                && send.send(Ok(std::mem::take(&mut changes))).is_err()
            {
                return;
            }
            entries.next();
        }
        if let Err(error) = entries.status() {
            drop(send.send(Err(error.to_string())));
            return;
        }
    }
    drop(send.send(Ok(changes)));
}
