//! What properties are called: by librdkafka, by Kafka's Java client, and where a builder has a method for one.

/// What Kafka's Java client calls otherwise, so that people who come from there find their way.
pub(super) const JAVA_NAMES: [(&str, &str); 9] = [
    ("buffer.memory", "queue.buffering.max.kbytes, in KiB"),
    ("fetch.max.wait.ms", "fetch.wait.max.ms"),
    ("max.block.ms", "message.timeout.ms"),
    ("max.poll.records", ".max_poll_records(..) of the source"),
    ("receive.buffer.bytes", "socket.receive.buffer.bytes"),
    ("send.buffer.bytes", "socket.send.buffer.bytes"),
    ("request.timeout.ms", "socket.timeout.ms"),
    ("ssl.truststore.location", "ssl.ca.location, in PEM format"),
    ("sasl.jaas.config", "sasl.username and sasl.password"),
];

/// Other names that librdkafka knows a property by, and the one it is compared and merged by here. Given both, it would
/// take one by chance, as a configuration has no order.
pub(super) const ALIASES: [(&str, &str); 10] = [
    ("metadata.broker.list", "bootstrap.servers"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("message.send.max.retries", "retries"),
    ("compression.codec", "compression.type"),
    ("request.required.acks", "acks"),
    ("delivery.timeout.ms", "message.timeout.ms"),
    ("auto.commit.enable", "enable.auto.commit"),
];

/// The settings of a builder that set what a user may not set as a property.
pub(super) const BUILDERS: [(&str, &str); 3] = [
    ("transaction.timeout.ms", ".transaction_timeout(..)"),
    ("transactional.id", ".exactly_once(..)"),
    ("queue.buffering.max.messages", ".max_unacknowledged(..)"),
];

/// The name that stands for all names of a property.
pub(super) fn canonical(name: &str) -> &str {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    alias.map_or(name, |(_, canonical)| canonical)
}
