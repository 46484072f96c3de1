//! Encodes the records of one subtask, and hands them to a thread: at once, or when a checkpoint covers them.

use super::broker::KafkaBroker;
use super::committable::{Committable, HEADER, Owner};
use super::committer::Committer;
use super::delivery::Delivery;
use super::serializer::Encoder;
use crate::background::{Background, Write};
use crate::failpoints::failpoint;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tidegate_engine::checkpoint::CheckpointId;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::metrics::Counter;
use tidegate_engine::sink::{SinkWriter, TwoPhase};
use tidegate_engine::time::Timestamp;

/// Bytes that are handed to the producing thread at a time.
const BUFFER: usize = 64 * 1024;

/// Raised when the writer is dropped, so that its thread waits for nothing any more.
pub(super) struct Closing(pub(super) Arc<AtomicBool>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Writes the records of one subtask.
pub struct KafkaWriter<T> {
    /// Before the thread, which is waited for.
    _closing: Closing,
    encoder: Encoder<T>,
    thread: Background,
    buffer: Vec<u8>,
    /// Records in the buffer.
    records: u64,
    way: Way,
}

/// How records go out.
pub(super) enum Way {
    /// At once.
    Plain {
        delivery: Delivery,
        /// Whether a record that can't be delivered fails the job.
        safe: bool,
        /// Records that are handed over at a time, at most.
        batch: u64,
    },
    /// When a checkpoint covers them.
    Staged(Staged),
}

/// What is needed to make committables.
pub(super) struct Staged {
    pub(super) slot: u32,
    pub(super) owner: Owner,
    pub(super) max_bytes: usize,
    prepared: VecDeque<Vec<u8>>,
    /// Bytes that are being committed.
    committing: usize,
}

impl Staged {
    pub(super) fn new(slot: u32, owner: Owner, max_bytes: usize) -> Self {
        Staged {
            slot,
            owner,
            max_bytes,
            prepared: VecDeque::new(),
            committing: 0,
        }
    }
}

impl<T> KafkaWriter<T> {
    pub(super) fn new(closing: Closing, encoder: Encoder<T>, thread: Background, way: Way) -> Self {
        let buffer = match way {
            Way::Plain { .. } => Vec::new(),
            Way::Staged(_) => Committable::buffer(),
        };
        KafkaWriter {
            _closing: closing,
            encoder,
            thread,
            buffer,
            records: 0,
            way,
        }
    }

    /// Has the first transaction's producer made.
    pub(super) fn warm_up(mut self) -> Flow<Self> {
        self.thread.prepare()?;
        Ok(self)
    }

    /// Without transactions: sends what is buffered.
    fn hand_over(&mut self) -> Flow {
        let plain = matches!(self.way, Way::Plain { .. });
        if !plain || self.buffer.is_empty() {
            return self.thread.pump();
        }
        self.records = 0;
        let full = std::mem::replace(&mut self.buffer, self.thread.buffer());
        self.thread.write(full)
    }
}

#[cold]
fn unwritable(why: &str) -> Fault {
    Fault::user(format_args!("a record can't be written to Kafka: {why}"))
}

#[cold]
fn too_much(bytes: usize) -> Fault {
    Fault::user(format_args!(
        "a subtask's output between two checkpoints has more than {bytes} bytes; take checkpoints more often, \
         give the sink more subtasks, or raise .max_epoch_bytes(..)"
    ))
}

impl<T: 'static> SinkWriter<T> for KafkaWriter<T> {
    fn write(&mut self, at: Timestamp, value: T) -> Flow {
        let encoded = self.encoder.encode(at, &value, &mut self.buffer);
        encoded.map_err(|why| unwritable(&why))?;
        self.records += 1;
        match &self.way {
            Way::Plain { batch, .. } => {
                if self.buffer.len() >= BUFFER || self.records >= *batch {
                    return self.hand_over();
                }
            }
            Way::Staged(staged) => {
                if self.buffer.len() > staged.max_bytes {
                    return Err(too_much(staged.max_bytes));
                }
            }
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        let committing = match &self.way {
            Way::Plain { .. } => false,
            Way::Staged(staged) => staged.committing > staged.max_bytes,
        };
        self.thread.has_room() && !committing
    }

    fn turn(&mut self, _now: Timestamp) -> Flow<Timestamp> {
        match &mut self.way {
            Way::Plain { delivery, safe, .. } => {
                if let Some(failure) = delivery.failure().filter(|_| *safe) {
                    return Err(Fault::external(failure));
                }
            }
            Way::Staged(staged) => {
                if self.thread.committed()? {
                    staged.committing = 0;
                }
            }
        }
        if self.thread.has_room() {
            self.hand_over()?;
        } else {
            self.thread.pump()?;
        }
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
        match self.way {
            Way::Plain { .. } => None,
            Way::Staged(_) => Some(self),
        }
    }

    fn close(&mut self) -> Flow {
        self.hand_over()?;
        self.thread.end()
    }

    fn closed(&self) -> bool {
        self.thread.done()
    }
}

impl<T: 'static> TwoPhase for KafkaWriter<T> {
    fn prepare(&mut self, checkpoint: CheckpointId) -> Flow {
        failpoint!("kafka_sink::before_prepare");
        let Way::Staged(staged) = &mut self.way else {
            return Ok(());
        };
        if self.buffer.len() == HEADER {
            staged.prepared.push_back(Vec::new());
            return Ok(());
        }
        let fresh = Committable::buffer();
        let mut bytes = std::mem::replace(&mut self.buffer, fresh);
        let records = std::mem::take(&mut self.records);
        Committable::close(&mut bytes, staged.slot, checkpoint.0, staged.owner, records);
        staged.prepared.push_back(bytes);
        failpoint!("kafka_sink::after_prepare");
        // Meanwhile the producer of its transaction is made.
        self.thread.prepare()
    }

    fn prepared(&mut self) -> Flow<Option<Vec<u8>>> {
        while self.thread.prepared()?.is_some() {}
        match &mut self.way {
            Way::Plain { .. } => Ok(None),
            Way::Staged(staged) => Ok(staged.prepared.pop_front()),
        }
    }

    fn commit(&mut self, committable: Vec<u8>, last: bool) -> Flow {
        if let Way::Staged(staged) = &mut self.way {
            staged.committing += committable.len();
        }
        self.thread.commit(committable, last)
    }

    fn committed(&mut self) -> Flow<bool> {
        self.thread.committed()
    }
}

/// Commits the output of one subtask, on its thread.
pub(super) struct Commits {
    pub(super) committer: Committer<KafkaBroker>,
    /// Counts committed records, and transactions.
    pub(super) records: Counter,
    pub(super) transactions: Counter,
}

impl Write for Commits {
    fn write(&mut self, _records: &mut Vec<u8>) -> Flow {
        Err(Fault::internal(
            "output of a transaction came before its checkpoint",
        ))
    }

    fn prepare(&mut self) -> Flow<Vec<u8>> {
        self.committer.warm_up()?;
        Ok(Vec::new())
    }

    fn commit(&mut self, committable: Vec<u8>, _last: bool) -> Flow {
        let committable = Committable::decode(committable)?;
        self.committer.commit(&committable)?;
        self.records.add(committable.records);
        self.transactions.inc();
        Ok(())
    }

    fn end(&mut self) -> Flow {
        Ok(())
    }
}
