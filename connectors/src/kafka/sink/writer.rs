//! Encodes the records of one subtask, and hands them to a thread: at once, or when a checkpoint covers them.

use super::broker::KafkaBroker;
use super::committable::Committable;
use super::committer::Committer;
use super::delivery::Delivery;
use super::serializer::Encoder;
use super::spill::Spilled;
use super::staged::Staged;
use crate::background::{Background, Write};
use crate::failpoints::failpoint;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;
use tidegate_engine::checkpoint::{CheckpointId, LocalFiles, StoredFiles};
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::metrics::{Counter, Histogram};
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
    way: Way,
    /// The job ends with what is committed now.
    last: bool,
}

/// How records go out.
pub(super) enum Way {
    /// At once.
    Plain(Plain),
    /// When a checkpoint covers them.
    Staged(Box<Staged>),
}

/// What is needed to send records at once.
pub(super) struct Plain {
    pub(super) delivery: Delivery,
    /// Records that are handed over at a time, at most.
    pub(super) batch: u64,
    buffer: Vec<u8>,
    /// Records in the buffer.
    records: u64,
    /// How many that could not be delivered were seen.
    lost: u64,
}

impl Plain {
    pub(super) fn new(delivery: Delivery, batch: u64) -> Self {
        Plain {
            delivery,
            batch,
            buffer: Vec::new(),
            records: 0,
            lost: 0,
        }
    }

    /// Sends what is buffered.
    fn hand_over(&mut self, thread: &mut Background) -> Flow {
        if self.buffer.is_empty() {
            return thread.pump();
        }
        self.records = 0;
        let full = std::mem::replace(&mut self.buffer, thread.buffer());
        thread.write(full)
    }
}

impl<T> KafkaWriter<T> {
    pub(super) fn new(closing: Closing, encoder: Encoder<T>, thread: Background, way: Way) -> Self {
        KafkaWriter {
            _closing: closing,
            encoder,
            thread,
            way,
            last: false,
        }
    }

    /// Has the first transaction's producer made.
    pub(super) fn warm_up(mut self) -> Flow<Self> {
        self.thread.prepare()?;
        Ok(self)
    }

    /// Has the next commits made, once those before are.
    fn go_on(&mut self) -> Flow {
        let Way::Staged(staged) = &mut self.way else {
            return Ok(());
        };
        while self.thread.prepared()?.is_some() {}
        if !self.thread.committed()? {
            return Ok(());
        }
        staged.batch_committed();
        if let Some(batch) = staged.next_batch() {
            self.thread.commit(batch, self.last)?;
            if !self.last {
                // The producer of the next transaction is made as soon as there is time.
                self.thread.prepare()?;
            }
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Flow {
        match &mut self.way {
            Way::Plain(plain) => plain.hand_over(&mut self.thread),
            Way::Staged(_) => self.thread.pump(),
        }
    }
}

#[cold]
fn unwritable(why: &str) -> Fault {
    Fault::user(format_args!("a record can't be written to Kafka: {why}"))
}

impl<T: 'static> SinkWriter<T> for KafkaWriter<T> {
    fn write(&mut self, at: Timestamp, value: T) -> Flow {
        let KafkaWriter {
            encoder,
            thread,
            way,
            ..
        } = self;
        let mut encode = |buffer: &mut Vec<u8>| {
            let encoded = encoder.encode(at, &value, buffer);
            encoded.map_err(|why| unwritable(&why))
        };
        match way {
            Way::Plain(plain) => {
                encode(&mut plain.buffer)?;
                plain.records += 1;
                if plain.buffer.len() >= BUFFER || plain.records >= plain.batch {
                    return plain.hand_over(thread);
                }
                Ok(())
            }
            Way::Staged(staged) => staged.write(encode),
        }
    }

    fn has_room(&self) -> bool {
        match &self.way {
            Way::Plain(_) => self.thread.has_room(),
            Way::Staged(staged) => staged.has_room(),
        }
    }

    fn turn(&mut self, _now: Timestamp) -> Flow<Timestamp> {
        match &mut self.way {
            Way::Plain(plain) => {
                let lost = plain.delivery.failures();
                if lost > plain.lost {
                    // The thread says what it was: it may ask the broker. Or it counts, where nothing is promised.
                    plain.lost = lost;
                    self.thread.flush()?;
                } else if let Some(fault) = plain.delivery.unbearable() {
                    return Err(fault);
                }
            }
            Way::Staged(staged) => {
                staged.pump()?;
                self.go_on()?;
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
            Way::Plain(_) => None,
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
        if let Way::Staged(staged) = &mut self.way
            && staged.prepare(checkpoint)?
        {
            // If it isn't there yet, the producer of its transaction is made meanwhile.
            self.thread.prepare()?;
        }
        failpoint!("kafka_sink::after_prepare");
        Ok(())
    }

    fn prepared(&mut self) -> Flow<Option<Vec<u8>>> {
        match &mut self.way {
            Way::Plain(_) => Ok(None),
            Way::Staged(staged) => staged.prepared(),
        }
    }

    fn commit(&mut self, committable: Vec<u8>, last: bool) -> Flow {
        self.last |= last;
        if let Way::Staged(staged) = &mut self.way {
            staged.commit(committable)?;
        }
        self.go_on()
    }

    fn committed(&mut self) -> Flow<bool> {
        self.go_on()?;
        Ok(match &self.way {
            Way::Plain(_) => true,
            Way::Staged(staged) => staged.committed(),
        })
    }

    fn newly_committed(&mut self) -> Flow<usize> {
        Ok(match &mut self.way {
            Way::Plain(_) => 0,
            Way::Staged(staged) => staged.newly_committed(),
        })
    }

    fn files(
        &mut self,
        committables: &[&[u8]],
        stored: &StoredFiles,
    ) -> Flow<Option<Arc<dyn LocalFiles>>> {
        match &self.way {
            Way::Plain(_) => Ok(None),
            Way::Staged(staged) => staged.files(committables, stored),
        }
    }
}

/// Commits the output of one subtask, on its thread.
pub(super) struct Commits {
    pub(super) committer: Committer<KafkaBroker>,
    pub(super) spilled: Spilled,
    /// Counts committed records, and transactions.
    pub(super) records: Counter,
    pub(super) transactions: Counter,
    /// How long commits take, in milliseconds.
    pub(super) latency: Histogram,
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
        let all = Committable::decode_all(&committable)?;
        let began = Instant::now();
        self.committer.commit(&all, &self.spilled)?;
        self.latency.record(began.elapsed().as_millis() as u64);
        self.records.add(all.iter().map(|one| one.records).sum());
        self.transactions.inc();
        Ok(())
    }

    fn end(&mut self) -> Flow {
        Ok(())
    }
}
