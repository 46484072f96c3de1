//! Takes the records of one subtask's partitions, in the subtask's own turns.

use super::KafkaSource;
use super::decode::{Decoding, Meters, Turn};
use super::deserialize::Deserializer;
use super::enumerate::{Found, Searching};
use super::lag::{Lag, Reading};
use super::listen::{Clients, Consumer, FEW, Listener, alarm};
use super::split::{BEGINNING, Region, Saved, Split};
use crate::dead_letters::BadRecords;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;
use tidegate_engine::alignment::LOOK_INTERVAL;
use tidegate_engine::build::OpenContext;
use tidegate_engine::checkpoint::CheckpointId;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::{Poll, SourceReader};
use tidegate_engine::splits::SplitTrack;
use tidegate_engine::stage::Collector;

/// How long a reader rests that is going to be woken anyway; then it looks for errors.
const UNTIL_WOKEN: Duration = Duration::from_millis(100);
/// How many records of a partition follow each other where others have some too.
const SLICE: usize = 256;

/// Reads the partitions of one subtask.
pub struct KafkaReader<D: Deserializer> {
    partitions: Vec<Partition>,
    /// The next one to look at.
    cursor: usize,
    decoding: Decoding<D>,
    track: SplitTrack,
    clients: Clients,
    /// The first one searches too.
    consumers: Vec<Arc<Consumer>>,
    own_room: bool,
    searching: Option<Searching>,
    complete: bool,
    /// What it has yet to look for, and positions that are known and wait for an end: both until the search is
    /// complete.
    unsearched: Vec<Region>,
    waiting: Vec<Split>,
    bounded: bool,
    max_poll_records: usize,
    meters: Meters,
    lag: Lag,
    tells_group: bool,
    /// Positions that the next complete checkpoint covers.
    covered: Option<TopicPartitionList>,
}

struct Partition {
    split: Split,
    /// Its number in the track.
    number: usize,
    /// `None` when it is read to its end.
    queue: Option<PartitionQueue<Listener>>,
    reading: Arc<Reading>,
    consumer: Arc<Consumer>,
}

/// How a partition is left for others.
enum Left {
    /// There is more, or it comes later.
    Open,
    /// All that is there now was read.
    AtEnd,
    /// All that is to be read was read.
    Over,
}

impl Partition {
    fn name(&self) -> String {
        format!("{}[{}]", self.split.topic, self.split.partition)
    }
}

impl<D: Deserializer> KafkaReader<D> {
    pub(super) fn new(
        source: &KafkaSource<D>,
        context: &OpenContext<'_>,
        (clients, consumer): (Clients, Arc<Consumer>),
        searching: Searching,
        bad: BadRecords,
        lag: Lag,
    ) -> Self {
        let track = context.split_track();
        track.declare();
        KafkaReader {
            partitions: Vec::new(),
            cursor: 0,
            decoding: Decoding {
                deserializer: source.deserializer.clone(),
                event_time: source.event_time.clone(),
                bad,
                at: None,
                resets: source.config.get("auto.offset.reset") != Some("error"),
                turn: Turn::default(),
            },
            track,
            clients,
            consumers: vec![consumer],
            own_room: source.own_room,
            searching: Some(searching),
            complete: false,
            unsearched: Vec::new(),
            waiting: Vec::new(),
            bounded: source.search.bounded,
            max_poll_records: source.max_poll_records,
            meters: Meters::new(context.clock(), lag.metrics()),
            lag,
            tells_group: source.tells_group,
            covered: None,
        }
    }

    /// What is part of checkpoints until the search for partitions is complete.
    pub(super) fn until_found(mut self, unsearched: Vec<Region>, waiting: Vec<Split>) -> Self {
        (self.unsearched, self.waiting) = (unsearched, waiting);
        self
    }

    /// The client that is to read so many partitions more.
    fn reads(&mut self, partitions: usize) -> Flow<Arc<Consumer>> {
        if !self.own_room && self.partitions.len() + partitions > FEW {
            self.consumers.push(self.clients.another(partitions)?);
        }
        let last = self.consumers.last().cloned();
        last.ok_or_else(|| Fault::internal("a Kafka source without a client"))
    }

    /// Begins to read splits.
    pub(super) fn assign(&mut self, splits: Vec<Split>) -> Flow {
        if splits.is_empty() {
            return Ok(());
        }
        let consumer = self.reads(splits.len())?;
        let mut list = TopicPartitionList::new();
        for split in splits {
            let offset = match split.next {
                BEGINNING => Offset::Beginning,
                next => Offset::Offset(next),
            };
            list.add_partition_offset(&split.topic, split.partition, offset)
                .map_err(refused)?;
            // Before it is assigned, so that none of its records takes another way.
            let queue = consumer.split_partition_queue(&split.topic, split.partition);
            let mut queue = queue.ok_or_else(|| {
                Fault::external(format_args!(
                    "{}[{}] can't be read",
                    split.topic, split.partition
                ))
            })?;
            queue.set_nonempty_callback(alarm(&self.clients.hungry, &self.clients.waker));
            self.partitions.push(Partition {
                number: self.track.add(),
                queue: Some(queue),
                reading: self.lag.of(&split),
                consumer: consumer.clone(),
                split,
            });
        }
        consumer.incremental_assign(&list).map_err(refused)
    }

    /// A partition is read to its end, or is gone.
    #[cold]
    fn finish(&mut self, place: usize) -> Flow {
        let partition = &mut self.partitions[place];
        partition.queue = None;
        partition.reading.over();
        self.track.end(partition.number);
        let mut list = TopicPartitionList::new();
        list.add_partition(&partition.split.topic, partition.split.partition);
        let consumer = &partition.consumer;
        consumer.incremental_unassign(&list).map_err(refused)
    }

    /// Takes what the search for partitions has found.
    fn hear(&mut self) -> Flow {
        while let Some(found) = self
            .searching
            .as_ref()
            .and_then(|s| s.found.try_recv().ok())
        {
            match found {
                Found::New(splits) => self.assign(splits)?,
                Found::All(splits) => {
                    self.assign(splits)?;
                    self.complete = true;
                    (self.unsearched, self.waiting) = Default::default();
                    self.track.complete();
                }
                Found::Gone(topic) => {
                    tracing::warn!(topic, "a topic is gone");
                    for place in 0..self.partitions.len() {
                        if *self.partitions[place].split.topic == *topic {
                            self.finish(place)?;
                        }
                    }
                    self.partitions
                        .retain(|partition| *partition.split.topic != *topic);
                }
                Found::Failed(fault) => {
                    self.decoding.at = None;
                    return Err(fault);
                }
            }
        }
        Ok(())
    }

    /// Serves what is not of a partition's queue: errors, answers to commits, and statistics.
    fn serve<C: Collector<D::Item>>(&mut self, out: &mut C) -> Flow<usize> {
        let mut taken = 0;
        for n in 0..self.consumers.len() {
            let consumer = self.consumers[n].clone();
            while let Some(event) = consumer.poll(Duration::ZERO) {
                match event {
                    Ok(message) => taken += usize::from(self.stray(&message, out)?),
                    Err(error) => self.failed(None, &error)?,
                }
            }
        }
        Ok(taken)
    }

    /// A message that did not come by its partition's queue. Whether it is of a partition that is read.
    #[cold]
    fn stray<C: Collector<D::Item>>(
        &mut self,
        message: &BorrowedMessage<'_>,
        out: &mut C,
    ) -> Flow<bool> {
        let is_it = |s: &Split| s.partition == message.partition() && *s.topic == *message.topic();
        let reads = |p: &Partition| p.queue.is_some() && is_it(&p.split);
        let Some(place) = self.partitions.iter().position(reads) else {
            return Ok(false);
        };
        let partition = &mut self.partitions[place];
        self.track.enter(partition.number);
        self.decoding
            .take(place, &mut partition.split, message, out)?;
        partition.reading.reached(partition.split.next);
        Ok(true)
    }

    /// Reads at most so many records of a partition. Returns how many messages were taken, and how many of
    /// them were emitted.
    fn read<C: Collector<D::Item>>(
        &mut self,
        place: usize,
        most: usize,
        out: &mut C,
    ) -> Flow<(usize, usize)> {
        let (mut taken, mut emitted) = (0, 0);
        let left = self.take(place, most, (&mut taken, &mut emitted), out)?;
        let Partition { split, reading, .. } = &self.partitions[place];
        if taken > 0 {
            reading.reached(split.next);
        }
        match left {
            Left::Open => {}
            Left::AtEnd => reading.at_end(),
            Left::Over => self.finish(place)?,
        }
        Ok((taken, emitted))
    }

    fn take<C: Collector<D::Item>>(
        &mut self,
        place: usize,
        most: usize,
        (taken, emitted): (&mut usize, &mut usize),
        out: &mut C,
    ) -> Flow<Left> {
        let Partition {
            split,
            number,
            queue,
            ..
        } = &mut self.partitions[place];
        let Some(queue) = queue else {
            return Ok(Left::Open);
        };
        self.track.enter(*number);
        let end = split.end.unwrap_or(i64::MAX);
        while *taken < most {
            match queue.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => {
                    *taken += 1;
                    if message.offset() >= end {
                        return Ok(Left::Over);
                    }
                    *emitted += usize::from(self.decoding.take(place, split, &message, out)?);
                    if split.next >= end {
                        return Ok(Left::Over);
                    }
                }
                // Behind the end there may be markers of transactions, which nobody gets to see.
                Some(Err(KafkaError::PartitionEOF(_))) if self.bounded => return Ok(Left::Over),
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Left::AtEnd),
                Some(Err(error)) => {
                    self.failed(Some(place), &error)?;
                    break;
                }
            }
        }
        Ok(Left::Open)
    }

    /// What librdkafka reports. Most of it passes by itself; topics that are gone are found by who looks for
    /// new partitions.
    #[cold]
    fn failed(&mut self, place: Option<usize>, error: &KafkaError) -> Flow {
        self.decoding.at = None;
        let partition = place.and_then(|place| self.partitions.get(place));
        let name = partition.map_or_else(String::new, Partition::name);
        match error.rdkafka_error_code() {
            // Of the consumer's own queue.
            _ if matches!(error, KafkaError::PartitionEOF(_)) => Ok(()),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                let next = partition.map_or(BEGINNING, |p| p.split.next);
                Err(Fault::user(format_args!(
                    "there is no offset {next} in {name} any more, or not yet: its records were deleted, or the \
                     topic is another one; start without the checkpoint, or set auto.offset.reset to earliest \
                     or latest to go on with what there is"
                )))
            }
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed,
            ) => Err(Fault::user(format_args!(
                "this client may not read {name}: {error}"
            ))),
            Some(RDKafkaErrorCode::Fatal) | None => Err(Fault::external(error)),
            Some(code) => {
                tracing::warn!(partition = name, "{code}");
                Ok(())
            }
        }
    }

    /// Whether brokers have been silent for longer than is borne.
    fn unbearable(&mut self) -> Option<Fault> {
        let consumer = self.consumers.first()?;
        let fault = consumer.context().outage().unbearable()?;
        self.decoding.at = None;
        Some(fault)
    }

    fn positions(&self) -> Option<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for Partition { split, .. } in self.partitions.iter().filter(|p| p.split.next >= 0) {
            let offset = Offset::Offset(split.next);
            list.add_partition_offset(&split.topic, split.partition, offset)
                .ok()?;
        }
        (self.tells_group && list.count() > 0).then_some(list)
    }

    /// One round over all partitions that have something.
    fn round<C: Collector<D::Item>>(&mut self, budget: usize, out: &mut C) -> Flow<(usize, usize)> {
        let (mut taken, mut emitted) = (self.serve(out)?, 0);
        let (mut dry, partitions) = (0, self.partitions.len());
        while taken < budget && dry < partitions {
            self.cursor = (self.cursor + 1) % partitions;
            if self.track.is_held(self.partitions[self.cursor].number) {
                dry += 1;
                continue;
            }
            let (some, good) = self.read(self.cursor, SLICE.min(budget - taken), out)?;
            dry = if some == 0 { dry + 1 } else { 0 };
            (taken, emitted) = (taken + some, emitted + good);
            if some > good && !self.decoding.bad.has_room()? {
                break;
            }
        }
        Ok((taken, emitted))
    }
}

impl<D: Deserializer> SourceReader for KafkaReader<D> {
    type Item = D::Item;

    fn poll<C: Collector<D::Item>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        if !self.decoding.bad.has_room()? {
            return Ok(Poll::Wait(Duration::from_millis(1)));
        }
        self.hear()?;
        if let Some(fault) = self.unbearable() {
            return Err(fault);
        }
        let budget = budget.min(self.max_poll_records);
        let (mut taken, mut emitted) = self.round(budget, out)?;
        if taken == 0 {
            if self.bounded && self.complete && self.partitions.iter().all(|p| p.queue.is_none()) {
                return Ok(Poll::End);
            }
            // What comes from now on wakes; what came just before is seen.
            self.clients.hungry.store(true, SeqCst);
            (taken, emitted) = self.round(budget, out)?;
            if taken == 0 {
                let rest = if self.track.holds() {
                    LOOK_INTERVAL
                } else {
                    UNTIL_WOKEN
                };
                return Ok(Poll::Wait(rest));
            }
        }
        self.meters.took(std::mem::take(&mut self.decoding.turn));
        Ok(Poll::Read(emitted))
    }

    fn position(&self) -> String {
        let at = self
            .decoding
            .at
            .and_then(|(place, offset)| Some((self.partitions.get(place)?, offset)));
        at.map_or_else(String::new, |(partition, offset)| {
            format!("{}@{offset}", partition.name())
        })
    }

    fn dead_letters(&self) -> u64 {
        self.decoding.bad.count()
    }

    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        self.decoding.bad.flush()?;
        self.covered = self.positions();
        let reading = self.partitions.iter().filter(|p| p.queue.is_some());
        let reading = reading.map(|p| &p.split).chain(&self.waiting);
        let unsearched = self.unsearched.iter().cloned().map(Saved::Unsearched);
        let saved = reading.map(Saved::from).chain(unsearched);
        saved.map(|saved| saved.encode()).collect()
    }

    fn positions(&self) -> Vec<String> {
        let reading = self.partitions.iter().filter(|p| p.queue.is_some());
        let known = reading.map(|p| &p.split).chain(&self.waiting);
        known.map(ToString::to_string).collect()
    }

    fn completed(&mut self, _checkpoint: CheckpointId) -> Flow {
        if let (Some(list), Some(consumer)) = (self.covered.take(), self.consumers.first())
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            tracing::warn!(%error, "offsets could not be told to the group; the job does not depend on it");
        }
        Ok(())
    }

    fn close(&mut self) -> Flow {
        self.covered = self.positions();
        self.decoding.bad.flush()
    }

    fn flushed(&mut self) -> Flow<bool> {
        self.decoding.bad.flushed()
    }
}

impl<D: Deserializer> Drop for KafkaReader<D> {
    fn drop(&mut self) {
        self.partitions.clear();
        if let Some(searching) = self.searching.take() {
            searching.end(std::mem::take(&mut self.consumers));
        }
    }
}

#[cold]
fn refused(error: KafkaError) -> Fault {
    Fault::external(format_args!(
        "librdkafka refuses to read a partition: {error}"
    ))
}
