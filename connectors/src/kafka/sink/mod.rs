//! A sink that writes to Kafka: as fast as it goes, at least once or exactly once.
//!
//! Without transactions records go to librdkafka as they come, and a checkpoint waits until all are
//! acknowledged. Exactly once they stay here until the next checkpoint, in memory or on disk (`spill.rs`), become
//! part of it, and are sent when it is complete: in one transaction with a record that says so (`protocol.rs`, `committer.rs`). What a
//! crash leaves behind the next attempt sends, or finds sent (`takeover.rs`).

mod broker;
mod builder;
mod committable;
mod committer;
mod delivery;
mod plain;
mod progress;
mod protocol;
mod record;
#[cfg(test)]
#[path = "tests/rules.rs"]
mod rules;
mod serializer;
mod settings;
#[cfg(test)]
#[path = "tests/simulation.rs"]
mod simulation;
mod spill;
mod staged;
mod takeover;
mod topic;
mod writer;

pub use builder::KafkaSinkBuilder;
pub use record::KafkaRecord;
pub use serializer::{KafkaSerializer, RecordSerializer};
pub use settings::{DeliveryGuarantee, Partitioner};
pub use writer::KafkaWriter;

use crate::background::Background;
use crate::kafka::outage::Outage;
use broker::KafkaBroker;
use committable::{Committable, Owner, Segments};
use committer::Committer;
use delivery::Delivery;
use plain::PlainProducer;
use progress::Progress;
use rdkafka::producer::{BaseProducer, ThreadedProducer};
use serializer::{Choose, Encoder};
use settings::SinkSettings;
use staged::Staged;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};
use takeover::Takeover;
use tidegate_engine::build::OpenContext;
use tidegate_engine::checkpoint::CheckpointMode;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::sink::{RecoveryContext, Sink};
use writer::{Closing, Commits, Plain, Way};

/// Writes records to Kafka.
///
/// ```
/// use tidegate_connectors::KafkaSink;
///
/// #[derive(serde::Serialize)]
/// struct Total { customer: String, cents: u64 }
///
/// let totals = KafkaSink::<Total>::json()
///     .bootstrap_servers("localhost:9092")
///     .topic("aggregated-orders")
///     .key(|total| total.customer.clone())
///     .exactly_once("order-processor-sink")
///     .build()?;
/// # Ok::<(), tidegate_connectors::kafka::KafkaError>(())
/// ```
///
/// # Exactly once
///
/// The job has to take checkpoints, and the readers to read `read_committed`. Records become visible when a
/// checkpoint that covers them is complete, so they are late by the checkpoint interval and the time that it
/// takes to send them. Until then a subtask keeps them, what is too much for memory on disk
/// ([`KafkaSinkBuilder::max_epoch_memory`]), and the checkpoint keeps them too. However long a recovery takes, nothing is lost.
///
/// The compacted progress topic must stay as it is. A checkpoint that is older than what was committed is
/// refused, and a start without one too ([`KafkaSinkBuilder::allow_reemit`]). A run of the job that another one took over from stops.
pub struct KafkaSink<T> {
    serializer: Arc<dyn RecordSerializer<T>>,
    choose: Option<Choose<T>>,
    settings: SinkSettings,
    session: Mutex<Session>,
}

/// Segments that a checkpoint holds.
struct Checkpointed<'a>(&'a RecoveryContext<'a>);

impl Segments for Checkpointed<'_> {
    fn read(&self, name: &str) -> Flow<Vec<u8>> {
        self.0.read(name)
    }
}

/// What an attempt has found out before its writers are opened.
#[derive(Clone, Default)]
struct Session {
    partitions: i32,
    /// Who commits, and with what.
    transactions: Option<(KafkaBroker, Owner)>,
}

impl<T: 'static> KafkaSink<T> {
    fn new(
        serializer: Arc<dyn RecordSerializer<T>>,
        choose: Option<Choose<T>>,
        settings: SinkSettings,
    ) -> Self {
        KafkaSink {
            serializer,
            choose,
            settings,
            session: Mutex::default(),
        }
    }

    fn begin(
        &self,
        context: &RecoveryContext<'_>,
        committables: Option<Vec<Vec<u8>>>,
    ) -> Flow<Session> {
        let config = self.settings.client.config(&[], &[])?;
        let delivery = Delivery::default();
        let client: BaseProducer<Delivery> = config
            .create_with_context(delivery.clone())
            .map_err(|error| Fault::user(format_args!("Kafka: {error}")))?;
        let servers = self.settings.client.servers();
        let partitions = |topic: &str| topic::partitions(&client, &delivery, servers, topic);
        let mut session = Session::default();
        if !self.settings.topic.is_empty() {
            session.partitions = partitions(&self.settings.topic)?;
        }
        if self.settings.guarantee != DeliveryGuarantee::ExactlyOnce {
            return Ok(session);
        }
        let Some(checkpoints) = context.checkpoints() else {
            return Err(Fault::user(
                "exactly-once into Kafka needs checkpoints: what is committed is what one covers. Take some, \
                 or use .at_least_once()",
            ));
        };
        if checkpoints.mode == CheckpointMode::AtLeastOnce {
            return Err(Fault::user(
                "exactly-once into Kafka doesn't go with checkpoints that let records count twice; take \
                 exactly-once checkpoints, or use .at_least_once()",
            ));
        }
        if let Some(interval) = checkpoints.interval {
            self.settings.check_interval(interval)?;
        }
        let id = format!("{}-{}", self.settings.prefix, context.uid());
        let progress = self.settings.progress_topic(&id);
        topic::progress_topic(&self.settings.client, &progress)?;
        partitions(&progress)?;
        let progress = Progress::open(&config, progress, id)?;
        let broker = KafkaBroker::new(self.settings.clone(), progress);
        let owner = Owner(RandomState::new().hash_one(context.job()));
        let restored = context.restored_from().map(|checkpoint| checkpoint.0);
        let committables = committables.into_iter().flatten().map(Committable::decode);
        let committables = committables.collect::<Flow<Vec<_>>>()?;
        Takeover::new(owner, context.parallelism(), restored, committables)
            .allow_reemit(self.settings.allow_reemit)
            .run(&broker, &Checkpointed(context))?;
        session.transactions = Some((broker, owner));
        Ok(session)
    }

    /// Shows whether brokers answer a subtask.
    fn outage(&self, context: &OpenContext<'_>) -> Outage {
        Outage::new(
            self.settings.client.servers(),
            self.settings.broker_timeout,
            context
                .metrics()
                .add_group("kafka")
                .gauge("brokers.silence.seconds"),
            Some(context.stats()),
        )
    }

    fn open_plain(&self, context: &OpenContext<'_>, closing: &Closing) -> Flow<(Background, Way)> {
        let delivery = Delivery::waking(context.waker(), self.outage(context));
        let config = self.settings.producer()?;
        let producer: ThreadedProducer<Delivery> = config
            .create_with_context(delivery.clone())
            .map_err(|error| Fault::user(format_args!("Kafka: {error}")))?;
        let safe = self.settings.guarantee != DeliveryGuarantee::None;
        let metrics = context.metrics().add_group("kafka");
        let sender = PlainProducer {
            producer,
            delivery: delivery.clone(),
            topic: self.settings.topic.as_str().into(),
            servers: self.settings.client.servers().to_owned(),
            safe,
            closing: closing.0.clone(),
            lost: metrics.counter("records.lost"),
            told: 0,
        };
        let unacknowledged = self.settings.max_unacknowledged.unwrap_or(u32::MAX);
        let batch = u64::from(unacknowledged / 4).max(1);
        let way = Way::Plain(Plain::new(delivery, batch));
        Ok((Background::start(sender, context.waker())?, way))
    }
}

impl<T: 'static> Sink<T> for KafkaSink<T> {
    type Writer = KafkaWriter<T>;

    fn recover_in(
        &self,
        context: &RecoveryContext<'_>,
        committables: Option<Vec<Vec<u8>>>,
    ) -> Flow {
        let session = self.begin(context, committables)?;
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
        Ok(())
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<KafkaWriter<T>> {
        let session = self
            .session
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let choose = self
            .choose
            .clone()
            .map(|choose| (choose, session.partitions));
        let longest = self.settings.message_max_bytes();
        let encoder = Encoder::new(self.serializer.clone(), choose, longest);
        let closing = Closing(Arc::default());
        let Some((broker, owner)) = session.transactions else {
            let (thread, way) = self.open_plain(context, &closing)?;
            return Ok(KafkaWriter::new(closing, encoder, thread, way));
        };
        let broker = broker.until(closing.0.clone(), self.outage(context));
        let slot = context.subtask();
        let metrics = context.metrics().add_group("kafka");
        let staged = Staged::new((slot, owner), &self.settings, context.waker());
        let commits = Commits {
            committer: Committer::new(broker, slot, owner),
            spilled: staged.spilled(),
            records: metrics.counter("records.committed"),
            transactions: metrics.counter("transactions.committed"),
            latency: metrics.histogram("commit.latency"),
        };
        let thread = Background::start(commits, context.waker())?;
        KafkaWriter::new(closing, encoder, thread, Way::Staged(Box::new(staged))).warm_up()
    }
}
