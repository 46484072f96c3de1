//! What the command line asks for, checked.

use crate::generator::Generator;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use tidegate::{CheckpointArgs, StateArgs};

/// NEXMark: an auction site's stream, and the questions that the benchmark asks of it.
#[derive(Clone, Debug, Parser)]
#[command(name = "nexmark")]
pub struct Arguments {
    /// The query: q0 to q9, q11, q12, q14 to q22, or count.
    #[arg(long, default_value = "", required_unless_present_any = ["bench", "bench_part"])]
    pub query: String,
    /// How many events to generate.
    #[arg(long, default_value = "10000000", value_parser = parse_count)]
    pub events: u64,
    /// Subtasks per operator; a bare loop has one whatever this says.
    #[arg(long, default_value_t = 1)]
    pub parallelism: usize,
    /// Events with NEXMark's texts, or numbers alone.
    #[arg(long, value_enum, default_value_t = Mode::Full)]
    pub mode: Mode,
    /// Print one line of JSON.
    #[arg(long)]
    pub json: bool,
    /// Run the query as a bare hand-written loop on one thread, without the engine.
    #[arg(long)]
    pub baseline: bool,
    /// Another seed is another stream.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Also write events and results as CSV files to this folder.
    #[arg(long, value_name = "DIR")]
    pub csv: Option<PathBuf>,
    /// Count the rows of the answer without a digest of them, as benchmarks of other engines do; the digest is then 0.
    #[arg(long, conflicts_with = "csv")]
    pub count_only: bool,
    /// Measure the engine against bare loops and its targets, and print tables.
    #[arg(long, conflicts_with = "query")]
    pub bench: bool,
    /// How long each latency run and the blocked sink last; pairs of runs take a tenth of it each.
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = parse_seconds)]
    pub bench_seconds: f64,
    /// Measure this alone; may be given several times.
    #[arg(
        long,
        value_name = "PART",
        value_enum,
        requires = "bench",
        conflicts_with = "query"
    )]
    pub bench_only: Vec<BenchPart>,
    /// Also write the answer into this folder, as lines of CSV in parts: exactly once, where checkpoints are taken.
    #[arg(long, value_name = "DIR", conflicts_with = "baseline")]
    pub output: Option<PathBuf>,
    /// Events per second that each subtask makes at most.
    #[arg(long, value_name = "N")]
    pub source_rate: Option<usize>,
    #[command(flatten)]
    pub checkpoints: CheckpointArgs,
    #[command(flatten)]
    pub state: StateArgs,
    /// What a benchmark runs in a process of its own.
    #[arg(long, value_enum, hide = true, conflicts_with_all = ["query", "bench"])]
    pub bench_part: Option<ChildPart>,
}

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchPart {
    /// Parallelism 1 against a bare loop.
    Pairs,
    /// Parallelism 2 and 64.
    Scaling,
    /// From source to sink between two cores.
    Latency,
    /// A blocked sink; many keys.
    Memory,
    /// A checkpoint each second.
    Checkpoints,
}

/// What is measured in a process of its own, since the memory of one run must not be mixed with another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChildPart {
    /// A sink that refuses.
    Blocked,
    /// Many keys.
    Keys,
}

/// The size of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// With NEXMark's texts.
    Full,
    /// Numbers alone.
    Lean,
}

impl Mode {
    /// As written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Full => "full",
            Mode::Lean => "lean",
        }
    }
}

/// A run of a query, whoever runs it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many events to generate, from number 0.
    pub events: u64,
    /// Subtasks per operator, at least 1.
    #[allow(dead_code, reason = "a bare loop is one thread; jobs read it")]
    pub parallelism: usize,
    /// Where they come from.
    pub generator: Generator,
}

impl Arguments {
    /// The query and its options, or the line that says what is wrong.
    pub fn check(&self) -> Result<(Query, Options), String> {
        let query = Query::parse(&self.query).ok_or_else(|| {
            let known: Vec<_> = Query::ALL.iter().map(|query| query.name()).collect();
            format!(
                "unknown query {:?}; known are {}",
                self.query,
                known.join(", ")
            )
        })?;
        if self.parallelism == 0 {
            return Err("parallelism must be at least 1".to_owned());
        }
        let generator = Generator::new(self.seed);
        Ok((
            query,
            Options {
                events: self.events,
                parallelism: self.parallelism,
                generator,
            },
        ))
    }
}

/// A number that may hold underscores: 10_000_000.
fn parse_count(text: &str) -> Result<u64, String> {
    text.replace('_', "")
        .parse()
        .map_err(|error| format!("{error}"))
}

/// A time long enough to measure in.
fn parse_seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.5..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("give a number of seconds from 0.5 to 600".to_owned()),
    }
}

macro_rules! queries {
    ($($variant:ident $name:literal,)*) => {
        /// The queries; `baseline/mod.rs` says what each asks. q10 and q13 need files and a service beside the stream.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Query { $($variant),* }

        impl Query {
            /// All of them.
            pub const ALL: &[Query] = &[$(Query::$variant),*];

            /// As written on the command line.
            pub fn name(self) -> &'static str {
                match self { $(Query::$variant => $name),* }
            }
        }
    };
}

queries! {
    Q0 "q0", Q1 "q1", Q2 "q2", Q3 "q3", Q4 "q4", Q5 "q5", Q6 "q6", Q7 "q7", Q8 "q8", Q9 "q9", Q11 "q11", Q12 "q12",
    Q14 "q14", Q15 "q15", Q16 "q16", Q17 "q17", Q18 "q18", Q19 "q19", Q20 "q20", Q21 "q21", Q22 "q22", Count "count",
}

impl Query {
    /// The query of this name.
    pub fn parse(name: &str) -> Option<Query> {
        Query::ALL
            .iter()
            .copied()
            .find(|query| query.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str) -> Result<(Query, Options), String> {
        let words = std::iter::once("nexmark").chain(line.split_whitespace());
        Arguments::try_parse_from(words)
            .expect("the words are known")
            .check()
    }

    #[test]
    fn reads_a_good_line() {
        let (query, options) =
            check("--query q12 --events 1_000 --parallelism 2 --mode lean --baseline")
                .expect("good");
        assert_eq!(
            (query, options.events, options.parallelism),
            (Query::Q12, 1_000, 2)
        );
    }

    #[test]
    fn an_unknown_query_lists_the_known_in_one_line() {
        let line = check("--query q10").expect_err("q10 is not here");
        assert!(
            line.contains("q22, count") && !line.contains('\n'),
            "{line}"
        );
        assert_eq!(Query::ALL.len(), 22);
    }

    #[test]
    fn a_benchmark_takes_no_query() {
        let parse = |line: &str| {
            let words = std::iter::once("nexmark").chain(line.split_whitespace());
            Arguments::try_parse_from(words)
        };
        let arguments = parse("--bench --bench-only pairs --bench-only memory").expect("good");
        assert_eq!(arguments.bench_only, [BenchPart::Pairs, BenchPart::Memory]);
        let wrong = [
            "",
            "--bench --query q0",
            "--query q0 --bench-only pairs",
            "--bench --bench-seconds 0",
        ];
        for line in wrong {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn parallelism_zero_is_refused() {
        assert!(
            check("--query q0 --parallelism 0")
                .expect_err("nobody would work")
                .contains("parallelism")
        );
    }
}
