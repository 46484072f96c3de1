//! The built-in operators, a file each.

mod adapt;
mod broadcast_process;
mod co_map;
mod filter;
mod filter_map;
mod flat_map;
mod fold;
mod inspect;
mod interval_join;
mod keyed_broadcast_process;
mod keyed_process;
mod map;
mod process;
mod reduce;

pub(crate) use adapt::Adapt;
pub use broadcast_process::{BroadcastProcess, BroadcastProcessBlueprint};
pub use co_map::{CoFlatMap, CoMap};
pub use filter::Filter;
pub use filter_map::FilterMap;
pub use flat_map::FlatMap;
pub use fold::Fold;
pub use inspect::Inspect;
pub use interval_join::{Interval, IntervalJoin, Pair};
pub use keyed_broadcast_process::{KeyedBroadcastProcess, KeyedBroadcastProcessBlueprint};
pub use keyed_process::{KeyedProcess, KeyedProcessBlueprint};
pub use map::Map;
pub use process::{Process, ProcessBlueprint};
pub use reduce::Reduce;

/// Takes part in no chain: an operator that passes records on as they are, where a vertex needs one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl<T: 'static> crate::operator::Operator<T> for Identity {
    type Out = T;
    #[inline(always)]
    fn process<C: crate::stage::Collector<T>>(
        &mut self,
        at: crate::time::Timestamp,
        value: T,
        out: &mut C,
    ) -> crate::fault::Flow {
        out.collect(at, value)
    }
}
