//! Where a job begins: settings from the command line, sources, and execution.

use crate::checkpoint_args::CheckpointArgs;
use crate::state_args::StateArgs;
use clap::{Args, Parser, ValueEnum};
use std::fmt;
use tidegate_actors::metrics_server::MetricsSettings;
use tidegate_actors::progress::ProgressMode;
use tidegate_actors::runner::{self, JobResult, LocalRunner, RunSettings, RunningJob};
use tidegate_engine::api::{ActorGraph, DataStream, FromSource};
use tidegate_engine::checkpoint::{self, StateValue};
use tidegate_engine::constants::MOST_KEY_GROUPS;
use tidegate_engine::graph::{GraphError, GraphRef, JobGraph, JobSettings};
use tidegate_engine::source::Source;

/// The most key groups, as clap counts.
const MOST: i64 = MOST_KEY_GROUPS as i64;

/// Why a job could not be defined or run. Prints as what to do about it, without a backtrace.
#[derive(thiserror::Error)]
pub enum Error {
    /// The graph has problems; all of them are listed.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// The place of its checkpoints can't be used.
    #[error(transparent)]
    Storage(#[from] checkpoint::Error),
    /// The job ran and did not come to a good end.
    #[error(transparent)]
    Run(#[from] runner::Error),
}

impl fmt::Debug for Error {
    /// As it displays itself: this is what a `main` that returns it prints.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The result of defining and running jobs.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The options that every job understands; flatten them into a program's own with clap.
#[derive(Args, Clone, Debug, Default)]
pub struct EnvArgs {
    /// Subtasks of each operator that doesn't name a number [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub parallelism: Option<u32>,
    /// Key groups: the most subtasks that a keyed operator may ever have [default: 128]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST))]
    pub max_parallelism: Option<u32>,
    /// Milliseconds that a record may wait for its batch to fill; 0 sends at once [default: 10]
    #[arg(long, value_name = "MS")]
    pub flush_interval: Option<u64>,
    /// Threads at most [default: the machine's cores]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub cores: Option<usize>,
    /// Serve metrics over HTTP at /metrics, /observe and /health while the job runs; an address
    /// other than loopback needs a token in TIDEGATE_TOKEN
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<String>,
    /// Show progress on stderr: auto for jobs whose input ends, on for every job, or off
    #[arg(long, value_name = "WHEN", value_enum, default_value = "auto")]
    pub progress: Option<ShowProgress>,
    /// Records per second that each subtask of a source reads at most
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub source_rate: Option<usize>,
    /// Checkpoints and recovery.
    #[command(flatten)]
    pub checkpoints: CheckpointArgs,
    /// Where keyed state is kept.
    #[command(flatten)]
    pub state: StateArgs,
    /// Print the job's plan, as a picture and as JSON, and do not run it
    #[arg(long)]
    pub plan: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("give at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(format!("{error}")),
    }
}

/// Set for tests: every exchange then checks what it receives against the grammar of streams.
const CHECK_GRAMMAR: &str = "TIDEGATE_CHECK_GRAMMAR";

/// When progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ShowProgress {
    /// For jobs whose input ends.
    Auto,
    /// For every job.
    On,
    /// Never.
    Off,
}

impl From<ShowProgress> for ProgressMode {
    fn from(show: ShowProgress) -> Self {
        match show {
            ShowProgress::Auto => ProgressMode::Auto,
            ShowProgress::On => ProgressMode::On,
            ShowProgress::Off => ProgressMode::Off,
        }
    }
}

#[derive(Parser)]
struct OnlyEnv {
    #[command(flatten)]
    env: EnvArgs,
}

/// The environment of a job: create sources from it, then execute it.
pub struct StreamEnv {
    graph: GraphRef,
    args: EnvArgs,
    settings: JobSettings,
    run: RunSettings,
}

impl StreamEnv {
    /// From the program's arguments, where these are all it has. Wrong ones end the program with
    /// exit code 2 and a message that says what is known.
    pub fn from_args() -> Result<Self> {
        Ok(StreamEnv::new(OnlyEnv::parse().env))
    }

    /// From options that were parsed as part of the program's own.
    pub fn new(args: EnvArgs) -> Self {
        let mut settings = JobSettings::default();
        settings.parallelism = args.parallelism.unwrap_or(settings.parallelism);
        settings.max_parallelism = args.max_parallelism.unwrap_or(settings.max_parallelism);
        if let Some(ms) = args.flush_interval {
            settings.channels.flush_interval_ms = ms;
        }
        settings.checkpoints = args.checkpoints.settings();
        settings.state = args.state.backend();
        settings.channels.check_grammar = std::env::var_os(CHECK_GRAMMAR).is_some();
        let mut run = RunSettings::default();
        run.cores = args.cores.unwrap_or(run.cores).max(1);
        run.source_rate = args.source_rate.map(|rate| rate as f64);
        run.metrics = args.metrics.as_deref().map(MetricsSettings::from_env);
        run.progress = args.progress.map(ProgressMode::from).unwrap_or_default();
        StreamEnv {
            graph: GraphRef::default(),
            args,
            settings,
            run,
        }
    }

    /// With this parallelism and else the defaults; for tests and embedding.
    pub fn with_parallelism(parallelism: u32) -> Self {
        StreamEnv::new(EnvArgs {
            parallelism: Some(parallelism),
            ..EnvArgs::default()
        })
    }

    /// The settings of the job.
    pub fn settings(&self) -> &JobSettings {
        &self.settings
    }

    /// The settings of the job, to change them.
    pub fn settings_mut(&mut self) -> &mut JobSettings {
        &mut self.settings
    }

    /// The settings of the run, to change them.
    pub fn run_settings_mut(&mut self) -> &mut RunSettings {
        &mut self.run
    }

    /// A stream of a source's records.
    pub fn source<S: Source>(&self, name: &str, source: S) -> DataStream<S::Item, FromSource<S>> {
        DataStream::from_source(&self.graph, name, source)
    }

    /// Records of this type can be kept in unaligned checkpoints while they are in flight, as
    /// [`DataStream::encodable`] says where a stream is at hand.
    pub fn encodes<T: StateValue>(&self) {
        self.graph.edit(|g| g.add_codec::<T>());
    }

    /// The graph, to be written by hand.
    pub fn actors(&self) -> ActorGraph {
        ActorGraph::new(self.graph.clone())
    }

    /// The validated graph as it is now.
    pub fn graph(&self, name: &str) -> Result<JobGraph> {
        Ok(self.graph.finish(name, self.settings.clone())?)
    }

    /// Starts the job and returns at once: to watch it, to cancel it, to wait for it.
    pub fn start(&self, name: &str) -> Result<RunningJob> {
        let graph = self.graph(name)?;
        Ok(self.runner(name)?.start(graph)?)
    }

    /// Runs the job to its end; with `--plan`, prints its plan instead. Where a signal stopped it with a
    /// savepoint (`--savepoint-dir`), prints the place of that.
    pub fn execute(&self, name: &str) -> Result<JobResult> {
        let graph = self.graph(name)?;
        if self.args.plan {
            let plan = graph.plan();
            println!("{plan}\n{}", plan.to_json());
            let elapsed = std::time::Duration::ZERO;
            return Ok(JobResult {
                job: name.to_owned(),
                elapsed,
                subtasks: Vec::new(),
                checkpoints: Default::default(),
                savepoint: None,
            });
        }
        let result = self.runner(name)?.run(graph)?;
        if let Some(place) = &result.savepoint {
            println!("savepoint: {place}");
        }
        Ok(result)
    }

    /// What runs the job of this name: its checkpoints have a folder of their own.
    fn runner(&self, name: &str) -> Result<LocalRunner> {
        let mut run = self.run.clone();
        if run.checkpointing.is_none() {
            run.checkpointing = self.args.checkpoints.checkpointing(name)?;
        }
        if run.stop_on_signal.is_none() {
            run.stop_on_signal = self.args.checkpoints.savepoints(name)?;
        }
        Ok(LocalRunner::new(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<EnvArgs, clap::Error> {
        let all = std::iter::once("job").chain(arguments.iter().copied());
        OnlyEnv::try_parse_from(all).map(|parsed| parsed.env)
    }

    #[test]
    fn numbers_that_no_job_can_have_are_wrong_usage() {
        for option in ["--parallelism", "--max-parallelism", "--cores"] {
            let error = parse(&[option, "0"]).expect_err("0 is refused");
            assert_eq!(error.exit_code(), 2, "{option}");
            assert!(error.to_string().contains(option), "{error}");
        }
        assert!(parse(&["--parallelism", "32769"]).is_err());
        let args = parse(&["--parallelism", "3"]).expect("a good line");
        assert_eq!(args.parallelism, Some(3));
    }

    #[test]
    fn a_source_that_can_not_go_back_is_told_of_where_there_are_checkpoints() {
        use tidegate_engine::checkpoint::CheckpointSettings;
        let mut env = StreamEnv::with_parallelism(1);
        let function = tidegate_connectors::FunctionSource::new(|_| {
            Ok(tidegate_connectors::SourceStatus::Done)
        });
        env.source::<tidegate_connectors::FunctionSource<u64, _>>("ticker", function)
            .sink("out", tidegate_connectors::BlackHole);
        env.source("numbers", tidegate_connectors::Values::new(0..3))
            .sink("out too", tidegate_connectors::BlackHole);
        let plan = env.graph("job").expect("a graph").plan();
        assert!(plan.warnings.is_empty(), "nothing is promised");
        env.settings_mut().checkpoints = Some(CheckpointSettings::default());
        let plan = env.graph("job").expect("a graph").plan();
        let [warning] = &plan.warnings[..] else {
            panic!("{plan}");
        };
        assert!(warning.contains("'ticker'"), "{warning}");
        assert!(warning.contains("lost at a restart"), "{warning}");
        assert!(plan.to_string().contains(warning));
        let job = env.start("job").expect("starts");
        let metrics = job.telemetry().metrics.snapshot(0);
        let told = metrics
            .iter()
            .filter(|m| m.name == "loses_records_at_restart");
        assert_eq!(told.count(), 1);
        job.wait().expect("ends well");
    }

    #[test]
    fn progress_is_shown_where_there_is_a_command_line() {
        let args = parse(&[]).expect("a good line");
        assert_eq!(args.progress, Some(ShowProgress::Auto));
        assert_eq!(EnvArgs::default().progress, None);
    }

    #[test]
    fn a_main_that_returns_the_error_prints_it_once_and_on_one_line() {
        let env = StreamEnv::with_parallelism(200);
        let numbers = tidegate_connectors::Values::new(0..3);
        env.source("numbers", numbers)
            .key_by(|n| *n)
            .reduce(|a, b| a + b)
            .sink("out", tidegate_connectors::BlackHole);
        let error = env.execute("sums").expect_err("too many subtasks");
        assert_eq!(
            format!("Error: {error:?}"),
            "Error: the job 'sums' can't run: parallelism 200 is above its max_parallelism 128; \
             lower the one or raise the other"
        );
    }
}
