//! Runs a user's function on each record of a stream and on each of a broadcast one.

use super::keyed_process::{distinct, not_open};
use crate::build::OpenContext;
use crate::checkpoint::StateVisitor;
use crate::clock::Clock;
use crate::exchange::Either;
use crate::fault::Flow;
use crate::operator::{Blueprint, Operator, Progress};
use crate::process::{BroadcastContext, BroadcastProcessFunction, RecordContext};
use crate::stage::Collector;
use crate::state::{BroadcastStates, OperatorStates};
use crate::time::Timestamp;
use std::marker::PhantomData;

/// What [`BroadcastProcess`] is made of in each subtask.
#[derive(Clone, Debug)]
pub struct BroadcastProcessBlueprint<F>(F);

impl<F> BroadcastProcessBlueprint<F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        BroadcastProcessBlueprint(function)
    }
}

impl<A, B, F> Blueprint<Either<A, B>> for BroadcastProcessBlueprint<F>
where
    A: 'static,
    B: 'static,
    F: BroadcastProcessFunction<A, B>,
{
    type Op = BroadcastProcess<A, B, F>;

    fn operator(self) -> Self::Op {
        BroadcastProcess::new(self.0)
    }
}

/// Runs a [`BroadcastProcessFunction`].
pub struct BroadcastProcess<A, B, F: BroadcastProcessFunction<A, B>> {
    function: F,
    opened: Option<Opened<F::State>>,
    watermark: Timestamp,
    inputs: PhantomData<fn(A, B)>,
}

struct Opened<S> {
    state: S,
    clock: Clock,
    declared: BroadcastStates,
    elements: OperatorStates,
}

impl<A, B, F: BroadcastProcessFunction<A, B>> BroadcastProcess<A, B, F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        let (opened, watermark) = (None, Timestamp::MIN);
        BroadcastProcess {
            function,
            opened,
            watermark,
            inputs: PhantomData,
        }
    }

    /// The broadcast states that the function declared; none before it is open.
    pub fn states(&self) -> Option<&BroadcastStates> {
        self.opened.as_ref().map(|opened| &opened.declared)
    }
}

impl<A, B, F> Operator<Either<A, B>> for BroadcastProcess<A, B, F>
where
    A: 'static,
    B: 'static,
    F: BroadcastProcessFunction<A, B>,
{
    type Out = F::Out;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        let clock = context.clock();
        let mut declared = BroadcastStates::new(context.name());
        let state = self.function.open(&mut declared, context)?;
        let elements = context.take_operator_states();
        distinct(&[&declared.names(), &elements.names()])?;
        self.opened = Some(Opened {
            state,
            clock,
            declared,
            elements,
        });
        Ok(())
    }

    #[inline(always)]
    fn process<C: Collector<F::Out>>(
        &mut self,
        timestamp: Timestamp,
        value: Either<A, B>,
        out: &mut C,
    ) -> Flow {
        let Some(Opened { state, clock, .. }) = &mut self.opened else {
            return Err(not_open());
        };
        let cx = RecordContext {
            timestamp,
            watermark: self.watermark,
            clock,
        };
        match value {
            Either::First(value) => self.function.process(state, &cx, value, out),
            Either::Second(value) => {
                self.function
                    .process_broadcast(state, &BroadcastContext(cx), value, out)
            }
        }
    }

    fn watermark<C: Collector<F::Out>>(&mut self, at: Timestamp, _: &mut C) -> Flow<Progress> {
        self.watermark = at;
        Ok(Progress::Forward)
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        let Some(opened) = &mut self.opened else {
            return Err(not_open());
        };
        opened.declared.state(state)?;
        opened.elements.state(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::BroadcastState;
    use crate::testing::{Attempt, OperatorHarness};

    /// Multiplies by the factor that was broadcast last.
    #[derive(Clone)]
    struct Multiply;

    impl BroadcastProcessFunction<u64, u64> for Multiply {
        type Out = u64;
        type State = BroadcastState<(), u64>;

        fn open(
            &mut self,
            states: &mut BroadcastStates,
            _: &mut OpenContext<'_>,
        ) -> Flow<Self::State> {
            states.map("factor")
        }

        fn process<C: Collector<u64>>(
            &mut self,
            factor: &mut Self::State,
            cx: &RecordContext<'_>,
            value: u64,
            out: &mut C,
        ) -> Flow {
            out.collect(cx.timestamp(), value * factor.get(&()).unwrap_or(1))
        }

        fn process_broadcast<C: Collector<u64>>(
            &mut self,
            factor: &mut Self::State,
            cx: &BroadcastContext<'_>,
            value: u64,
            _: &mut C,
        ) -> Flow {
            factor.insert(cx, (), value);
            Ok(())
        }
    }

    #[test]
    fn one_stream_reads_what_the_other_writes() {
        let mut h = OperatorHarness::new(BroadcastProcess::new(Multiply));
        for value in [Either::First(3), Either::Second(7), Either::First(3)] {
            h.push(0, value).expect("processes");
        }
        assert_eq!(h.values(), [3, 21]);
    }

    #[test]
    fn two_states_of_one_name_are_refused() {
        let mut states = BroadcastStates::new("rules");
        states.map::<u8, u8>("rule").expect("a first state");
        let fault = states
            .map::<u8, String>("rule")
            .err()
            .expect("the name is taken");
        assert_eq!(fault.operator(), Some("rules"));
        assert!(fault.message().contains("'rule'"), "{fault}");
    }

    #[test]
    fn every_subtask_goes_on_with_all_of_what_was_broadcast() {
        let mut before = OperatorHarness::new(BroadcastProcess::new(Multiply));
        before.push(0, Either::Second(7)).expect("processes");
        let image = before.save().expect("saves");
        let saved = vec![(0, image.clone()), (1, image)];
        for me in 0..3 {
            let attempt = Attempt::new().subtask(me, 3).restored(saved.clone());
            let mut h = attempt
                .plain(BroadcastProcess::new(Multiply))
                .expect("restores");
            h.push(0, Either::First(3)).expect("processes");
            assert_eq!(h.values(), [21]);
        }
    }
}
