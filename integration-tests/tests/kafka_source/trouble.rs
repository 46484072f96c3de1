//! What changes and what goes wrong while a source reads: topics that grow or go, brokers that go and come back,
//! clients that may not come in.

use integration_tests::PATIENCE;
use integration_tests::kafka::{Topic, broker, control};
use tidegate::connectors::kafka::source::{Deserializer, KafkaSourceBuilder};
use tidegate::connectors::kafka::{KafkaSource, Sasl, Tls};
use tidegate::prelude::*;

/// Runs a job that collects what it reads, until `enough` says so, and stops it.
pub fn follow<D: Deserializer<Item = String>>(
    source: KafkaSource<D>,
    mut during: impl FnMut(&[String]) -> bool,
) -> Result<Vec<String>, String> {
    let env = StreamEnv::with_parallelism(2);
    let collect = Collect::new();
    env.source("followed", source).sink("seen", collect.clone());
    let job = env.start("following").expect("it starts");
    let started = std::time::Instant::now();
    let mut seen = Vec::new();
    loop {
        seen.extend(collect.take().into_iter().map(|(_, value)| value));
        if during(&seen) {
            job.cancel();
            let _ = job.wait();
            return Ok(seen);
        }
        if job.ended() {
            return job.wait().map(|_| seen).map_err(|error| error.to_string());
        }
        assert!(started.elapsed() < PATIENCE, "{} came", seen.len());
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn what_can_not_be_read_is_one_clear_error_in_bounded_time() {
    let Some(broker) = broker() else { return };
    let fails = |builder: KafkaSourceBuilder<_>| {
        let source = builder
            .start_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        let started = std::time::Instant::now();
        let result = tidegate::testing::run(2, |env| env.source("orders", source));
        assert!(started.elapsed() < Duration::from_secs(20));
        result.err().unwrap().to_string()
    };
    let absent = KafkaSource::string()
        .bootstrap_servers("localhost:1")
        .topic("t");
    let error = fails(absent);
    assert!(
        error.contains("localhost:1") && error.contains("refused") && !error.contains('\n'),
        "{error}"
    );
    let unknown = KafkaSource::string()
        .bootstrap_servers(broker)
        .topic("no-such-topic");
    let error = fails(unknown);
    assert!(
        error.contains("there is no topic 'no-such-topic'"),
        "{error}"
    );
}

#[test]
fn new_partitions_are_found_while_it_runs() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "grows", 1);
    topic.append(0, None, Some(b"first"), 1);
    topic.flush();
    let source = KafkaSource::string()
        .bootstrap_servers(broker)
        .topic_pattern(format!("{}.*", topic.name))
        .discovery_interval(Duration::from_millis(100))
        .build()
        .unwrap();
    let mut grown = false;
    let seen = follow(source, |seen| {
        if seen.len() == 1 && !std::mem::replace(&mut grown, true) {
            topic.grow(3);
            topic.append(2, None, Some(b"second"), 2);
            topic.flush();
        }
        seen.len() == 2
    });
    assert_eq!(seen.unwrap(), ["first", "second"]);
}

#[test]
fn a_topic_that_is_deleted_ends_the_job_with_its_name() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "deleted", 2);
    topic.append(0, None, Some(b"first"), 1);
    topic.flush();
    let source = KafkaSource::string()
        .bootstrap_servers(broker)
        .topic(&topic.name)
        .discovery_interval(Duration::from_millis(200))
        .build()
        .unwrap();
    let mut removed = false;
    let error = follow(source, |seen| {
        if seen.len() == 1 && !std::mem::replace(&mut removed, true) {
            topic.remove();
        }
        false
    });
    let error = error.unwrap_err();
    assert!(
        error.contains(&format!("the topic '{}' is gone", topic.name)),
        "{error}"
    );
}

#[test]
fn a_broker_that_is_killed_and_comes_back_is_waited_for() {
    if broker().is_none() {
        return;
    }
    let port = ["--port", "24092"];
    let command = |what: &str| control(&[what, port[0], port[1]]).unwrap();
    let address = command("start");
    let topic = Topic::new(&address, "killed", 2);
    topic.append(0, None, Some(b"first"), 1);
    topic.flush();
    let source = KafkaSource::string()
        .bootstrap_servers(&address)
        .topic(&topic.name)
        .build()
        .unwrap();
    let mut killed = false;
    let seen = follow(source, |seen| {
        if seen.len() == 1 && !std::mem::replace(&mut killed, true) {
            command("kill");
            command("start");
            topic.append(1, None, Some(b"second"), 2);
            topic.flush();
        }
        seen.len() == 2
    });
    assert_eq!(seen.unwrap(), ["first", "second"]);
    drop(topic);
    command("remove");
}

#[test]
fn tls_and_sasl_let_in_who_may_and_nobody_else() {
    if broker().is_none() {
        return;
    }
    let address = control(&["start", "--port", "25092", "--secure"]).unwrap();
    let folder = control(&["dir", "--port", "25092"]).unwrap();
    let topic = Topic::new(&address, "secret", 1);
    topic.append(0, None, Some(b"secret"), 1);
    topic.flush();
    let read = |port: u16, tls: Option<Tls>, sasl: Option<Sasl>| {
        let mut builder = KafkaSource::string().bootstrap_servers(format!("localhost:{port}"));
        if let Some(tls) = tls {
            builder = builder.tls(tls);
        }
        if let Some(sasl) = sasl {
            builder = builder.sasl(sasl);
        }
        let source = builder
            .topic(&topic.name)
            .bounded(true)
            .start_timeout(Duration::from_secs(3))
            .build()
            .unwrap();
        let output = tidegate::testing::run(1, |env| env.source("secret", source));
        output
            .map(|output| output.values())
            .map_err(|error| error.to_string())
    };
    let trusting = || Some(Tls::new().authority(format!("{folder}/ca.pem")));
    let (user, password) = ("tidegate", "tidegate-secret");
    assert_eq!(read(25093, trusting(), None).unwrap(), ["secret"]);
    let certified = trusting().map(|tls| {
        tls.certificate(
            format!("{folder}/client.pem"),
            format!("{folder}/client.key"),
        )
    });
    assert_eq!(read(25093, certified, None).unwrap(), ["secret"]);
    for sasl in [
        Sasl::plain(user, password),
        Sasl::scram_sha_256(user, password),
        Sasl::scram_sha_512(user, password),
    ] {
        assert_eq!(read(25094, None, Some(sasl.clone())).unwrap(), ["secret"]);
        assert_eq!(read(25095, trusting(), Some(sasl)).unwrap(), ["secret"]);
    }
    let error = read(
        25095,
        trusting(),
        Some(Sasl::scram_sha_512(user, "guessed")),
    )
    .unwrap_err();
    assert!(
        error.contains("refuses this client") && !error.contains("guessed"),
        "{error}"
    );
    let error = read(25093, None, None).unwrap_err();
    assert!(error.contains("localhost:25093"), "{error}");
    let error = read(25093, Some(Tls::new()), None).unwrap_err();
    assert!(error.contains("certificate"), "{error}");
    drop(topic);
    control(&["remove", "--port", "25092"]).unwrap();
}
