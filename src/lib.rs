//! Tidegate: a stream-processing engine built from actors.
//!
//! This crate is the front door: what a job's author needs, in one import.

pub mod env;
pub mod testing;

pub use env::{EnvArgs, Error, Result, ShowProgress, StreamEnv};
pub use tidegate_actors as actors;
pub use tidegate_connectors as connectors;
pub use tidegate_engine as engine;

/// Everything that defining and running a job takes.
pub mod prelude {
    pub use crate::env::{EnvArgs, Error, Result, StreamEnv};
    pub use tidegate_actors::runner::{JobResult, RunningJob};
    pub use tidegate_connectors::*;
    pub use tidegate_engine::prelude::*;
}
