//! Checkpoints, commits and recovery under crashes: the coordinator and its subtasks without a runtime.
//!
//! A job of three tasks (readers of splits, counts by key, two-phase sinks) runs in a world that a seed
//! decides: messages between actors are late, come twice and overtake each other; publications fail or
//! their outcome is unknown; subtasks and the whole process die at any step, and with them all that was
//! not synced; the job comes back with other parallelism, is stopped, drained, and taken savepoints of.
//! The invariants I1 to I8 are checked as it happens and on what the outside shows in the end:
//!
//! - I1, I2: every record is visible once. I3: counts are those of a single-threaded run.
//! - I4: records of a key stay in order. I5: watermarks don't go back and no record is late for one.
//! - I6: recorded ids rise, and the newest recovery point, whole, is what is restored.
//! - I7: nothing is committed before a recorded checkpoint covers it. I8: in the end all of it is.

mod attempt;
mod faults;
mod life;
mod member;
mod publisher;
mod roles;
mod storage;
mod verdict;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Key groups of the simulated job.
pub const MAX_PARALLELISM: u32 = 16;

/// What happened in all runs.
#[derive(Clone, Debug, Default)]
pub struct Tally(pub BTreeMap<&'static str, u64>);

impl Tally {
    pub fn count(&mut self, what: &'static str, times: u64) {
        *self.0.entry(what).or_default() += times;
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty());
    text.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is '{text}' and should be a number"))
    })
}

/// The seeds that are asked for.
pub fn seeds_of() -> std::ops::Range<u64> {
    let first = setting("TIDEGATE_SIM_SEED", 0);
    first..first.saturating_add(setting("TIDEGATE_SIM_SEEDS", 200))
}

/// Says that all went well, and what happened.
pub fn verdict_line(what: &str, seeds: std::ops::Range<u64>, tally: &Tally) {
    let counts = tally.0.iter();
    let counts: Vec<_> = counts
        .map(|(what, times)| format!("{times} {what}"))
        .collect();
    let (number, first) = (seeds.end - seeds.start, seeds.start);
    println!(
        "\nsim: {number} seeds of {what} from {first}: all invariants hold ({})",
        counts.join(", ")
    );
}

#[test]
fn no_crash_loses_or_doubles_anything() {
    let mut tally = Tally::default();
    let seeds = seeds_of();
    for seed in seeds.clone() {
        let run = AssertUnwindSafe(|| world::World::new(seed).run(&mut tally));
        if catch_unwind(run).is_err() {
            panic!("sim: seed {seed} breaks an invariant; make sim SEEDS=1 SEED={seed} replays it");
        }
    }
    verdict_line("the protocol", seeds, &tally);
}
