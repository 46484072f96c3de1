//! The fluent API: streams that build a graph.
//!
//! A stream's second type parameter is the chain so far: the price for a chain that the compiler
//! sees whole. It is inferred, and where it must be named, [`DataStream::boxed`] gives it up for one
//! dynamic call per batch.

#![allow(
    clippy::type_complexity,
    reason = "the type of a stream spells out its chain"
)]

mod broadcast;
mod by_hand;
mod chaining;
mod checked;
mod connect;
mod joins;
mod keyed;
mod partition;
mod parts;
mod process;
mod sides;
mod sinks;
mod split;
mod stream;
mod union;
mod upstream;
mod windowed;
mod windowed_general;

pub use broadcast::{BroadcastConnectedStreams, KeyedBroadcastConnectedStreams};
pub use by_hand::{ActorGraph, KeyedVertexHandle, Nothing, Outlet, SideHandle, VertexHandle};
pub use chaining::{Crossed, Cut, StartChain, Started};
pub use checked::Checked;
pub use connect::{ConnectedStreams, KeyedConnectedStreams, MetBy};
pub use joins::{
    ByWindow, CoGroup, InnerJoin, IntervalJoined, Meeting, NearMet, Nearness, Offset,
    WindowedMeeting, WindowsMet,
};
pub use keyed::{KeyedStream, KeyedUpstream};
pub use partition::{Passage, Redistributed, SetParallelism};
pub use sinks::SinkHandle;
pub use split::{BoxedUpstream, Junction};
pub use stream::{DataStream, Place};
pub use union::Merged;
pub use upstream::{Chained, FromSource, Upstream};
pub use windowed::{AllSlicedStream, AllWindowedStream, SlicedStream, WindowedStream};
pub use windowed_general::{
    BufferedStream, CountedStream, EvictingStream, GeneralStream, ProcessedStream, SessionStream,
    TriggeredStream,
};
