//! How many records of each partition are still to be read.
//!
//! The brokers are asked, and not librdkafka's own statistics: those count from what the group has committed, and
//! come only while the subtask takes turns, so not when lag matters most, where the job has no room.

use super::listen::Consumer;
use super::split::Split;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_engine::metrics::{Gauge, MetricGroup};

/// How often the brokers are asked.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// How long one question may take.
const ANSWER: Duration = Duration::from_secs(2);

/// The lag of one subtask. Clones share it.
#[derive(Clone)]
pub(super) struct Lag(Arc<Shared>);

struct Shared {
    metrics: MetricGroup,
    total: Gauge,
    partitions: Mutex<Vec<Arc<Reading>>>,
}

/// How far a partition is read.
pub(super) struct Reading {
    topic: Arc<str>,
    partition: i32,
    next: AtomicI64,
    /// It was read to its present end, behind which there may be markers of transactions, which nobody gets to see.
    at_end: AtomicBool,
    over: AtomicBool,
    lag: Gauge,
}

impl Reading {
    /// All before this offset is read.
    #[inline(always)]
    pub(super) fn reached(&self, next: i64) {
        self.next.store(next, SeqCst);
        self.at_end.store(false, SeqCst);
    }

    /// There is no more for now.
    pub(super) fn at_end(&self) {
        self.at_end.store(true, SeqCst);
    }

    /// It is read no more.
    pub(super) fn over(&self) {
        self.over.store(true, SeqCst);
    }

    /// How much is between where it is and an end.
    fn upto(&self, begin: i64, end: i64) -> i64 {
        let next = self.next.load(SeqCst);
        if self.at_end.swap(false, SeqCst) {
            // Unless it has moved on meanwhile.
            let _ = self
                .next
                .compare_exchange(next, next.max(end), SeqCst, SeqCst);
            return 0;
        }
        (end - next.max(begin)).max(0)
    }
}

type Offsets = BTreeMap<(String, i32), i64>;

impl Lag {
    pub(super) fn new(metrics: &MetricGroup) -> Self {
        Lag(Arc::new(Shared {
            total: metrics.gauge("records.lag"),
            metrics: metrics.clone(),
            partitions: Mutex::default(),
        }))
    }

    /// Where it is shown, with what else there is to measure.
    pub(super) fn metrics(&self) -> &MetricGroup {
        &self.0.metrics
    }

    /// Shows the lag of one more partition.
    pub(super) fn of(&self, split: &Split) -> Arc<Reading> {
        let group = self.0.metrics.add_label("topic", &split.topic);
        let group = group.add_label("partition", split.partition);
        let reading = Arc::new(Reading {
            topic: split.topic.clone(),
            partition: split.partition,
            next: AtomicI64::new(split.next),
            at_end: AtomicBool::new(false),
            over: AtomicBool::new(false),
            lag: group.gauge("partition.lag"),
        });
        let mut partitions = self
            .0
            .partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.push(reading.clone());
        reading
    }

    /// Asks where the partitions end that are read. It may block.
    pub(super) fn look(&self, consumer: &Consumer) {
        let partitions = {
            let mut all = self
                .0
                .partitions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.iter()
                .filter(|one| one.over.load(SeqCst))
                .for_each(|one| one.lag.set(0.0));
            all.retain(|one| !one.over.load(SeqCst));
            all.clone()
        };
        // Where nothing was read yet, the beginning counts.
        let unread: Vec<_> = partitions
            .iter()
            .filter(|p| p.next.load(SeqCst) < 0)
            .cloned()
            .collect();
        let asked = || -> KafkaResult<(Offsets, Offsets)> {
            let ends = offsets(consumer, &partitions, Offset::End)?;
            Ok((offsets(consumer, &unread, Offset::Beginning)?, ends))
        };
        match asked() {
            Ok((begins, ends)) => self.show(&partitions, &begins, &ends),
            // What is shown stays; that brokers are silent is told elsewhere.
            Err(error) => tracing::debug!(%error, "can't ask where partitions end"),
        }
    }

    fn show(&self, partitions: &[Arc<Reading>], begins: &Offsets, ends: &Offsets) {
        let mut total = 0;
        for one in partitions {
            let name = (one.topic.to_string(), one.partition);
            let Some(end) = ends.get(&name) else { continue };
            let lag = one.upto(begins.get(&name).copied().unwrap_or(0), *end);
            one.lag.set(lag as f64);
            total += lag;
        }
        self.0.total.set(total as f64);
    }
}

/// Their first or last offsets that this client may see.
fn offsets(consumer: &Consumer, of: &[Arc<Reading>], which: Offset) -> KafkaResult<Offsets> {
    let mut list = TopicPartitionList::new();
    for one in of {
        list.add_partition_offset(&one.topic, one.partition, which)?;
    }
    if of.is_empty() {
        return Ok(Offsets::new());
    }
    // Of the times to look for, both ends have one of their own.
    let list = consumer.offsets_for_times(list, ANSWER)?;
    let told = list
        .elements()
        .into_iter()
        .filter(|one| one.error().is_ok());
    let told = told.filter_map(|one| match one.offset() {
        Offset::Offset(offset) => Some(((one.topic().to_owned(), one.partition()), offset)),
        _ => None,
    });
    Ok(told.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_lies_between_where_it_is_read_and_the_end() {
        let metrics = MetricGroup::detached();
        let lag = Lag::new(&metrics);
        let splits = [(0, -2), (1, 40), (2, 7)].map(|(partition, next)| Split {
            topic: "t".into(),
            partition,
            next,
            end: None,
        });
        let readings = splits.each_ref().map(|split| lag.of(split));
        let at = |offsets: [i64; 3]| {
            let named = offsets.into_iter().zip(0..);
            named
                .map(|(offset, p)| (("t".to_owned(), p), offset))
                .collect::<Offsets>()
        };
        let gauge = |partition: i32| {
            let group = metrics
                .add_label("topic", "t")
                .add_label("partition", partition);
            group.gauge("partition.lag").get()
        };
        let total = metrics.gauge("records.lag");
        lag.show(&readings, &at([5, 0, 0]), &at([30, 50, 7]));
        assert_eq!([0, 1, 2].map(gauge), [25.0, 10.0, 0.0]);
        assert_eq!(total.get(), 35.0, "the second is behind its beginning");
        readings[0].reached(29);
        readings[0].at_end();
        readings[1].reached(45);
        lag.show(&readings, &at([5, 0, 0]), &at([30, 50, 7]));
        assert_eq!(total.get(), 5.0, "the first is at its end, a marker");
        lag.show(&readings, &at([5, 0, 0]), &at([33, 50, 7]));
        assert_eq!(gauge(0), 3.0, "and there is more now");
        readings[0].reached(31);
        lag.show(&readings, &at([5, 0, 0]), &at([33, 50, 7]));
        assert_eq!(gauge(0), 2.0);
    }
}
