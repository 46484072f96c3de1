//! The functions of a stream beside a broadcast one, whose records every subtask sees.
//!
//! The watermark of both is the least of the two: a broadcast stream without watermarks holds event
//! time back until it ends or counts as idle.

use super::{BroadcastContext, ProcessContext, RecordContext, TimerContext};
use crate::build::OpenContext;
use crate::fault::Flow;
use crate::stage::Collector;
use crate::state::{BroadcastStates, KeyedStates};
use crate::time::Timestamp;

/// Handles records of a stream `A` by broadcast state, which the records of a stream `B` write.
pub trait BroadcastProcessFunction<A, B>: Clone + Send + 'static {
    /// What it emits.
    type Out: 'static;
    /// What it has at hand at work: handles of broadcast state, side outputs.
    type State: 'static;

    /// Declares its states, once in each subtask.
    fn open(
        &mut self,
        states: &mut BroadcastStates,
        context: &mut OpenContext<'_>,
    ) -> Flow<Self::State>;

    /// Takes a record of the first stream, which goes to one subtask.
    fn process<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Self::State,
        cx: &RecordContext<'_>,
        value: A,
        out: &mut C,
    ) -> Flow;

    /// Takes a record of the broadcast stream, in every subtask. What it writes must not depend on the
    /// subtask, else the states drift apart.
    fn process_broadcast<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Self::State,
        cx: &BroadcastContext<'_>,
        value: B,
        out: &mut C,
    ) -> Flow;
}

/// Handles records of a keyed stream `A` with state and timers of their key, and by broadcast state,
/// which the records of a stream `B` write.
pub trait KeyedBroadcastProcessFunction<K, A, B>: Clone + Send + 'static {
    /// What it emits.
    type Out: 'static;
    /// What it has at hand at work: handles of both kinds of state, side outputs.
    type State: 'static;

    /// Declares its states, once in each subtask.
    fn open(
        &mut self,
        keyed: &mut KeyedStates<K>,
        broadcast: &mut BroadcastStates,
        context: &mut OpenContext<'_>,
    ) -> Flow<Self::State>;

    /// Takes a record of the keyed stream.
    fn process<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Self::State,
        cx: &ProcessContext<'_, K>,
        value: A,
        out: &mut C,
    ) -> Flow;

    /// Takes a record of the broadcast stream, in every subtask. What it writes must not depend on the
    /// subtask, else the states drift apart.
    fn process_broadcast<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Self::State,
        cx: &BroadcastContext<'_>,
        value: B,
        out: &mut C,
    ) -> Flow;

    /// A timer has come due; see [`super::KeyedProcessFunction::on_timer`].
    fn on_timer<C: Collector<Self::Out>>(
        &mut self,
        _state: &mut Self::State,
        _cx: &TimerContext<'_, K>,
        _at: Timestamp,
        _out: &mut C,
    ) -> Flow {
        Ok(())
    }
}
