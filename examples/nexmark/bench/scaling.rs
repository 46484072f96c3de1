//! More subtasks on two cores: what a second core brings, and what many subtasks cost.

use super::pairs::{Case, Comparison, KEYED, Runner, STATELESS};
use super::table::{Score, Table, Target, millions, ratio};
use crate::options::{Mode, Query};
use anyhow::Result;

/// Prints the three tables.
pub fn run(seconds: f64, score: &mut Score) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        println!("\nThis machine has one core: parallelism 2 can't be faster here.");
    }
    second_core(seconds, score);
    bare_pair(seconds, score);
    many_subtasks(seconds, score);
}

fn second_core(seconds: f64, score: &mut Score) {
    let table = begin(
        "Parallelism 2 over parallelism 1, events per second by the clock. A lean keyed query is compared with two bare \
         threads\ninstead (below): there the exchange is the work. two loops: how much faster two independent bare loops \
         are than one here\nand now, which is the most that the second core has to give.",
        [
            "query     ",
            "p 2 M/s",
            "p 1 M/s",
            "ratio",
            "cpu x",
            "two loops",
            "target",
            "mark",
        ],
    );
    for mode in [Mode::Lean, Mode::Full] {
        for query in STATELESS.into_iter().chain(KEYED) {
            let target = match mode {
                _ if STATELESS.contains(&query) => Some(Target::AtLeast(1.8)),
                Mode::Full => Some(Target::AtLeast(1.6)),
                Mode::Lean => None,
            };
            let sides = (Runner::Engine(2), Runner::Engine(1));
            let case = Case { query, mode };
            match measure(case, sides, seconds) {
                Ok((compared, events)) => {
                    let loops = case
                        .second_core(events)
                        .map_or_else(|_| "-".to_owned(), ratio);
                    let [name, ours, theirs, gain, cpu, target, mark] =
                        cells(case, compared, target, score);
                    table.row([name, ours, theirs, gain, cpu, loops, target, mark]);
                }
                Err(error) => table.failed(&case.name(), &error, score),
            }
        }
    }
}

fn bare_pair(seconds: f64, score: &mut Score) {
    let table = begin(
        "Parallelism 2 over two bare threads that ship keys to each other, events per second by the clock. They ship rare \
         records\nfaster than the two threads of the peers, with which .ci/bench-peers compares.",
        [
            "query     ",
            "p 2 M/s",
            "bare M/s",
            "ratio",
            "cpu x",
            "target",
            "mark",
        ],
    );
    for query in KEYED {
        let (mode, target) = (Mode::Lean, Some(Target::AtLeast(0.8)));
        let sides = (Runner::Engine(2), Runner::TwoLoops);
        row(
            &table,
            Case { query, mode },
            sides,
            (seconds, target),
            score,
        );
    }
}

fn many_subtasks(seconds: f64, score: &mut Score) {
    let table = begin(
        "Parallelism 64 over parallelism 2, events per second by the clock.",
        [
            "query     ",
            "p 64 M/s",
            "p 2 M/s",
            "ratio",
            "cpu x",
            "target",
            "mark",
        ],
    );
    for mode in [Mode::Lean, Mode::Full] {
        for query in [Query::Q0, Query::Count] {
            let sides = (Runner::Engine(64), Runner::Engine(2));
            let target = Some(Target::AtLeast(0.7));
            row(
                &table,
                Case { query, mode },
                sides,
                (seconds, target),
                score,
            );
        }
    }
}

fn begin<const N: usize>(about: &str, headings: [&str; N]) -> Table<N> {
    let about = format!("{about}\ncpu x is CPU time per event over the other side's.");
    Table::begin(&about, headings)
}

fn row(
    table: &Table<7>,
    case: Case,
    sides: (Runner, Runner),
    (seconds, target): (f64, Option<Target>),
    score: &mut Score,
) {
    match measure(case, sides, seconds) {
        Ok((compared, _)) => table.row(cells(case, compared, target, score)),
        Err(error) => table.failed(&case.name(), &error, score),
    }
}

/// Both sides over so many events that a bare loop is busy with them for some seconds.
fn measure(
    case: Case,
    (ours, theirs): (Runner, Runner),
    seconds: f64,
) -> Result<(Comparison, u64)> {
    let events = case.events_for(Runner::Loop, seconds)?;
    Ok((case.compare(ours, theirs, events)?, events))
}

fn cells(
    case: Case,
    compared: Comparison,
    target: Option<Target>,
    score: &mut Score,
) -> [String; 7] {
    let gain = 1.0 / compared.wall;
    [
        case.name(),
        millions(compared.our_rate),
        millions(compared.their_rate),
        ratio(gain),
        ratio(compared.cpu),
        target.map(|target| target.to_string()).unwrap_or_default(),
        target
            .map(|target| score.judge(gain, target))
            .unwrap_or_default(),
    ]
}
