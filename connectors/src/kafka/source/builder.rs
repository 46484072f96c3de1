//! What a Kafka source is made of, checked when it is built.

use super::deserialize::{Deserializer, Nullable};
use super::enumerate::Search;
use super::settings::{ConsumerPreset, EventTime, StartingOffsets, Topics};
use super::{DISCOVERY, KafkaSource, PATIENCE};
use crate::dead_letters::OnError;
use crate::kafka::client::{ClientSettings, KafkaError, Sasl, Tls};
use crate::kafka::outage::{self, LOOKS, WHY_LOOK};
use regex_lite::Regex;
use std::time::Duration;

/// Settings of a [`KafkaSource`].
#[derive(Clone, Debug)]
#[must_use = "call .build()"]
pub struct KafkaSourceBuilder<D> {
    deserializer: D,
    client: ClientSettings,
    topics: Vec<String>,
    pattern: Option<String>,
    group_id: Option<String>,
    starting: StartingOffsets,
    bounded: bool,
    event_time: EventTime,
    preset: ConsumerPreset,
    on_error: OnError,
    discovery: Option<Duration>,
    patience: Duration,
    broker_timeout: Duration,
    max_poll_records: Option<usize>,
}

/// What holds whatever the user says: positions are the checkpoints' affair, and a subtask must learn when it
/// has come to the end of a partition.
const FIXED: [(&str, &str); 3] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("enable.partition.eof", "true"),
];

const ROOM: &str = "queued.max.messages.kbytes";

const DEFAULTS: [(&str, &str); 7] = [
    ("isolation.level", "read_committed"),
    // Positions that are gone are an error, nothing is passed over silently.
    ("auto.offset.reset", "error"),
    ("allow.auto.create.topics", "false"),
    // For each partition; what a subtask takes later need not be fetched now. Where there are many, less.
    (ROOM, "16384"),
    ("statistics.interval.ms", "1000"),
    ("reconnect.backoff.max.ms", "1000"),
    ("client.id", "tidegate"),
];

impl<D: Deserializer> KafkaSourceBuilder<D> {
    pub(super) fn new(deserializer: D) -> Self {
        KafkaSourceBuilder {
            deserializer,
            client: ClientSettings::new(),
            topics: Vec::new(),
            pattern: None,
            group_id: None,
            starting: StartingOffsets::default(),
            bounded: false,
            event_time: EventTime::default(),
            preset: ConsumerPreset::default(),
            on_error: OnError::Fail,
            discovery: Some(DISCOVERY),
            patience: PATIENCE,
            broker_timeout: outage::PATIENCE,
            max_poll_records: None,
        }
    }

    /// The brokers to ask first: `host:port`, several with commas between them.
    pub fn bootstrap_servers(mut self, servers: impl Into<String>) -> Self {
        self.client.bootstrap_servers(servers);
        self
    }

    /// One more topic to read.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topics.push(topic.into());
        self
    }

    /// More topics to read.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// All topics with a name that this regular expression matches, also those that are made later.
    pub fn topic_pattern(mut self, pattern: impl Into<String>) -> Self {
        self.pattern = Some(pattern.into());
        self
    }

    /// The group to which offsets are told when a checkpoint is complete, so that tools which watch it see how
    /// far the job is. No job ever goes on from there, but one that begins with [`StartingOffsets::Group`].
    pub fn group_id(mut self, group: impl Into<String>) -> Self {
        self.group_id = Some(group.into());
        self
    }

    /// Where reading begins when no checkpoint says it; by default at the oldest record.
    pub fn starting_offsets(mut self, starting: StartingOffsets) -> Self {
        self.starting = starting;
        self
    }

    /// Whether the input ends at what is the end of each partition when the job starts. By default it doesn't.
    pub fn bounded(mut self, bounded: bool) -> Self {
        self.bounded = bounded;
        self
    }

    /// Where a record's event time comes from; by default from its timestamp in Kafka.
    pub fn event_time(mut self, event_time: EventTime) -> Self {
        self.event_time = event_time;
        self
    }

    /// Settings that go together.
    pub fn preset(mut self, preset: ConsumerPreset) -> Self {
        self.preset = preset;
        self
    }

    /// How many records a turn takes at most.
    pub fn max_poll_records(mut self, records: usize) -> Self {
        self.max_poll_records = Some(records.max(1));
        self
    }

    /// What becomes of records that can't be read; by default the first one ends the job.
    pub fn on_error(mut self, policy: impl Into<OnError>) -> Self {
        self.on_error = policy.into();
        self
    }

    /// Takes a null value as `None`, instead of as a bad record.
    pub fn nullable(self) -> KafkaSourceBuilder<Nullable<D>> {
        KafkaSourceBuilder {
            deserializer: Nullable(self.deserializer),
            client: self.client,
            topics: self.topics,
            pattern: self.pattern,
            group_id: self.group_id,
            starting: self.starting,
            bounded: self.bounded,
            event_time: self.event_time,
            preset: self.preset,
            on_error: self.on_error,
            discovery: self.discovery,
            patience: self.patience,
            broker_timeout: self.broker_timeout,
            max_poll_records: self.max_poll_records,
        }
    }

    /// How often new partitions, and topics that a pattern matches, are looked for; by default every 10 s.
    /// It also tells when a topic is gone. `None` looks only when the job starts.
    pub fn discovery_interval(mut self, every: impl Into<Option<Duration>>) -> Self {
        self.discovery = every.into();
        self
    }

    /// How long brokers and topics are looked for when the job starts, before it fails; by default 10 s.
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// How long a running job waits while no broker answers, before it fails; by default 2 minutes. The log, the
    /// progress line and the metric `brokers.silence.seconds` tell that it waits.
    pub fn broker_timeout(mut self, timeout: Duration) -> Self {
        self.broker_timeout = timeout;
        self
    }

    /// Speaks TLS.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.client.tls(tls);
        self
    }

    /// Proves who it is.
    pub fn sasl(mut self, sasl: Sasl) -> Self {
        self.client.sasl(sasl);
        self
    }

    /// Any property of librdkafka.
    pub fn property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        if name == "group.id" {
            self.group_id = Some(value);
        } else {
            self.client.property(name, value);
        }
        self
    }

    /// Checks the settings.
    pub fn build(self) -> Result<KafkaSource<D>, KafkaError> {
        let mut defaults = DEFAULTS.to_vec();
        defaults.extend(self.preset.properties());
        let mut config = self.client.config(&defaults, &FIXED)?;
        self.client
            .within("statistics.interval.ms", LOOKS, WHY_LOOK)?;
        if self.discovery.is_some_and(|every| every.is_zero()) {
            return Err(KafkaError::Missing(
                ".discovery_interval(..) of nothing asks the brokers without a rest; give it a time, or None to \
                 look for no new partitions",
            ));
        }
        if self.broker_timeout.is_zero() {
            return Err(KafkaError::Missing(
                ".broker_timeout(..) of nothing gives up before any broker can answer",
            ));
        }
        // librdkafka assigns no partition to who has no group, even where nothing is told to it.
        let group = self.group_id.as_deref().unwrap_or("tidegate");
        if group.is_empty() {
            return Err(KafkaError::property("group.id", "it is empty"));
        }
        config.set("group.id", group);
        if self.starting == StartingOffsets::Group && self.group_id.is_none() {
            return Err(KafkaError::Missing(
                "StartingOffsets::Group needs the group whose offsets are meant: add .group_id(\"..\")",
            ));
        }
        Ok(KafkaSource {
            search: Search {
                topics: named(self.topics, self.pattern)?,
                starting: self.starting,
                bounded: self.bounded,
                every: self.discovery,
                patience: self.patience,
            },
            servers: self.client.servers().to_owned(),
            tells_group: self.group_id.is_some(),
            broker_timeout: self.broker_timeout,
            own_room: self.client.get(ROOM).is_some(),
            config,
            deserializer: self.deserializer,
            event_time: self.event_time,
            on_error: self.on_error,
            max_poll_records: self
                .max_poll_records
                .or(self.preset.max_poll_records())
                .unwrap_or(usize::MAX),
        })
    }
}

fn named(topics: Vec<String>, pattern: Option<String>) -> Result<Topics, KafkaError> {
    let sound = |topic: &String| {
        let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        !topic.is_empty() && topic.len() <= 249 && topic.chars().all(legal)
    };
    match (topics, pattern) {
        (topics, None) if topics.is_empty() => Err(KafkaError::Missing(
            "no topic was named: add .topic(\"..\") or .topic_pattern(\"..\")",
        )),
        (topics, None) => match topics.iter().find(|topic| !sound(topic)) {
            Some(topic) => Err(KafkaError::Topic(topic.clone())),
            None => Ok(Topics::List(topics)),
        },
        (topics, Some(_)) if !topics.is_empty() => Err(KafkaError::Missing(
            "topics were named and a pattern was given: leave out one of them",
        )),
        (_, Some(pattern)) => match Regex::new(&format!("^(?:{pattern})$")) {
            Ok(regex) => Ok(Topics::Pattern(regex)),
            Err(error) => Err(KafkaError::Pattern(pattern, error.to_string())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<D: Deserializer>(builder: KafkaSourceBuilder<D>) -> String {
        builder
            .build()
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    }

    #[test]
    fn what_is_missing_or_contradicts_is_said_when_it_is_built() {
        let local = || KafkaSource::string().bootstrap_servers("localhost:9092");
        assert!(refusal(local()).contains(".topic("));
        let hasty = local().topic("a").broker_timeout(Duration::ZERO);
        assert!(refusal(hasty).contains("broker_timeout"));
        let restless = local().topic("a").discovery_interval(Duration::ZERO);
        assert!(refusal(restless).contains("discovery_interval"));
        assert_eq!(refusal(local().topic("a").discovery_interval(None)), "");
        for (interval, refused) in [("0", true), ("10001", true), ("500", false)] {
            let builder = local()
                .topic("a")
                .property("statistics.interval.ms", interval);
            let said = refusal(builder);
            assert_eq!(said.contains("whether brokers answer"), refused, "{said}");
        }
        assert!(refusal(KafkaSource::string().topic("t")).contains("bootstrap_servers"));
        assert!(refusal(local().topic("a b")).contains("'a b'"));
        assert!(refusal(local().topic_pattern("(")).contains("'('"));
        assert!(refusal(local().topic("a").topic_pattern("b")).contains("leave out one"));
        assert!(
            refusal(local().topic("a").starting_offsets(StartingOffsets::Group))
                .contains("group_id")
        );
        assert!(
            refusal(local().topic("a").property("enable.auto.commit", "true")).contains("Tidegate")
        );
        assert_eq!(refusal(local().topic("a").topics(["b", "c"])), "");
    }

    #[test]
    fn presets_are_what_they_say_and_give_way_to_properties() {
        use ConsumerPreset::{Balanced, HighThroughput, LowLatency, Standard};
        let local = |preset| {
            let source = KafkaSource::i64().bootstrap_servers("localhost:9092");
            source.topic("t").preset(preset)
        };
        type Values = &'static [(&'static str, Option<&'static str>)];
        let table: [(_, Values, usize); 4] = [
            (Standard, &[("fetch.min.bytes", None)], usize::MAX),
            (
                Balanced,
                &[
                    ("fetch.min.bytes", Some("1048576")),
                    ("fetch.wait.max.ms", Some("500")),
                    ("max.partition.fetch.bytes", Some("2097152")),
                    ("session.timeout.ms", Some("30000")),
                    ("heartbeat.interval.ms", Some("3000")),
                ],
                usize::MAX,
            ),
            (
                HighThroughput,
                &[
                    ("fetch.min.bytes", Some("2097152")),
                    ("fetch.wait.max.ms", Some("1000")),
                    ("max.partition.fetch.bytes", Some("2097152")),
                ],
                1000,
            ),
            (
                LowLatency,
                &[
                    ("fetch.min.bytes", Some("1")),
                    ("fetch.wait.max.ms", Some("10")),
                ],
                100,
            ),
        ];
        for (preset, expected, records) in table {
            let source = local(preset).build().unwrap();
            for (name, value) in expected {
                assert_eq!(source.config.get(name), *value, "{name}");
            }
            assert_eq!(source.max_poll_records, records);
            assert_eq!(source.config.get("isolation.level"), Some("read_committed"));
            assert_eq!(source.config.get("enable.auto.commit"), Some("false"));
            let own = local(preset).property("fetch.message.max.bytes", "77777");
            let own = own.max_poll_records(7).build().unwrap();
            assert_eq!(own.config.get("max.partition.fetch.bytes"), Some("77777"));
            assert_eq!(own.config.get("fetch.message.max.bytes"), None);
            assert_eq!(own.max_poll_records, 7);
        }
    }
}
