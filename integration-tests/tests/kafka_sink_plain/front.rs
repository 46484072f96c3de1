//! What people start first: the examples with Kafka, and the file for Docker.

use crate::kafka::{self, fresh_topic};
use integration_tests::kafka::broker;
use integration_tests::processes::{example, root};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// One example at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Whether it ended well, and all that it said. Its memory is not looked at, as that would take the broker its time.
fn run<'a>(name: &str, arguments: impl Iterator<Item = &'a str>) -> (bool, String) {
    let output = Command::new(example(name)).args(arguments).output();
    let output = output.expect("it can be started");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let all = said(&output.stderr) + &said(&output.stdout);
    (output.status.success(), all)
}

/// The same, of what has to end well.
fn well((well, said): (bool, String)) -> String {
    assert!(well, "{said}");
    said
}

/// Produces, runs the job, verifies; and a second run that says nothing of the first is refused.
#[test]
fn the_orders_example_does_what_its_head_says() {
    let Some(address) = broker() else { return };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let name = fresh_topic("orders-example");
    let (topic, output) = (format!("{name}-in"), format!("{name}-out"));
    let orders = |more: &[&str]| {
        let always = ["--bootstrap", address, "--topic", &topic];
        let always =
            always
                .into_iter()
                .chain(["--output-topic", &output, "--transactional-id", &name]);
        run("orders", always.chain(more.iter().copied()))
    };
    well(orders(&["--produce", "3000"]));
    let job = ["--bounded", "--parallelism", "2"];
    let said = well(orders(&job));
    assert!(said.contains("3000 orders in"), "{said}");
    let verdict = well(orders(&["--verify"]));
    println!("{}", verdict.lines().last().unwrap_or_default());
    let (again, said) = orders(&job);
    assert!(!again && said.contains("is in Kafka already"), "{said}");
    well(orders(&["--verify"]));
}

#[test]
fn the_example_with_two_sinks_writes_the_same_to_both() {
    let Some(address) = broker() else { return };
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let prefix = format!("{}-", fresh_topic("events-example"));
    let events = |more: &[&str]| {
        let always = ["--bootstrap", address, "--prefix", &prefix];
        run(
            "business_events",
            always.into_iter().chain(more.iter().copied()),
        )
    };
    well(events(&["--produce", "4000"]));
    let said = well(events(&["--bounded", "--parallelism", "2"]));
    let valid = said
        .split(" s, ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next());
    let valid: u64 = valid
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{said}"));
    assert!((3800..4000).contains(&valid), "a few are mistakes: {said}");
    let totals = |topic: &str| {
        let all = kafka::read_all(&format!("{prefix}{topic}")).into_iter();
        let json = all.filter_map(|m| serde_json::from_str::<serde_json::Value>(&m.value?).ok());
        let mut all: Vec<_> = json
            .map(|event| {
                let number = |name: &str| event[name].as_i64().expect("a number");
                (
                    event["customer_id"].to_string(),
                    number("total_value"),
                    number("event_count"),
                )
            })
            .collect();
        all.sort();
        all
    };
    let billed = totals("enriched-events");
    assert_eq!(billed.iter().map(|(_, _, n)| *n as u64).sum::<u64>(), valid);
    assert_eq!(billed, totals("analytics-events"));
}

/// What a YAML file of mappings, lists and plain values says: the values under each path.
fn values_of(text: &str) -> BTreeMap<String, Vec<String>> {
    let (mut path, mut values) = (Vec::<(usize, String)>::new(), BTreeMap::new());
    for line in text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
    {
        let item = line.trim_start();
        if item.is_empty() {
            continue;
        }
        let indent = line.len() - item.len();
        assert!(
            indent.is_multiple_of(2) && !item.starts_with('\t'),
            "'{line}' is not indented well"
        );
        path.retain(|(of, _)| *of < indent);
        let named = || {
            path.iter()
                .map(|(_, key)| key.as_str())
                .collect::<Vec<_>>()
                .join(".")
        };
        let plain = |value: &str| value.trim().trim_matches('"').to_owned();
        if let Some(item) = item.strip_prefix("- ") {
            values
                .entry(named())
                .or_insert_with(Vec::new)
                .push(plain(item));
            continue;
        }
        let (key, value) = item
            .split_once(':')
            .unwrap_or_else(|| panic!("'{line}' is no mapping"));
        assert!(
            value.is_empty() || value.starts_with(' '),
            "'{line}' is no mapping"
        );
        path.push((indent, key.to_owned()));
        if !value.trim().is_empty() {
            let name = path
                .iter()
                .map(|(_, key)| key.as_str())
                .collect::<Vec<_>>()
                .join(".");
            let old = values.insert(name, vec![plain(value)]);
            assert!(old.is_none(), "'{line}' is there twice");
        }
    }
    values
}

#[test]
fn the_file_for_docker_hangs_together() {
    let file = root().join("integration-tests/kafka/docker-compose.kafka.yml");
    let text = std::fs::read_to_string(file).expect("it is there");
    let values = values_of(&text);
    let at = |path: &str| -> &str {
        let found = values.get(&format!("services.{path}"));
        &found.unwrap_or_else(|| panic!("there is no {path}"))[0]
    };
    let services: BTreeSet<_> = values
        .keys()
        .filter_map(|path| path.split('.').nth(1))
        .collect();
    assert_eq!(
        services,
        BTreeSet::from(["kafka", "kafka-ui"]),
        "and no ZooKeeper"
    );
    for service in services {
        let image = at(&format!("{service}.image"));
        let version = image.rsplit_once(':').map(|(_, version)| version);
        let pinned = version.is_some_and(|v| v.contains(|c: char| c.is_ascii_digit()));
        assert!(pinned, "{image} may be another one tomorrow");
        for port in &values[&format!("services.{service}.ports")] {
            assert!(port.starts_with("127.0.0.1:"), "{port} is open to all");
        }
    }
    let setting = |name: &str| at(&format!("kafka.environment.KAFKA_{name}"));
    let pairs = |name: &str, by: &str| -> BTreeMap<String, String> {
        let all = setting(name)
            .split(',')
            .filter_map(|one| one.split_once(by));
        all.map(|(a, b)| (a.to_owned(), b.to_owned())).collect()
    };
    let listeners = pairs("LISTENERS", "://");
    let protocols = pairs("LISTENER_SECURITY_PROTOCOL_MAP", ":");
    assert!(
        listeners.keys().eq(protocols.keys()),
        "each listener has a protocol"
    );
    let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
    for (name, address) in pairs("ADVERTISED_LISTENERS", "://") {
        assert_eq!(port(&address), port(&listeners[&name]), "{name}");
    }
    let inside = setting("INTER_BROKER_LISTENER_NAME");
    let inside = &pairs("ADVERTISED_LISTENERS", "://")[inside];
    assert_eq!(
        at("kafka-ui.environment.KAFKA_CLUSTERS_0_BOOTSTRAPSERVERS"),
        inside
    );
    let controller = &listeners[setting("CONTROLLER_LISTENER_NAMES")];
    assert_eq!(port(setting("CONTROLLER_QUORUM_VOTERS")), port(controller));
    assert_eq!(setting("NUM_PARTITIONS"), "8");
    assert_eq!(at("kafka-ui.depends_on.kafka.condition"), "service_healthy");
    assert!(at("kafka.healthcheck.test").contains("9092"));
}
