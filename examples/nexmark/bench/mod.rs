//! Where does the engine stand? Ratios to bare loops in the same process, latency and memory, each with its target.
//!
//! ```text
//! cargo run --release --example nexmark -- --bench [--bench-only pairs|scaling|latency|memory|checkpoints] [--bench-seconds 5]
//! ```
//!
//! A ratio survives a slower machine and, as a median of alternating runs, most noise; a latency does not: give it a
//! quiet machine. The last line counts the targets that are met. Missing one is no error: speed is not a test.

mod checkpoints;
mod latency;
mod memory;
mod pairs;
mod quantiles;
mod scaling;
mod table;

use crate::options::{Arguments, BenchPart, ChildPart};
use anyhow::Result;
use std::time::Duration;
use table::Score;

/// What a run of a pair takes, as a share of what a latency run takes.
const PAIR_SHARE: f64 = 0.08;

/// Measures and prints.
pub fn run(arguments: &Arguments) {
    let seconds = arguments.bench_seconds;
    let wanted = |part| arguments.bench_only.is_empty() || arguments.bench_only.contains(&part);
    let mut score = Score::default();
    println!(
        "NEXMark on Tidegate {}, {} cores; medians of alternating runs",
        env!("CARGO_PKG_VERSION"),
        std::thread::available_parallelism().map_or(1, usize::from)
    );
    warn_of_others();
    if wanted(BenchPart::Pairs) {
        pairs::run(seconds * PAIR_SHARE, &mut score);
    }
    if wanted(BenchPart::Scaling) {
        scaling::run(seconds * PAIR_SHARE, &mut score);
    }
    if wanted(BenchPart::Latency) {
        latency::run(Duration::from_secs_f64(seconds), &mut score);
    }
    if wanted(BenchPart::Checkpoints) {
        checkpoints::run(&mut score);
    }
    if wanted(BenchPart::Memory) {
        memory::run(seconds, &mut score);
    }
    println!("\n{score}");
}

/// Says so where others keep the machine busy: what is measured by the clock then tells more of them than of the engine.
fn warn_of_others() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load
        .split_whitespace()
        .next()
        .and_then(|load| load.parse::<f64>().ok());
    if let Some(load) = load.filter(|load| *load > 0.5) {
        println!(
            "Others use this machine (load {load} before the first run): don't trust latencies, nor ratios by the clock \
             above parallelism 1."
        );
    }
}

/// Measures what needs a process of its own, and prints its figures for the process that asked.
pub fn run_child(part: ChildPart, arguments: &Arguments) -> Result<()> {
    let line = match part {
        ChildPart::Blocked => serde_json::to_string(&memory::blocked(Duration::from_secs_f64(
            arguments.bench_seconds,
        ))?)?,
        ChildPart::Keys => serde_json::to_string(&memory::keys(memory::KEYS)?)?,
    };
    println!("{line}");
    Ok(())
}
