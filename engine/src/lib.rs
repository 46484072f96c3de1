//! The meaning of a stream, without a runtime in sight.
//!
//! Everything here is a plain struct or trait that a test can drive by hand: records and time,
//! operators and the chains they fuse into, windows, state, the job graph, flow-control
//! arithmetic. There is no actor, no socket, no thread and no clock but one handed in.

pub mod flow;
pub mod frontier;
pub mod memory;
pub mod metrics;
pub mod time;
pub mod watermark_manager;
