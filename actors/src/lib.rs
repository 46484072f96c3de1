//! The running of a job as actix actors, on one machine.
//!
//! Each subtask of [`tidegate_engine::task`] sits in a [`subtask::SubtaskActor`]: a thin shell that
//! brings it messages, turns and time. Subtask *i* of every task lives on arbiter *i* modulo the
//! cores, so what stays with its number stays in its core's cache. A [`supervisor::Supervisor`] per
//! job watches their exits, keeps the first failure as the root cause and stops the others.
//! [`runner::LocalRunner`] puts it all together and takes it all down again.

pub mod protocol;
pub mod runner;
pub mod subtask;
pub mod supervisor;
