//! A record as it stands in Kafka, seen while it is deserialized.

use rdkafka::message::{BorrowedMessage, Headers, Message};
use tidegate_engine::time::Timestamp;

/// A record of a partition. Borrowed: what is to be kept of it is copied by the deserializer.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerRecord<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    timestamp: Option<Timestamp>,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    message: Option<&'a BorrowedMessage<'a>>,
}

impl<'a> ConsumerRecord<'a> {
    /// A record without headers; for tests of deserializers.
    pub fn new(topic: &'a str, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Self {
        ConsumerRecord {
            topic,
            partition: 0,
            offset: 0,
            timestamp: None,
            key,
            value,
            message: None,
        }
    }

    #[inline(always)]
    pub(crate) fn of(topic: &'a str, message: &'a BorrowedMessage<'a>) -> Self {
        ConsumerRecord {
            topic,
            partition: message.partition(),
            offset: message.offset(),
            timestamp: message.timestamp().to_millis().map(Timestamp),
            key: message.key(),
            value: message.payload(),
            message: Some(message),
        }
    }

    /// Its topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Its partition.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Its offset in the partition.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// When it was made or appended, as the topic is set up; `None` where nobody said.
    #[inline(always)]
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.timestamp
    }

    /// Its key; `None` for null.
    #[inline(always)]
    pub fn key(&self) -> Option<&'a [u8]> {
        self.key
    }

    /// Its value; `None` for null, which stands for a deletion in compacted topics.
    #[inline(always)]
    pub fn value(&self) -> Option<&'a [u8]> {
        self.value
    }

    /// The headers in their order: name and value, which may be null.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let headers = self.message.and_then(Message::headers);
        let headers = headers.into_iter().flat_map(Headers::iter);
        headers.map(|header| (header.key, header.value))
    }

    /// The last header of this name, where there is one and it is not null.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        let named = self.headers().filter(|(key, _)| *key == name);
        named.last().and_then(|(_, value)| value)
    }
}
