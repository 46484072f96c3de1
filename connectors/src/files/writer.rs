//! Writes records into the part at hand, and says when it is finished.

use super::format::Encode;
use crate::background::Background;
use std::time::Duration;
use tidegate_engine::checkpoint::CheckpointId;
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::sink::{SinkWriter, TwoPhase};
use tidegate_engine::time::Timestamp;

/// Bytes that are handed to the writing thread at a time.
const BUFFER: usize = 128 * 1024;

/// When a part is finished and the next one begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rolling {
    pub(crate) bytes: u64,
    pub(crate) records: u64,
    pub(crate) every: Option<Duration>,
}

/// Never.
impl Default for Rolling {
    fn default() -> Self {
        Rolling {
            bytes: u64::MAX,
            records: u64::MAX,
            every: None,
        }
    }
}

/// The part at hand.
struct Part {
    bytes: u64,
    records: u64,
    /// When it has to be finished.
    due: Timestamp,
}

/// Writes the records of one subtask.
pub struct FileWriter<E> {
    encode: E,
    rolling: Rolling,
    clock: Clock,
    thread: Background,
    buffer: Vec<u8>,
    part: Option<Part>,
    /// Its output is shown in two phases.
    staged: bool,
    /// It writes one file over all checkpoints.
    single: bool,
}

impl<E> FileWriter<E> {
    pub(crate) fn new(encode: E, rolling: Rolling, clock: Clock, thread: Background) -> Self {
        FileWriter {
            encode,
            rolling,
            clock,
            thread,
            buffer: Vec::new(),
            part: None,
            staged: false,
            single: false,
        }
    }

    /// Shows its output in two phases.
    pub(crate) fn staged(mut self) -> Self {
        self.staged = true;
        self
    }

    /// Writes one file, of which there are so many bytes.
    pub(crate) fn single<T>(mut self, length: u64) -> Self
    where
        E: Encode<T>,
    {
        self.single = true;
        if length > 0 {
            self.encode.go_on();
            self.part = Some(Part {
                bytes: length,
                records: 0,
                due: Timestamp::MAX,
            });
        }
        self
    }

    fn hand_over(&mut self) -> Flow {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, self.thread.buffer());
        self.thread.write(full)
    }

    #[cold]
    fn roll(&mut self) -> Flow {
        self.part = None;
        self.hand_over()?;
        self.thread.roll()
    }
}

impl<T: 'static, E: Encode<T>> SinkWriter<T> for FileWriter<E> {
    fn write(&mut self, _at: Timestamp, value: T) -> Flow {
        let part = match &mut self.part {
            Some(part) => part,
            None => {
                self.encode.begin();
                let due = self
                    .rolling
                    .every
                    .map_or(Timestamp::MAX, |d| self.clock.now().plus(d));
                self.part.insert(Part {
                    bytes: 0,
                    records: 0,
                    due,
                })
            }
        };
        let before = self.buffer.len();
        self.encode
            .encode(&value, &mut self.buffer)
            .map_err(|reason| Fault::user(format_args!("a record can't be written: {reason}")))?;
        part.bytes += (self.buffer.len() - before) as u64;
        part.records += 1;
        if part.bytes >= self.rolling.bytes || part.records >= self.rolling.records {
            return self.roll();
        }
        if self.buffer.len() >= BUFFER {
            self.hand_over()
        } else {
            Ok(())
        }
    }

    fn has_room(&self) -> bool {
        self.thread.has_room()
    }

    fn turn(&mut self, now: Timestamp) -> Flow<Timestamp> {
        self.thread.pump()?;
        let due = self.part.as_ref().map_or(Timestamp::MAX, |part| part.due);
        if due > now {
            return Ok(due);
        }
        self.roll()?;
        Ok(Timestamp::MAX)
    }

    fn flush(&mut self) -> Flow {
        self.hand_over()?;
        self.thread.flush()
    }

    fn flushed(&mut self) -> Flow<bool> {
        self.thread.flushed()
    }

    fn two_phase(&mut self) -> Option<&mut dyn TwoPhase> {
        if self.staged { Some(self) } else { None }
    }

    fn close(&mut self) -> Flow {
        self.hand_over()?;
        self.thread.end()
    }

    fn closed(&self) -> bool {
        self.thread.done()
    }
}

impl<E: 'static> TwoPhase for FileWriter<E> {
    fn prepare(&mut self, _checkpoint: CheckpointId) -> Flow {
        if !self.single {
            self.part = None;
        }
        self.hand_over()?;
        self.thread.prepare()
    }

    fn prepared(&mut self) -> Flow<Option<Vec<u8>>> {
        self.thread.prepared()
    }

    fn commit(&mut self, committable: Vec<u8>, last: bool) -> Flow {
        self.thread.commit(committable, last)
    }

    fn committed(&mut self) -> Flow<bool> {
        self.thread.committed()
    }
}
