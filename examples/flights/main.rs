//! How do right answers come from real, out-of-order data? Departures from New York, in the order in
//! which they landed.
//!
//! ```text
//! cargo run --release --example flights -- --input examples/data/flights-2013-01.csv \
//!     --query carrier-day --output /tmp/carrier-day --parallelism 2
//! ```
//!
//! Event time is the departure, and the stream is up to 10 h 46 min out of its order: watermarks 11 h
//! behind the latest departure wait for every one. Rows that are incomplete end in
//! `OUTPUT.dead-letters.jsonl`, with their line and what was wrong.
//!
//! | query | asks |
//! |---|---|
//! | `carrier-day` | per carrier and UTC day: flights, sum and maximum of the departure delay |
//! | `tailnum-sessions` | per aircraft, sessions that end after 24 h without a departure: legs and distance |
//! | `weather-join` | per origin and visibility in the hour of departure: flights and sum of the delay |

mod queries;
mod records;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tidegate::prelude::*;

/// Moving records between threads is work for the allocator first.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Three questions about the departures from New York in 2013.
#[derive(Parser)]
struct Arguments {
    /// CSV of flights, plain or gzip
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// What to ask
    #[arg(long, value_enum)]
    query: Query,
    /// Where the answer goes: a folder of CSV parts
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// CSV of the airports' weather, for weather-join
    #[arg(long, value_name = "FILE", required_if_eq("query", "weather-join"))]
    weather: Option<PathBuf>,
    #[command(flatten)]
    env: EnvArgs,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Query {
    CarrierDay,
    TailnumSessions,
    WeatherJoin,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let env = StreamEnv::new(arguments.env.clone());
    let mut dead_letters = arguments.output.as_os_str().to_owned();
    dead_letters.push(".dead-letters.jsonl");
    let dead_letters = PathBuf::from(dead_letters);
    if !arguments.env.plan {
        remove_earlier(&dead_letters)?;
    }
    let flights = env
        .source(
            "flights",
            FileSource::csv::<records::Flight>(&arguments.input)
                .on_error(DeadLetters::file(dead_letters)),
        )
        .watermarks(
            WatermarkStrategy::bounded_out_of_orderness(Duration::from_secs(11 * 3600))
                .timestamps(|flight: &records::Flight| flight.departed_at.as_millisecond()),
        )
        .encodable();
    match arguments.query {
        Query::CarrierDay => queries::carrier_day(flights, &arguments.output),
        Query::TailnumSessions => queries::tailnum_sessions(flights, &arguments.output),
        Query::WeatherJoin => {
            let weather = arguments.weather.as_deref();
            let weather =
                weather.context("weather-join reads the weather too; give --weather FILE")?;
            let weather =
                env.source("weather", FileSource::csv::<records::Weather>(weather))
                    .watermarks(WatermarkStrategy::monotonous().timestamps(
                        |weather: &records::Weather| weather.observed_at.as_millisecond(),
                    ))
                    .encodable();
            queries::weather_join(flights, weather, &arguments.output);
        }
    }
    let result = env.execute("flights")?;
    if arguments.env.plan {
        return Ok(());
    }
    print_head(&arguments.output)?;
    print_summary(&result);
    Ok(())
}

/// Dead letters are appended to a file; those of an earlier run go as its output does.
fn remove_earlier(dead_letters: &Path) -> Result<()> {
    match fs::remove_file(dead_letters) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("can't remove {}", dead_letters.display()))
        }
        _ => Ok(()),
    }
}

/// The first rows of the answer, in order.
fn print_head(output: &Path) -> Result<()> {
    const ROWS: usize = 8;
    let mut header = String::new();
    let mut rows = Vec::new();
    for entry in fs::read_dir(output).with_context(|| format!("reading {}", output.display()))? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || !path.is_file() {
            continue;
        }
        let text = fs::read_to_string(&path)?;
        let mut lines = text.lines().map(str::to_owned);
        header = lines.next().unwrap_or_default();
        rows.extend(lines);
    }
    if rows.is_empty() {
        println!("  no rows");
        return Ok(());
    }
    rows.sort();
    let more = rows.len().saturating_sub(ROWS);
    rows.truncate(ROWS);
    let table: Vec<Vec<&str>> = std::iter::once(header.as_str())
        .chain(rows.iter().map(String::as_str))
        .map(|row| row.split(',').collect())
        .collect();
    let columns = table.first().map_or(0, Vec::len);
    let width = |i: usize| {
        table
            .iter()
            .filter_map(|row| row.get(i))
            .map(|cell| cell.len())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|i| width(i).unwrap_or(0)).collect();
    for row in &table {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:>width$}"));
        println!("  {}", cells.collect::<Vec<_>>().join("  "));
    }
    if more > 0 {
        println!("  ... and {more} more rows in {}", output.display());
    }
    Ok(())
}

fn print_summary(result: &JobResult) {
    let records = result.records_in("flights") + result.records_in("weather");
    let seconds = result.elapsed.as_secs_f64();
    println!(
        "{records} records, {} late, {} dead letters, {seconds:.3} s, {:.0} records/s",
        result.late(),
        result.dead_letters(),
        records as f64 / seconds,
    );
}
