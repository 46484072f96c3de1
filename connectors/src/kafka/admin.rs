//! Makes and removes topics.

use super::client::{ClientSettings, KafkaError};
use super::contact::Contact;
use rdkafka::admin::{
    AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
    TopicResult,
};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tidegate_engine::fault::{Fault, Flow};

/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(15);
/// How long until it is asked again what it could not do just now.
const AGAIN: Duration = Duration::from_millis(50);

/// Makes and removes topics. Every call waits for its outcome, 15 seconds at most.
pub struct KafkaAdmin {
    client: AdminClient<Contact>,
    contact: Contact,
    servers: String,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl KafkaAdmin {
    /// Reaches the brokers with these settings.
    pub fn new(settings: &ClientSettings) -> Result<Self, KafkaError> {
        let config = settings.config(&[("client.id", "tidegate")], &[])?;
        let contact = Contact::default();
        let client = config.create_with_context(contact.clone());
        Ok(KafkaAdmin {
            client: client.map_err(|error| KafkaError::Client(error.to_string()))?,
            contact,
            servers: settings.servers().to_owned(),
        })
    }

    /// How many partitions a topic has; `None` where there is no such topic.
    pub fn partitions(&self, topic: &str) -> Flow<Option<i32>> {
        let metadata = self.client.inner().fetch_metadata(Some(topic), ANSWER);
        let metadata = metadata.map_err(|error| self.unanswered(&error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let found = found.filter(|found| found.error().is_none() && !found.partitions().is_empty());
        Ok(found.map(|found| found.partitions().len() as i32))
    }

    /// Makes a topic, with settings such as `("retention.ms", "604800000")` and as many replicas as the
    /// brokers' default. False where there is one of this name.
    pub fn create(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Flow<bool> {
        let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
        for (name, value) in settings {
            new = new.set(name, value);
        }
        match self.told(self.client.create_topics([&new], &options()))? {
            Some(RDKafkaErrorCode::TopicAlreadyExists) => Ok(false),
            Some(code) => Err(self.refused("make", topic, code)),
            None => {
                self.await_leaders(topic, partitions)?;
                Ok(true)
            }
        }
    }

    /// Removes a topic with all that is in it. False where there is none of this name.
    pub fn remove(&self, topic: &str) -> Flow<bool> {
        match self.told(self.client.delete_topics(&[topic], &options()))? {
            Some(RDKafkaErrorCode::UnknownTopicOrPartition) => Ok(false),
            Some(code) => Err(self.refused("remove", topic, code)),
            None => Ok(true),
        }
    }

    /// Makes a topic that is empty, in the place of one that there may be.
    pub fn recreate(&self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> Flow {
        self.remove(topic)?;
        let started = Instant::now();
        // The old one goes in the background.
        while !self.create(topic, partitions, settings)? {
            if started.elapsed() > ANSWER {
                let why = format_args!(
                    "the topic '{topic}' of {} can't be emptied: it does not go",
                    self.servers
                );
                return Err(Fault::external(why));
            }
            thread::park_timeout(AGAIN);
        }
        Ok(())
    }

    /// Gives a topic more partitions, so many in all.
    pub fn grow(&self, topic: &str, partitions: i32) -> Flow {
        let new = NewPartitions::new(topic, partitions.max(0) as usize);
        match self.told(self.client.create_partitions([&new], &options()))? {
            Some(code) => Err(self.refused("give more partitions to", topic, code)),
            None => self.await_leaders(topic, partitions),
        }
    }

    /// What a topic's setting is; `None` where the brokers don't say.
    pub(crate) fn setting(&self, topic: &str, name: &str) -> Flow<Option<String>> {
        let asked = [ResourceSpecifier::Topic(topic)];
        let answer = self.client.describe_configs(asked.iter(), &options());
        let answer = wait(answer, ANSWER + ANSWER).ok_or_else(|| self.silent())?;
        let answer = answer.map_err(|error| self.unanswered(&error))?;
        let described = answer.into_iter().next().and_then(Result::ok);
        Ok(described.and_then(|all| all.get(name)?.value.clone()))
    }

    /// Waits for an answer: `None` where all went well.
    fn told(
        &self,
        answer: impl Future<Output = KafkaResult<Vec<TopicResult>>>,
    ) -> Flow<Option<RDKafkaErrorCode>> {
        let results = match wait(answer, ANSWER + ANSWER) {
            None => return Err(self.silent()),
            Some(results) => results.map_err(|error| self.unanswered(&error))?,
        };
        Ok(results
            .into_iter()
            .find_map(|result| result.err().map(|(_, code)| code)))
    }

    /// A topic can be used when each partition has a leader.
    fn await_leaders(&self, topic: &str, partitions: i32) -> Flow {
        let started = Instant::now();
        loop {
            let metadata = self.client.inner().fetch_metadata(Some(topic), ANSWER);
            let metadata = metadata.map_err(|error| self.unanswered(&error))?;
            let found = metadata
                .topics()
                .iter()
                .flat_map(|topic| topic.partitions());
            if found.filter(|partition| partition.leader() >= 0).count() as i32 >= partitions {
                return Ok(());
            }
            if started.elapsed() > ANSWER {
                return Err(self.silent());
            }
            thread::park_timeout(AGAIN);
        }
    }

    fn silent(&self) -> Fault {
        let trouble = self.contact.trouble();
        Fault::external(format_args!(
            "no broker of {} answers within {ANSWER:?}{trouble}",
            self.servers
        ))
    }

    fn unanswered(&self, error: &rdkafka::error::KafkaError) -> Fault {
        let trouble = self.contact.trouble();
        Fault::external(format_args!(
            "{} does not answer: {error}{trouble}",
            self.servers
        ))
    }

    fn refused(&self, what: &str, topic: &str, code: RDKafkaErrorCode) -> Fault {
        Fault::external(format_args!(
            "{} can't {what} the topic '{topic}': {code}",
            self.servers
        ))
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER))
}

/// Waits for a future that other threads complete.
fn wait<T>(future: impl Future<Output = T>, patience: Duration) -> Option<T> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let until = Instant::now() + patience;
    loop {
        if let Poll::Ready(ready) = future.as_mut().poll(&mut context) {
            return Some(ready);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left);
    }
}
