//! The process that is killed: this test program again, told by its environment what to do.

use crate::kafka::Orders;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::{Checkpointing, Restore};
use tidegate::connectors::kafka::{KafkaSink, KafkaSource};
use tidegate::engine::checkpoint::CheckpointSettings;
use tidegate::prelude::*;

const JOB: &str = "counts";

/// Records per second and subtask, so that it lives long enough to be killed.
const RATE: f64 = 3000.0;

/// Short, so that a test can outwait it.
pub const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);

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
        Worker::spawn(orders, folder, parallelism, held, None)
    }

    /// One that kills itself when it comes to a step for the `hit`th time.
    pub fn start_dying(
        orders: &Orders,
        folder: &Path,
        parallelism: u32,
        step: &str,
        hit: u32,
    ) -> Self {
        let dies = format!("kafka_sink::{step} {hit}");
        Worker::spawn(orders, folder, parallelism, true, Some(dies))
    }

    fn spawn(
        orders: &Orders,
        folder: &Path,
        parallelism: u32,
        held: bool,
        dies: Option<String>,
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
        if let Some(dies) = dies {
            command.env("WORKER_DIES", dies);
        }
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
    let parallelism = told("WORKER_PARALLELISM").parse().expect("a number");
    let mut env = StreamEnv::with_parallelism(parallelism);
    env.settings_mut().checkpoints = Some(CheckpointSettings::every(Duration::from_millis(200)));
    let storage = Arc::new(LocalStorage::new(told("WORKER_FOLDER")));
    let mut checkpointing = Checkpointing::new(storage);
    checkpointing.restore = Restore::Latest;
    env.run_settings_mut().checkpointing = Some(checkpointing);
    env.run_settings_mut().source_rate = (told("WORKER_HELD") == "yes").then_some(RATE);
    let address = std::env::var("TIDEGATE_KAFKA").unwrap_or_else(|_| "localhost:9092".to_owned());
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

/// Kills this process where it was told to.
fn die_at() {
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
    let Ok(dies) = std::env::var("WORKER_DIES") else {
        return;
    };
    let (step, hit) = dies.split_once(' ').expect("a step and a number");
    let left = AtomicU32::new(hit.parse().expect("a number"));
    let scenario = fail::FailScenario::setup();
    fail::cfg_callback(step, move || {
        if left.fetch_sub(1, SeqCst) == 1 {
            let _ = Command::new("kill")
                .args(["-KILL", &std::process::id().to_string()])
                .status();
        }
    })
    .expect("the step can be watched");
    std::mem::forget(scenario);
}
