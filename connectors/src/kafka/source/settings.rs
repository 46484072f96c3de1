//! What a Kafka source is told: which topics, from where, with which event time, tuned for what.

use super::record::ConsumerRecord;
use regex_lite::Regex;
use std::collections::BTreeMap;
use tidegate_engine::time::Timestamp;

/// Where reading a partition begins when no checkpoint says it. Partitions that are added later are read
/// from their beginning always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StartingOffsets {
    /// At the oldest record that is there.
    #[default]
    Earliest,
    /// Behind the newest record that is there when the job starts.
    Latest,
    /// At the first record with this or a later timestamp, else behind the newest record.
    Timestamp(Timestamp),
    /// Where the group's committed offsets say; at the oldest record where there are none.
    Group,
    /// At these offsets of topic and partition; at the oldest record of partitions that are not named.
    Explicit(BTreeMap<(String, i32), i64>),
}

/// Where a record's event time comes from, unless a watermark strategy behind the source reads it from the
/// payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EventTime {
    /// The timestamp that the record has in Kafka.
    #[default]
    Record,
    /// A header of this name: milliseconds since the epoch, as decimal digits or as eight big-endian bytes. A
    /// record without it, or with one that is neither, is a bad record.
    Header(String),
    /// None.
    Absent,
}

impl EventTime {
    #[inline(always)]
    pub(super) fn of(&self, record: &ConsumerRecord<'_>) -> Result<Timestamp, String> {
        match self {
            EventTime::Record => Ok(record.timestamp().unwrap_or(Timestamp::MIN)),
            EventTime::Absent => Ok(Timestamp::MIN),
            EventTime::Header(name) => from_header(name, record.header(name)),
        }
    }
}

fn from_header(name: &str, value: Option<&[u8]>) -> Result<Timestamp, String> {
    let Some(value) = value else {
        return Err(format!(
            "it has no header '{name}' to take its event time from"
        ));
    };
    let digits = str::from_utf8(value)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let bytes = || value.try_into().ok().map(i64::from_be_bytes);
    let found = digits
        .or_else(bytes)
        .filter(|at| *at != i64::MIN && *at != i64::MAX);
    found.map(Timestamp).ok_or_else(|| {
        let shown = String::from_utf8_lossy(&value[..value.len().min(40)]);
        format!("its header '{name}' is no timestamp: '{shown}'")
    })
}

/// Which topics are read.
#[derive(Clone, Debug)]
pub(super) enum Topics {
    List(Vec<String>),
    Pattern(Regex),
}

impl Topics {
    pub(super) fn contains(&self, topic: &str) -> bool {
        match self {
            Topics::List(topics) => topics.iter().any(|listed| listed == topic),
            // Kafka's own topics are for who names them.
            Topics::Pattern(pattern) => !topic.starts_with("__") && pattern.is_match(topic),
        }
    }
}

/// Settings that go together. What is set by `.property(..)` wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsumerPreset {
    /// Fetches as soon as there is a record, with room for much.
    #[default]
    Standard,
    /// Few, large fetches: at least 1 MiB or half a second.
    Balanced,
    /// As few fetches as possible: at least 2 MiB or a second.
    HighThroughput,
    /// Waits for nothing.
    LowLatency,
}

impl ConsumerPreset {
    pub(super) fn properties(self) -> &'static [(&'static str, &'static str)] {
        match self {
            ConsumerPreset::Standard => &[],
            ConsumerPreset::Balanced => &[
                ("fetch.min.bytes", "1048576"),
                ("fetch.wait.max.ms", "500"),
                ("max.partition.fetch.bytes", "2097152"),
                ("session.timeout.ms", "30000"),
                ("heartbeat.interval.ms", "3000"),
            ],
            ConsumerPreset::HighThroughput => &[
                ("fetch.min.bytes", "2097152"),
                ("fetch.wait.max.ms", "1000"),
                ("max.partition.fetch.bytes", "2097152"),
            ],
            ConsumerPreset::LowLatency => &[("fetch.min.bytes", "1"), ("fetch.wait.max.ms", "10")],
        }
    }

    /// How many records a turn takes at most.
    pub(super) fn max_poll_records(self) -> Option<usize> {
        match self {
            ConsumerPreset::Standard | ConsumerPreset::Balanced => None,
            ConsumerPreset::HighThroughput => Some(1000),
            ConsumerPreset::LowLatency => Some(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_the_time_in_digits_or_bytes() {
        let at = |value: &[u8]| from_header("ts", Some(value));
        assert_eq!(at(b"1700000000123"), Ok(Timestamp(1_700_000_000_123)));
        assert_eq!(at(b"-5"), Ok(Timestamp(-5)));
        assert_eq!(at(&77i64.to_be_bytes()), Ok(Timestamp(77)));
        assert_eq!(
            at(b"noon").unwrap_err(),
            "its header 'ts' is no timestamp: 'noon'"
        );
        assert!(
            from_header("ts", None)
                .unwrap_err()
                .contains("no header 'ts'")
        );
    }

    #[test]
    fn patterns_do_not_match_what_kafka_keeps_for_itself() {
        let topics = Topics::Pattern(Regex::new("^(orders-.*|.*offsets)$").unwrap());
        assert!(topics.contains("orders-eu") && !topics.contains("my-orders-eu"));
        assert!(!topics.contains("__consumer_offsets"));
    }
}
