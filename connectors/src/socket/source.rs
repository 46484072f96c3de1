//! A source of lines from a TCP server.

use super::read::{Event, Shared, Thread};
use crate::dead_letters::{BadRecords, OnError};
use crossbeam_channel::{Receiver, Sender, bounded};
use memchr::memchr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::{Poll, Source, SourceReader};
use tidegate_engine::stage::Collector;
use tidegate_engine::time::Timestamp;

/// How long a reader rests that is going to be woken anyway.
const UNTIL_WOKEN: Duration = Duration::from_secs(60);
const AHEAD: usize = 16;

/// What happens when a connection ends or can't be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reconnect {
    /// The input ends with the connection; one that breaks or can't be made ends the job.
    #[default]
    Never,
    /// Connects again after a pause, until it fails so many times in a row.
    After {
        /// The pause before each attempt.
        pause: Duration,
        /// How many attempts in a row may fail; `u32::MAX` for any number.
        attempts: u32,
    },
}

impl Reconnect {
    /// The pause before the next attempt after so many failures in a row; `None` to give up.
    pub(crate) fn pause(self, failures: u32) -> Option<Duration> {
        match self {
            Reconnect::After { pause, attempts } if failures <= attempts => Some(pause),
            _ => None,
        }
    }
}

/// Reads lines from a TCP server, such as `nc -lk 9000`. Subtask 0 holds the connection, the others have
/// nothing to read. A connection remembers nothing: what is sent while none is open is not seen, and after
/// a recovery the lines behind the checkpoint are missing.
#[derive(Clone, Debug)]
pub struct SocketLines {
    address: String,
    reconnect: Reconnect,
    max_line_bytes: usize,
    on_error: OnError,
}

impl SocketLines {
    /// Lines from `host:port`.
    pub fn connect(address: impl Into<String>) -> Self {
        let (reconnect, on_error) = (Reconnect::Never, OnError::Fail);
        SocketLines {
            address: address.into(),
            reconnect,
            max_line_bytes: 1 << 20,
            on_error,
        }
    }

    /// What happens when the connection ends.
    pub fn reconnect(mut self, reconnect: Reconnect) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// The longest line that is read; a longer one is a bad record. 1 MiB by default.
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.max_line_bytes = bytes.max(1);
        self
    }

    /// What becomes of lines that are no UTF-8 text or too long; by default the first one ends the job.
    pub fn on_error(mut self, policy: impl Into<OnError>) -> Self {
        self.on_error = policy.into();
        self
    }
}

impl Source for SocketLines {
    type Item = String;
    type Reader = SocketReader;

    fn check(&self) -> Flow {
        let port = self
            .address
            .rsplit_once(':')
            .map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(_))) {
            let address = &self.address;
            let why = format_args!("'{address}' is no address to connect to; give it as host:port");
            return Err(Fault::user(why));
        }
        self.on_error.check()
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<SocketReader> {
        let bad = self.on_error.open(context.name())?;
        let shared = Arc::new(Shared::default());
        let (events_in, events) = bounded(AHEAD);
        let (stop, gone) = bounded(0);
        let mut thread = None;
        if context.subtask() == 0 {
            let reading = Thread {
                address: self.address.clone(),
                reconnect: self.reconnect,
                max_line_bytes: self.max_line_bytes,
                events: events_in,
                gone,
                shared: shared.clone(),
                waker: context.waker(),
            };
            let spawned = thread::Builder::new().name("tidegate-socket".into());
            let spawned = spawned.spawn(move || reading.run());
            thread = Some(spawned.map_err(|error| {
                Fault::external(format_args!(
                    "can't start a thread to read a socket: {error}"
                ))
            })?);
        }
        Ok(SocketReader {
            address: self.address.clone(),
            max_line_bytes: self.max_line_bytes,
            events: thread.is_some().then_some(events),
            stop: Some(stop),
            thread,
            shared,
            bad,
            lines: Vec::new(),
            at: 0,
            line: 0,
        })
    }

    fn bounded(&self) -> bool {
        false
    }
}

/// Reads lines for one subtask.
pub struct SocketReader {
    address: String,
    max_line_bytes: usize,
    /// Absent where this subtask has nothing to read.
    events: Option<Receiver<Event>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    bad: BadRecords,
    lines: Vec<u8>,
    at: usize,
    line: u64,
}

impl SocketReader {
    /// Takes lines; says what to do next where there are none.
    fn receive(&mut self) -> Flow<Option<Poll>> {
        let Some(events) = &self.events else {
            return Ok(Some(Poll::End));
        };
        let event = events.try_recv().or_else(|_| {
            self.shared.hungry.store(true, SeqCst);
            events.try_recv()
        });
        match event {
            Err(crossbeam_channel::TryRecvError::Empty) => Ok(Some(Poll::Wait(UNTIL_WOKEN))),
            Err(_) => Err(Fault::internal("the reading thread is gone")),
            Ok(Event::End) => {
                self.events = None;
                Ok(Some(Poll::End))
            }
            Ok(Event::Failed(fault)) => Err(fault),
            Ok(Event::TooLong(raw, length)) => {
                self.line += 1;
                self.reject(&raw, length)?;
                Ok(None)
            }
            Ok(Event::Lines(lines)) => {
                (self.lines, self.at) = (lines, 0);
                Ok(None)
            }
        }
    }

    #[cold]
    fn reject(&mut self, raw: &[u8], length: u64) -> Flow {
        let max = self.max_line_bytes;
        let reason = if length > max as u64 {
            format!("it has {length} bytes, more than the {max} of .max_line_bytes(..)")
        } else {
            "it is not UTF-8 text".to_owned()
        };
        let (address, line) = (&self.address, self.line);
        self.bad
            .add(&reason, raw, length, || format!("{address}:{line}"))
    }
}

impl SourceReader for SocketReader {
    type Item = String;

    fn poll<C: Collector<String>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        if !self.bad.has_room()? {
            return Ok(Poll::Wait(Duration::from_millis(1)));
        }
        let mut emitted = 0;
        for _ in 0..budget {
            if self.at == self.lines.len() {
                match self.receive()? {
                    None => continue,
                    Some(_) if emitted > 0 => break,
                    Some(other) => return Ok(other),
                }
            }
            let rest = &self.lines[self.at..];
            let end = memchr(b'\n', rest).unwrap_or(rest.len());
            let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
            self.at += (end + 1).min(rest.len());
            self.line += 1;
            match str::from_utf8(line) {
                Ok(text) if text.len() <= self.max_line_bytes => {
                    let text = text.to_owned();
                    out.collect(Timestamp::MIN, text)?;
                    emitted += 1;
                }
                _ => {
                    let line = line.to_vec();
                    self.reject(&line, line.len() as u64)?;
                }
            }
        }
        Ok(Poll::Read(emitted))
    }

    fn position(&self) -> String {
        format!("{}:{}", self.address, self.line)
    }

    fn dead_letters(&self) -> u64 {
        self.bad.count()
    }

    /// There are none; but bad lines are put aside before a checkpoint.
    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        self.bad.flush()?;
        Ok(Vec::new())
    }

    fn close(&mut self) -> Flow {
        self.bad.flush()
    }

    fn flushed(&mut self) -> Flow<bool> {
        self.bad.flushed()
    }
}

impl Drop for SocketReader {
    fn drop(&mut self) {
        self.events = None;
        self.stop = None;
        let ends_now = self.shared.stop();
        if let Some(thread) = self.thread.take().filter(|t| ends_now || t.is_finished()) {
            let _ = thread.join();
        }
    }
}
