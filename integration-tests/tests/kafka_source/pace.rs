//! Partitions that are silent, and partitions that are ahead of others.

use super::{numbered, source_of};
use integration_tests::kafka::{Topic, broker};
use integration_tests::until;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use tidegate::connectors::kafka::KafkaSource;
use tidegate::connectors::{BlackHole, Generator};
use tidegate::prelude::*;

/// What windows of an endless job count, until there are two.
fn windows(topic: &Topic, idle_after: Option<Duration>) -> Vec<u64> {
    let source = KafkaSource::string()
        .bootstrap_servers(broker().expect("there is one"))
        .topic(&topic.name);
    let mut strategy = WatermarkStrategy::monotonous();
    if let Some(idle_after) = idle_after {
        strategy = strategy.idle_after(idle_after);
    }
    let env = StreamEnv::with_parallelism(1);
    let (read, counts) = (Arc::new(AtomicI64::new(0)), Collect::new());
    let seen = read.clone();
    env.source("numbers", source.build().expect("it is sound"))
        .watermarks(strategy)
        .map(move |n| {
            seen.fetch_add(1, SeqCst);
            n
        })
        .key_by(|_| ())
        .window(Tumbling::event_time(Duration::from_secs(10)))
        .count()
        .map(|w| w.value)
        .sink("counts", counts.clone());
    let job = env.start("windows").expect("it starts");
    until("all are read", || read.load(SeqCst) == 25);
    let mut fired = Vec::new();
    let mut look = || {
        fired.extend(counts.take().into_iter().map(|(_, count)| count));
        fired.len() >= 2
    };
    match idle_after {
        Some(_) => until("windows fire", look),
        // Ten turns at least in which they could.
        None => {
            let turns = std::time::Instant::now();
            while turns.elapsed() < Duration::from_millis(1000) && !look() {
                std::thread::park_timeout(Duration::from_millis(20));
            }
        }
    }
    job.cancel();
    let _ = job.wait();
    fired
}

#[test]
fn windows_fire_though_a_partition_has_nothing() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "idle", 3);
    // Partition 2 stays empty.
    numbered(&topic, 2, 0..25);
    assert_eq!(windows(&topic, None), [0u64; 0], "it holds event time back");
    let fired = windows(&topic, Some(Duration::from_secs(4)));
    assert_eq!(fired, [9, 10]);
}

/// One partition has as much as another and is fetched as fast; but its records are a thousand times further apart.
#[test]
fn a_partition_that_is_ahead_waits_for_the_others_of_its_subtask() {
    const EACH: i64 = 20_000;
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "aligned", 2);
    for n in 1..=EACH {
        topic.append(0, None, Some(b"slow"), n);
        topic.append(1, None, Some(b"fast"), n * 1000);
    }
    topic.flush();
    let drift = Duration::from_millis(10_000);
    let output = tidegate::testing::run(1, |env| {
        env.source("numbers", source_of(KafkaSource::string(), &topic))
            .watermarks(WatermarkStrategy::monotonous().align("both", drift))
    });
    let output = output.expect("it ends well");
    assert_eq!(output.len(), 2 * EACH as usize);
    // How many of the fast ones came before the last slow one: those within the drift of it, and slices.
    let last = output.iter().rposition(|(_, value)| value == "slow");
    let before = &output[..last.expect("there are slow ones")];
    let fast = before.iter().filter(|(_, value)| value == "fast").count();
    assert!(fast < 2000, "{fast} of {EACH} were read ahead");
}

/// Also of another source's subtask, which is paced.
#[test]
fn partitions_wait_for_another_source_and_go_on() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "paced", 2);
    numbered(&topic, 2, 0..2000);
    let ahead = Arc::new(Mutex::new((0i64, 0i64)));
    let env = StreamEnv::with_parallelism(1);
    let drift = Duration::from_secs(100);
    let (one, other) = (ahead.clone(), ahead.clone());
    let paced = Generator::new(200, |n| n).per_second(400.0);
    env.source("paced", paced)
        .watermarks(
            WatermarkStrategy::monotonous()
                .timestamps(|n: &u64| Timestamp(*n as i64 * 10_000))
                .align("all", drift),
        )
        .map(move |n| other.lock().expect("no panic").0 = n as i64 * 10_000)
        .sink("nowhere", BlackHole);
    let slowly = KafkaSource::string().max_poll_records(50);
    env.source("numbers", source_of(slowly, &topic))
        .watermarks(WatermarkStrategy::monotonous().align("all", drift))
        .map(move |n| {
            let mut ahead = one.lock().expect("no panic");
            let at = (n.parse::<i64>().unwrap_or(0) + 1) * 1000;
            ahead.1 = ahead.1.max(at - ahead.0);
        })
        .sink("nowhere too", BlackHole);
    env.execute("paced").expect("it ends well");
    // A turn more, which is 100 s of event time where all of it is of one partition; and what the other is behind.
    let most = ahead.lock().expect("no panic").1;
    assert!(most < 4 * 100_000, "{most} ms ahead");
}

/// Megabytes that this process has in memory now.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.expect("Linux knows it") / 1024
}

/// What each partition has, in records of 100 kB.
const LARGE: i64 = 250;

#[test]
#[ignore = "the process whose memory is looked at"]
fn the_one_that_stands_still() {
    let topic = std::env::var("READER_TOPIC").expect("the test says it");
    let topic = Topic::existing(broker().expect("there is one"), &topic);
    let began = std::time::Instant::now();
    let output = tidegate::testing::run(1, |env| {
        let mut most = None;
        env.source("large", source_of(KafkaSource::bytes(), &topic))
            .map(move |value| {
                most.get_or_insert_with(|| {
                    // Until nothing more comes.
                    let (mut before, mut same) = (0, 0);
                    while same < 15 && began.elapsed() < integration_tests::PATIENCE {
                        std::thread::park_timeout(Duration::from_millis(100));
                        let now = memory();
                        same = if now > before { 0 } else { same + 1 };
                        before = before.max(now);
                    }
                    eprintln!("stands still at {before} MB");
                });
                value.len()
            })
    });
    let output = output.expect("it ends well");
    assert_eq!(output.len() as i64, 8 * LARGE, "it goes on");
}

/// Eight partitions with 200 MB, and a job without room for any of it.
#[test]
fn what_is_fetched_ahead_is_bounded_for_all_partitions_together() {
    let Some(broker) = broker() else { return };
    let topic = Topic::new(broker, "large", 8);
    for n in 0..LARGE {
        let value = vec![n as u8; 100_000];
        (0..8).for_each(|partition| topic.append(partition, None, Some(&value), 1));
    }
    topic.flush();
    let program = std::env::current_exe().expect("Linux knows it");
    let name = "pace::the_one_that_stands_still";
    let read = std::process::Command::new(program)
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env("READER_TOPIC", &topic.name)
        .env("TIDEGATE_KAFKA", broker)
        .output()
        .expect("this program can be started");
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success(), "{said}");
    let line = said.lines().find(|line| line.starts_with("stands still"));
    let most = line.and_then(|line| line.split(' ').nth(3)?.parse::<u64>().ok());
    let most = most.unwrap_or_else(|| panic!("it doesn't say: {said}"));
    println!("it stood still at {most} MB");
    // 64 MiB, what a fetch may bring beyond that, and the program itself.
    assert!(most < 130, "{most} MB");
}
