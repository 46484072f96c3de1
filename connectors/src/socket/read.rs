//! The thread that reads lines from a connection, and connects again where that is wished.

use super::source::Reconnect;
use crossbeam_channel::{Receiver, Sender};
use memchr::memchr;
use std::io::{self, Read};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::Waker;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const BLOCK: usize = 64 * 1024;

/// What the thread hands over.
pub(crate) enum Event {
    /// Whole lines with their newlines, perhaps but for the last one.
    Lines(Vec<u8>),
    /// The beginning of a line that is too long, and its length.
    TooLong(Vec<u8>, u64),
    Failed(Fault),
    End,
}

/// What thread and subtask share.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) hungry: AtomicBool,
    stopped: AtomicBool,
    connection: Mutex<Option<TcpStream>>,
}

impl Shared {
    /// Ends the thread, also where it waits for data.
    /// False where it is connecting, which ends by itself.
    pub(crate) fn stop(&self) -> bool {
        self.stopped.store(true, SeqCst);
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        connection.is_some_and(|connection| connection.shutdown(Shutdown::Both).is_ok())
    }

    /// Keeps a handle to the connection, unless all is over.
    fn keep(&self, stream: &TcpStream) -> io::Result<bool> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *connection = Some(stream.try_clone()?);
        Ok(!self.stopped.load(SeqCst))
    }
}

/// The reading thread.
pub(crate) struct Thread {
    pub(crate) address: String,
    pub(crate) reconnect: Reconnect,
    pub(crate) max_line_bytes: usize,
    pub(crate) events: Sender<Event>,
    /// Closed when the subtask is gone.
    pub(crate) gone: Receiver<()>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) waker: Waker,
}

/// Why a connection's lines end.
enum Ended {
    /// The other side closed, or the connection broke.
    Closed(Option<io::Error>),
    /// The subtask is gone.
    Gone,
}

impl Thread {
    pub(crate) fn run(self) {
        let last = match self.read() {
            Ok(true) => Event::End,
            Ok(false) => return,
            Err(fault) => Event::Failed(fault),
        };
        self.send(last);
    }

    fn send(&self, event: Event) -> bool {
        let sent = self.events.send(event).is_ok();
        if self.shared.hungry.swap(false, SeqCst) {
            self.waker.wake();
        }
        sent
    }

    /// Reads connection after connection; false where the subtask is gone.
    fn read(&self) -> Flow<bool> {
        let mut failures = 0;
        loop {
            let ended = match connect(&self.address) {
                Ok(stream) => {
                    failures = 0;
                    self.read_connection(stream)
                }
                Err(error) => Ended::Closed(Some(error)),
            };
            let error = match ended {
                Ended::Gone => return Ok(false),
                Ended::Closed(error) => error,
            };
            failures += 1;
            let Some(pause) = self.reconnect.pause(failures) else {
                return error.map_or(Ok(true), |error| Err(self.lost(&error)));
            };
            tracing::info!(address = %self.address, ?error, "the connection ended; connecting again");
            if self.gone.recv_timeout(pause) != Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                return Ok(false);
            }
        }
    }

    #[cold]
    fn lost(&self, error: &io::Error) -> Fault {
        Fault::external(format_args!(
            "no lines from {}: {error}; is the server running there?",
            self.address
        ))
    }

    fn read_connection(&self, mut stream: TcpStream) -> Ended {
        match self.shared.keep(&stream) {
            Ok(true) => {}
            Ok(false) => return Ended::Gone,
            Err(error) => return Ended::Closed(Some(error)),
        }
        let mut lines = Lines {
            kept: Vec::new(),
            skipped: 0,
            max: self.max_line_bytes,
        };
        let mut piece = vec![0; BLOCK];
        let error = loop {
            match stream.read(&mut piece) {
                Ok(0) => break None,
                Ok(count) => {
                    if !lines.take(&piece[..count], &mut |event| self.send(event)) {
                        return Ended::Gone;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Some(error),
            }
        };
        *self
            .shared
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = None;
        if !lines.finish(&mut |event| self.send(event)) || self.shared.stopped.load(SeqCst) {
            return Ended::Gone;
        }
        Ended::Closed(error)
    }
}

/// Cuts what arrives into whole lines.
struct Lines {
    /// The beginning of a line whose end is still to come.
    kept: Vec<u8>,
    /// How much of that line was dropped since it is too long.
    skipped: u64,
    max: usize,
}

impl Lines {
    fn take(&mut self, mut bytes: &[u8], send: &mut dyn FnMut(Event) -> bool) -> bool {
        if self.skipped > 0 {
            let Some(newline) = memchr(b'\n', bytes) else {
                self.skipped += bytes.len() as u64;
                return true;
            };
            self.skipped += newline as u64;
            bytes = &bytes[newline + 1..];
            if !self.finish(send) {
                return false;
            }
        }
        let end = memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1);
        if end > 0 {
            let mut whole = std::mem::take(&mut self.kept);
            whole.extend_from_slice(&bytes[..end]);
            if !send(Event::Lines(whole)) {
                return false;
            }
        }
        self.kept.extend_from_slice(&bytes[end..]);
        if self.kept.len() > self.max {
            self.skipped = self.kept.len() as u64;
            self.kept.truncate(BLOCK);
        }
        true
    }

    /// The line at hand ends here.
    fn finish(&mut self, send: &mut dyn FnMut(Event) -> bool) -> bool {
        let kept = std::mem::take(&mut self.kept);
        match std::mem::take(&mut self.skipped) {
            0 if kept.is_empty() => true,
            0 => send(Event::Lines(kept)),
            length => send(Event::TooLong(kept, length)),
        }
    }
}

/// Connects to the first address of a name that answers.
pub(crate) fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
