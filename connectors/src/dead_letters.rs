//! What becomes of records that can't be read: they end the job, are passed over, or are put aside with
//! where they stood and why.

use crate::background::{Background, Write};
use crate::failpoints::failpoint;
use serde::Serialize;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::Waker;

/// How much of a bad record is kept.
const RAW: usize = 64 * 1024;
const BUFFER: usize = 64 * 1024;

/// What becomes of records that can't be read.
#[derive(Clone, Debug, Default)]
pub enum OnError {
    /// The first one ends the job with its position and reason.
    #[default]
    Fail,
    /// They are passed over, and counted.
    Skip,
    /// They are put aside, and counted.
    DeadLetter(DeadLetters),
}

impl From<DeadLetters> for OnError {
    fn from(letters: DeadLetters) -> Self {
        OnError::DeadLetter(letters)
    }
}

/// Where bad records are put aside: a file to which all subtasks of a job append JSON lines of
/// `source`, `position`, `reason`, `raw` (the record as text, at most 64 KiB of it) and `length` (its
/// length in bytes). What the file held before stays, so those behind a checkpoint come again after a
/// recovery; none of those that a checkpoint covers is missing, as it waits until they are written.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    path: PathBuf,
    appender: Arc<Mutex<Weak<Appender>>>,
}

impl DeadLetters {
    /// Puts bad records into this file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        DeadLetters {
            path: path.into(),
            appender: Arc::default(),
        }
    }

    fn check(&self) -> Flow {
        open(&self.path).map(drop)
    }

    /// The one appender of all readers that are open.
    fn appender(&self) -> Flow<Arc<Appender>> {
        let mut shared = lock(&self.appender);
        if let Some(appender) = shared.upgrade() {
            return Ok(appender);
        }
        let file = AppendFile {
            file: open(&self.path)?,
            path: self.path.clone(),
            unsynced: false,
        };
        let background = Background::start(file, Waker::none())?;
        let appender = Arc::new(Appender(Mutex::new((background, Vec::new()))));
        *shared = Arc::downgrade(&appender);
        Ok(appender)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn open(path: &Path) -> Flow<File> {
    File::options()
        .create(true)
        .append(true)
        .open(path)
        .map_err(|error| {
            Fault::external(format_args!(
                "can't write dead letters to {}: {error}",
                path.display()
            ))
        })
}

struct AppendFile {
    file: File,
    path: PathBuf,
    unsynced: bool,
}

impl AppendFile {
    #[cold]
    fn cant(&self, error: &std::io::Error) -> Fault {
        let path = self.path.display();
        Fault::external(format_args!("can't write dead letters to {path}: {error}"))
    }
}

impl Write for AppendFile {
    fn write(&mut self, bytes: &mut Vec<u8>) -> Flow {
        failpoint!("dead_letters::before_write");
        self.unsynced = true;
        let written = self.file.write_all(bytes);
        written.map_err(|error| self.cant(&error))
    }

    fn flush(&mut self) -> Flow {
        if std::mem::replace(&mut self.unsynced, false) {
            failpoint!("dead_letters::before_sync");
            self.file.sync_data().map_err(|error| self.cant(&error))?;
            failpoint!("dead_letters::after_sync");
        }
        Ok(())
    }

    fn end(&mut self) -> Flow {
        Ok(())
    }
}

/// The thread that appends, and what is on its way to it.
#[derive(Debug)]
struct Appender(Mutex<(Background, Vec<u8>)>);

impl Appender {
    fn append(&self, letter: &Letter<'_>) -> Flow {
        let (background, buffer) = &mut *lock(&self.0);
        serde_json::to_writer(&mut *buffer, letter).map_err(Fault::internal)?;
        buffer.push(b'\n');
        if buffer.len() >= BUFFER {
            let full = std::mem::replace(buffer, background.buffer());
            background.write(full)?;
        }
        Ok(())
    }

    fn has_room(&self) -> Flow<bool> {
        let (background, _) = &mut *lock(&self.0);
        background.pump()?;
        Ok(background.has_room())
    }

    /// Hands over what there is; returns the number of the flush that it is written with.
    fn flush(&self) -> Flow<u64> {
        let (background, buffer) = &mut *lock(&self.0);
        if !buffer.is_empty() {
            background.write(std::mem::take(buffer))?;
        }
        background.flush()?;
        Ok(background.flushes())
    }

    fn flushed(&self, flush: u64) -> Flow<bool> {
        lock(&self.0).0.flushed_upto(flush)
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        let (background, buffer) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        let rest = std::mem::take(buffer);
        let written = if rest.is_empty() {
            Ok(())
        } else {
            background.write(rest)
        };
        if let Err(fault) = written.and_then(|()| background.finish()) {
            tracing::error!(%fault, "dead letters were lost");
        }
    }
}

#[derive(Serialize)]
struct Letter<'a> {
    source: &'a str,
    position: &'a str,
    reason: &'a str,
    raw: &'a str,
    length: u64,
}

/// The policy at work in one subtask, with its count.
pub(crate) struct BadRecords {
    source: String,
    policy: OnError,
    appender: Option<Arc<Appender>>,
    count: u64,
    /// The flush that the latest checkpoint waits for.
    flush: u64,
}

impl OnError {
    /// Checks, before the job starts, that letters can be written.
    pub(crate) fn check(&self) -> Flow {
        match self {
            OnError::DeadLetter(letters) => letters.check(),
            _ => Ok(()),
        }
    }

    /// Opens the policy for one subtask of a source.
    pub(crate) fn open(&self, source: &str) -> Flow<BadRecords> {
        let appender = match self {
            OnError::DeadLetter(letters) => Some(letters.appender()?),
            _ => None,
        };
        Ok(BadRecords {
            source: source.to_owned(),
            policy: self.clone(),
            appender,
            count: 0,
            flush: 0,
        })
    }
}

impl BadRecords {
    /// A record that can't be read.
    #[cold]
    pub(crate) fn add(
        &mut self,
        reason: &str,
        raw: &[u8],
        length: u64,
        position: impl FnOnce() -> String,
    ) -> Flow {
        if matches!(self.policy, OnError::Fail) {
            return Err(Fault::user(format_args!(
                "a record can't be read: {reason}; to go on without such records, set another policy \
                 with .on_error(OnError::Skip) or .on_error(DeadLetters::file(..))"
            )));
        }
        self.count += 1;
        let Some(appender) = &self.appender else {
            return Ok(());
        };
        let raw = String::from_utf8_lossy(&raw[..raw.len().min(RAW)]);
        let (source, position) = (self.source.as_str(), position());
        let position = position.as_str();
        appender.append(&Letter {
            source,
            position,
            reason,
            raw: &raw,
            length,
        })
    }

    /// Whether one more could be put aside without waiting.
    pub(crate) fn has_room(&self) -> Flow<bool> {
        self.appender
            .as_ref()
            .map_or(Ok(true), |appender| appender.has_room())
    }

    /// How many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// A checkpoint covers them, or the input is complete: hands them over to be written.
    pub(crate) fn flush(&mut self) -> Flow {
        if let Some(appender) = &self.appender {
            self.flush = appender.flush()?;
        }
        Ok(())
    }

    /// Whether those of the last flush are written.
    pub(crate) fn flushed(&self) -> Flow<bool> {
        self.appender
            .as_ref()
            .map_or(Ok(true), |appender| appender.flushed(self.flush))
    }
}
