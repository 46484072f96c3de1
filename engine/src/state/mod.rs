//! Keyed state in memory: tables by key, typed handles on them, and timers.

mod backed;
pub mod backing;
mod broadcast;
mod cache;
mod combining;
mod frozen;
mod list;
mod map;
mod registry;
mod settings;
mod table;
mod timers;
mod value;

pub use backed::BackedTable;
pub use broadcast::{BroadcastState, BroadcastStates};
pub use combining::{AggregatingState, ReducingState};
pub use list::ListState;
pub use map::MapState;
pub use registry::{KeyScope, KeyedStates, StateTable};
pub use settings::{RocksDbSettings, StateBackend};
pub use table::KeyTable;
pub use timers::{Timer, Timers};
pub use value::ValueState;
