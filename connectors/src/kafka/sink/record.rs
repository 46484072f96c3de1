//! One record on its way to Kafka, and how many of them lie one behind the other in a buffer: handed to the
//! producing thread as they are, or kept in a checkpoint.

use tidegate_engine::fault::{Fault, Flow};

/// A record that a serializer fills in. It is empty when it is handed out: no key, no value, no headers, the
/// sink's topic, a partition by the key, the event time of the record as its timestamp.
#[derive(Clone, Debug, Default)]
pub struct KafkaRecord {
    topic: String,
    partition: Option<i32>,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<u8>,
    header_count: u16,
    /// Buffers that a record without key or value leaves behind.
    spare: Vec<Vec<u8>>,
}

impl KafkaRecord {
    pub(crate) fn clear(&mut self) {
        let taken = [self.key.take(), self.value.take()];
        self.spare.extend(taken.into_iter().flatten());
        self.topic.clear();
        self.headers.clear();
        (self.partition, self.timestamp, self.header_count) = (None, None, 0);
    }

    /// The value to append to. Without it the record is a tombstone.
    pub fn value(&mut self) -> &mut Vec<u8> {
        if self.value.is_none() {
            self.value = Some(emptied(&mut self.spare));
        }
        self.value.get_or_insert_default()
    }

    /// Leaves the value out: a tombstone, which deletes its key from a compacted topic.
    pub fn no_value(&mut self) {
        self.spare.extend(self.value.take());
    }

    /// The key to append to.
    pub fn key(&mut self) -> &mut Vec<u8> {
        if self.key.is_none() {
            self.key = Some(emptied(&mut self.spare));
        }
        self.key.get_or_insert_default()
    }

    /// Leaves the key out.
    pub fn no_key(&mut self) {
        self.spare.extend(self.key.take());
    }

    /// Sends it to this topic.
    pub fn topic(&mut self, topic: &str) {
        self.topic.clear();
        self.topic.push_str(topic);
    }

    /// Sends it to this partition.
    pub fn partition(&mut self, partition: i32) {
        self.partition = Some(partition);
    }

    /// Its timestamp, in milliseconds since the epoch.
    pub fn timestamp(&mut self, millis: i64) {
        self.timestamp = Some(millis);
    }

    /// Adds a header; a value of `None` is Kafka's null.
    pub fn header(&mut self, name: &str, value: Option<&[u8]>) {
        put(&mut self.headers, name.as_bytes());
        put_optional(&mut self.headers, value);
        self.header_count = self.header_count.saturating_add(1);
    }

    /// How many bytes it takes in a message.
    pub(crate) fn bytes(&self) -> usize {
        let length = |part: &Option<Vec<u8>>| part.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value) + self.headers.len()
    }

    /// Appends it to a buffer.
    pub(crate) fn write(&self, into: &mut Vec<u8>) {
        put(into, self.topic.as_bytes());
        into.extend(self.partition.unwrap_or(-1).to_le_bytes());
        into.extend(self.timestamp.unwrap_or(NO_TIME).to_le_bytes());
        put_optional(into, self.key.as_deref());
        put_optional(into, self.value.as_deref());
        into.extend(self.header_count.to_le_bytes());
        into.extend_from_slice(&self.headers);
    }
}

/// Stands for no timestamp: Kafka's own is the moment in which the record is sent.
const NO_TIME: i64 = i64::MIN;

/// Stands for no key or value.
const NULL: u32 = u32::MAX;

fn emptied(spare: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let mut buffer = spare.pop().unwrap_or_default();
    buffer.clear();
    buffer
}

fn put(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend((bytes.len() as u32).to_le_bytes());
    into.extend_from_slice(bytes);
}

fn put_optional(into: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => put(into, bytes),
        None => into.extend(NULL.to_le_bytes()),
    }
}

/// A record in a buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// Empty for the sink's own.
    pub(crate) topic: &'a str,
    pub(crate) partition: Option<i32>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    header_count: u16,
    headers: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The headers, by name.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> + use<'a> {
        let mut rest = self.headers;
        (0..self.header_count).map_while(move |_| {
            let name = std::str::from_utf8(take(&mut rest)??).ok()?;
            Some((name, take(&mut rest)?))
        })
    }

    /// Whether it has any.
    pub(crate) fn has_headers(&self) -> bool {
        self.header_count > 0
    }
}

/// The records of a buffer.
pub(crate) struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    pub(crate) fn new(buffer: &'a [u8]) -> Self {
        Frames(buffer)
    }

    fn frame(rest: &mut &'a [u8]) -> Option<Frame<'a>> {
        let topic = std::str::from_utf8(take(rest)??).ok()?;
        let partition = i32::from_le_bytes(fixed(rest)?);
        let timestamp = i64::from_le_bytes(fixed(rest)?);
        let (key, value) = (take(rest)?, take(rest)?);
        let header_count = u16::from_le_bytes(fixed(rest)?);
        let headers = *rest;
        for _ in 0..header_count {
            take(rest)??;
            take(rest)?;
        }
        Some(Frame {
            topic,
            partition: (partition >= 0).then_some(partition),
            timestamp: (timestamp != NO_TIME).then_some(timestamp),
            key,
            value,
            header_count,
            headers: &headers[..headers.len() - rest.len()],
        })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Flow<Frame<'a>>;

    fn next(&mut self) -> Option<Flow<Frame<'a>>> {
        if self.0.is_empty() {
            return None;
        }
        let frame = Frames::frame(&mut self.0);
        if frame.is_none() {
            self.0 = &[];
        }
        Some(frame.ok_or_else(|| Fault::internal("a record on its way to Kafka is damaged")))
    }
}

fn fixed<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*bytes)
}

/// `None` where the buffer is at its end, `Some(None)` for a null.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = u32::from_le_bytes(fixed(rest)?);
    if length == NULL {
        return Some(None);
    }
    let (bytes, behind) = rest.split_at_checked(length as usize)?;
    *rest = behind;
    Some(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parts = (
        String,
        Option<i32>,
        Option<i64>,
        Option<Vec<u8>>,
        Option<Vec<u8>>,
        Vec<(String, Option<Vec<u8>>)>,
    );

    fn parts() -> impl Strategy<Value = Parts> {
        let bytes = || prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
        let header = ("[a-z]{0,5}", bytes());
        (
            "[a-z]{0,8}",
            prop::option::of(0..100i32),
            prop::option::of(0..i64::MAX),
            bytes(),
            bytes(),
            prop::collection::vec(header, 0..4),
        )
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(all in prop::collection::vec(parts(), 0..10), cut in 0usize..400) {
            let (mut buffer, mut record) = (Vec::new(), KafkaRecord::default());
            for (topic, partition, timestamp, key, value, headers) in &all {
                record.clear();
                record.topic(topic);
                partition.iter().for_each(|p| record.partition(*p));
                timestamp.iter().for_each(|t| record.timestamp(*t));
                key.iter().for_each(|k| record.key().extend(k));
                value.iter().for_each(|v| record.value().extend(v));
                headers.iter().for_each(|(n, v)| record.header(n, v.as_deref()));
                record.write(&mut buffer);
            }
            let frames = Frames::new(&buffer).collect::<Flow<Vec<_>>>().unwrap();
            prop_assert_eq!(frames.len(), all.len());
            for (frame, (topic, partition, timestamp, key, value, headers)) in frames.iter().zip(&all) {
                prop_assert_eq!(frame.topic, topic);
                prop_assert_eq!((frame.partition, frame.timestamp), (*partition, *timestamp));
                prop_assert_eq!((frame.key, frame.value), (key.as_deref(), value.as_deref()));
                let got: Vec<_> = frame.headers().map(|(n, v)| (n.to_owned(), v.map(<[u8]>::to_vec))).collect();
                prop_assert_eq!(&got, headers);
            }
            // A buffer that is cut off is an error, or has fewer records; never a panic.
            let cut = &buffer[..cut.min(buffer.len())];
            let _ = Frames::new(cut).collect::<Flow<Vec<_>>>();
        }
    }
}
