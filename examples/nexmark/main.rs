//! How fast is Tidegate, and are its answers right? NEXMark's queries, on the engine and as bare loops.
//!
//! ```text
//! cargo run --release --example nexmark -- --query q5 --events 10_000_000 --parallelism 2 --mode lean
//! cargo run --release --example nexmark -- --query q5 --events 10_000_000 --mode lean --baseline
//! ```
//!
//! Both lines must end in the same digest. `--csv DIR` writes events and results, for others to check. `--bench` compares
//! the two, and with them parallelism, latency and memory, with the targets that the engine sets itself.
//!
//! | file | what it holds |
//! |---|---|
//! | `events.rs`, `events/` | persons, auctions and bids in two sizes, and the traits that the queries read them by |
//! | `generator.rs` | event number n of a seed |
//! | `rules.rs`, `answer_rows.rs` | what the queries mean: filters, classes, ties; the rows of their answers |
//! | `digest.rs`, `csv_out.rs` | the sink of rows: count, order-independent digest, CSV |
//! | `baseline/` | the queries as bare loops, and the table that defines them |
//! | `bench/` | `--bench`: tables of ratios, medians of alternating runs in one process |
//! | `options.rs`, `report.rs` | the command line, the line that it prints |

mod answer_rows;
mod baseline;
mod bench;
mod csv_out;
mod digest;
mod events;
mod generator;
mod options;
mod queries;
mod report;
mod rules;

use crate::csv_out::RowFile;
use crate::digest::RowSink;
use crate::events::{Event, FullEvent, LeanEvent};
use crate::options::{Arguments, Mode, Options, Query};
use crate::queries::Run;
use crate::report::{Report, Stopwatch};
use anyhow::Result;
use clap::Parser;
use std::process::ExitCode;

/// Moving texts between threads is work for the allocator first: jemalloc does it ten times faster than glibc.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(part) = arguments.bench_part {
        return match bench::run_child(part, &arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        };
    }
    if arguments.bench {
        // Speed is not a test: a target that is missed is printed, and the run has done its work.
        bench::run(&arguments);
        return ExitCode::SUCCESS;
    }
    let (query, options) = match arguments.check() {
        Ok(checked) => checked,
        Err(line) => {
            eprintln!("error: {line}");
            return ExitCode::from(2);
        }
    };
    let done = match arguments.mode {
        Mode::Full => run::<FullEvent>(&arguments, query, &options),
        Mode::Lean => run::<LeanEvent>(&arguments, query, &options),
    };
    match done {
        Ok(report) if arguments.json => match serde_json::to_string(&report) {
            Ok(json) => println!("{json}"),
            Err(error) => return failed(&error.into()),
        },
        Ok(report) => println!("{report}"),
        Err(error) => return failed(&error),
    }
    ExitCode::SUCCESS
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}

/// Runs a query and measures it. CSV of the events is written before the clock starts.
fn run<E: Event>(arguments: &Arguments, query: Query, options: &Options) -> Result<Report> {
    let file = arguments
        .csv
        .as_deref()
        .map(RowFile::results_in)
        .transpose()?;
    if let Some(folder) = &arguments.csv {
        csv_out::write_events::<E>(folder, &options.generator, options.events)?;
    }
    let mut sink = match arguments.count_only {
        true => RowSink::counting(),
        false => RowSink::new(file.clone()),
    };
    let watch = Stopwatch::start();
    let (outcome, parallelism) = if arguments.baseline {
        baseline::run::<E>(query, options, &mut sink);
        (sink.outcome(), 1)
    } else {
        (
            queries::run::<E>(query, options, sink, Run::of(arguments))?,
            options.parallelism,
        )
    };
    let report = Report::new(
        (query.name(), arguments.mode.name()),
        (options.events, parallelism),
        outcome,
        watch,
    );
    file.map_or(Ok(()), |file| file.finish())?;
    Ok(report)
}
