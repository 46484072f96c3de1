//! What has to be known of topics before anything is written: that they are there, and how many partitions
//! they have.

use super::delivery::Delivery;
use crate::kafka::admin::KafkaAdmin;
use crate::kafka::client::ClientSettings;
use rdkafka::client::Client;
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::types::RDKafkaErrorCode;
use std::thread;
use std::time::{Duration, Instant};
use tidegate_engine::fault::{Fault, Flow};

/// How long one question to a broker may take.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a broker may be away when an attempt begins, and a topic that it creates by itself take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long a topic that isn't there is looked for.
const CREATION: Duration = Duration::from_secs(5);

/// How long it is listened to what the client has heard.
const HEARING: Duration = Duration::from_millis(10);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// How many partitions a topic has.
pub(super) fn partitions(
    client: &BaseProducer<Delivery>,
    delivery: &Delivery,
    servers: &str,
    topic: &str,
) -> Flow<i32> {
    let contact = &delivery.contact;
    let began = Instant::now();
    loop {
        let (why, missing) = match client.client().fetch_metadata(Some(topic), ANSWER) {
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
        // What it has heard it tells when it is asked, one thing after the other.
        client.poll(HEARING);
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

/// Why nothing can be delivered to a topic, where that is because somebody has deleted it.
#[cold]
pub(super) fn gone(client: &Client<Delivery>, servers: &str, topic: &str) -> Option<Fault> {
    let metadata = client.fetch_metadata(Some(topic), ANSWER).ok()?;
    let found = metadata.topics().iter().find(|t| t.name() == topic)?;
    let unknown = matches!(
        found.error().map(RDKafkaErrorCode::from),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)
    );
    unknown.then(|| {
        Fault::external(format_args!(
            "the topic '{topic}' is gone from {servers} while it was being written"
        ))
    })
}

/// Creates the compacted topic in which progress is written down, if it isn't there; and refuses one that
/// forgets.
pub(super) fn progress_topic(settings: &ClientSettings, topic: &str) -> Flow {
    let admin = KafkaAdmin::new(settings)?;
    if admin.create(topic, 1, &[("cleanup.policy", "compact")])? {
        return Ok(());
    }
    // Not everybody may look. That it exists is what matters.
    let policy = admin.setting(topic, "cleanup.policy").unwrap_or_default();
    match policy.as_deref() {
        None | Some("compact") => Ok(()),
        Some(policy) => Err(Fault::user(format_args!(
            "the progress topic '{topic}' has cleanup.policy={policy}, and would forget what was committed; \
             set it to compact"
        ))),
    }
}
