//! Records from Kafka.
//!
//! Each subtask has a consumer of its own that is assigned partitions; it is in no consumer group, so nothing
//! is ever rebalanced. A rule that every subtask knows says whose a partition is. The positions are part of
//! the checkpoints; to the group they are only told, for people and tools that watch it.
//!
//! A subtask takes records from librdkafka in its own turns, and so only when the job has room for them. What
//! librdkafka fetches ahead is bounded: 64 MiB for all partitions of the subtask.

mod builder;
mod decode;
mod deserialize;
mod enumerate;
mod lag;
mod listen;
mod reader;
mod record;
mod settings;
mod split;

pub use builder::KafkaSourceBuilder;
pub use deserialize::{Bytes, Deserializer, Json, Nullable, Number, Text, With};
pub use reader::KafkaReader;
pub use record::ConsumerRecord;
pub use settings::{ConsumerPreset, EventTime, StartingOffsets};

use crate::dead_letters::OnError;
use crate::kafka::outage::Outage;
use enumerate::{Enumerator, Search};
use lag::Lag;
use listen::{Clients, Listener};
use rdkafka::config::ClientConfig;
use serde::de::DeserializeOwned;
use split::{Restored, owner};
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::Source;

/// Reads topics of Kafka.
///
/// ```
/// use tidegate_connectors::kafka::{KafkaSource, StartingOffsets};
///
/// # fn main() -> Result<(), tidegate_connectors::kafka::KafkaError> {
/// let source = KafkaSource::string()
///     .bootstrap_servers("localhost:9092")
///     .topic("my-topic")
///     .group_id("my-consumer-group")
///     .starting_offsets(StartingOffsets::Latest)
///     .build()?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct KafkaSource<D = Bytes> {
    deserializer: D,
    config: ClientConfig,
    servers: String,
    search: Search,
    event_time: EventTime,
    on_error: OnError,
    max_poll_records: usize,
    /// How much may be fetched ahead of each partition is the user's own affair.
    own_room: bool,
    /// How long brokers may be silent.
    broker_timeout: Duration,
    /// Offsets are told to the group that the user named.
    tells_group: bool,
}

impl KafkaSource {
    /// Values are JSON.
    pub fn json<T: DeserializeOwned + 'static>() -> KafkaSourceBuilder<Json<T>> {
        KafkaSourceBuilder::new(Json::default())
    }

    /// Values are UTF-8 text.
    pub fn string() -> KafkaSourceBuilder<Text> {
        KafkaSourceBuilder::new(Text)
    }

    /// Values are taken as they are.
    pub fn bytes() -> KafkaSourceBuilder<Bytes> {
        KafkaSourceBuilder::new(Bytes)
    }

    /// Values are numbers of four bytes, big-endian.
    pub fn i32() -> KafkaSourceBuilder<Number<i32>> {
        KafkaSourceBuilder::new(Number::default())
    }

    /// Values are numbers of eight bytes, big-endian.
    pub fn i64() -> KafkaSourceBuilder<Number<i64>> {
        KafkaSourceBuilder::new(Number::default())
    }

    /// Values are floating-point numbers of eight bytes, big-endian.
    pub fn f64() -> KafkaSourceBuilder<Number<f64>> {
        KafkaSourceBuilder::new(Number::default())
    }

    /// Records become what a function makes of key, value, headers and whatever else there is to know.
    pub fn with<T, E, F>(function: F) -> KafkaSourceBuilder<With<F>>
    where
        T: 'static,
        E: Display,
        F: Fn(&ConsumerRecord<'_>) -> Result<T, E> + Clone + Send + Sync + 'static,
    {
        KafkaSourceBuilder::new(With(function))
    }

    /// Records become what a deserializer of the user's own makes of them.
    pub fn deserializer<D: Deserializer>(deserializer: D) -> KafkaSourceBuilder<D> {
        KafkaSourceBuilder::new(deserializer)
    }
}

impl<D: Deserializer> Source for KafkaSource<D> {
    type Item = D::Item;
    type Reader = KafkaReader<D>;

    fn check(&self) -> Flow {
        self.on_error.check()
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<KafkaReader<D>> {
        let share = (context.subtask(), context.parallelism());
        let restored = context.all_restored_splits();
        let restored = restored.map(|saved| Restored::decode(&saved)).transpose()?;
        let splits = restored
            .as_ref()
            .map_or(&[][..], |restored| &restored.splits);
        if let Some(split) = splits
            .iter()
            .find(|s| !self.search.topics.contains(&s.topic))
        {
            return Err(Fault::user(format_args!(
                "the checkpoint has a position in the topic '{}', which the source does not name any more; name \
                 it, or start without the checkpoint",
                split.topic
            )));
        }
        if !self.search.bounded && splits.iter().any(|split| split.end.is_some()) {
            return Err(Fault::user(
                "the checkpoint was taken while the topics were read up to an end; they can't be followed from \
                 there: keep .bounded(true), or start without the checkpoint",
            ));
        }
        let bad = self.on_error.open(context.name())?;
        let metrics = context.metrics().add_group("kafka");
        let outage = Outage::new(
            &self.servers,
            self.broker_timeout,
            metrics.gauge("brokers.silence.seconds"),
            Some(context.stats()),
        );
        let lag = Lag::new(&metrics);
        let listener = Listener::new(outage);
        let contact = listener.contact();
        let clients = Clients {
            config: self.config.clone(),
            listener,
            hungry: Arc::default(),
            waker: context.waker(),
        };
        let consumer = clients.first()?;
        let mine = splits
            .iter()
            .filter(|s| owner(&s.topic, s.partition, share.1) == share.0);
        // Those that are still to be given an end come later.
        let (waiting, mine): (Vec<_>, Vec<_>) = mine
            .cloned()
            .partition(|split| self.search.bounded && split.end.is_none());
        let unsearched = Restored::unsearched_by(restored.as_ref(), share);
        let enumerator = Enumerator {
            consumer: consumer.clone(),
            contact,
            search: self.search.clone(),
            servers: self.servers.clone(),
            share,
            restored,
            lag: lag.clone(),
        };
        let searching = enumerator.start(context.waker())?;
        let reader = KafkaReader::new(self, context, (clients, consumer), searching, bad, lag);
        let mut reader = reader.until_found(unsearched, waiting);
        reader.assign(mine)?;
        Ok(reader)
    }

    fn replayable(&self) -> bool {
        true
    }

    fn bounded(&self) -> bool {
        self.search.bounded
    }
}

/// How long looking for topics may take in the beginning, by default.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often new partitions are looked for, by default.
const DISCOVERY: Duration = Duration::from_secs(10);
