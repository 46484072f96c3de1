//! Runs in pairs: the machine that was slow for one run was, with luck, as slow for the run beside it.
//!
//! A pair is a run of either side, in turn first, over the same events in the same process; the figure of a pair is the
//! ratio of their times, that of a case the median of its pairs. Both sides must give the same answer.

use super::table::{Score, Table, Target, median, millions, ratio};
use crate::baseline::{self, two_threads};
use crate::digest::{Outcome, RowSink};
use crate::events::{Event, FullEvent, LeanEvent};
use crate::generator::Generator;
use crate::options::{Mode, Options, Query};
use crate::queries;
use crate::report::Stopwatch;
use anyhow::{Context, Result, ensure};
use tidegate::CheckpointArgs;

/// Pairs per case; odd, so that one of them is the median.
const PAIRS: usize = 5;

/// Who runs a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// Tidegate, at this parallelism.
    Engine(usize),
    /// Tidegate, at this parallelism, with a checkpoint each second.
    Checkpointed(usize),
    /// A bare loop.
    Loop,
    /// Two bare loops that ship keys to each other.
    TwoLoops,
}

/// A query on events of one size.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The query.
    pub query: Query,
    /// The size.
    pub mode: Mode,
}

impl Case {
    /// How the case is called in a table.
    pub fn name(self) -> String {
        format!("{} {}", self.mode.name(), self.query.name())
    }

    /// One run over the first events of seed 0.
    fn run(self, runner: Runner, events: u64) -> Result<Run> {
        match self.mode {
            Mode::Full => self.run_on::<FullEvent>(runner, events),
            Mode::Lean => self.run_on::<LeanEvent>(runner, events),
        }
    }

    fn run_on<E: Event>(self, runner: Runner, events: u64) -> Result<Run> {
        let parallelism = match runner {
            Runner::Engine(parallelism) | Runner::Checkpointed(parallelism) => parallelism,
            Runner::Loop | Runner::TwoLoops => 1,
        };
        let options = Options {
            events,
            parallelism,
            generator: Generator::new(0),
        };
        // Made before, and deleted after, what is measured.
        let folder = match runner {
            Runner::Checkpointed(_) => Some(tempfile::tempdir()?),
            _ => None,
        };
        timed(|| match runner {
            Runner::Engine(_) => queries::run::<E>(
                self.query,
                &options,
                RowSink::default(),
                queries::Run::default(),
            ),
            Runner::Checkpointed(_) => {
                let run = queries::Run {
                    checkpoints: CheckpointArgs {
                        checkpoint_dir: folder.as_ref().map(|folder| folder.path().to_owned()),
                        checkpoint_interval: Some(1000),
                        ..CheckpointArgs::default()
                    },
                    ..queries::Run::default()
                };
                queries::run::<E>(self.query, &options, RowSink::default(), run)
            }
            Runner::Loop => {
                let mut sink = RowSink::default();
                baseline::run::<E>(self.query, &options, &mut sink);
                Ok(sink.outcome())
            }
            Runner::TwoLoops => two_threads::run(self.query, &options)
                .context("this query has no bare loop for two threads"),
        })
    }

    /// So many events that `runner` is busy with them for about `seconds`, in CPU time: others on the machine don't
    /// count into it.
    pub fn events_for(self, runner: Runner, seconds: f64) -> Result<u64> {
        enough(seconds, |events| self.run(runner, events))
    }

    /// How many times as fast two bare loops at once are, each with its own events, as one alone: what the machine's
    /// second core is worth for this work at present, and the most that an engine could make of it.
    pub fn second_core(self, events: u64) -> Result<f64> {
        let mut gains = Vec::new();
        for _ in 0..PAIRS {
            let alone = self.run(Runner::Loop, events)?.wall;
            let watch = Stopwatch::start();
            std::thread::scope(|scope| {
                let both = [(); 2].map(|()| scope.spawn(|| self.run(Runner::Loop, events)));
                both.into_iter().try_for_each(|one| {
                    let ran = one.join().expect("a bare loop does not panic");
                    ran.map(drop)
                })
            })?;
            gains.push(2.0 * alone / watch.stop().0);
        }
        Ok(median(gains))
    }

    /// Alternating runs of two sides.
    pub fn compare(self, ours: Runner, theirs: Runner, events: u64) -> Result<Comparison> {
        self.compare_in(PAIRS, ours, theirs, events)
    }

    /// The same in another number of pairs: more where a few hundredths decide.
    pub fn compare_in(
        self,
        pairs: usize,
        ours: Runner,
        theirs: Runner,
        events: u64,
    ) -> Result<Comparison> {
        alternate(pairs, ours, theirs, events, |runner| {
            self.run(runner, events)
        })
    }
}

/// See [`Case::events_for`].
fn enough(seconds: f64, run: impl Fn(u64) -> Result<Run>) -> Result<u64> {
    let mut events = 500_000;
    loop {
        let run = run(events)?;
        if run.cpu > seconds / 4.0 || events > 1 << 30 {
            let wanted = events as f64 * seconds / run.cpu.max(1e-3);
            return Ok(wanted as u64 / 100_000 * 100_000 + 100_000);
        }
        events *= 2;
    }
}

/// See [`Case::compare`].
fn alternate(
    count: usize,
    ours: Runner,
    theirs: Runner,
    events: u64,
    run: impl Fn(Runner) -> Result<Run>,
) -> Result<Comparison> {
    let mut pairs = Vec::new();
    for number in 0..count {
        let (our, their);
        if number % 2 == 0 {
            our = run(ours)?;
            their = run(theirs)?;
        } else {
            their = run(theirs)?;
            our = run(ours)?;
        }
        ensure!(
            our.outcome == their.outcome,
            "the answers differ: {ours:?} gives {:?}, {theirs:?} {:?}",
            our.outcome,
            their.outcome
        );
        pairs.push((our, their));
    }
    let of = |figure: fn(&(Run, Run)) -> f64| median(pairs.iter().map(figure));
    Ok(Comparison {
        our_rate: events as f64 / of(|(our, _)| our.wall),
        their_rate: events as f64 / of(|(_, their)| their.wall),
        wall: of(|(our, their)| our.wall / their.wall),
        cpu: of(|(our, their)| our.cpu / their.cpu),
    })
}

fn timed(run: impl FnOnce() -> Result<Outcome>) -> Result<Run> {
    let watch = Stopwatch::start();
    let outcome = run()?;
    let (wall, cpu) = watch.stop();
    Ok(Run { wall, cpu, outcome })
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    wall: f64,
    cpu: f64,
    outcome: Outcome,
}

/// Medians over the pairs of a case.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Events per second of the one side.
    pub our_rate: f64,
    /// Events per second of the other.
    pub their_rate: f64,
    /// Our time over theirs, by the clock.
    pub wall: f64,
    /// Our time over theirs, in CPU time of all threads.
    pub cpu: f64,
}

/// The queries of the tables: first those that treat each event by itself.
pub const STATELESS: [Query; 3] = [Query::Q0, Query::Q1, Query::Q2];
/// Those with keys, windows or state.
pub const KEYED: [Query; 6] = [
    Query::Q3,
    Query::Q5,
    Query::Q7,
    Query::Q8,
    Query::Q12,
    Query::Count,
];

/// Parallelism 1 against a bare loop.
pub fn run(seconds: f64, score: &mut Score) {
    let table = Table::begin(
        "Parallelism 1 over a bare loop. x is time per event over the loop's, in CPU time of all threads (which the \
         target asks of,\nsince others on the machine do not count into it) and by the clock; M/s are events by the clock.",
        [
            "query     ",
            "events",
            "engine M/s",
            "loop M/s",
            "x (cpu)",
            "x (wall)",
            "target",
            "mark",
        ],
    );
    for mode in [Mode::Lean, Mode::Full] {
        for query in STATELESS.into_iter().chain(KEYED) {
            let limit = match mode {
                Mode::Lean if KEYED.contains(&query) => 1.6,
                Mode::Lean | Mode::Full => 1.3,
            };
            let (case, target) = (Case { query, mode }, Target::AtMost(limit));
            let compared = case.events_for(Runner::Loop, seconds).and_then(|events| {
                Ok((
                    events,
                    case.compare(Runner::Engine(1), Runner::Loop, events)?,
                ))
            });
            match compared {
                Ok((events, compared)) => table.row([
                    case.name(),
                    millions(events as f64) + " M",
                    millions(compared.our_rate),
                    millions(compared.their_rate),
                    ratio(compared.cpu),
                    ratio(compared.wall),
                    target.to_string(),
                    score.judge(compared.cpu, target),
                ]),
                Err(error) => table.failed(&case.name(), &error, score),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queries::totals;

    #[test]
    fn all_sides_answer_alike_and_are_measured() {
        for runner in [Runner::Engine(2), Runner::TwoLoops] {
            let compared = alternate(3, runner, Runner::Loop, 20_000, |runner| {
                count(runner, 20_000)
            });
            let compared = compared.expect("they agree");
            assert!(compared.our_rate > 0.0 && compared.wall > 0.0 && compared.cpu > 0.0);
        }
        let events = enough(0.01, |events| count(Runner::Loop, events));
        assert!(events.expect("it runs") >= 100_000);
    }

    /// What `Case::run` does of this query: compiling all of them takes minutes.
    fn count(runner: Runner, events: u64) -> Result<Run> {
        let mut options = Options {
            events,
            parallelism: 1,
            generator: Generator::new(0),
        };
        let (query, mut sink) = (Query::Count, RowSink::default());
        timed(|| match runner {
            Runner::Engine(parallelism) | Runner::Checkpointed(parallelism) => {
                options.parallelism = parallelism;
                let (run, build) = (queries::Run::default(), totals::count::<LeanEvent>);
                queries::run_as(query, &options, sink, run, build)
            }
            Runner::Loop => {
                baseline::run::<LeanEvent>(query, &options, &mut sink);
                Ok(sink.outcome())
            }
            Runner::TwoLoops => Ok(two_threads::run(query, &options).expect("it has one")),
        })
    }
}
