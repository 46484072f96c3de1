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

/// What happens to one message.
pub(super) struct Decoding<D> {
    pub(super) deserializer: D,
    pub(super) event_time: EventTime,
    pub(super) bad: BadRecords,
    /// The partition's place and the offset of the record at hand.
    pub(super) at: Option<(usize, i64)>,
}

/// The numbers of one subtask.
pub(super) struct Meters {
    clock: Clock,
    consumed: Counter,
    rate: Meter,
    latency: Histogram,
    /// The timestamp of the record that was taken last.
    pub(super) newest: i64,
}

impl Meters {
    pub(super) fn new(clock: Clock, metrics: &MetricGroup) -> Self {
        Meters {
            clock,
            consumed: metrics.counter("records.consumed"),
            rate: metrics.meter("records.per.second"),
            latency: metrics.histogram("processing.latency"),
            newest: 0,
        }
    }

    pub(super) fn took(&mut self, records: usize) {
        let now = self.clock.now().0;
        self.consumed.add(records as u64);
        self.rate.mark(records as u64, now.max(0) as u64);
        if self.newest > 0 {
            self.latency
                .record(now.saturating_sub(self.newest).max(0) as u64);
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
        if offset < split.next {
            return Ok(false);
        }
        self.at = Some((place, offset));
        let record = ConsumerRecord::of(&split.topic, message);
        let at = self.event_time.of(&record);
        let item = at.and_then(|at| Ok((at, self.deserializer.deserialize(&record)?)));
        split.next = offset + 1;
        match item {
            Ok((at, item)) => out.collect(at, item).map(|()| true),
            Err(reason) => self.reject(&reason, split, &record).map(|()| false),
        }
    }

    #[cold]
    fn reject(&mut self, reason: &str, split: &Split, record: &ConsumerRecord<'_>) -> Flow {
        let raw = record.value().unwrap_or_default();
        self.bad.add(reason, raw, raw.len() as u64, || {
            format!("{}[{}]@{}", split.topic, split.partition, record.offset())
        })
    }
}
