//! The running of a job as actix actors, on one machine.
//!
//! Each subtask of [`tidegate_engine::task`] sits in a [`subtask::SubtaskActor`]: a thin shell that
//! brings it messages, turns and time. Subtask *i* of every task lives on arbiter *i* modulo the
//! cores, so what stays with its number stays in its core's cache. A [`supervisor::Supervisor`] per
//! job watches their exits, keeps the first failure as the root cause and stops the others.
//! A [`pressure::BackPressureController`] beside it measures how pressed each vertex is.
//! [`runner::LocalRunner`] puts it all together and takes it all down again.
//!
//! What a job shows of itself goes through one handle, [`telemetry::Telemetry`]: the
//! [`metrics_server`] serves it over HTTP and [`progress`] writes it to the terminal.

pub mod attempt;
pub mod checkpoint_storage;
pub mod checkpointing;
mod claims;
pub mod coordinator;
mod failpoints;
pub mod memory_use;
pub mod metrics_server;
pub mod pace;
pub mod pressure;
pub mod progress;
pub mod protocol;
pub mod runner;
mod signals;
pub mod snapshots;
pub mod state_backend;
pub mod subtask;
pub mod supervisor;
pub mod telemetry;
