//! Tidegate: a stream-processing engine built from actors. This crate is the front door.
//!
//! # A job in five steps
//!
//! 1. An environment: [`StreamEnv::from_args`] where the program has no options of its own,
//!    [`StreamEnv::new`] with [`EnvArgs`] where it has.
//! 2. A source: [`StreamEnv::source`] with a connector of [`connectors`], such as
//!    [`connectors::FileSource`], or a [`Source`](engine::source::Source) of your own.
//! 3. Event time, where windows or timers need it:
//!    [`watermarks`](engine::api::DataStream::watermarks) with a
//!    [`WatermarkStrategy`](engine::watermarks::WatermarkStrategy).
//! 4. What the job computes: the methods of [`DataStream`](engine::api::DataStream),
//!    [`KeyedStream`](engine::api::KeyedStream) behind `key_by`, and
//!    [`WindowedStream`](engine::api::WindowedStream) behind `window`.
//! 5. A sink, and [`StreamEnv::execute`].
//!
//! ```
//! use tidegate::prelude::*;
//!
//! # fn main() -> Result<()> {
//! let env = StreamEnv::with_parallelism(2);
//! let longest = Collect::new();
//! env.source("words", Values::new(["tide", "gate", "hinge", "sea"]))
//!     .map(str::to_owned)
//!     .key_by(|word| word.chars().next())
//!     .reduce(|longest, word| if word.len() > longest.len() { word } else { longest.clone() })
//!     .sink("longest", longest.clone());
//! let result = env.execute("longest words")?;
//! assert_eq!(result.records_in("words"), 4);
//! assert_eq!(longest.values().len(), 4, "a running answer: one per record");
//! # Ok(())
//! # }
//! ```
//!
//! # Where to go on
//!
//! | for | see |
//! |---|---|
//! | windows, triggers, evictors | [`engine::window`] |
//! | functions with state and timers | [`engine::process`], [`engine::state`] |
//! | an operator of your own | [`engine::operator::Operator`] |
//! | the graph by hand | [`StreamEnv::actors`], [`engine::api::ActorGraph`] |
//! | connectors, and what becomes of bad records | [`connectors`], [`connectors::OnError`] |
//! | tests | [`testing`] |
//! | to watch or cancel a job that runs | [`StreamEnv::start`], [`actors::runner::RunningJob`] |
//! | metrics of your own | [`engine::build::OpenContext::metrics`] |
//! | defaults | [`engine::constants`] |

pub mod checkpoint_args;
pub mod env;
mod state_args;
pub mod testing;

pub use checkpoint_args::CheckpointArgs;
pub use env::{EnvArgs, Error, Result, ShowProgress, StreamEnv};
pub use state_args::{StateArgs, StateBackendName};
pub use tidegate_actors as actors;
pub use tidegate_connectors as connectors;
pub use tidegate_engine as engine;

/// Everything that defining and running a job takes.
pub mod prelude {
    pub use crate::checkpoint_args::CheckpointArgs;
    pub use crate::env::{EnvArgs, Error, Result, StreamEnv};
    pub use tidegate_actors::runner::{JobResult, RunningJob};
    pub use tidegate_connectors::*;
    pub use tidegate_engine::prelude::*;
}

/// The examples of the README are compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
