//! The function of two connected keyed streams.

use super::{KeyedProcessFunction, ProcessContext, TimerContext};
use crate::build::OpenContext;
use crate::exchange::Either;
use crate::fault::Flow;
use crate::stage::Collector;
use crate::state::KeyedStates;
use crate::time::Timestamp;

/// Handles the records of two keyed streams, with states and timers that both share.
pub trait CoProcessFunction<K, A, B>: Clone + Send + 'static {
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

    /// Takes a record of the first stream.
    fn process1<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Self::State,
        cx: &ProcessContext<'_, K>,
        value: A,
        out: &mut C,
    ) -> Flow;

    /// Takes a record of the second stream.
    fn process2<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Self::State,
        cx: &ProcessContext<'_, K>,
        value: B,
        out: &mut C,
    ) -> Flow;

    /// A timer has come due; see [`KeyedProcessFunction::on_timer`].
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

/// A [`CoProcessFunction`] as the function of one stream that holds the records of both.
#[derive(Clone, Debug)]
pub struct CoProcess<F>(pub F);

impl<K, A, B, F> KeyedProcessFunction<K, Either<A, B>> for CoProcess<F>
where
    F: CoProcessFunction<K, A, B>,
{
    type Out = F::Out;
    type State = F::State;

    fn open(
        &mut self,
        states: &mut KeyedStates<K>,
        context: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        self.0.open(states, context)
    }

    #[inline(always)]
    fn process<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Self::State,
        cx: &ProcessContext<'_, K>,
        value: Either<A, B>,
        out: &mut C,
    ) -> Flow {
        match value {
            Either::First(value) => self.0.process1(state, cx, value, out),
            Either::Second(value) => self.0.process2(state, cx, value, out),
        }
    }

    fn on_timer<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Self::State,
        cx: &TimerContext<'_, K>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        self.0.on_timer(state, cx, at, out)
    }
}
