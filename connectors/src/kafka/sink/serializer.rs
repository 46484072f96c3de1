//! How values become the bytes of keys and values, and records those of messages.

use super::record::KafkaRecord;
use serde::Serialize;
use std::sync::Arc;
use tidegate_engine::time::Timestamp;

/// Writes values as bytes. A closure `|value, into| { into.extend(..); Ok(()) }` is one too.
pub trait KafkaSerializer<T>: Send + Sync + 'static {
    /// Appends the bytes of a value; an error says why it has none, and fails the job.
    fn serialize(&self, value: &T, into: &mut Vec<u8>) -> Result<(), String>;
}

impl<T, F> KafkaSerializer<T> for F
where
    F: Fn(&T, &mut Vec<u8>) -> Result<(), String> + Send + Sync + 'static,
{
    fn serialize(&self, value: &T, into: &mut Vec<u8>) -> Result<(), String> {
        self(value, into)
    }
}

/// Makes whole messages of records: key, value, headers, topic, partition and timestamp.
pub trait RecordSerializer<T>: Send + Sync + 'static {
    /// Fills in the message of a record with event time `at` (`Timestamp::MIN` where it has none). What is
    /// left out is as [`KafkaRecord`] says. An error fails the job.
    fn serialize(&self, value: &T, at: Timestamp, record: &mut KafkaRecord) -> Result<(), String>;
}

pub(super) fn json<T: Serialize>(value: &T, into: &mut Vec<u8>) -> Result<(), String> {
    serde_json::to_writer(into, value).map_err(|error| error.to_string())
}

pub(super) fn bytes<T: AsRef<[u8]>>(value: &T, into: &mut Vec<u8>) -> Result<(), String> {
    into.extend_from_slice(value.as_ref());
    Ok(())
}

/// What fills in one part of a message.
pub(super) type Part<T> = Arc<dyn Fn(&T, &mut KafkaRecord) + Send + Sync>;

/// Whether something holds of a value.
pub(super) type Condition<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

/// Messages that are put together from parts.
pub(super) struct Parts<T> {
    pub(super) value: Arc<dyn KafkaSerializer<T>>,
    /// Null instead of a value, where this says so.
    pub(super) tombstone: Option<Condition<T>>,
    pub(super) others: Vec<Part<T>>,
}

impl<T: 'static> RecordSerializer<T> for Parts<T> {
    fn serialize(&self, value: &T, _at: Timestamp, record: &mut KafkaRecord) -> Result<(), String> {
        for part in &self.others {
            part(value, record);
        }
        if self.tombstone.as_ref().is_some_and(|is| is(value)) {
            return Ok(());
        }
        self.value.serialize(value, record.value())
    }
}

/// Writes records into a buffer, one after the other.
pub(super) struct Encoder<T> {
    serializer: Arc<dyn RecordSerializer<T>>,
    choose: Option<(Choose<T>, i32)>,
    record: KafkaRecord,
    longest: usize,
}

/// Chooses among the partitions that there are.
pub(super) type Choose<T> = Arc<dyn Fn(&T, i32) -> i32 + Send + Sync>;

/// What a broker adds to key, value and headers of a message, at most.
const OVERHEAD: usize = 128;

impl<T: 'static> Encoder<T> {
    /// Refuses messages that are longer than so many bytes.
    pub(super) fn new(
        serializer: Arc<dyn RecordSerializer<T>>,
        choose: Option<(Choose<T>, i32)>,
        longest: usize,
    ) -> Self {
        Encoder {
            serializer,
            choose,
            record: KafkaRecord::default(),
            longest: longest.saturating_sub(OVERHEAD),
        }
    }

    /// Appends the message of a record.
    pub(super) fn encode(
        &mut self,
        at: Timestamp,
        value: &T,
        into: &mut Vec<u8>,
    ) -> Result<(), String> {
        self.record.clear();
        if at != Timestamp::MIN {
            self.record.timestamp(at.0);
        }
        self.serializer.serialize(value, at, &mut self.record)?;
        if let Some((choose, partitions)) = &self.choose {
            let chosen = choose(value, *partitions);
            if !(0..*partitions).contains(&chosen) {
                return Err(format!("it was given partition {chosen} of {partitions}"));
            }
            self.record.partition(chosen);
        }
        let bytes = self.record.bytes();
        if bytes > self.longest {
            return Err(format!(
                "its message has {bytes} bytes, and message.max.bytes leaves room for {}; raise it here \
                 and max.message.bytes of the topic",
                self.longest
            ));
        }
        self.record.write(into);
        Ok(())
    }
}
