//! What happens to one message, and what is counted of all.

use super::deserialize::Deserializer;
use super::record::ConsumerRecord;
use super::settings::EventTime;
use super::split::Split;
use crate::dead_letters::BadRecords;
use rdkafka::message::{BorrowedMessage, Message};
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::Flow;
use tidegate_engine::metrics::{Counter, Histogram, Meter, MetricGroup};
use tidegate_engine::stage::Collector;
use tidegate_engine::time::Timestamp;

/// What happens to one message.
pub(super) struct Decoding<D> {
    pub(super) deserializer: D,
    pub(super) event_time: EventTime,
    pub(super) bad: BadRecords,
    /// The partition's place and the offset of the record at hand.
    pub(super) at: Option<(usize, i64)>,
    /// A position that is gone is given up for another one.
    pub(super) resets: bool,
    /// What was read in this turn.
    pub(super) turn: Turn,
}

/// What was read in a turn.
#[derive(Default)]
pub(super) struct Turn {
    records: u64,
    /// The timestamp of the last one.
    newest: Option<Timestamp>,
}

/// The numbers of one subtask.
pub(super) struct Meters {
    clock: Clock,
    consumed: Counter,
    rate: Meter,
    latency: Histogram,
}

impl Meters {
    pub(super) fn new(clock: Clock, metrics: &MetricGroup) -> Self {
        Meters {
            clock,
            consumed: metrics.counter("records.consumed"),
            rate: metrics.meter("records.per.second"),
            latency: metrics.histogram("processing.latency"),
        }
    }

    pub(super) fn took(&mut self, turn: Turn) {
        let now = self.clock.now().0;
        self.consumed.add(turn.records);
        self.rate.mark(turn.records, now.max(0) as u64);
        if let Some(newest) = turn.newest {
            self.latency
                .record(now.saturating_sub(newest.0).max(0) as u64);
        }
    }
}

impl<D: Deserializer> Decoding<D> {
    /// Emits what a message is, if it is to be read; says whether it was emitted.
    #[inline(always)]
    pub(super) fn take<C: Collector<D::Item>>(
        &mut self,
        place: usize,
        split: &mut Split,
        message: &BorrowedMessage<'_>,
        out: &mut C,
    ) -> Flow<bool> {
        let offset = message.offset();
        if offset < split.next && !self.begins_anew(split, offset) {
            return Ok(false);
        }
        self.at = Some((place, offset));
        let record = ConsumerRecord::of(&split.topic, message);
        self.turn.records += 1;
        self.turn.newest = record.timestamp();
        let at = self.event_time.of(&record);
        let item = at.and_then(|at| Ok((at, self.deserializer.deserialize(&record)?)));
        split.next = offset + 1;
        match item {
            Ok((at, item)) => out.collect(at, item).map(|()| true),
            Err(reason) => self.reject(&reason, split, &record).map(|()| false),
        }
    }

    /// Whether a record before what was read already is to be read: where the position was gone, and the user said
    /// that another will do.
    #[cold]
    fn begins_anew(&self, split: &Split, offset: i64) -> bool {
        if self.resets {
            let (topic, partition, next) = (&split.topic, split.partition, split.next);
            tracing::warn!(%topic, partition, "there is no offset {next} any more; goes on at {offset}");
        }
        self.resets
    }

    #[cold]
    fn reject(&mut self, reason: &str, split: &Split, record: &ConsumerRecord<'_>) -> Flow {
        let raw = record.value().unwrap_or_default();
        self.bad.add(reason, raw, raw.len() as u64, || {
            format!("{}[{}]@{}", split.topic, split.partition, record.offset())
        })
    }
}
