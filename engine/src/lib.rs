//! The meaning of a stream, without a runtime in sight.
//!
//! Everything here is a plain struct or trait that a test can drive by hand: records and time,
//! operators and the chains they fuse into, windows, state, the job graph, flow-control
//! arithmetic. There is no actor, no socket, no thread and no clock but one handed in.

pub mod alignment;
pub mod api;
pub mod build;
pub mod checkpoint;
pub mod clock;
pub mod constants;
pub mod exchange;
pub mod fault;
pub mod flow;
pub mod frontier;
pub mod graph;
pub mod hash;
pub mod memory;
pub mod metrics;
pub mod node;
pub mod observe;
pub mod operator;
pub mod operators;
pub mod process;
pub mod side;
pub mod sink;
pub mod source;
pub mod splits;
pub mod stage;
pub mod state;
pub mod task;
pub mod testing;
pub mod time;
pub mod watermark_manager;
pub mod watermarks;
pub mod window;

/// What a job's definition needs, in one import.
pub mod prelude {
    pub use crate::api::{
        ActorGraph, BroadcastConnectedStreams, ConnectedStreams, DataStream,
        KeyedBroadcastConnectedStreams, KeyedConnectedStreams, KeyedStream, Offset, SinkHandle,
        Upstream,
    };
    pub use crate::build::OpenContext;
    pub use crate::exchange::{
        Broadcast, Custom, Either, Forward, Global, Keyed, Rebalance, Rescale, Shuffle,
    };
    pub use crate::fault::{Fault, Flow};
    pub use crate::operator::{Operator, Progress};
    pub use crate::operators::Pair;
    pub use crate::process::{
        BroadcastContext, BroadcastProcessFunction, CoProcessFunction,
        KeyedBroadcastProcessFunction, KeyedProcessFunction, ProcessContext, ProcessFunction,
        RecordContext, TimeDomain, TimerContext,
    };
    pub use crate::side::{SideBuffer, SideOutput};
    pub use crate::sink::{Sink, SinkWriter};
    pub use crate::source::{Poll, Source, SourceReader, Waker};
    pub use crate::stage::{Collector, Signal};
    pub use crate::state::{
        AggregatingState, BroadcastState, BroadcastStates, ElementsState, Expiring, KeyScope,
        KeyedStates, ListState, MapState, OperatorStates, ReducingState, StateTtl, ValueState,
    };
    pub use crate::time::Timestamp;
    pub use crate::watermarks::WatermarkStrategy;
    pub use crate::window::{
        Aggregator, ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, Count,
        CountEvictor, CountTrigger, CountWindow, DeltaEvictor, DeltaTrigger, Elements,
        EventTimeTrigger, Evictor, GlobalWindows, NeverTrigger, ProcessWindowFunction,
        ProcessingTimeTrigger, PurgingTrigger, Session, Sliding, TimeEvictor, TimeWindow, Trigger,
        TriggerContext, TriggerResult, Tumbling, WindowAssigner, WindowContext, WindowOutput,
        Windowed,
    };
    pub use std::time::Duration;
}
