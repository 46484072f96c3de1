//! The thread of a subtask that looks for its partitions: which there are, where reading each begins and
//! ends, and, as long as the job runs, which are new and which topics are gone.

use super::lag::{self, Lag};
use super::listen::Consumer;
use super::settings::{StartingOffsets, Topics};
use super::split::{BEGINNING, Restored, Split, owner};
use crate::kafka::contact::Contact;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::Waker;

/// How long one question to the brokers may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long until a question is asked again that was not answered.
const AGAIN: Duration = Duration::from_millis(200);
/// A topic is gone when it is still missing after this long: a broker that has just started may not know.
const CONFIRM: Duration = Duration::from_secs(1);

/// What is looked for.
#[derive(Clone, Debug)]
pub(super) struct Search {
    pub(super) topics: Topics,
    pub(super) starting: StartingOffsets,
    pub(super) bounded: bool,
    pub(super) every: Option<Duration>,
    pub(super) patience: Duration,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    /// What is to be read besides the restored splits: there is no other partition for now.
    All(Vec<Split>),
    /// New partitions.
    New(Vec<Split>),
    /// A topic that the pattern matched is gone.
    Gone(String),
    /// The job can't go on.
    Failed(Fault),
}

/// The reader's end.
pub(super) struct Searching {
    pub(super) found: Receiver<Found>,
    stop: Sender<Vec<Arc<Consumer>>>,
}

impl Searching {
    /// Ends the thread, which also closes the consumers, as that may take its time.
    pub(super) fn end(self, consumers: Vec<Arc<Consumer>>) {
        // It has room for them; if the thread is gone, closing is done here.
        let _ = self.stop.try_send(consumers);
    }
}

enum Trouble {
    /// It may pass.
    Passing(String),
    /// The topic is not there.
    Missing(String),
    /// It does not pass.
    Lasting(Fault),
}

/// What the thread works with.
pub(super) struct Enumerator {
    pub(super) consumer: Arc<Consumer>,
    pub(super) contact: Contact,
    pub(super) search: Search,
    pub(super) servers: String,
    pub(super) share: (u32, u32),
    pub(super) restored: Option<Restored>,
    pub(super) lag: Lag,
}

/// What a round saw.
type Seen = BTreeSet<(String, i32)>;

impl Enumerator {
    pub(super) fn start(self, waker: Waker) -> Flow<Searching> {
        let (found_in, found) = unbounded();
        let (stop, stopped) = bounded(1);
        let spawned = thread::Builder::new().name("tidegate-kafka-splits".into());
        let spawned = spawned.spawn(move || {
            let tell = |what| {
                let _ = found_in.send(what);
                waker.wake();
            };
            if let Err(fault) = self.run(&stopped, &tell) {
                tell(Found::Failed(fault));
            }
            drop(self);
            // The reader's consumers, to be closed here.
            drop(stopped.recv());
        });
        spawned.map_err(|error| {
            Fault::external(format_args!(
                "can't start a thread to look for partitions: {error}"
            ))
        })?;
        Ok(Searching { found, stop })
    }

    fn run(&self, stopped: &Receiver<Vec<Arc<Consumer>>>, tell: &dyn Fn(Found)) -> Flow {
        let restored = self.restored.as_ref().map(|restored| &restored.splits);
        let mut known: Seen = restored.into_iter().flatten().map(name_of).collect();
        if !self.begin(stopped, &mut known, tell)? {
            return Ok(());
        }
        let mut missing = BTreeSet::new();
        let mut pause = self.search.every;
        while !self.rest(stopped, pause) {
            pause = self.search.every;
            match self.round(&mut known, false) {
                Ok(splits) => {
                    missing.clear();
                    if !splits.is_empty() {
                        tell(Found::New(splits));
                    }
                }
                Err(Trouble::Missing(topic)) if missing.insert(topic.clone()) => {
                    pause = Some(CONFIRM)
                }
                Err(Trouble::Missing(topic))
                    if matches!(self.search.topics, Topics::Pattern(_)) =>
                {
                    known.retain(|(known, _)| *known != topic);
                    tell(Found::Gone(topic));
                }
                Err(Trouble::Missing(topic)) => {
                    return Err(Fault::external(format_args!(
                        "the topic '{topic}' is gone from {} while it was being read",
                        self.servers
                    )));
                }
                Err(Trouble::Passing(why)) => {
                    tracing::warn!(servers = %self.servers, "can't look for new partitions now: {why}");
                }
                Err(Trouble::Lasting(fault)) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Waits until it is time to look again, and shows meanwhile how much is to be read. True when the job is over.
    fn rest(&self, stopped: &Receiver<Vec<Arc<Consumer>>>, pause: Option<Duration>) -> bool {
        let began = Instant::now();
        loop {
            let left = pause.map(|pause| pause.saturating_sub(began.elapsed()));
            if rest(stopped, left.unwrap_or(lag::EVERY).min(lag::EVERY)) {
                return true;
            }
            if pause.is_some_and(|pause| began.elapsed() >= pause) {
                return false;
            }
            self.lag.look(&self.consumer);
        }
    }

    /// The first rounds, until one finds everything. False where the job ends meanwhile.
    fn begin(
        &self,
        stopped: &Receiver<Vec<Arc<Consumer>>>,
        known: &mut Seen,
        tell: &dyn Fn(Found),
    ) -> Flow<bool> {
        let started = Instant::now();
        loop {
            let trouble = match self.first_round(known) {
                Ok(splits) => {
                    tell(Found::All(splits));
                    return Ok(true);
                }
                Err(trouble) => trouble,
            };
            if let Some(why) = self.contact.hopeless() {
                let why = format_args!("{} refuses this client: {why}", self.servers);
                return Err(Fault::user(why));
            }
            let late = started.elapsed() >= self.search.patience;
            match trouble {
                Trouble::Lasting(fault) => return Err(fault),
                Trouble::Missing(topic) if late => {
                    return Err(Fault::external(format_args!(
                        "there is no topic '{topic}' at {}; create it, or check the name",
                        self.servers
                    )));
                }
                Trouble::Passing(why) if late => {
                    let heard = self.contact.trouble();
                    return Err(Fault::external(format_args!(
                        "no broker of {} answers within {:?} ({why}){heard}",
                        self.servers, self.search.patience
                    )));
                }
                Trouble::Missing(_) | Trouble::Passing(_) => {}
            }
            if rest(stopped, AGAIN) {
                return Ok(false);
            }
        }
    }

    fn first_round(&self, known: &mut Seen) -> Result<Vec<Split>, Trouble> {
        // A checkpoint that was taken while the source had no end of its own may be read up to one.
        let restored = self
            .restored
            .as_ref()
            .map_or(&[][..], |restored| &restored.splits);
        let mine = restored
            .iter()
            .filter(|s| s.end.is_none() && self.is_mine(&s.topic, s.partition));
        let endless = mine.filter(|_| self.search.bounded);
        let endless = endless
            .map(|split| self.bound(split.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut splits: Vec<Split> = endless.into_iter().flatten().collect();
        if !self
            .restored
            .as_ref()
            .is_some_and(|r| self.search.bounded && r.complete())
        {
            splits.extend(self.round(known, true)?);
        }
        Ok(splits)
    }

    fn is_mine(&self, topic: &str, partition: i32) -> bool {
        owner(topic, partition, self.share.1) == self.share.0
    }

    /// Looks at what there is, and returns what of that is this subtask's and new.
    fn round(&self, known: &mut Seen, first: bool) -> Result<Vec<Split>, Trouble> {
        let there = self.topics()?;
        if let Some((gone, _)) = known.iter().find(|(topic, _)| !there.contains_key(topic)) {
            return Err(Trouble::Missing(gone.clone()));
        }
        if first && there.is_empty() && self.search.bounded {
            return Err(Trouble::Missing("matching the pattern".to_owned()));
        }
        let all = there
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(move |p| (topic.clone(), *p)));
        let new: Vec<_> = all
            .filter(|(t, p)| self.is_mine(t, *p))
            .filter(|it| !known.contains(it))
            .collect();
        if !first && self.search.bounded {
            return Ok(Vec::new());
        }
        let mut splits = Vec::new();
        for (topic, partition) in &new {
            let searched = self
                .restored
                .as_ref()
                .is_some_and(|r| r.was_searched(topic, *partition));
            if searched && self.search.bounded {
                continue; // read to its end
            }
            let next = if first && !searched {
                self.begin_of(topic, *partition)?
            } else {
                BEGINNING
            };
            let split = Split {
                topic: topic.as_str().into(),
                partition: *partition,
                next,
                end: None,
            };
            splits.extend(self.bound(split)?);
        }
        known.extend(new);
        Ok(splits)
    }

    /// The topics that are there, with their partitions.
    fn topics(&self) -> Result<BTreeMap<String, Vec<i32>>, Trouble> {
        let mut there = BTreeMap::new();
        let names = match &self.search.topics {
            Topics::List(topics) => topics.iter().map(|topic| Some(topic.as_str())).collect(),
            Topics::Pattern(_) => vec![None],
        };
        for name in names {
            let metadata = self
                .consumer
                .fetch_metadata(name, ANSWER)
                .map_err(passing)?;
            for topic in metadata
                .topics()
                .iter()
                .filter(|topic| self.search.topics.contains(topic.name()))
            {
                match topic.error().map(RDKafkaErrorCode::from) {
                    None => {
                        let partitions = topic.partitions().iter().map(|partition| partition.id());
                        there.insert(topic.name().to_owned(), partitions.collect());
                    }
                    Some(
                        RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
                    ) => {
                        return Err(Trouble::Missing(topic.name().to_owned()));
                    }
                    Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                        let topic = topic.name();
                        let why = format_args!(
                            "this client may not read the topic '{topic}' of {}",
                            self.servers
                        );
                        return Err(Trouble::Lasting(Fault::user(why)));
                    }
                    Some(other) => return Err(Trouble::Passing(other.to_string())),
                }
            }
        }
        self.contact.well();
        Ok(there)
    }

    /// Where reading a partition begins that no checkpoint knows.
    fn begin_of(&self, topic: &str, partition: i32) -> Result<i64, Trouble> {
        let asked = |offset| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, offset)
                .map(|()| list)
        };
        let told = |list: TopicPartitionList| match list.find_partition(topic, partition) {
            Some(element) => element.error().map(|()| element.offset()),
            None => Ok(Offset::Invalid),
        };
        let offset = match &self.search.starting {
            StartingOffsets::Earliest => Ok(Offset::Beginning),
            StartingOffsets::Latest => Ok(Offset::End),
            StartingOffsets::Timestamp(at) => asked(Offset::Offset(at.0.max(0)))
                .and_then(|list| self.consumer.offsets_for_times(list, ANSWER))
                .and_then(told),
            StartingOffsets::Group => asked(Offset::Invalid)
                .and_then(|list| self.consumer.committed_offsets(list, ANSWER))
                .and_then(told),
            StartingOffsets::Explicit(offsets) => {
                let named = offsets.get(&(topic.to_owned(), partition));
                Ok(named.map_or(Offset::Beginning, |offset| Offset::Offset((*offset).max(0))))
            }
        };
        match offset.map_err(passing)? {
            Offset::Offset(offset) => Ok(offset),
            // A moment, not a place: what comes after it must be read, whenever reading begins.
            Offset::End => self.ends(topic, partition).map(|(_, high)| high),
            _ => Ok(BEGINNING),
        }
    }

    /// Gives a split of a bounded source its end; none where there is nothing to read before it.
    fn bound(&self, mut split: Split) -> Result<Option<Split>, Trouble> {
        if self.search.bounded {
            let (low, high) = self.ends(&split.topic, split.partition)?;
            split.end = Some(high);
            if split.next.max(low) >= high {
                return Ok(None);
            }
        }
        Ok(Some(split))
    }

    /// The oldest offset of a partition, and the one behind the newest that this client may see.
    fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), Trouble> {
        self.consumer
            .fetch_watermarks(topic, partition, ANSWER)
            .map_err(passing)
    }
}

fn name_of(split: &Split) -> (String, i32) {
    (split.topic.to_string(), split.partition)
}

fn passing(error: KafkaError) -> Trouble {
    Trouble::Passing(
        error
            .rdkafka_error_code()
            .map_or_else(|| error.to_string(), |code| code.to_string()),
    )
}

/// True when the job is over.
fn rest(stopped: &Receiver<Vec<Arc<Consumer>>>, pause: Duration) -> bool {
    match stopped.recv_timeout(pause) {
        Err(RecvTimeoutError::Timeout) => false,
        // The consumers that came are closed here.
        Ok(_) | Err(RecvTimeoutError::Disconnected) => true,
    }
}
