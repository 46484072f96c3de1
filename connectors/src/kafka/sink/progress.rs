//! Reads the progress topic. A marker counts only if its transaction was committed, and all that were must be
//! seen: so the end is asked for without regard to transactions, and the reading goes on until everything
//! before that end is settled.

use super::protocol::{Marker, Markers, Trouble};
use crate::kafka::contact::Contact;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tidegate_engine::fault::{Fault, Flow};

/// How long one reading may take. A transaction of another slot that is open ends sooner.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long one question to the broker may take.
const ANSWER: Duration = Duration::from_secs(5);

/// Between two looks whether all transactions are settled.
const PAUSE: Duration = Duration::from_millis(3);

/// The one partition of the topic.
const PARTITION: i32 = 0;

/// The progress topic of one sink; all of its slots read it, one at a time.
pub(super) struct Progress {
    topic: String,
    /// What keys begin with; the slot follows.
    id: String,
    reading: Mutex<Reading>,
}

struct Reading {
    /// Sees what is committed.
    committed: BaseConsumer<Contact>,
    /// Sees everything.
    everything: BaseConsumer<Contact>,
    /// All before this is read.
    next: i64,
    markers: Markers,
}

/// Whether a connection failed, which is made again.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::OperationTimedOut
                | Code::RequestTimedOut
        )
    )
}

impl Progress {
    /// `config` is that of a client without properties of its own.
    pub(super) fn open(config: &ClientConfig, topic: String, id: String) -> Flow<Self> {
        let consumer = |isolation: &str| -> Flow<BaseConsumer<Contact>> {
            let mut config = config.clone();
            config
                .set("group.id", format!("{topic}.reader"))
                .set("isolation.level", isolation)
                .set("enable.auto.commit", "false")
                .set("enable.partition.eof", "true")
                .set("auto.offset.reset", "earliest")
                .set("fetch.wait.max.ms", "10")
                .set("allow.auto.create.topics", "false");
            config
                .create_with_context(Contact::default())
                .map_err(|error| {
                    Fault::external(format_args!(
                        "the progress topic '{topic}' can't be read: {error}"
                    ))
                })
        };
        let reading = Reading {
            committed: consumer("read_committed")?,
            everything: consumer("read_uncommitted")?,
            next: 0,
            markers: Markers::new(),
        };
        Ok(Progress {
            topic,
            id,
            reading: Mutex::new(reading),
        })
    }

    /// The key of a slot's marker, which is its transactional id too.
    pub(super) fn key(&self, slot: u32) -> String {
        format!("{}-{slot}", self.id)
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// What can be seen at once.
    pub(super) fn glance(&self) -> Result<(BTreeSet<u32>, Markers), Trouble> {
        let mut reading = self.lock();
        let Reading {
            committed,
            everything,
            next,
            markers,
        } = &mut *reading;
        let mut slots = BTreeSet::new();
        let from = self.end(everything)?.0;
        self.read(everything, from, |_, slot, _| {
            slots.insert(slot);
            Ok(())
        })?;
        self.update(committed, from, next, markers)?;
        Ok((slots, markers.clone()))
    }

    /// The markers of all transactions that are settled now. Gives up when the job ends.
    pub(super) fn markers(&self, closing: &AtomicBool) -> Result<Markers, Trouble> {
        let mut reading = self.lock();
        let Reading {
            committed,
            everything,
            next,
            markers,
        } = &mut *reading;
        let (first, end) = self.end(everything)?;
        if end < *next {
            return Err(self.forgets(end, *next).into());
        }
        let began = Instant::now();
        while self.end(committed)?.1 < end {
            if closing.load(SeqCst) || began.elapsed() > PATIENCE {
                return Err(Trouble::Unsure(format!(
                    "a transaction is open in the progress topic '{}'",
                    self.topic
                )));
            }
            thread::park_timeout(PAUSE);
        }
        let from = first.max(*next);
        self.update(committed, from, next, markers)?;
        Ok(markers.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the topic begins, and its end as this consumer may see it.
    fn end(&self, consumer: &BaseConsumer<Contact>) -> Result<(i64, i64), Trouble> {
        let end = consumer.fetch_watermarks(&self.topic, PARTITION, ANSWER);
        end.map_err(|error| self.unreadable(consumer, &error))
    }

    fn update(
        &self,
        consumer: &BaseConsumer<Contact>,
        from: i64,
        next: &mut i64,
        markers: &mut Markers,
    ) -> Result<(), Trouble> {
        self.read(consumer, from, |offset, slot, marker| {
            match marker {
                Some(bytes) => {
                    let marker =
                        Marker::decode(bytes).map_err(|why| self.poisoned(offset, &why))?;
                    markers.insert(slot, marker);
                }
                None => drop(markers.remove(&slot)),
            }
            *next = offset + 1;
            Ok(())
        })
    }

    /// Reads to the end that there is when it begins, or to a later one.
    fn read(
        &self,
        consumer: &BaseConsumer<Contact>,
        from: i64,
        mut each: impl FnMut(i64, u32, Option<&[u8]>) -> Flow,
    ) -> Result<(), Trouble> {
        let mut assignment = TopicPartitionList::new();
        let added = assignment.add_partition_offset(&self.topic, PARTITION, Offset::Offset(from));
        added.map_err(|error| self.unreadable(consumer, &error))?;
        consumer
            .assign(&assignment)
            .map_err(|error| self.unreadable(consumer, &error))?;
        let read = self.read_assigned(consumer, &mut each);
        let _ = consumer.unassign();
        read
    }

    fn read_assigned(
        &self,
        consumer: &BaseConsumer<Contact>,
        each: &mut impl FnMut(i64, u32, Option<&[u8]>) -> Flow,
    ) -> Result<(), Trouble> {
        let (began, mut passing) = (Instant::now(), None);
        while began.elapsed() < PATIENCE {
            match consumer.poll(Duration::from_millis(200)) {
                None => {}
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                // It may be an old one: each connection that failed meanwhile has left some, and nobody asked.
                Some(Err(error)) if is_passing(&error) => passing = Some(error),
                Some(Err(error)) => return Err(self.unreadable(consumer, &error)),
                Some(Ok(message)) => {
                    if let Some(slot) = self.slot(message.key()) {
                        each(message.offset(), slot, message.payload())?;
                    }
                }
            }
        }
        let late = KafkaError::MessageConsumption(RDKafkaErrorCode::OperationTimedOut);
        Err(self.unreadable(consumer, &passing.unwrap_or(late)))
    }

    /// The slot that a key stands for; other keys belong to other sinks.
    fn slot(&self, key: Option<&[u8]>) -> Option<u32> {
        let key = std::str::from_utf8(key?).ok()?;
        key.strip_prefix(&self.id)?.strip_prefix('-')?.parse().ok()
    }

    #[cold]
    fn unreadable(&self, consumer: &BaseConsumer<Contact>, error: &KafkaError) -> Trouble {
        let contact = consumer.context();
        let topic = &self.topic;
        if let Some(trouble) = contact.hopeless() {
            return Trouble::Fatal(Fault::user(format_args!(
                "the progress topic '{topic}' can't be read: {trouble}"
            )));
        }
        let trouble = contact.trouble();
        Trouble::Unsure(format!(
            "the progress topic '{topic}' can't be read: {error}{trouble}"
        ))
    }

    #[cold]
    fn forgets(&self, end: i64, next: i64) -> Fault {
        Fault::user(format_args!(
            "the progress topic '{}' ends at offset {end}, and had been read to {next}: it was deleted, and what was \
             committed can't be told any more. Nobody but Tidegate may change it; go on from the newest checkpoint \
             with .allow_reemit(true)",
            self.topic
        ))
    }

    #[cold]
    fn poisoned(&self, offset: i64, why: &str) -> Fault {
        Fault::user(format_args!(
            "the progress topic '{}' holds something else at partition {PARTITION}, offset {offset}: {why}; \
             nobody but Tidegate may write there",
            self.topic
        ))
    }
}
