//! Keyed state in memory: tables by key, typed handles on them, and timers.

mod registry;
mod table;
mod timers;
mod value;

pub use registry::{KeyScope, KeyedStates, StateTable};
pub use table::KeyTable;
pub use timers::{Timer, Timers};
pub use value::ValueState;
