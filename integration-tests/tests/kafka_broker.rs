//! Exactly once through a real Kafka broker that is killed, restarted and paused while a job writes to it: at any
//! moment, and by design while a commit is under way.
//!
//! `make chaos-kafka BROKER_KILLS=10` also kills it so often at any moment, and pauses it for a minute.

#[path = "kafka_sink/kafka.rs"]
#[allow(dead_code, reason = "some of it is for other tests")]
mod kafka;
#[path = "kafka_sink/worker.rs"]
#[allow(dead_code, reason = "some of it is for other tests")]
mod worker;

use integration_tests::dice::number;
use integration_tests::{PATIENCE, until};
use kafka::{Orders, verify};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::Checkpointing;
use tidegate::connectors::kafka::{DeliveryGuarantee, KafkaSink, KafkaSource};
use tidegate::connectors::{BlackHole, Generator};
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy};
use tidegate::prelude::{RunningJob, StreamEnv};
use worker::{Life, Worker};

const PORT: &str = "19092";

/// How long the broker answers nothing.
const PAUSE: Duration = Duration::from_secs(60);

/// The broker of a test. It goes with its data when the test is through with it.
struct Own;

impl Own {
    /// `None` where there can be no broker.
    fn start() -> Option<Self> {
        kafka::broker()?;
        kafka::control(PORT, "start");
        Some(Own)
    }

    fn does(&self, what: &str) {
        kafka::control(PORT, what);
    }

    /// It dies and comes back.
    fn restarts(&self) {
        self.does("kill");
        self.does("start");
    }

    fn orders(&self, count: u64) -> Orders {
        Orders::produce_at(&format!("localhost:{PORT}"), count)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.does("remove");
    }
}

#[test]
#[ignore = "the process that the tests look at"]
fn the_worker() {
    worker::work();
}

/// Lets a process live that is not to end.
fn alive(worker: &mut Worker, how_long: Duration) {
    if let Life::Ended(code, complaint) = worker.live_on(how_long) {
        panic!("ended with {code:?}: {complaint}");
    }
}

/// Waits until a process has completed two checkpoints more.
fn progresses(worker: &mut Worker, since: u64) {
    let began = Instant::now();
    while worker.checkpoint() < since + 2 {
        alive(worker, Duration::from_millis(50));
        assert!(
            began.elapsed() < PATIENCE,
            "no progress: {}",
            worker.complaint()
        );
    }
}

/// Lets a process come to its end, and looks what it has written.
fn ends(mut worker: Worker, orders: &Orders) {
    match worker.live(PATIENCE) {
        Life::Ended(code, complaint) => assert_eq!(code, Some(0), "{complaint}"),
        Life::Killed => panic!("it does not come to its end: {}", worker.complaint()),
    }
    verify(orders);
}

/// One broker for all of it: starting one takes longer than most of what is done with it.
#[test]
fn a_broker_that_dies_and_comes_back_or_stays_away() {
    let Some(broker) = Own::start() else { return };
    restarted_while_commits_are_under_way(&broker);
    loads_while_a_job_takes_over(&broker);
    if let Some(kills) = number("TIDEGATE_CHAOS_BROKER_KILLS") {
        killed_at_any_moment_and_paused(&broker, kills);
    }
    gone(&broker);
}

/// A commit is held between its records and its end, and behind its end, while the broker dies and comes back;
/// and the request that ends it is lost with the broker that it was sent to.
fn restarted_while_commits_are_under_way(broker: &Own) {
    let orders = broker.orders(120_000);
    let folder = tempfile::tempdir().expect("there is room for files");
    let holds = ["before_commit", "before_commit", "after_commit"];
    let mut worker = Worker::start_holding(&orders, folder.path(), 2, &holds);
    for (step, lost) in holds.into_iter().zip([false, true, false]) {
        worker.holds();
        if lost {
            broker.does("pause");
            worker.release();
            // The request is on its way now, to a broker that reads nothing any more.
            alive(&mut worker, Duration::from_millis(300));
        }
        broker.restarts();
        if !lost {
            worker.release();
        }
        let checkpoint = worker.checkpoint();
        println!(
            "restarted while a commit was held {step}, request lost: {lost}, checkpoint {checkpoint}"
        );
    }
    ends(worker, &orders);
}

/// The coordinator of one node never moves; what a move looks like to a client, NOT_COORDINATOR aside, is a
/// coordinator that loads its log, which it does when it comes back. A transaction was open when both died.
fn loads_while_a_job_takes_over(broker: &Own) {
    let orders = broker.orders(10_000);
    let folder = tempfile::tempdir().expect("there is room for files");
    let mut worker = Worker::start_dying(&orders, folder.path(), 2, "before_commit", 3);
    assert!(
        matches!(worker.live(PATIENCE), Life::Ended(None, _)),
        "{}",
        worker.complaint()
    );
    broker.does("kill");
    let mut worker = Worker::start(&orders, folder.path(), 3, false);
    alive(&mut worker, Duration::from_millis(100));
    broker.does("start");
    ends(worker, &orders);
}

fn killed_at_any_moment_and_paused(broker: &Own, kills: u64) {
    // Enough to live through it, at the rate that it is held to.
    let orders = broker.orders(60_000 + 40_000 * kills);
    let folder = tempfile::tempdir().expect("there is room for files");
    let mut worker = Worker::start(&orders, folder.path(), 2, true);
    progresses(&mut worker, 0);
    for kill in 1..=kills {
        let before = worker.checkpoint();
        alive(&mut worker, Duration::from_millis(kill * 371 % 1000));
        broker.restarts();
        println!("broker killed and restarted for the {kill}. time, checkpoint {before}");
        progresses(&mut worker, before);
    }
    broker.does("pause");
    let before = worker.checkpoint();
    alive(&mut worker, PAUSE);
    broker.does("resume");
    progresses(&mut worker, before);
    println!("broker paused for {PAUSE:?}, checkpoint {before}");
    ends(worker, &orders);
    println!(
        "chaos-kafka: the broker was killed {kills} times and paused for {PAUSE:?}: everything is there once"
    );
}

/// Jobs that read, and that write with each of the guarantees, and bear so much silence.
fn jobs(folder: &Path, topic: &str, bears: Duration) -> Vec<(&'static str, RunningJob)> {
    let address = format!("localhost:{PORT}");
    let source = KafkaSource::bytes()
        .bootstrap_servers(&address)
        .topic(topic)
        .broker_timeout(bears)
        .build()
        .expect("it is sound");
    let sink = || {
        KafkaSink::<String>::string()
            .bootstrap_servers(&address)
            .topic(topic)
            .broker_timeout(bears)
    };
    let env = StreamEnv::with_parallelism(1);
    env.source("records", source).sink("nothing", BlackHole);
    let reads = env.start("reads").expect("it starts");
    let endless = |env: &StreamEnv, sink: KafkaSink<String>| {
        let numbers = Generator::new(u64::MAX, |n| n.to_string()).per_second(500.0);
        env.source("numbers", numbers).sink("out", sink);
    };
    let env = StreamEnv::with_parallelism(1);
    endless(&env, sink().build().expect("it is sound"));
    let writes = env.start("writes").expect("it starts");
    let env = StreamEnv::with_parallelism(1);
    let lossy = sink().delivery_guarantee(DeliveryGuarantee::None);
    endless(&env, lossy.build().expect("it is sound"));
    let loses = env.start("loses").expect("it starts");
    let mut env = StreamEnv::with_parallelism(1);
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(Duration::from_millis(100)));
    let mut checkpointing = Checkpointing::new(Arc::new(LocalStorage::new(folder)));
    checkpointing.restart = RestartStrategy::None;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    endless(
        &env,
        sink().exactly_once(topic).build().expect("it is sound"),
    );
    let commits = env.start("commits").expect("it starts");
    vec![
        ("reads", reads),
        ("writes", writes),
        ("loses", loses),
        ("commits", commits),
    ]
}

/// For how long a job has had no answer, in milliseconds.
fn silence(job: &RunningJob) -> u64 {
    let subtasks = job.stats().snapshot();
    subtasks.iter().map(|s| s.silence_ms).max().unwrap_or(0)
}

/// It is waited for, visibly, and not for ever.
fn gone(broker: &Own) {
    let folder = tempfile::tempdir().expect("there is room for files");
    let orders = broker.orders(1);
    let jobs = jobs(folder.path(), &orders.input, Duration::from_secs(5));
    for (what, job) in &jobs {
        until(what, || {
            let subtasks = job.stats().snapshot();
            job.ended() || subtasks.iter().any(|s| s.records_out + s.records_in > 0)
        });
    }
    let committed = || folder.path().read_dir().map_or(0, Iterator::count) > 2;
    until("checkpoints", committed);
    // A short silence is borne, shown, and over.
    broker.does("kill");
    for (what, job) in &jobs {
        until(what, || silence(job) > 0 || job.ended());
        assert!(!job.ended(), "{what} bears it");
    }
    broker.does("start");
    for (what, job) in &jobs {
        until(what, || silence(job) == 0 || job.ended());
    }
    broker.does("kill");
    let began = Instant::now();
    for (what, job) in jobs {
        until(what, || job.ended());
        let error = job.wait().expect_err("it fails").to_string();
        println!("{what}, after {:?}: {error}", began.elapsed());
        assert!(
            error.contains("refused") && !error.contains('\n'),
            "{what}: {error}"
        );
        // A record may be given up before the broker is.
        let words: &[&str] = match what {
            "reads" | "loses" => &["has answered for"],
            "writes" => &["could not be delivered", "has answered for"],
            _ => &["can't be committed to Kafka"],
        };
        assert!(words.iter().any(|w| error.contains(w)), "{what}: {error}");
    }
    assert!(
        began.elapsed() < Duration::from_secs(30),
        "{:?}",
        began.elapsed()
    );
}
