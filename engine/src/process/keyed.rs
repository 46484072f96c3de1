//! The function of a keyed process.

use super::{ProcessContext, TimerContext};
use crate::build::OpenContext;
use crate::fault::Flow;
use crate::stage::Collector;
use crate::state::KeyedStates;
use crate::time::Timestamp;

/// Handles each record of a keyed stream, with state of its key and timers for it.
pub trait KeyedProcessFunction<K, In>: Clone + Send + 'static {
    /// What it emits.
    type Out: 'static;
    /// What it has at hand at work: handles of state, side outputs.
    type State: 'static;

    /// Declares its states, once in each subtask.
    fn open(
        &mut self,
        states: &mut KeyedStates<K>,
        context: &mut OpenContext<'_>,
    ) -> Flow<Self::State>;

    /// Takes a record.
    fn process<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Self::State,
        cx: &ProcessContext<'_, K>,
        value: In,
        out: &mut C,
    ) -> Flow;

    /// A timer that was set for `at` has come due. What is emitted here goes downstream before the
    /// watermark that brought it. A timer that is set here and is due already fires in the same step,
    /// so a function whose event timer always sets the next one must stop doing so once
    /// [`ProcessContext::watermark`] is `Timestamp::MAX`: it would never come to its end.
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
