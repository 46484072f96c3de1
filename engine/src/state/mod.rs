//! State in memory: tables by key, typed handles on them, timers, and state without keys.

mod backed;
pub mod backing;
mod broadcast;
pub(crate) mod cache;
mod changes;
mod combining;
mod content;
mod due;
mod elements;
mod entries;
mod frozen;
mod list;
mod map;
mod migration;
mod registry;
mod settings;
mod store;
mod table;
mod timers;
mod ttl;
#[cfg(test)]
mod ttl_tests;
mod value;

pub use backed::BackedTable;
pub use broadcast::{BroadcastState, BroadcastStates};
pub use combining::{AggregatingState, ReducingState};
pub(crate) use due::SpilledDue;
pub use elements::{ElementsState, OperatorStates};
pub use list::ListState;
pub use map::MapState;
pub use registry::{KeyScope, KeyedStates, StateTable};
pub use settings::{AutoState, RocksDbSettings, StateBackend};
pub use table::KeyTable;
pub(crate) use timers::TimerQueue;
pub use timers::{Timer, Timers};
pub use ttl::{Expiring, Forever, Lifetime, StateTtl};
pub use value::ValueState;
