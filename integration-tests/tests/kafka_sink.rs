//! Exactly once through a real Kafka broker: numbered orders from eight partitions, counted per key, back into
//! Kafka, by a process that is killed again and again, with another parallelism each time. Who reads what is
//! committed sees every count once and in order, and no transaction is left open.
//!
//! `make chaos-kafka KILLS=100` kills more often than the tests do; `SEED=n` chooses other moments. The
//! process also dies at each step of a commit and of a takeover.
//!
//! The design's kill points, and where each is tested:
//!
//! | | what happens | where |
//! |---|---|---|
//! | K0 | it dies before its output is out of memory | `killed_at_each_step`: `before_spill`, `before_prepare` |
//! | K1 | after that | `killed_at_each_step`: `after_spill`, `after_prepare` |
//! | K2 | after its part of the checkpoint is stored | `killed_at_each_step`: `snapshots::after_write` |
//! | K3 | before the checkpoint is complete | `killed_at_each_step`: `checkpointing::before_publish` |
//! | K4 | after that, before the commit | `killed_at_each_step`: `checkpointing::after_publish` to `before_commit` |
//! | K5 | the answer to a commit is lost | `kafka_broker`: `restarted_while_commits_are_under_way` |
//! | K6 | after the commit, before that is known | `killed_at_each_step`: `after_commit` |
//! | K7 | between the commits of a recovery | `killed_at_each_step`: `takeover_fenced` to `between_takeovers` |
//! | K8 | it recovers later than the transaction timeout | `a_recovery_that_comes_later_..` |
//! | K9 | the coordinator loads | `kafka_broker`: `loads_while_a_job_takes_over`; one node's never moves |
//! | K10 | it goes on from an older checkpoint | `an_older_checkpoint_is_refused_..` |
//! | K11 | a zombie still runs | `a_process_that_hangs_..`, `fences::another_job_..` |
//! | K12 | another parallelism | `killed_at_random_moments`, `killed_at_each_step` |
//! | K13 | the epochs of a producer end | `fences::a_producer_whose_epochs_end_..` |
//! | K14 | a checkpoint without output | `kafka_sink_plain`: `progress::checkpoints_without_output_..` |
//! | K15 | a checkpoint is never complete, a later one is | `killed_at_each_step`: `checkpointing::before_publish` |
//! | K16 | a request arrives late | the simulation beside the sink, `tests/simulation.rs`; no broker can be asked for it |

#[path = "kafka_sink/fences.rs"]
mod fences;
#[path = "kafka_sink/kafka.rs"]
#[allow(dead_code, reason = "some of it is for other tests")]
mod kafka;
#[path = "kafka_sink/worker.rs"]
#[allow(dead_code, reason = "some of it is for other tests")]
mod worker;

use integration_tests::PATIENCE;
use integration_tests::dice::{Dice, number};
use kafka::{Orders, broker, verify};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use worker::{Life, Worker};

/// What the job's subtasks are from one life to the next.
const PARALLELISM: [u32; 3] = [2, 3, 1];

#[test]
#[ignore = "the process that the tests kill"]
fn the_worker() {
    worker::work();
}

/// K12, and any other that comes by chance.
#[test]
fn killed_at_random_moments() {
    let Some(_) = broker() else { return };
    let kills = number("TIDEGATE_CHAOS_KILLS").unwrap_or(5);
    let mut dice = Dice::new("chaos-kafka");
    let (mut killed, mut rounds) = (0, 0);
    while killed < kills {
        let orders = Orders::produce(40_000);
        let folder = tempfile::tempdir().expect("there is room for files");
        let share = (kills - killed).min(25);
        for life in 0..=share {
            let parallelism = PARALLELISM[life as usize % PARALLELISM.len()];
            let last = life == share;
            let until = match dice.below(10) {
                0..2 => 100 + dice.below(900),
                _ => 1000 + dice.below(2500),
            };
            let mut worker = Worker::start(&orders, folder.path(), parallelism, !last);
            let until = if last {
                PATIENCE
            } else {
                Duration::from_millis(until)
            };
            match worker.live(until) {
                Life::Ended(code, complaint) => {
                    assert_eq!(code, Some(0), "life {life}: {complaint}");
                    println!("life {life}, parallelism {parallelism}: came to its end");
                    break;
                }
                Life::Killed => {
                    assert!(!last, "it does not come to its end: {}", worker.complaint());
                    killed += 1;
                    println!(
                        "life {life}, parallelism {parallelism}: killed after {} ms, checkpoint {}",
                        until.as_millis(),
                        worker.checkpoint()
                    );
                }
            }
        }
        verify(&orders);
        rounds += 1;
    }
    println!(
        "chaos-kafka: {killed} kills in {rounds} rounds: every result is there once and in order per key, no \
         transaction is open"
    );
}

/// K11.
#[test]
fn a_process_that_hangs_and_comes_back_changes_nothing() {
    let Some(_) = broker() else { return };
    let orders = Orders::produce(80_000);
    let folder = tempfile::tempdir().expect("there is room for files");
    let mut old = Worker::start(&orders, folder.path(), 2, true);
    assert!(
        matches!(old.live_on(Duration::from_millis(2500)), Life::Killed),
        "{}",
        old.complaint()
    );
    old.signal("STOP");
    let mut new = Worker::start(&orders, folder.path(), 3, true);
    assert!(
        matches!(new.live_on(Duration::from_millis(2500)), Life::Killed),
        "{}",
        new.complaint()
    );
    old.signal("CONT");
    let began = Instant::now();
    match old.live(PATIENCE) {
        Life::Ended(code, complaint) => {
            assert_eq!(code, Some(101), "the old one stops: {complaint}");
            // By the sink or by the checkpoints, whichever comes first.
            let words = ["has taken over", "another run of this job has begun"];
            assert!(words.iter().any(|w| complaint.contains(w)), "{complaint}");
            println!(
                "the old one stops {} ms after it came back: {complaint}",
                began.elapsed().as_millis()
            );
        }
        Life::Killed => panic!("the old one goes on"),
    }
    match new.live(PATIENCE) {
        Life::Ended(code, complaint) => assert_eq!(code, Some(0), "{complaint}"),
        Life::Killed => panic!("the new one does not come to its end"),
    }
    verify(&orders);
}

/// K8. A transaction that was open when the process died is given up by the broker long before the next life.
#[test]
fn a_recovery_that_comes_later_than_the_transaction_timeout_loses_nothing() {
    let Some(address) = broker() else { return };
    let orders = Orders::produce(20_000);
    let folder = tempfile::tempdir().expect("there is room for files");
    let mut worker = Worker::start_dying(&orders, folder.path(), 2, "before_commit", 3);
    assert!(
        matches!(worker.live(PATIENCE), Life::Ended(None, _)),
        "{}",
        worker.complaint()
    );
    let open = || kafka::open_transactions(&address, &orders.output);
    assert!(!open().is_empty(), "it died before the end of one");
    let began = Instant::now();
    while began.elapsed() < worker::TRANSACTION_TIMEOUT || !open().is_empty() {
        assert!(began.elapsed() < PATIENCE, "the broker gives up none");
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let mut worker = Worker::start(&orders, folder.path(), 3, false);
    assert!(
        matches!(worker.live(PATIENCE), Life::Ended(Some(0), _)),
        "{}",
        worker.complaint()
    );
    verify(&orders);
}

/// Each step at which a process can die on its way from one commit to the next.
const STEPS: [&str; 21] = [
    "before_spill",
    "after_spill",
    "before_prepare",
    "after_prepare",
    // Of the checkpoint, by those who take it.
    "snapshots::after_write",
    "checkpointing::before_publish",
    "checkpointing::after_publish",
    "coordinator::before_notify",
    "subtask::before_commit",
    "before_begin",
    "in_transaction",
    "after_part",
    "after_produce",
    "before_commit",
    // Of what the life before has left.
    "takeover_part",
    "after_commit",
    "after_fence",
    "takeover_fenced",
    "takeover_begun",
    "takeover_produced",
    "between_takeovers",
];

/// K0 to K4, K6, K7, K12 and K15.
#[test]
fn killed_at_each_step() {
    let Some(_) = broker() else { return };
    let orders = Orders::produce(160_000);
    let folder = tempfile::tempdir().expect("there is room for files");
    let mut life = 0;
    for step in STEPS {
        // Everything is fenced once in a life; and of the checkpoint once is enough.
        let hits = match step {
            "takeover_fenced" => 1..=1,
            step if step.contains("::") => 2..=2,
            _ => 1..=2,
        };
        for hit in hits {
            let parallelism = PARALLELISM[life % PARALLELISM.len()];
            life += 1;
            let mut worker = Worker::start_dying(&orders, folder.path(), parallelism, step, hit);
            match worker.live(PATIENCE) {
                Life::Ended(None, _) => println!(
                    "parallelism {parallelism}: died at {step} for the {hit}. time, checkpoint {}",
                    worker.checkpoint()
                ),
                Life::Ended(code, complaint) => panic!("{step}: ended with {code:?}: {complaint}"),
                Life::Killed => panic!("{step} is never reached: {}", worker.complaint()),
            }
        }
    }
    let mut worker = Worker::start(&orders, folder.path(), 2, false);
    assert!(
        matches!(worker.live(PATIENCE), Life::Ended(Some(0), _)),
        "{}",
        worker.complaint()
    );
    verify(&orders);
}

/// Neither the process that writes an epoch nor the one that finds it in the checkpoint keeps it in memory.
#[test]
fn an_epoch_that_is_much_larger_than_memory_is_sent_once() {
    let Some(_) = broker() else { return };
    let orders = Orders::produce(0);
    let folder = tempfile::tempdir().expect("there is room for files");
    let mut dies = Worker::start_large(&orders, folder.path(), Some("after_part"));
    assert!(
        matches!(dies.live(PATIENCE), Life::Ended(None, _)),
        "{}",
        dies.complaint()
    );
    let mut ends = Worker::start_large(&orders, folder.path(), None);
    match ends.live(PATIENCE) {
        Life::Ended(code, complaint) => assert_eq!(code, Some(0), "{complaint}"),
        Life::Killed => panic!("it does not come to its end: {}", ends.complaint()),
    }
    let recovers = ends.most_memory();
    let (size, count) = worker::LARGE;
    let whole = |orders: &Orders| {
        let numbers = kafka::numbers(&orders.address, &orders.output);
        assert!(numbers.into_iter().eq(0..count), "each is there once");
    };
    whole(&orders);
    let orders = Orders::produce(0);
    let elsewhere = tempfile::tempdir().expect("there is room for files");
    let mut writes = Worker::start_large(&orders, elsewhere.path(), None);
    assert!(
        matches!(writes.live(PATIENCE), Life::Ended(Some(0), _)),
        "{}",
        writes.complaint()
    );
    whole(&orders);
    let megabytes = size as u64 * count / 1_000_000;
    let writes = writes.most_memory();
    println!("an epoch of {megabytes} MB: {writes} MB to write it, {recovers} MB to recover it");
    assert!(writes.max(recovers) < megabytes * 4 / 5);
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("it can be listed").flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().expect("it is there").is_dir() {
            true => copy(&entry.path(), &target),
            // What goes meanwhile belongs to no checkpoint that is kept.
            false => drop(fs::copy(entry.path(), target)),
        }
    }
}

/// K10.
#[test]
fn an_older_checkpoint_is_refused_unless_its_output_may_come_twice() {
    let Some(_) = broker() else { return };
    let orders = Orders::produce(60_000);
    let folder = tempfile::tempdir().expect("there is room for files");
    let mut worker = Worker::start(&orders, folder.path(), 2, true);
    let began = Instant::now();
    while worker.checkpoint() < 3 {
        assert!(began.elapsed() < PATIENCE, "{}", worker.complaint());
        alive(&mut worker);
    }
    let (old, mine) = (worker.checkpoint(), folder.path().join("mine"));
    copy(&folder.path().join("checkpoints"), &mine);
    let progress = format!("tidegate-progress.{}-counts", orders.output);
    let committed = || {
        let markers = kafka::read_all(&progress);
        let checkpoint = |value: &str| {
            let json: serde_json::Value = serde_json::from_str(value).ok()?;
            json["checkpoint"].as_u64()
        };
        let all = markers
            .iter()
            .filter_map(|m| checkpoint(m.value.as_deref()?));
        all.max().unwrap_or(0)
    };
    while committed() < old + 2 {
        assert!(began.elapsed() < PATIENCE, "{}", worker.complaint());
        alive(&mut worker);
    }
    assert!(matches!(
        worker.live(Duration::from_millis(1)),
        Life::Killed
    ));
    let place = mine.join(format!("chk-{old}"));
    for (reemit, words) in [(false, "would be there twice"), (true, "")] {
        let mut worker = Worker::start_from(&orders, folder.path(), &place, reemit);
        match worker.live(PATIENCE) {
            Life::Ended(code, complaint) => {
                assert_eq!(code == Some(0), reemit, "from {old}: {complaint}");
                assert!(complaint.contains(words), "{complaint}");
            }
            Life::Killed => panic!("it does not come to its end: {}", worker.complaint()),
        }
    }
    let counts = kafka::read_committed(&orders.address, &orders.output);
    let mut twice = 0;
    for (key, want) in orders.counts() {
        let mut got = counts.get(&key).cloned().unwrap_or_default();
        let all = got.len();
        got.sort_unstable();
        got.dedup();
        assert!(
            got.into_iter().eq(1..=want),
            "nothing of key {key} is missing"
        );
        twice += all as u64 - want;
    }
    assert!(twice > 0, "what lay between came twice, as was allowed");
}

/// Lets a process live for a moment that is not to end.
fn alive(worker: &mut Worker) {
    if let Life::Ended(code, complaint) = worker.live_on(Duration::from_millis(20)) {
        panic!("ended with {code:?}: {complaint}");
    }
}
