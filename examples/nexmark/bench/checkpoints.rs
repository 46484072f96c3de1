//! What a checkpoint each second costs.

use super::pairs::{Case, Comparison, Runner};
use super::table::{Score, Table, Target, millions, ratio};
use crate::options::{Mode, Query};
use anyhow::Result;

/// Seconds of a run: some checkpoints must fall into it, and the last one is taken at its end, not together with one
/// of a full second.
const SECONDS: f64 = 4.5;

/// Pairs of runs: more than for other tables, since a few hundredths decide, and single pairs differ by as many.
const PAIRS: usize = 9;

/// The least share of the throughput that has to be left.
const LEFT: f64 = 0.92;

/// Prints the table.
pub fn run(score: &mut Score) {
    let table = Table::begin(
        "A checkpoint each second over none, events per second by the clock; state in memory, files on the local disk.\n\
         cpu x is CPU time per event over the other side's.",
        [
            "query          ",
            "with M/s",
            "without",
            "ratio",
            "cpu x",
            "target",
            "mark",
        ],
    );
    for (query, parallelism) in [
        (Query::Count, 1),
        (Query::Q5, 1),
        (Query::Count, 2),
        (Query::Q5, 2),
    ] {
        let mode = Mode::Lean;
        row(&table, Case { query, mode }, parallelism, score);
    }
}

fn row(table: &Table<7>, case: Case, parallelism: usize, score: &mut Score) {
    let name = format!("{} at {parallelism}", case.name());
    let (ours, theirs) = (
        Runner::Checkpointed(parallelism),
        Runner::Engine(parallelism),
    );
    let measured: Result<Comparison> = case
        .events_for(Runner::Engine(1), SECONDS)
        .and_then(|events| case.compare_in(PAIRS, ours, theirs, events));
    match measured {
        Ok(compared) => {
            let (left, target) = (1.0 / compared.wall, Target::AtLeast(LEFT));
            table.row([
                name,
                millions(compared.our_rate),
                millions(compared.their_rate),
                ratio(left),
                ratio(compared.cpu),
                target.to_string(),
                score.judge(left, target),
            ]);
        }
        Err(error) => table.failed(&name, &error, score),
    }
}
