//! The process that is killed: this test program again, told by its environment what to do.

use crate::kafka::Orders;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::{Checkpointing, Restore, Target};
use tidegate::connectors::Generator;
use tidegate::connectors::kafka::{KafkaSink, KafkaSource};
use tidegate::engine::checkpoint::{CheckpointSettings, RestartStrategy};
use tidegate::prelude::*;

const JOB: &str = "counts";

/// Records per second and subtask, so that it lives long enough to be killed.
const RATE: f64 = 3000.0;

/// Short, so that a test can outwait it.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

/// The file that is there while a process is held.
const HELD: &str = "held";

/// How a life went.
pub enum Life {
    /// With its exit code, none where a signal ended it, and what it complained.
    Ended(Option<i32>, String),
    /// It was still alive.
    Killed,
}

/// A running process.
pub struct Worker {
    child: Child,
    folder: PathBuf,
    stderr: PathBuf,
}

impl Worker {
    /// Starts it with what its last life left; held to a rate or not.
    pub fn start(orders: &Orders, folder: &Path, parallelism: u32, held: bool) -> Self {
        Worker::spawn(orders, folder, parallelism, held, &[])
    }

    /// One that kills itself when it comes to a step for the `hit`th time.
    pub fn start_dying(
        orders: &Orders,
        folder: &Path,
        parallelism: u32,
        step: &str,
        hit: u32,
    ) -> Self {
        let step = match step.contains("::") {
            true => step.to_owned(),
            false => format!("kafka_sink::{step}"),
        };
        let dies = ("WORKER_DIES", format!("{step} {hit}"));
        Worker::spawn(orders, folder, parallelism, true, &[dies])
    }

    /// One that knows nothing of what others with its transactions have written, and is allowed to write it again.
    pub fn start_beside(orders: &Orders, folder: &Path) -> Self {
        let reemits = ("WORKER_REEMITS", "yes".to_owned());
        Worker::spawn(orders, folder, 2, true, &[reemits])
    }

    /// One whose output is one epoch that is too large for memory; it may have to die on the way.
    pub fn start_large(orders: &Orders, folder: &Path, dies: Option<&str>) -> Self {
        let mut more = vec![("WORKER_LARGE", "yes".to_owned())];
        more.extend(dies.map(|step| ("WORKER_DIES", format!("kafka_sink::{step} 3"))));
        Worker::spawn(orders, folder, 1, false, &more)
    }

    /// The most memory that it took, in MB, as it said in the end.
    pub fn most_memory(&self) -> u64 {
        let said = self.complaint();
        let line = said.lines().find(|line| line.starts_with("VmHWM"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
        kilobytes.unwrap_or_else(|| panic!("it doesn't say: {said}")) / 1024
    }

    /// One that stops at each of these steps in turn, until it is released.
    pub fn start_holding(orders: &Orders, folder: &Path, parallelism: u32, steps: &[&str]) -> Self {
        let holds = ("WORKER_HOLDS", steps.join(" "));
        Worker::spawn(orders, folder, parallelism, true, &[holds])
    }

    /// One that goes on from an older checkpoint than the newest, and is allowed to or not.
    pub fn start_from(orders: &Orders, folder: &Path, place: &Path, reemit: bool) -> Self {
        let from = ("WORKER_FROM", place.display().to_string());
        let reemit = (
            "WORKER_REEMITS",
            if reemit { "yes" } else { "no" }.to_owned(),
        );
        Worker::spawn(orders, folder, 2, false, &[from, reemit])
    }

    fn spawn(
        orders: &Orders,
        folder: &Path,
        parallelism: u32,
        held: bool,
        more: &[(&str, String)],
    ) -> Self {
        let lives = fs::read_dir(folder).map_or(0, Iterator::count);
        let stderr = folder.join(format!("stderr-{lives}"));
        let log = File::create(&stderr).expect("the log can be written");
        let mut command = Command::new(std::env::current_exe().expect("Linux knows it"));
        command
            .args([
                "--exact",
                "the_worker",
                "--ignored",
                "--nocapture",
                "--quiet",
            ])
            .env("WORKER_INPUT", &orders.input)
            .env("WORKER_OUTPUT", &orders.output)
            .env("WORKER_FOLDER", folder.join("checkpoints"))
            .env("WORKER_PARALLELISM", parallelism.to_string())
            .env("WORKER_HELD", if held { "yes" } else { "no" })
            .env("TIDEGATE_CHECK_GRAMMAR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        // Every other life has too little memory for an epoch, and those that die at a step.
        let little = lives.is_multiple_of(2) || !more.is_empty();
        command.env(
            "WORKER_MEMORY",
            (if little { 32 << 10 } else { 32 << 20 }).to_string(),
        );
        command.env("TIDEGATE_KAFKA", &orders.address);
        command.env("WORKER_SIGNS", folder);
        command.envs(more.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().expect("this program can be started");
        Worker {
            child,
            folder: folder.to_owned(),
            stderr,
        }
    }

    /// Lets it live so long, and kills it then.
    pub fn live(&mut self, until: Duration) -> Life {
        let life = self.live_on(until);
        if matches!(life, Life::Killed) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        life
    }

    /// Lets it live so long.
    pub fn live_on(&mut self, until: Duration) -> Life {
        let began = Instant::now();
        while began.elapsed() < until {
            if let Some(status) = self.child.try_wait().expect("it is this process's child") {
                return Life::Ended(status.code(), self.complaint());
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        Life::Killed
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill is there").success());
    }

    /// Waits until it has come to where it stops.
    pub fn holds(&mut self) {
        let began = Instant::now();
        while !self.folder.join(HELD).exists() {
            if let Life::Ended(code, complaint) = self.live_on(Duration::from_millis(5)) {
                panic!("ended with {code:?}: {complaint}");
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{}",
                self.complaint()
            );
        }
    }

    /// Lets it go on.
    pub fn release(&self) {
        fs::remove_file(self.folder.join(HELD)).expect("it is held");
    }

    /// What it has said so far.
    pub fn complaint(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// The newest complete checkpoint, for the log.
    pub fn checkpoint(&self) -> u64 {
        let entries = fs::read_dir(self.folder.join("checkpoints"))
            .into_iter()
            .flatten();
        let complete = entries
            .filter_map(|e| Some(e.ok()?.path()))
            .filter(|f| f.join("_metadata").is_file());
        let number = |f: PathBuf| f.file_name()?.to_str()?.strip_prefix("chk-")?.parse().ok();
        complete.filter_map(number).max().unwrap_or(0)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn told(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: this is for the tests to start"))
}

/// What the process does: it reads orders, counts them per key, and writes each count.
pub fn work() {
    die_at();
    hold_at();
    if std::env::var("WORKER_LARGE").is_ok() {
        return work_large();
    }
    let parallelism = told("WORKER_PARALLELISM").parse().expect("a number");
    let mut env = StreamEnv::with_parallelism(parallelism);
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(Duration::from_millis(200)));
    let storage = Arc::new(LocalStorage::new(told("WORKER_FOLDER")));
    let mut checkpointing = Checkpointing::new(storage);
    checkpointing.restore = match std::env::var("WORKER_FROM") {
        Err(_) => Restore::Latest,
        Ok(place) => {
            let (storage, folder) = LocalStorage::of_checkpoint(Path::new(&place));
            let storage = Arc::new(storage);
            Restore::From(Target { storage, folder })
        }
    };
    let reemits = std::env::var("WORKER_REEMITS").is_ok_and(|reemits| reemits == "yes");
    if reemits {
        // Whom it takes over from may commit meanwhile.
        checkpointing.restart = RestartStrategy::FixedDelay {
            attempts: 10,
            delay: Duration::from_millis(10),
        };
    }
    env.run_settings_mut().checkpointing = Some(checkpointing);
    env.run_settings_mut().source_rate = (told("WORKER_HELD") == "yes").then_some(RATE);
    let address = told("TIDEGATE_KAFKA");
    let output = told("WORKER_OUTPUT");
    let source = KafkaSource::string()
        .bootstrap_servers(&address)
        .topic(told("WORKER_INPUT"));
    let source = source
        .group_id("counts")
        .bounded(true)
        .build()
        .expect("the source is sound");
    let sink = KafkaSink::<String>::string()
        .bootstrap_servers(&address)
        .topic(&output)
        .key(|text| {
            text.split_once(' ')
                .map_or(String::new(), |(key, _)| key.to_owned())
        })
        .exactly_once(&output)
        .transaction_timeout(TRANSACTION_TIMEOUT)
        .max_epoch_memory(told("WORKER_MEMORY").parse().expect("a number"))
        .allow_reemit(reemits)
        .build()
        .expect("the sink is sound");
    env.source("orders", source)
        .map(|order: String| {
            let key = order.split_once(' ').and_then(|(key, _)| key.parse().ok());
            (key.unwrap_or(u64::MAX), 1u64)
        })
        .key_by(|(key, _)| *key)
        .reduce(|a, b| (a.0, a.1 + b.1))
        .map(|(key, count): (u64, u64)| format!("{key} {count}"))
        .sink("counts", sink)
        .uid("counts");
    if let Err(error) = env.execute(JOB) {
        panic!("{error}");
    }
}

/// Bytes of a record of an epoch that is much too large for memory, and how many there are.
pub const LARGE: (usize, u64) = (1000, 150_000);

/// What it does instead where it is told to: all of its output is one epoch. In the end it tells how much memory it
/// took at most.
fn work_large() {
    let mut env = StreamEnv::with_parallelism(1);
    let seldom = CheckpointSettings::every(Duration::from_secs(600));
    env.settings_mut().checkpoints = Some(seldom);
    let storage = Arc::new(LocalStorage::new(told("WORKER_FOLDER")));
    let mut checkpointing = Checkpointing::new(storage);
    checkpointing.restore = Restore::Latest;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    let output = told("WORKER_OUTPUT");
    let sink = KafkaSink::with_serializer(|n: &u64, into: &mut Vec<u8>| {
        into.extend(n.to_be_bytes());
        into.resize(LARGE.0, b'x');
        Ok(())
    });
    let sink = sink
        .bootstrap_servers(told("TIDEGATE_KAFKA"))
        .topic(&output)
        .exactly_once(&output)
        .transaction_timeout(Duration::from_secs(900))
        .max_epoch_memory(8 << 20)
        .property("queue.buffering.max.kbytes", "16384")
        .build()
        .expect("the sink is sound");
    env.source("numbers", Generator::new(LARGE.1, |n| n))
        .sink("out", sink)
        .uid("out");
    if let Err(error) = env.execute(JOB) {
        panic!("{error}");
    }
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells it");
    let most = status.lines().find(|line| line.starts_with("VmHWM"));
    eprintln!("{}", most.expect("Linux knows it"));
}

/// Stops where it was told to, each time until the file that says so is removed, and some commits after the last
/// time.
fn hold_at() {
    let Ok(holds) = std::env::var("WORKER_HOLDS") else {
        return;
    };
    let sign = Path::new(&told("WORKER_SIGNS")).join(HELD);
    let steps: Vec<String> = holds.split(' ').map(str::to_owned).collect();
    let passed = Arc::new(Mutex::new((0, 0)));
    let scenario = fail::FailScenario::setup();
    for step in steps.iter().collect::<BTreeSet<_>>() {
        let (steps, passed, sign) = (steps.clone(), passed.clone(), sign.clone());
        let mine = step.clone();
        let callback = move || {
            let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
            passed.1 += 1;
            if passed.1 < 3 || steps.get(passed.0) != Some(&mine) {
                return;
            }
            *passed = (passed.0 + 1, 0);
            File::create(&sign).expect("the sign can be written");
            while sign.exists() {
                thread::park_timeout(Duration::from_millis(2));
            }
        };
        fail::cfg_callback(format!("kafka_sink::{step}"), callback).expect("it can be watched");
    }
    std::mem::forget(scenario);
}

/// Kills this process where it was told to.
fn die_at() {
    let Ok(dies) = std::env::var("WORKER_DIES") else {
        return;
    };
    at(&dies, || {
        let _ = Command::new("kill")
            .args(["-KILL", &std::process::id().to_string()])
            .status();
    });
}

/// Does something once, at a step and when it is come to for the so manieth time.
fn at(step_and_hit: &str, act: impl Fn() + Send + Sync + 'static) {
    let (step, hit) = step_and_hit.split_once(' ').expect("a step and a number");
    let left = AtomicU32::new(hit.parse().expect("a number"));
    let scenario = fail::FailScenario::setup();
    let callback = move || {
        if left.fetch_sub(1, SeqCst) == 1 {
            act();
        }
    };
    fail::cfg_callback(step, callback).expect("the step can be watched");
    std::mem::forget(scenario);
}
