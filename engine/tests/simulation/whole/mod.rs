//! Whole jobs under checkpoints and crashes: real chains, a real coordinator, images in real files.
//!
//! A seed makes a job of random steps (folds, windows, sessions, joins, timers, branches, copies), its
//! input, its channels and what goes wrong: messages between subtasks and the coordinator are late, images
//! and metadata take their time, are declined, or nobody knows what became of them; checkpoints expire;
//! subtasks and the whole process die; the job is stopped with a savepoint, drained, and always goes on
//! with another parallelism. Messages to subtasks get lost or come twice, files that no metadata names are
//! torn, state is saved in many turns, and some jobs count at least once. What the two-phase sinks show in
//! the end must be what a run shows in which nothing of this happens. The invariants are those of `recovery`, here of the engine itself:
//!
//! - I1, I2, I3: the output is that of a run without crashes, record by record.
//! - I4: records of a key stay in order. I5: nothing is late where nothing was idle.
//! - I6: the newest checkpoint is restored. I7: nothing is committed before one covers it.
//! - I8: in the end all of it is. I12: every job comes to its end.
//!
//! As in jobs without checkpoints, credits and the grammar of every channel are checked on the way.

mod build;
mod items;
mod outside;
mod plan;
mod steps;
mod storing;
mod verdict;
mod world;

use crate::recovery::{Tally, seeds_of, verdict_line};

#[test]
fn no_crash_changes_what_a_whole_job_shows() {
    let mut tally = Tally::default();
    let seeds = seeds_of();
    for seed in seeds.clone() {
        let run = || world::World::new(seed).run(&mut tally);
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
            eprintln!("{:?}", plan::Plan::new(seed));
            panic!("sim: seed {seed} breaks an invariant; make sim SEEDS=1 SEED={seed} replays it");
        }
    }
    verdict_line("whole jobs", seeds, &tally);
}
