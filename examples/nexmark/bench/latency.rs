//! How long does a record take from source to sink, through one exchange between two cores?
//!
//! A source on the first core emits at a fixed rate; every record goes to the sink's subtask on the second. Its latency
//! counts from the moment at which it was *scheduled* to be emitted: a stall anywhere, also in the source, shows in all
//! records that it delays. All latencies are kept, so quantiles are exact. Two bare threads with a channel between them
//! show what the machine itself does to a record while others use it.

use super::quantiles::Quantiles;
use super::table::{Score, Table, Target, median};
use anyhow::{Context, Result, ensure};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::prelude::*;

/// Records per second.
const RATE: u64 = 100_000;
/// Runs per flush interval; their medians are the figures.
const RUNS: usize = 3;

/// Prints the table.
pub fn run(time: Duration, score: &mut Score) {
    let about = format!(
        "Latency at {RATE} records per second, source to sink between two cores, in ms from the scheduled emission; \
         medians of {RUNS} runs\nof {:.1} s.",
        time.as_secs_f64()
    );
    let headings = [
        "flush interval   ",
        "p50",
        "p99",
        "p99.9",
        "max",
        "target               ",
        "mark       ",
    ];
    let table = Table::begin(&about, headings);
    if let Some(floor) = bare(time) {
        table.row([
            "two threads".to_owned(),
            milliseconds(floor.p50),
            milliseconds(floor.p99),
            milliseconds(floor.p999),
            milliseconds(floor.max),
            String::new(),
            String::new(),
        ]);
    }
    let sends_at_once = [Some(Target::Below(0.1)), Some(Target::Below(0.5))];
    for (name, setup, targets) in [
        ("0 ms", Setup::at(Some(0)), sends_at_once),
        (
            "0 ms, checkpoints",
            Setup::at(Some(0)).checkpointed(),
            [None, Some(Target::Below(1.5))],
        ),
        (
            "default",
            Setup::at(None),
            [None, Some(Target::Below(12.0))],
        ),
    ] {
        let name = name.to_owned();
        let runs: Result<Vec<Quantiles>> = (0..RUNS).map(|_| measure(setup, time)).collect();
        let runs = match runs {
            Ok(runs) => runs,
            Err(error) => {
                table.failed(&name, &error, score);
                continue;
            }
        };
        let of = |figure: fn(&Quantiles) -> f64| median(runs.iter().map(figure));
        let figures = [of(|q| q.p50), of(|q| q.p99)];
        let (mut asked, mut marks) = (Vec::new(), Vec::new());
        for ((name, figure), target) in ["p50", "p99"].iter().zip(figures).zip(targets) {
            if let Some(target) = target {
                asked.push(format!("{name} {target}"));
                marks.push(score.judge(figure, target));
            }
        }
        let [p50, p99] = figures.map(milliseconds);
        table.row([
            name,
            p50,
            p99,
            milliseconds(of(|q| q.p999)),
            milliseconds(of(|q| q.max)),
            asked.join(", "),
            marks.join(", "),
        ]);
    }
}

fn milliseconds(ms: f64) -> String {
    format!("{ms:.3}")
}

/// How a run differs from others.
#[derive(Clone, Copy)]
struct Setup {
    /// `None` for the default.
    flush_interval: Option<u64>,
    /// With a checkpoint each second.
    checkpoints: bool,
}

impl Setup {
    fn at(flush_interval: Option<u64>) -> Self {
        Setup {
            flush_interval,
            checkpoints: false,
        }
    }

    fn checkpointed(self) -> Self {
        Setup {
            checkpoints: true,
            ..self
        }
    }
}

fn measure(setup: Setup, time: Duration) -> Result<Quantiles> {
    let count = records_in(time);
    let folder = tempfile::tempdir()?;
    let checkpoints = CheckpointArgs {
        checkpoint_dir: setup.checkpoints.then(|| folder.path().to_owned()),
        checkpoint_interval: setup.checkpoints.then_some(1000),
        ..CheckpointArgs::default()
    };
    let flush_interval = setup.flush_interval;
    let env = StreamEnv::new(EnvArgs {
        parallelism: Some(2),
        flush_interval,
        cores: Some(2),
        checkpoints,
        ..EnvArgs::default()
    });
    let latencies = Arc::new(Mutex::new(Vec::new()));
    env.source("ticks", Ticks { count })
        .parallelism(1)
        .partition_custom(|_, subtasks| subtasks - 1)
        .sink(
            "latencies",
            Latencies {
                count,
                all: latencies.clone(),
            },
        );
    env.execute("latency")?;
    let mut latencies = latencies.lock().unwrap_or_else(PoisonError::into_inner);
    let latencies = std::mem::take(&mut *latencies);
    ensure!(
        latencies.len() as u64 == count,
        "{} of {count} records came to the second subtask",
        latencies.len()
    );
    Quantiles::of(latencies).context("there were no records")
}

/// The same without an engine: a thread that emits, a channel, a thread that waits for records.
fn bare(time: Duration) -> Option<Quantiles> {
    let count = records_in(time);
    let (sender, receiver) = crossbeam_channel::unbounded::<Tick>();
    let latencies = thread::scope(|scope| {
        let consumer = scope.spawn(|| {
            let mut latencies = Vec::with_capacity(count as usize);
            latencies.extend(receiver.into_iter().map(Tick::latency));
            latencies
        });
        let began = Instant::now();
        for n in 0..count {
            let scheduled = began + due(n);
            while Instant::now() < scheduled {
                std::hint::spin_loop();
            }
            if sender.send(Tick(scheduled)).is_err() {
                break;
            }
        }
        drop(sender);
        consumer.join().unwrap_or_default()
    });
    Quantiles::of(latencies)
}

fn records_in(time: Duration) -> u64 {
    (time.as_secs_f64() * RATE as f64) as u64
}

/// When a record should have been emitted.
#[derive(Clone, Copy, Debug)]
struct Tick(Instant);

impl Tick {
    /// Nanoseconds since then.
    #[inline(always)]
    fn latency(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

/// Emits record n no earlier than n / `RATE` after the first.
struct Ticks {
    count: u64,
}

impl Source for Ticks {
    type Item = Tick;
    type Reader = TickReader;

    fn open(&self, _context: &mut OpenContext<'_>) -> Flow<TickReader> {
        Ok(TickReader {
            count: self.count,
            next: 0,
            began: None,
        })
    }
}

struct TickReader {
    count: u64,
    next: u64,
    began: Option<Instant>,
}

/// When a record is due, after the first.
fn due(n: u64) -> Duration {
    Duration::from_nanos(n * (1_000_000_000 / RATE))
}

impl SourceReader for TickReader {
    type Item = Tick;

    fn poll<C: Collector<Tick>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        let now = Instant::now();
        let began = *self.began.get_or_insert(now);
        let elapsed = now - began;
        let mut made = 0;
        while made < budget && self.next < self.count && due(self.next) <= elapsed {
            out.collect(Timestamp::MIN, Tick(began + due(self.next)))?;
            self.next += 1;
            made += 1;
        }
        Ok(if self.next == self.count {
            Poll::End
        } else if made > 0 {
            Poll::Read(made)
        } else {
            Poll::Wait(due(self.next) - elapsed)
        })
    }

    fn position(&self) -> String {
        format!("tick {}", self.next)
    }
}

/// Keeps the latency of every record that comes in.
struct Latencies {
    count: u64,
    all: Arc<Mutex<Vec<u64>>>,
}

impl Sink<Tick> for Latencies {
    type Writer = LatencyWriter;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<LatencyWriter> {
        let crossed = context.subtask() == 1;
        let room = if crossed { self.count as usize } else { 0 };
        Ok(LatencyWriter {
            crossed,
            latencies: Vec::with_capacity(room),
            all: self.all.clone(),
        })
    }
}

struct LatencyWriter {
    /// Whether this subtask is on the other core than the source.
    crossed: bool,
    latencies: Vec<u64>,
    all: Arc<Mutex<Vec<u64>>>,
}

impl SinkWriter<Tick> for LatencyWriter {
    #[inline(always)]
    fn write(&mut self, _at: Timestamp, tick: Tick) -> Flow {
        if !self.crossed {
            return Err(Fault::user("a record stayed on the core of its source"));
        }
        self.latencies.push(tick.latency());
        Ok(())
    }

    fn close(&mut self) -> Flow {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.append(&mut self.latencies);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_crosses_and_waits_no_longer_than_it_has_to() {
        for interval in [Some(0), None] {
            let quantiles =
                measure(Setup::at(interval), Duration::from_millis(100)).expect("it runs");
            assert!(
                quantiles.p50 > 0.0 && quantiles.p50 <= quantiles.max,
                "{quantiles:?}"
            );
        }
    }
}
