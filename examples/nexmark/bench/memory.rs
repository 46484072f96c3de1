//! What does the engine hold while nothing moves, and what does a key cost?
//!
//! Each is measured in a process of its own, so that no earlier run has left memory behind for it to use.

use super::table::{Score, Table, Target};
use crate::generator::Generator;
use crate::report::{peak_rss_bytes, rss_bytes};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::prelude::*;

/// Keys of the running count.
pub const KEYS: u64 = 10_000_000;
/// KiB by which a process whose sink is blocked may grow: nothing but what the allocator and the kernel round up to.
const FLAT: f64 = 1024.0;
const MIB: f64 = 1048576.0;
/// Between two looks at what another thread does.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a sink that was opened may take to be written to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints the table.
pub fn run(seconds: f64, score: &mut Score) {
    let table = Table::begin(
        "Memory, each in a process of its own.",
        [
            "what                     ",
            "before MiB",
            "after MiB",
            "peak MiB",
            "figure       ",
            "target",
            "mark",
        ],
    );
    let target = Target::AtMost(FLAT);
    match child::<Blocked>("blocked", seconds) {
        Ok(blocked) => {
            let grown = blocked.highest.saturating_sub(blocked.settled) as f64 / 1024.0;
            table.row([
                format!("sink refuses for {seconds} s"),
                mebibytes(blocked.settled),
                mebibytes(blocked.highest),
                mebibytes(blocked.peak),
                format!("{grown:.0} KiB grown"),
                target.to_string(),
                score.judge(grown, target),
            ]);
        }
        Err(error) => table.failed("blocked sink", &error, score),
    }
    let target = Target::AtMost(64.0);
    match child::<Keys>("keys", seconds) {
        Ok(keys) => {
            let each = keys.after.saturating_sub(keys.before) as f64 / keys.keys as f64;
            table.row([
                format!("count of {} M keys", keys.keys / 1_000_000),
                mebibytes(keys.before),
                mebibytes(keys.after),
                mebibytes(keys.peak),
                format!("{each:.1} B a key"),
                target.to_string(),
                score.judge(each, target),
            ]);
        }
        Err(error) => table.failed("many keys", &error, score),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / MIB)
}

/// Runs this program again for one part, and reads its line.
fn child<T: for<'a> Deserialize<'a>>(part: &str, seconds: f64) -> Result<T> {
    let program = std::env::current_exe().context("this program's own path")?;
    let output = Command::new(program)
        .args([
            "--bench-part",
            part,
            "--bench-seconds",
            &seconds.to_string(),
        ])
        .output()
        .context("start a process of its own")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    serde_json::from_slice(&output.stdout).context("read its figures")
}

/// Resident memory while a sink refuses, in bytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Blocked {
    /// When every channel had filled.
    settled: u64,
    /// The most from then on.
    highest: u64,
    /// The most of the whole process, also before and after.
    peak: u64,
}

/// Blocks the sink of an endless stream of full events behind an exchange for `time`, then lets it go.
pub fn blocked(time: Duration) -> Result<Blocked> {
    let env = StreamEnv::new(EnvArgs {
        parallelism: Some(2),
        cores: Some(2),
        ..EnvArgs::default()
    });
    let (gate, generator) = (GatedSink::default(), Generator::new(0));
    let events = tidegate::connectors::Generator::unbounded(move |n| generator.full(n));
    env.source("events", events)
        .rebalance()
        .sink("gate", gate.clone());
    let job = env.start("blocked")?;
    let began = Instant::now();
    let mut blocked = Blocked {
        settled: 0,
        highest: 0,
        peak: 0,
    };
    while began.elapsed() < time && !job.ended() {
        thread::park_timeout(PAUSE);
        let now = rss_bytes();
        // A tenth of the time is for the channels to fill.
        if began.elapsed() < time / 10 {
            (blocked.settled, blocked.highest) = (now, now);
        }
        blocked.highest = blocked.highest.max(now);
    }
    blocked.peak = peak_rss_bytes();
    // Nothing came through a sink that refused; what waited comes through when it no longer does.
    let slipped = gate.written.load(Relaxed);
    gate.open.store(true, Relaxed);
    let opened = Instant::now();
    while gate.written.load(Relaxed) == slipped && opened.elapsed() < PATIENCE && !job.ended() {
        thread::park_timeout(PAUSE);
    }
    let flowed = gate.written.load(Relaxed) > slipped;
    job.cancel();
    let ended = job.wait();
    ensure!(
        slipped == 0 && flowed,
        "{slipped} records came through the blocked sink, flow afterwards: {flowed}; {ended:?}"
    );
    Ok(blocked)
}

/// Refuses until it is opened; clones share the gate.
#[derive(Clone, Default)]
struct GatedSink {
    open: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
}

impl<T> Sink<T> for GatedSink {
    type Writer = GatedSink;

    fn open(&self, _context: &mut OpenContext<'_>) -> Flow<GatedSink> {
        Ok(self.clone())
    }
}

impl<T> SinkWriter<T> for GatedSink {
    fn write(&mut self, _at: Timestamp, _value: T) -> Flow {
        self.written.fetch_add(1, Relaxed);
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.open.load(Relaxed)
    }

    fn turn(&mut self, now: Timestamp) -> Flow<Timestamp> {
        Ok(if self.open.load(Relaxed) {
            Timestamp::MAX
        } else {
            now.plus(PAUSE)
        })
    }
}

/// Resident memory around a running count, in bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Keys {
    keys: u64,
    /// At the first key.
    before: u64,
    /// At the last key, while all are held.
    after: u64,
    /// The most of the whole process.
    peak: u64,
}

/// Counts `keys` different keys, each once.
pub fn keys(keys: u64) -> Result<Keys> {
    let env = StreamEnv::with_parallelism(1);
    let sample = Arc::new(Mutex::new(Keys::default()));
    // An odd factor makes of different numbers different keys, spread over all of u64.
    let spread = |n: u64| n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let numbers = tidegate::connectors::Generator::new(keys, spread);
    env.source("keys", numbers)
        .key_by(|key| *key)
        .fold(0u64, |count, _, _| {
            *count += 1;
            *count
        })
        .sink("sample", SampleSink(sample.clone()));
    env.execute("keys")?;
    let mut sample = sample.lock().unwrap_or_else(PoisonError::into_inner);
    sample.peak = peak_rss_bytes();
    ensure!(
        sample.keys == keys,
        "{} of {keys} keys were counted",
        sample.keys
    );
    Ok(std::mem::take(&mut *sample))
}

/// Samples resident memory at the first record and when its input has ended, while the state before it is still held.
struct SampleSink(Arc<Mutex<Keys>>);

impl Sink<u64> for SampleSink {
    type Writer = SampleWriter;

    fn open(&self, _context: &mut OpenContext<'_>) -> Flow<SampleWriter> {
        let (sample, keys) = (self.0.clone(), 0);
        Ok(SampleWriter { sample, keys })
    }
}

struct SampleWriter {
    sample: Arc<Mutex<Keys>>,
    keys: u64,
}

impl SampleWriter {
    fn sample(&self) -> MutexGuard<'_, Keys> {
        self.sample.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SinkWriter<u64> for SampleWriter {
    fn write(&mut self, _at: Timestamp, count: u64) -> Flow {
        if self.keys == 0 {
            self.sample().before = rss_bytes();
        }
        // A key that came twice would not count for two.
        self.keys += u64::from(count == 1);
        Ok(())
    }

    fn close(&mut self) -> Flow {
        let mut sample = self.sample();
        (sample.keys, sample.after) = (self.keys, rss_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_that_refuses_lets_nothing_through_and_then_all() {
        let blocked = blocked(Duration::from_millis(500)).expect("it runs");
        assert!(
            blocked.settled > 0 && blocked.highest >= blocked.settled,
            "{blocked:?}"
        );
    }

    #[test]
    fn every_key_is_counted_while_it_is_held() {
        let keys = keys(100_000).expect("it runs");
        assert!(
            keys.keys == 100_000 && keys.before > 0 && keys.after > 0,
            "{keys:?}"
        );
    }
}
