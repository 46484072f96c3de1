//! Runs a user's function on each record, with its time.

use super::keyed_process::not_open;
use crate::build::OpenContext;
use crate::checkpoint::StateVisitor;
use crate::clock::Clock;
use crate::exchange::Either;
use crate::fault::Flow;
use crate::operator::{Blueprint, Operator, Progress};
use crate::process::{ProcessFunction, RecordContext};
use crate::stage::Collector;
use crate::state::OperatorStates;
use crate::time::Timestamp;

/// What [`Process`] is made of in each subtask of connected streams.
#[derive(Clone, Debug)]
pub struct ProcessBlueprint<F>(F);

impl<F> ProcessBlueprint<F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        ProcessBlueprint(function)
    }
}

impl<A, B, F> Blueprint<Either<A, B>> for ProcessBlueprint<F>
where
    A: 'static,
    B: 'static,
    F: ProcessFunction<Either<A, B>>,
{
    type Op = Process<Either<A, B>, F>;

    fn operator(self) -> Self::Op {
        Process::new(self.0)
    }
}

/// Runs a [`ProcessFunction`].
pub struct Process<T, F: ProcessFunction<T>> {
    function: F,
    opened: Option<(F::State, Clock)>,
    states: OperatorStates,
    watermark: Timestamp,
}

impl<T, F: ProcessFunction<T>> Process<T, F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        Process {
            function,
            opened: None,
            states: OperatorStates::default(),
            watermark: Timestamp::MIN,
        }
    }
}

impl<T: 'static, F: ProcessFunction<T>> Operator<T> for Process<T, F> {
    type Out = F::Out;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        let clock = context.clock();
        self.opened = Some((self.function.open(context)?, clock));
        self.states = context.take_operator_states();
        Ok(())
    }

    #[inline(always)]
    fn process<C: Collector<F::Out>>(
        &mut self,
        timestamp: Timestamp,
        value: T,
        out: &mut C,
    ) -> Flow {
        let Some((state, clock)) = &mut self.opened else {
            return Err(not_open());
        };
        let cx = RecordContext {
            timestamp,
            watermark: self.watermark,
            clock,
        };
        self.function.process(state, &cx, value, out)
    }

    fn watermark<C: Collector<F::Out>>(&mut self, at: Timestamp, _: &mut C) -> Flow<Progress> {
        self.watermark = at;
        Ok(Progress::Forward)
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        self.states.state(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side::{SideBuffer, SideOutput};
    use crate::testing::OperatorHarness;

    /// Passes records on, late ones to the side.
    #[derive(Clone)]
    struct Punctual(SideOutput<u64>);

    impl ProcessFunction<u64> for Punctual {
        type Out = u64;
        type State = SideBuffer<u64>;

        fn open(&mut self, context: &mut OpenContext<'_>) -> Flow<SideBuffer<u64>> {
            Ok(context.side_output(&self.0))
        }

        fn process<C: Collector<u64>>(
            &mut self,
            late: &mut SideBuffer<u64>,
            cx: &RecordContext<'_>,
            value: u64,
            out: &mut C,
        ) -> Flow {
            if cx.timestamp() > cx.watermark() {
                return out.collect(cx.timestamp(), value);
            }
            late.collect(cx.timestamp(), value);
            Ok(())
        }
    }

    #[test]
    fn knows_the_time_and_has_side_outputs() {
        let tag = SideOutput::new("late");
        let (mut h, late) = OperatorHarness::with_side(Process::new(Punctual(tag.clone())), &tag);
        h.push(5, 1).expect("processes");
        h.watermark(7).expect("passes on");
        h.push(7, 2).expect("processes");
        h.push(8, 3).expect("processes");
        assert_eq!(h.records(), [(Timestamp(5), 1), (Timestamp(8), 3)]);
        assert_eq!(late.drain(), [(Timestamp(7), 2)]);
    }
}
