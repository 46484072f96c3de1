//! What has to be known of topics before anything is written: that they are there, and how many partitions
//! they have.

use crate::kafka::contact::Contact;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::ClientConfig;
use rdkafka::types::RDKafkaErrorCode;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};
use tidegate_engine::fault::{Fault, Flow};

/// How long one question to a broker may take.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a broker may be away when an attempt begins, and a topic that it creates by itself take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a topic that isn't there is looked for.
const CREATION: Duration = Duration::from_secs(5);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// How many partitions a topic has.
pub(super) fn partitions<C: ClientContext>(
    client: &Client<C>,
    contact: &Contact,
    servers: &str,
    topic: &str,
) -> Flow<i32> {
    let began = Instant::now();
    loop {
        let (why, missing) = match client.fetch_metadata(Some(topic), ANSWER) {
            Err(error) => (error.to_string(), false),
            Ok(metadata) => {
                let found = metadata.topics().iter().find(|t| t.name() == topic);
                let error = found.and_then(|t| t.error()).map(RDKafkaErrorCode::from);
                match (found, error) {
                    (Some(found), None) if !found.partitions().is_empty() => {
                        contact.well();
                        return Ok(found.partitions().len() as i32);
                    }
                    (_, Some(RDKafkaErrorCode::TopicAuthorizationFailed)) => {
                        return Err(Fault::user(format_args!(
                            "this client may not write to the topic '{topic}' of {servers}"
                        )));
                    }
                    (_, Some(RDKafkaErrorCode::InvalidTopic)) => {
                        return Err(Fault::user(format_args!(
                            "'{topic}' is no name that a topic can have"
                        )));
                    }
                    (_, Some(error)) => {
                        let missing = matches!(
                            error,
                            RDKafkaErrorCode::UnknownTopicOrPartition
                                | RDKafkaErrorCode::UnknownTopic
                        );
                        (error.to_string(), missing)
                    }
                    (_, None) => ("it has no partitions yet".to_owned(), true),
                }
            }
        };
        if let Some(trouble) = contact.hopeless() {
            return Err(Fault::user(format_args!("Kafka at {servers}: {trouble}")));
        }
        let waited = began.elapsed();
        if missing && waited > CREATION {
            return Err(Fault::user(format_args!(
                "there is no topic '{topic}' at {servers}, and the broker creates none by itself; create it"
            )));
        }
        if waited > PATIENCE {
            let trouble = contact.trouble();
            return Err(Fault::external(format_args!(
                "Kafka at {servers} doesn't answer: {why}{trouble}"
            )));
        }
        thread::park_timeout(PAUSE);
    }
}

/// Creates the compacted topic in which progress is written down, if it isn't there; and refuses one that
/// forgets.
pub(super) fn progress_topic(config: &ClientConfig, contact: &Contact, topic: &str) -> Flow {
    let cant = |why: &dyn std::fmt::Display| {
        let trouble = contact.trouble();
        Fault::external(format_args!(
            "the progress topic '{topic}' can't be had: {why}{trouble}"
        ))
    };
    let admin: AdminClient<Contact> = config
        .create_with_context(contact.clone())
        .map_err(|error| cant(&error))?;
    let options = AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE));
    // The broker knows how many copies are good.
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
    let created = wait(admin.create_topics([&new], &options)).map_err(|error| cant(&error))?;
    match created.into_iter().next() {
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
        Some(Err((_, error))) => return Err(cant(&error)),
        Some(Ok(_)) | None => return Ok(()),
    }
    let asked = [ResourceSpecifier::Topic(topic)];
    let described =
        wait(admin.describe_configs(asked.iter(), &options)).map_err(|error| cant(&error))?;
    let Some(Ok(described)) = described.into_iter().next() else {
        // Not everybody may look. That it exists is what matters.
        return Ok(());
    };
    let policy = described
        .get("cleanup.policy")
        .and_then(|entry| entry.value.clone());
    if policy.as_deref().is_none_or(|policy| policy == "compact") {
        return Ok(());
    }
    Err(Fault::user(format_args!(
        "the progress topic '{topic}' has cleanup.policy={}, and would forget what was committed; set it to \
         compact",
        policy.unwrap_or_default()
    )))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an answer; for threads that may block.
fn wait<F: Future>(answer: F) -> F::Output {
    let mut answer = pin!(answer);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match answer.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}
