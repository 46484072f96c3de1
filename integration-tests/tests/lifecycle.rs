//! How jobs begin and end, whatever user code does: with one root cause and nothing left behind.

use integration_tests::until;
use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tidegate::actors::runner;
use tidegate::actors::supervisor::Patience;
use tidegate::prelude::*;

/// Threads are counted over the whole process, so these jobs run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The names of this process's threads that belong to jobs.
fn job_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists threads");
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let ours = |name: &String| {
        ["tidegate", "arbiter", "actix"]
            .iter()
            .any(|part| name.contains(part))
    };
    names
        .map(|name| name.trim().to_owned())
        .filter(ours)
        .collect()
}

fn impatient(parallelism: u32, turn_ms: u64) -> StreamEnv {
    let mut env = StreamEnv::with_parallelism(parallelism);
    let (turn, stop) = (Duration::from_millis(turn_ms), Duration::from_millis(300));
    env.run_settings_mut().patience = Patience { turn, stop };
    env.run_settings_mut().cores = 2;
    env
}

fn endless() -> Generator<impl Fn(u64) -> u64 + Send + Sync + 'static> {
    Generator::unbounded(|n| n)
}

#[test]
fn a_loop_without_end_is_named_in_time() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let release = Arc::new(AtomicBool::new(false));
    let released = release.clone();
    let env = impatient(2, 300);
    env.source("numbers", endless())
        .map(move |n| {
            while n == 5000 && !released.load(SeqCst) {
                std::hint::spin_loop();
            }
            n
        })
        .name("spins")
        .sink("out", BlackHole);
    let began = Instant::now();
    let error = env.execute("loops").expect_err("the job is given up");
    let took = began.elapsed();
    release.store(true, SeqCst);
    let text = error.to_string();
    assert!(
        text.contains("spins") && text.contains("has not returned for 0."),
        "{text}"
    );
    assert!(text.contains("did not stop: numbers [0]"), "{text}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    until("the thread is free again", || job_threads().is_empty());
}

#[test]
fn a_loop_while_opening_is_seen_too() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    #[derive(Clone)]
    struct OpensForEver(Arc<AtomicBool>);
    impl Operator<u64> for OpensForEver {
        type Out = u64;
        fn open(&mut self, _: &mut OpenContext<'_>) -> Flow {
            while !self.0.load(SeqCst) {
                std::hint::spin_loop();
            }
            Ok(())
        }
        fn process<C: Collector<u64>>(&mut self, at: Timestamp, n: u64, out: &mut C) -> Flow {
            out.collect(at, n)
        }
    }
    let release = Arc::new(AtomicBool::new(false));
    let env = impatient(1, 300);
    let stream = env.source("numbers", Generator::new(10, |n| n));
    stream
        .operate("opens", OpensForEver(release.clone()))
        .sink("out", BlackHole);
    let text = env
        .execute("opens")
        .expect_err("the job is given up")
        .to_string();
    release.store(true, SeqCst);
    assert!(
        text.contains("opens") && text.contains("has not returned"),
        "{text}"
    );
    until("the thread is free again", || job_threads().is_empty());
}

#[test]
fn a_panic_leaves_no_thread_behind() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let env = impatient(4, 60_000);
    env.source("numbers", endless())
        .key_by(|n| *n % 100)
        .fold(0u64, |count, _, n| {
            assert!(n < 50_000, "too many");
            *count += 1;
            *count
        })
        .sink("out", BlackHole);
    let text = env
        .execute("panics")
        .expect_err("the job fails")
        .to_string();
    assert!(
        text.contains("too many") && text.contains("'fold'"),
        "{text}"
    );
    until("no thread is left", || job_threads().is_empty());
}

#[test]
fn cancelling_ends_a_job_without_end() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let env = impatient(2, 60_000);
    env.source("numbers", endless())
        .rebalance()
        .map(|n| n)
        .sink("out", BlackHole);
    let job = env.start("endless").expect("it starts");
    until("it reads", || {
        job.stats().snapshot().iter().any(|s| s.records_in > 0)
    });
    assert!(!job.ended());
    let began = Instant::now();
    job.cancel();
    let error = job.wait().expect_err("it was cancelled");
    assert!(matches!(&error, runner::Error::Cancelled { stuck, .. } if stuck.is_empty()));
    assert_eq!(error.to_string(), "job 'endless' was cancelled");
    assert!(began.elapsed() < Duration::from_secs(2));
    until("no thread is left", || job_threads().is_empty());
}

#[test]
fn cancelling_a_job_that_is_stuck_says_where_and_returns() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (inside, release) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let (entered, released) = (inside.clone(), release.clone());
    let env = impatient(1, 60_000);
    let spin = move |n| {
        entered.store(true, SeqCst);
        while !released.load(SeqCst) {
            std::hint::spin_loop();
        }
        n
    };
    env.source("numbers", endless())
        .map(spin)
        .sink("out", BlackHole);
    let job = env.start("stuck").expect("it starts");
    until("it spins", || inside.load(SeqCst));
    job.cancel();
    let text = job.wait().expect_err("it was cancelled").to_string();
    release.store(true, SeqCst);
    assert_eq!(
        text,
        "job 'stuck' was cancelled; these subtasks did not stop: numbers [0]"
    );
    until("the thread is free again", || job_threads().is_empty());
}

#[test]
fn two_failures_have_one_root_cause() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = Arc::new(AtomicUsize::new(0));
    let count = failed.clone();
    let env = impatient(2, 60_000);
    let fail = move |n| -> u64 { panic!("failure {} on {n}", count.fetch_add(1, SeqCst)) };
    env.source("numbers", endless())
        .map(fail)
        .name("fails")
        .sink("out", BlackHole);
    let text = env.execute("two").expect_err("the job fails").to_string();
    assert_eq!(text.matches("failure ").count(), 1, "{text}");
    assert!(
        text.starts_with("job 'two' failed: operator 'fails': panicked at "),
        "{text}"
    );
    assert!(failed.load(SeqCst) <= 2);
}

#[derive(Clone)]
struct PanicsWhenDropped {
    opened: bool,
    fails: bool,
}

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        assert!(!self.opened, "dropped badly");
    }
}

impl Operator<u64> for PanicsWhenDropped {
    type Out = u64;
    fn open(&mut self, _: &mut OpenContext<'_>) -> Flow {
        self.opened = true;
        Ok(())
    }
    fn process<C: Collector<u64>>(&mut self, at: Timestamp, n: u64, out: &mut C) -> Flow {
        if self.fails {
            Err(Fault::user("the first cause"))
        } else {
            out.collect(at, n)
        }
    }
}

#[test]
fn a_panic_in_drop_fails_the_job_and_hides_no_earlier_cause() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for (fails, wanted) in [(false, "dropped badly"), (true, "the first cause")] {
        let env = impatient(2, 60_000);
        let numbers = env.source("numbers", Generator::new(10_000, |n| n));
        let operator = PanicsWhenDropped {
            opened: false,
            fails,
        };
        numbers.operate("drops", operator).sink("out", BlackHole);
        let text = env.execute("drops").expect_err("the job fails").to_string();
        assert!(text.contains(wanted) && text.contains("drops"), "{text}");
        until("no thread is left", || job_threads().is_empty());
    }
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PanickyKey(u64);

impl Hash for PanickyKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(self.0 != 7_777, "this key can't be hashed");
        self.0.hash(state);
    }
}

#[test]
fn a_key_that_panics_while_it_is_hashed_fails_its_job_alone() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let env = impatient(2, 60_000);
    env.source("numbers", endless())
        .key_by(|n| PanickyKey(*n))
        .fold(0u64, |count, _, _| {
            *count += 1;
            *count
        })
        .sink("out", BlackHole);
    let text = env
        .execute("hashes")
        .expect_err("the job fails")
        .to_string();
    assert!(text.contains("this key can't be hashed"), "{text}");
    assert!(text.contains("generated record 7777"), "{text}");
    until("no thread is left", || job_threads().is_empty());

    let env = impatient(2, 60_000);
    let out = Collect::new();
    env.source("numbers", Generator::new(100, |n| n))
        .sink("out", out.clone());
    env.execute("after it")
        .expect("another job is none the worse");
    assert_eq!(out.values().len(), 100);
}

#[test]
fn a_job_runs_inside_of_a_runtime_that_is_there() {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let run = || {
        let env = impatient(2, 60_000);
        let out = Collect::new();
        env.source("numbers", Generator::new(1_000, |n| n))
            .rebalance()
            .map(|n| n)
            .sink("out", out.clone());
        env.execute("inside").expect("the job runs");
        out.values().len()
    };
    assert_eq!(actix::System::new().block_on(async { run() }), 1_000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    assert_eq!(runtime.block_on(async { run() }), 1_000);
}
