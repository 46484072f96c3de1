//! Exactly once through a real Kafka broker that is killed, restarted and paused while a job writes to it: at any
//! moment, and by design while a commit is under way. The tests have a broker of their own, one at a time.
//!
//! `make chaos-kafka BROKER_KILLS=10` kills it more often, and pauses it for a minute.

#[path = "kafka_sink/kafka.rs"]
#[allow(dead_code, reason = "some of it is for other tests")]
mod kafka;
#[path = "kafka_sink/worker.rs"]
#[allow(dead_code, reason = "some of it is for other tests")]
mod worker;

use kafka::{Orders, verify};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use worker::{Life, Worker};

const PORT: &str = "59092";

/// Longer than any life of a job that nobody kills.
const PATIENCE: Duration = Duration::from_secs(180);

/// The broker of these tests. It goes with its data when they are through with it.
struct Own(#[allow(dead_code, reason = "others wait for it")] MutexGuard<'static, ()>);

impl Own {
    /// `None` where there can be no broker.
    fn start() -> Option<Self> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        kafka::broker()?;
        let own = Own(ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner));
        own.does("start");
        Some(own)
    }

    fn does(&self, what: &str) {
        kafka::control(PORT, what);
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

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
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

#[test]
fn the_broker_is_killed_restarted_and_paused() {
    let Some(broker) = Own::start() else { return };
    let kills = number("TIDEGATE_CHAOS_BROKER_KILLS").unwrap_or(1);
    let pause = Duration::from_secs(if kills > 1 { 60 } else { 2 });
    // Enough to live through it, at the rate that it is held to.
    let orders = broker.orders(30_000 + 60_000 * kills);
    let folder = tempfile::tempdir().expect("there is room for files");
    let mut worker = Worker::start(&orders, folder.path(), 2, true);
    progresses(&mut worker, 0);
    for kill in 1..=kills {
        let before = worker.checkpoint();
        alive(&mut worker, Duration::from_millis(kill * 371 % 1000));
        broker.does("kill");
        println!("broker killed for the {kill}. time, checkpoint {before}");
        broker.does("start");
        progresses(&mut worker, before);
    }
    broker.does("pause");
    println!("broker paused, checkpoint {}", worker.checkpoint());
    alive(&mut worker, pause);
    broker.does("resume");
    let before = worker.checkpoint();
    progresses(&mut worker, before);
    println!("broker resumed, checkpoint {}", worker.checkpoint());
    ends(worker, &orders);
    println!(
        "chaos-kafka: the broker was killed {kills} times and paused for {pause:?}: everything is there once"
    );
}

/// A commit is held between its records and its end, and behind its end, while the broker dies and comes back;
/// and the request that ends it is lost with the broker that it was sent to.
#[test]
fn the_broker_is_restarted_while_a_commit_is_under_way() {
    let Some(broker) = Own::start() else { return };
    for (step, loses) in [
        ("before_commit", false),
        ("before_commit", true),
        ("after_commit", false),
    ] {
        let orders = broker.orders(30_000);
        let folder = tempfile::tempdir().expect("there is room for files");
        let mut worker = Worker::start_holding(&orders, folder.path(), 2, step, 3);
        worker.holds();
        if loses {
            broker.does("pause");
            worker.release();
            // The request is on its way now, to a broker that reads nothing.
            alive(&mut worker, Duration::from_millis(300));
        }
        broker.does("kill");
        broker.does("start");
        if !loses {
            worker.release();
        }
        let before = worker.checkpoint();
        println!("held {step}, request lost: {loses}, the broker is back, checkpoint {before}");
        progresses(&mut worker, before);
        ends(worker, &orders);
    }
}

/// The coordinator of one node never moves; what a move looks like to a client, NOT_COORDINATOR aside, is a
/// coordinator that loads its log, which it does when it comes back. A transaction was open when both died.
#[test]
fn a_takeover_meets_a_coordinator_that_loads() {
    let Some(broker) = Own::start() else { return };
    let orders = broker.orders(30_000);
    let folder = tempfile::tempdir().expect("there is room for files");
    let mut worker = Worker::start_dying(&orders, folder.path(), 2, "before_commit", 3);
    assert!(
        matches!(worker.live(PATIENCE), Life::Ended(None, _)),
        "{}",
        worker.complaint()
    );
    broker.does("kill");
    let mut worker = Worker::start(&orders, folder.path(), 3, false);
    alive(&mut worker, Duration::from_millis(500));
    broker.does("start");
    ends(worker, &orders);
}
