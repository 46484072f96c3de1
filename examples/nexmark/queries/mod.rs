//! NEXMark's queries as jobs on the engine, with the answers that `baseline/mod.rs` defines.

mod auctions;
mod joins;
mod ranking;
mod sink;
mod source;
mod stateless;
pub mod totals;
mod windows;

use crate::digest::{Outcome, RowSink};
use crate::events::Event;
use crate::options::{Arguments, Options, Query};
use anyhow::Result;
use sink::RowsOut;
use source::Events;
use std::path::PathBuf;
use tidegate::StateArgs;
use tidegate::engine::api::FromSource;
use tidegate::prelude::*;

/// The beginning of a job: its environment, its events, and where its rows go.
pub struct Job<E> {
    env: StreamEnv,
    events: Events<E>,
    rows: RowsOut,
}

/// The stream of events as the source yields it.
pub type EventStream<E> = DataStream<E, FromSource<Events<E>>>;

impl<E: Event> Job<E> {
    /// The stream of events. Its timestamps never go back within a subtask, and watermarks come with
    /// it.
    fn events(&self) -> EventStream<E> {
        self.env.source("events", self.events.clone())
    }
}

/// How a query runs, beyond what it asks.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// Where the rows go, beside their digest.
    pub output: Option<PathBuf>,
    /// Events per second that each subtask makes at most.
    pub source_rate: Option<usize>,
    /// Checkpoints and recovery.
    pub checkpoints: CheckpointArgs,
    /// Where its state is kept.
    pub state: StateArgs,
}

impl Run {
    /// As the command line says.
    pub fn of(arguments: &Arguments) -> Self {
        Run {
            output: arguments.output.clone(),
            source_rate: arguments.source_rate,
            checkpoints: arguments.checkpoints.clone(),
            state: arguments.state.clone(),
        }
    }
}

/// Runs a query on the engine; each subtask emits its rows to a clone of `unused`.
pub fn run<E: Event>(
    query: Query,
    options: &Options,
    unused: RowSink,
    run: Run,
) -> Result<Outcome> {
    run_as::<E>(query, options, unused, run, |job| build(query, job))
}

/// The same, of one query that `build` defines.
pub fn run_as<E: Event>(
    query: Query,
    options: &Options,
    unused: RowSink,
    run: Run,
    build: impl FnOnce(&Job<E>),
) -> Result<Outcome> {
    let args = EnvArgs {
        parallelism: Some(options.parallelism as u32),
        source_rate: run.source_rate,
        checkpoints: run.checkpoints,
        state: run.state,
        ..EnvArgs::default()
    };
    let job = Job::<E> {
        env: StreamEnv::new(args),
        events: Events::new(options),
        rows: RowsOut::new(unused, run.output),
    };
    build(&job);
    job.env.execute(query.name())?;
    Ok(job.rows.outcome())
}

fn build<E: Event>(query: Query, job: &Job<E>) {
    match query {
        Query::Q0 => stateless::q0(job),
        Query::Q1 => stateless::q1(job),
        Query::Q2 => stateless::q2(job),
        Query::Q14 => stateless::q14(job),
        Query::Q21 => stateless::q21(job),
        Query::Q22 => stateless::q22(job),
        Query::Count => totals::count(job),
        Query::Q3 => joins::q3(job),
        Query::Q20 => joins::q20(job),
        Query::Q4 => auctions::q4(job),
        Query::Q6 => auctions::q6(job),
        Query::Q9 => auctions::q9(job),
        Query::Q5 => windows::q5(job),
        Query::Q7 => windows::q7(job),
        Query::Q8 => windows::q8(job),
        Query::Q11 => windows::q11(job),
        Query::Q12 => windows::q12(job),
        Query::Q15 => totals::q15(job),
        Query::Q16 => totals::q16(job),
        Query::Q17 => totals::q17(job),
        Query::Q18 => ranking::q18(job),
        Query::Q19 => ranking::q19(job),
    }
}
