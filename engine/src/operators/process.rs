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
    use crate::state::ElementsState;
    use crate::testing::{Attempt, OperatorHarness};

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

    /// Gathers records; emits what it has when told so by a zero.
    #[derive(Clone)]
    struct Gather {
        union: bool,
    }

    impl ProcessFunction<u64> for Gather {
        type Out = Vec<u64>;
        type State = ElementsState<u64>;

        fn open(&mut self, context: &mut OpenContext<'_>) -> Flow<Self::State> {
            let subtask = u64::from(context.subtask());
            let states = context.operator_states();
            let gathered = match self.union {
                true => states.union("gathered")?,
                false => states.list("gathered")?,
            };
            gathered.add(1_000 + subtask);
            Ok(gathered)
        }

        fn process<C: Collector<Vec<u64>>>(
            &mut self,
            gathered: &mut Self::State,
            cx: &RecordContext<'_>,
            value: u64,
            out: &mut C,
        ) -> Flow {
            if value == 0 {
                return out.collect(cx.timestamp(), gathered.get());
            }
            gathered.add(value);
            Ok(())
        }
    }

    /// What subtasks have, of `parallelism`, after a restore from two that were given 1, 2 and 3.
    fn gathered(union: bool, parallelism: u32) -> Vec<Vec<u64>> {
        let saved = [vec![1, 2], vec![3]].map(|values| {
            let mut h = OperatorHarness::new(Process::new(Gather { union }));
            for value in values {
                h.push(0, value).expect("gathers");
            }
            h.save().expect("saves")
        });
        let saved: Vec<_> = (0..).zip(saved).collect();
        let emitted = (0..parallelism).map(|me| {
            let attempt = Attempt::new().subtask(me, parallelism);
            let restored = attempt.restored(saved.clone());
            let mut h = restored
                .plain(Process::new(Gather { union }))
                .expect("restores");
            h.push(0, 0).expect("emits");
            h.values().concat()
        });
        emitted.collect()
    }

    #[test]
    fn elements_are_dealt_out_in_turns_or_to_all() {
        assert_eq!(gathered(false, 1), [[1000, 1, 2, 1000, 3]]);
        assert_eq!(gathered(false, 2), [vec![1000, 2, 3], vec![1, 1000]]);
        let six = gathered(false, 6);
        assert_eq!(six.concat(), [1000, 1, 2, 1000, 3]);
        assert!(
            six[5].is_empty(),
            "what `open` puts there is for a beginning from scratch"
        );
        assert_eq!(gathered(true, 2), [[1000, 1, 2, 1000, 3]; 2]);
    }
}
