//! What a client hears of its brokers, so that a call that times out can say why it did.

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::{Arc, Mutex, PoisonError};

/// The context of a client. Clones share what was heard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contact(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    /// The last trouble, in librdkafka's words.
    trouble: Option<String>,
    /// It can't end by itself, as wrong credentials.
    hopeless: bool,
}

impl Contact {
    /// The last that was heard of trouble, as what to add to a message: empty, or with a colon before it.
    pub(crate) fn trouble(&self) -> String {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = heard.trouble.as_ref();
        trouble
            .map(|trouble| format!(": {trouble}"))
            .unwrap_or_default()
    }

    /// Trouble that can't end by itself: wrong credentials, a fatal error.
    pub(crate) fn hopeless(&self) -> Option<String> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.trouble.clone().filter(|_| heard.hopeless)
    }

    /// Forgets, since a call has gone well.
    pub(crate) fn well(&self) {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !heard.hopeless {
            heard.trouble = None;
        }
    }

    fn hear(&self, error: &KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let hopeless = matches!(
            code,
            Some(
                RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::SaslAuthenticationFailed
                    | RDKafkaErrorCode::Fatal
            )
        );
        if code == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down says less than why the last one was.
        let less = code == Some(RDKafkaErrorCode::AllBrokersDown) && heard.trouble.is_some();
        if (hopeless || !heard.hopeless) && !less {
            heard.trouble = Some(first_line(reason).to_owned());
            heard.hopeless |= hopeless;
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or(text).trim()
}

impl ClientContext for Contact {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters to the job becomes an error of a call; the log is for who looks for more.
        match level {
            RDKafkaLogLevel::Debug => tracing::trace!(target: "librdkafka", facility, "{message}"),
            _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
        self.hear(&error, reason);
    }
}

impl ConsumerContext for Contact {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_outlasts_that_all_brokers_are_down() {
        let contact = Contact::default();
        assert_eq!(contact.trouble(), "");
        contact.hear(
            &KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure),
            "localhost:1/bootstrap: Connect failed: Connection refused\nmore",
        );
        contact.hear(
            &KafkaError::Global(RDKafkaErrorCode::AllBrokersDown),
            "1/1 brokers are down",
        );
        assert_eq!(
            contact.trouble(),
            ": localhost:1/bootstrap: Connect failed: Connection refused"
        );
        assert_eq!(contact.hopeless(), None);
        contact.well();
        assert_eq!(contact.trouble(), "");
    }

    #[test]
    fn wrong_credentials_are_not_forgotten() {
        let contact = Contact::default();
        contact.hear(
            &KafkaError::Global(RDKafkaErrorCode::Authentication),
            "wrong password",
        );
        contact.hear(
            &KafkaError::Global(RDKafkaErrorCode::AllBrokersDown),
            "all down",
        );
        contact.well();
        assert_eq!(contact.hopeless().as_deref(), Some("wrong password"));
    }
}
