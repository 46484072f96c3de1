//! What reaches a real broker without transactions, and what one clear error says where something is wrong.

#[path = "kafka_sink_plain/front.rs"]
mod front;
#[path = "kafka_sink/kafka.rs"]
#[allow(dead_code, reason = "the orders are for other tests")]
mod kafka;
#[path = "kafka_sink_plain/lossy.rs"]
mod lossy;
#[path = "kafka_sink_plain/parts.rs"]
mod parts;
#[path = "kafka_sink_plain/progress.rs"]
mod progress;

use integration_tests::kafka::Topic;
use kafka::{broker, fresh_topic, read_all};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::Checkpointing;
use tidegate::connectors::kafka::{DeliveryGuarantee, KafkaSink, KafkaSinkBuilder, Sasl, Tls};
use tidegate::connectors::{Generator, Values};
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy};
use tidegate::prelude::*;

fn strings(topic: &str) -> Option<KafkaSinkBuilder<String>> {
    let sink = KafkaSink::string().bootstrap_servers(broker()?);
    Some(sink.topic(topic))
}

/// How a job fails that writes one record.
fn fault(sink: KafkaSink<String>, checkpoints: bool) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let mut env = StreamEnv::with_parallelism(1);
    if checkpoints {
        let every = CheckpointSettings::every(Duration::from_millis(100));
        env.settings_mut().checkpoints = Some(every);
        let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder.path())));
        checkpointing.restart = RestartStrategy::None;
        env.run_settings_mut().checkpointing = Some(checkpointing);
    }
    env.source("words", Values::new(["word".to_owned()]))
        .sink("out", sink);
    env.execute("one word").expect_err("it fails").to_string()
}

#[test]
fn every_part_of_a_message_arrives() {
    let topic = fresh_topic("parts");
    let Some(sink) = strings(&topic) else { return };
    let sink = sink
        .key(|text| text.to_uppercase())
        .header("length", |text| text.len().to_string())
        .headers(|_, record| record.header("null", None))
        .tombstone_if(|text| text == "gone")
        .partition_by(|text, partitions| text.len() as i32 % partitions)
        .build()
        .expect("it is sound");
    let env = StreamEnv::with_parallelism(1);
    let words = ["a", "gone", "seven77"].map(|word| (1000i64 + word.len() as i64, word.to_owned()));
    env.source("words", Values::timestamped(words))
        .sink("out", sink);
    env.execute("parts").expect("it ends well");
    let mut messages = read_all(&topic);
    messages.sort_by_key(|message| message.timestamp);
    let [a, gone, seven] = messages.as_slice() else {
        panic!("{messages:?}");
    };
    assert_eq!(
        (a.key.as_deref(), a.value.as_deref()),
        (Some("A"), Some("a"))
    );
    assert_eq!(
        (gone.key.as_deref(), gone.value.as_deref()),
        (Some("GONE"), None)
    );
    assert_eq!((a.partition, gone.partition, seven.partition), (1, 4, 7));
    assert_eq!((a.timestamp, seven.timestamp), (1001, 1007));
    let headers = [
        ("length".to_owned(), Some("7".to_owned())),
        ("null".to_owned(), None),
    ];
    assert_eq!(seven.headers, headers);
}

#[test]
fn topics_and_numbers_as_each_record_says() {
    let Some(address) = broker() else { return };
    let topics = [fresh_topic("even"), fresh_topic("odd")];
    let names = topics.clone();
    let sink = KafkaSink::i64()
        .bootstrap_servers(address)
        .topic_by(move |n| names[(n % 2) as usize].clone())
        .high_throughput()
        .delivery_guarantee(DeliveryGuarantee::None)
        .build()
        .expect("it is sound");
    let env = StreamEnv::with_parallelism(2);
    env.source("numbers", Generator::new(1000, |n| n as i64))
        .sink("out", sink);
    env.execute("numbers").expect("it ends well");
    for (topic, rest) in topics.iter().zip(0..) {
        let mut numbers: Vec<_> = read_all(topic).iter().map(|m| m.number()).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq((0..1000).filter(|n| n % 2 == rest)));
    }
}

#[test]
fn at_least_once_loses_nothing_when_the_job_fails() {
    let topic = fresh_topic("at-least-once");
    let Some(sink) = strings(&topic) else { return };
    let sink = sink
        .at_least_once()
        .max_unacknowledged(500)
        .build()
        .expect("it is sound");
    let folder = tempfile::tempdir().expect("a folder");
    let mut env = StreamEnv::with_parallelism(2);
    let every = CheckpointSettings::every(Duration::from_millis(50));
    env.settings_mut().checkpoints = Some(every);
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder.path())));
    checkpointing.restart = RestartStrategy::FixedDelay {
        attempts: 10,
        delay: Duration::from_millis(1),
    };
    env.run_settings_mut().checkpointing = Some(checkpointing);
    let seen = Arc::new(AtomicU64::new(0));
    env.source(
        "numbers",
        Generator::new(60_000, |n| n).per_second(40_000.0),
    )
    .map(move |n: u64| {
        let seen = seen.fetch_add(1, SeqCst);
        assert!(seen % 25_000 != 24_999 || seen > 80_000, "as planned");
        n.to_string()
    })
    .sink("out", sink);
    env.execute("at least once").expect("it ends well");
    let mut times = BTreeMap::<u64, u32>::new();
    for message in read_all(&topic) {
        let number = message.value.expect("a value").parse().expect("a number");
        *times.entry(number).or_default() += 1;
    }
    assert!(
        times.keys().copied().eq(0..60_000),
        "{} are there",
        times.len()
    );
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let Some(address) = broker() else { return };
    let absent = KafkaSink::string()
        .bootstrap_servers("localhost:1")
        .topic("t")
        .build();
    let said = fault(absent.expect("it is sound"), false);
    assert!(
        said.contains("Kafka at localhost:1 doesn't answer") && said.contains("refused"),
        "{said}"
    );

    let sink = strings("no topic!")
        .expect("a broker")
        .build()
        .expect("it is sound");
    let said = fault(sink, false);
    assert!(said.contains("no name that a topic can have"), "{said}");

    let long = |topic: &str| {
        let sink = KafkaSink::with_serializer(|_: &String, into: &mut Vec<u8>| {
            into.resize(900_000, b'x');
            Ok(())
        });
        sink.bootstrap_servers(&address).topic(topic)
    };
    let topic = fresh_topic("limit");
    let sink = long(&topic)
        .property("message.max.bytes", "100000")
        .build()
        .expect("it is sound");
    let said = fault(sink, false);
    assert!(said.contains("message.max.bytes leaves room for"), "{said}");

    kafka::limit_messages(&topic, 10_000);
    let said = fault(long(&topic).build().expect("it is sound"), false);
    assert!(
        said.contains(&topic) && said.contains("too large"),
        "{said}"
    );

    let sink = strings(&topic).expect("a broker").exactly_once("t");
    let said = fault(sink.build().expect("it is sound"), false);
    assert!(
        said.contains("exactly-once into Kafka needs checkpoints"),
        "{said}"
    );

    let poisoned = fresh_topic("poisoned");
    kafka::put(&poisoned, &format!("{poisoned}-out-0"), "poison");
    let sink = || {
        strings(&topic)
            .expect("a broker")
            .exactly_once(&poisoned)
            .progress_topic(&poisoned)
    };
    let said = fault(sink().build().expect("it is sound"), true);
    assert!(said.contains("cleanup.policy"), "{said}");
    kafka::compact(&poisoned);
    let sink = sink().transaction_timeout(Duration::from_secs(60));
    let said = fault_of_out(sink.build().expect("it is sound"));
    assert!(
        said.contains("nobody but Tidegate may write there"),
        "{said}"
    );

    let sink = strings(&topic)
        .expect("a broker")
        .exactly_once("t")
        .transaction_timeout(Duration::from_secs(3600));
    let said = fault(sink.build().expect("it is sound"), true);
    assert!(
        said.contains("transaction.max.timeout.ms is less"),
        "{said}"
    );
}

/// A job with a checkpoint every tenth of a second, which the first failure ends.
fn checkpointed(folder: &Path) -> StreamEnv {
    let mut env = StreamEnv::with_parallelism(1);
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(Duration::from_millis(100)));
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder)));
    checkpointing.restart = RestartStrategy::None;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    env
}

/// The same, of a sink whose id is known.
fn fault_of_out(sink: KafkaSink<String>) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let env = checkpointed(folder.path());
    env.source("words", Values::new(["word".to_owned()]))
        .sink("out", sink)
        .uid("out");
    env.execute("one word").expect_err("it fails").to_string()
}

#[test]
fn settings_that_do_not_fit_are_refused_when_the_sink_is_built() {
    let sink = || {
        KafkaSink::<String>::string()
            .bootstrap_servers("localhost:9092")
            .topic("t")
    };
    let refusal =
        |sink: KafkaSinkBuilder<String>| sink.build().err().expect("it is refused").to_string();
    for (sink, words) in [
        (KafkaSink::string().topic("t"), "no broker was named"),
        (
            KafkaSink::string().bootstrap_servers("localhost:9092"),
            "no topic was named",
        ),
        (sink().property("acks", "0"), "without acknowledgements"),
        (sink().exactly_once(""), "needs a transactional id prefix"),
        (
            sink().exactly_once("t").property("acks", "1"),
            "exactly-once needs 'all'",
        ),
        (
            sink()
                .exactly_once("t")
                .property("enable.idempotence", "false"),
            "enable.idempotence",
        ),
        (
            sink()
                .exactly_once("t")
                .transaction_timeout(Duration::from_millis(10)),
            "between 1 s",
        ),
        (sink().exactly_once("t").max_epoch_memory(1000), "16 KiB"),
        (sink().max_unacknowledged(0), "lets nothing be sent"),
        (sink().broker_timeout(Duration::ZERO), "broker_timeout"),
        (sink().property("linger.ms", "soon"), "linger.ms"),
        (
            sink().property("statistics.interval.ms", "0"),
            "whether brokers answer",
        ),
        (
            sink()
                .exactly_once("t")
                .property("transaction.timeout.ms", "5000"),
            "set it with .transaction_timeout(..)",
        ),
        (sink().property("retries", "0"), "retries"),
    ] {
        let said = refusal(sink);
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(
        sink().property("acks", "1").build().is_ok(),
        "a weaker promise of the user's own"
    );
    for preset in [
        KafkaSinkBuilder::balanced,
        KafkaSinkBuilder::high_throughput,
        KafkaSinkBuilder::low_latency,
    ] {
        assert!(preset(sink()).build().is_ok());
        assert!(preset(sink().exactly_once("t")).build().is_ok());
    }
}

/// Writes a word through a listener of the secured broker, exactly once, and reads back what is there.
fn securely(
    address: &str,
    topic: &str,
    tls: Option<Tls>,
    sasl: Option<Sasl>,
) -> Result<(), String> {
    let mut sink = KafkaSink::string().bootstrap_servers(address).topic(topic);
    if let Some(tls) = tls {
        sink = sink.tls(tls);
    }
    if let Some(sasl) = sasl {
        sink = sink.sasl(sasl);
    }
    // Each time without what the last one knew.
    let sink = sink.exactly_once(topic).allow_reemit(true);
    let sink = sink.build().expect("it is sound");
    let folder = tempfile::tempdir().expect("a folder");
    let env = checkpointed(folder.path());
    env.source("words", Values::new(["secret".to_owned()]))
        .sink("out", sink);
    env.execute("secret")
        .map(drop)
        .map_err(|error| error.to_string())
}

#[test]
fn tls_and_sasl_let_in_who_may_write_and_nobody_else() {
    let port = 29092;
    if broker().is_none() {
        return;
    }
    let arguments = |what| [what, "--port", "29092", "--secure"].map(str::to_owned);
    let control = |what| {
        let all = arguments(what);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        integration_tests::kafka::control(&all).expect("the broker can be controlled")
    };
    let (plain, folder) = (control("start"), control("dir"));
    let (user, password) = ("tidegate", "tidegate-secret");
    let trusting = || Some(Tls::new().authority(format!("{folder}/ca.pem")));
    let at = |n: u16| format!("localhost:{}", port + n);
    let topic = fresh_topic("secret");
    let refused = |tls, sasl, port, words: &str| {
        let said = securely(&at(port), &topic, tls, sasl).expect_err("it may not");
        assert!(
            said.to_lowercase().contains(words) && !said.contains('\n'),
            "{said}"
        );
        assert!(
            !said.contains("guessed") && !said.contains(password),
            "{said}"
        );
    };
    // Who is refused waits for a while, so all of them do at once.
    std::thread::scope(|scope| {
        for wrong in [
            Sasl::plain(user, "guessed"),
            Sasl::scram_sha_256(user, "guessed"),
            Sasl::scram_sha_512("nobody", password),
        ] {
            scope.spawn(|| refused(trusting(), Some(wrong), 3, "authentication"));
        }
        scope.spawn(|| refused(Some(Tls::new()), None, 1, "certificate"));
    });
    let mut written = 0;
    let mut writes = |address: &str, tls, sasl| {
        securely(address, &topic, tls, sasl).expect("it may");
        written += 1;
        assert_eq!(kafka::read_all_at(&plain, &topic).len(), written);
    };
    writes(&at(1), trusting(), None);
    writes(&at(2), None, Some(Sasl::plain(user, password)));
    for sasl in [
        Sasl::plain(user, password),
        Sasl::scram_sha_256(user, password),
        Sasl::scram_sha_512(user, password),
    ] {
        writes(&at(3), trusting(), Some(sasl));
    }
    control("remove");
}

/// A job without end that writes to a topic, and loses it.
#[test]
fn a_topic_that_is_deleted_while_it_is_written_is_one_clear_error() {
    let Some(address) = broker() else { return };
    for exactly_once in [false, true] {
        let topic = Topic::new(&address, "deleted", 2);
        let mut sink = strings(&topic.name)
            .expect("a broker")
            .property("allow.auto.create.topics", "false")
            .broker_timeout(Duration::from_secs(5));
        if exactly_once {
            sink = sink.exactly_once(&topic.name);
        }
        let folder = tempfile::tempdir().expect("a folder");
        let mut env = StreamEnv::with_parallelism(1);
        env.settings_mut().checkpoints =
            Some(CheckpointSettings::every(Duration::from_millis(100)));
        let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder.path())));
        checkpointing.restart = RestartStrategy::None;
        env.run_settings_mut().checkpointing = Some(checkpointing);
        let words = Generator::new(u64::MAX, |n| n.to_string()).per_second(1000.0);
        env.source("words", words)
            .sink("out", sink.build().expect("it is sound"));
        let job = env.start("deleted").expect("it starts");
        let started = std::time::Instant::now();
        let mut removed = false;
        while !job.ended() {
            if !removed && started.elapsed() > Duration::from_secs(1) {
                topic.remove();
                removed = true;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "it goes on");
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let said = job.wait().expect_err("it fails").to_string();
        println!(
            "exactly once: {exactly_once}, after {:?}: {said}",
            started.elapsed()
        );
        let gone = format!("the topic '{}' is gone", topic.name);
        assert!(said.contains(&gone) && !said.contains('\n'), "{said}");
    }
}

#[test]
fn nulls_arrive_exactly_once_too_and_a_message_that_is_too_large_is_one_clear_error() {
    let topic = fresh_topic("nulls");
    let Some(sink) = strings(&topic) else { return };
    let sink = sink
        .tombstone_if(|text| text.starts_with("gone"))
        .headers(|text, record| {
            if text != "gone" {
                record.key().extend_from_slice(text.as_bytes());
            }
        })
        .exactly_once(&topic)
        .build()
        .expect("it is sound");
    let words = ["kept", "gone", "gone too"].map(str::to_owned);
    let run = |sink, words: Vec<String>| {
        let folder = tempfile::tempdir().expect("a folder");
        let mut env = StreamEnv::with_parallelism(1);
        let every = CheckpointSettings::every(Duration::from_millis(100));
        env.settings_mut().checkpoints = Some(every);
        let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder.path())));
        checkpointing.restart = RestartStrategy::None;
        env.run_settings_mut().checkpointing = Some(checkpointing);
        env.source("words", Values::new(words)).sink("out", sink);
        env.execute("nulls").map_err(|error| error.to_string())
    };
    run(sink, words.to_vec()).expect("it ends well");
    let mut messages: Vec<_> = read_all(&topic)
        .into_iter()
        .map(|message| (message.key, message.value))
        .collect();
    messages.sort();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(
        messages,
        [
            (None, None),
            (text("gone too"), None),
            (text("kept"), text("kept"))
        ]
    );
    // The topic's own limit is only known to the broker.
    kafka::limit_messages(&topic, 10_000);
    let sink = || strings(&topic).expect("a broker").exactly_once(&topic);
    let long = "x".repeat(100_000);
    let said = run(sink().build().expect("it is sound"), vec![long.clone()]);
    let said = said.expect_err("it begins from scratch over what is there");
    assert!(
        said.contains("is in Kafka already") && said.contains("Restore"),
        "{said}"
    );
    let sink = sink().allow_reemit(true);
    let said = run(sink.build().expect("it is sound"), vec![long]).expect_err("it is too long");
    assert!(
        said.contains(&topic) && said.contains("too large"),
        "{said}"
    );
}
