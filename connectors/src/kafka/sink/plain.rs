//! Without transactions: a thread hands records to librdkafka, and waits for their acknowledgements where a
//! checkpoint does.

use super::delivery::{Delivery, Undelivered, acknowledged, message, queue_full};
use super::record::Frames;
use super::topic;
use crate::background::Write;
use rdkafka::producer::{Producer, ThreadedProducer};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::metrics::Counter;

/// How long the queue is waited for while it is full, at a time.
const FULL: Duration = Duration::from_millis(1);

/// How long acknowledgements are waited for before it is looked whether the job ends.
const SLICE: Duration = Duration::from_millis(100);

/// Sends the records of one subtask.
pub(super) struct PlainProducer {
    pub(super) producer: ThreadedProducer<Delivery>,
    pub(super) delivery: Delivery,
    pub(super) topic: Arc<str>,
    pub(super) servers: String,
    /// Whether a record that can't be delivered fails the job.
    pub(super) safe: bool,
    pub(super) closing: Arc<AtomicBool>,
    /// Counts the ones that are lost, where that fails nothing.
    pub(super) lost: Counter,
    pub(super) told: u64,
}

impl PlainProducer {
    fn delivered(&mut self) -> Flow {
        let failures = self.delivery.failures();
        if failures == self.told {
            return Ok(());
        }
        let Some(failure) = self.delivery.failure() else {
            return Ok(());
        };
        if self.safe {
            let client = self.producer.client();
            let gone = topic::gone(client, &self.servers, &failure.topic);
            return Err(gone.unwrap_or_else(|| Fault::external(failure)));
        }
        self.lost.add(failures - self.told);
        tracing::warn!(lost = self.lost.get(), "{failure}");
        self.told = failures;
        Ok(())
    }

    /// Records that librdkafka has not even taken.
    #[cold]
    fn refused(&self, records: u64, why: &Undelivered) {
        self.lost.add(records);
        tracing::warn!(lost = self.lost.get(), "{why}");
    }

    fn drain(&mut self) -> Flow {
        while self.producer.in_flight_count() > 0 {
            if self.closing.load(SeqCst) {
                return Ok(());
            }
            // Its own thread hears.
            let _ = acknowledged(&self.producer, SLICE, thread::park_timeout);
            self.delivered()?;
        }
        self.delivered()
    }
}

impl Write for PlainProducer {
    fn write(&mut self, buffer: &mut Vec<u8>) -> Flow {
        self.delivered()?;
        let topic = self.topic.clone();
        let mut refused: Option<(u64, Undelivered)> = None;
        for frame in Frames::new(buffer) {
            let mut record = message(&topic, &frame?);
            while let Err((error, back)) = self.producer.send(record) {
                if !queue_full(&error) {
                    let why = || Undelivered::new(back.topic, &error);
                    if self.safe {
                        return Err(Fault::user(why()));
                    }
                    refused.get_or_insert_with(|| (0, why())).0 += 1;
                    break;
                }
                if self.closing.load(SeqCst) {
                    return Ok(());
                }
                record = back;
                self.producer.poll(FULL);
                self.delivered()?;
            }
        }
        if let Some((records, why)) = refused {
            self.refused(records, &why);
        }
        Ok(())
    }

    fn flush(&mut self) -> Flow {
        if self.safe {
            self.drain()
        } else {
            self.delivered()
        }
    }

    fn end(&mut self) -> Flow {
        self.drain()
    }
}
