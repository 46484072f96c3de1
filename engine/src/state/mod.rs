//! Keyed state in memory: tables by key, typed handles on them, and timers.

mod broadcast;
mod combining;
mod frozen;
mod list;
mod map;
mod registry;
mod table;
mod timers;
mod value;

pub use broadcast::{BroadcastState, BroadcastStates};
pub use combining::{AggregatingState, ReducingState};
pub use list::ListState;
pub use map::MapState;
pub use registry::{KeyScope, KeyedStates, StateTable};
pub use table::KeyTable;
pub use timers::{Timer, Timers};
pub use value::ValueState;
