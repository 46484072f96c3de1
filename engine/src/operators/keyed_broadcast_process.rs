//! Runs a user's function on each record of a key, with state and timers, and on each record of a
//! broadcast stream.

use super::keyed_process::{distinct, not_open};
use crate::build::OpenContext;
use crate::checkpoint::{Key, StateVisitor};
use crate::exchange::{Either, Keyed};
use crate::fault::Flow;
use crate::operator::{Blueprint, Operator, Progress};
use crate::process::{BroadcastContext, KeyedBroadcastProcessFunction, TimerService};
use crate::stage::{Collector, Signal};
use crate::state::{BroadcastStates, KeyedStates, OperatorStates};
use crate::time::Timestamp;
use std::marker::PhantomData;

/// What [`KeyedBroadcastProcess`] is made of in each subtask.
#[derive(Clone, Debug)]
pub struct KeyedBroadcastProcessBlueprint<F>(F);

impl<F> KeyedBroadcastProcessBlueprint<F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        KeyedBroadcastProcessBlueprint(function)
    }
}

impl<K, A, B, F> Blueprint<Either<Keyed<K, A>, B>> for KeyedBroadcastProcessBlueprint<F>
where
    K: Key,
    A: 'static,
    B: 'static,
    F: KeyedBroadcastProcessFunction<K, A, B>,
{
    type Op = KeyedBroadcastProcess<K, A, B, F>;

    fn operator(self) -> Self::Op {
        KeyedBroadcastProcess::new(self.0)
    }
}

/// Runs a [`KeyedBroadcastProcessFunction`].
pub struct KeyedBroadcastProcess<K, A, B, F: KeyedBroadcastProcessFunction<K, A, B>> {
    function: F,
    opened: Option<Opened<K, F::State>>,
    timers: TimerService<K>,
    inputs: PhantomData<fn(A, B)>,
}

struct Opened<K, S> {
    state: S,
    keyed: KeyedStates<K>,
    broadcast: BroadcastStates,
    elements: OperatorStates,
}

impl<K, A, B, F: KeyedBroadcastProcessFunction<K, A, B>> KeyedBroadcastProcess<K, A, B, F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        let timers = TimerService::default();
        KeyedBroadcastProcess {
            function,
            opened: None,
            timers,
            inputs: PhantomData,
        }
    }

    /// The states that the function declared; none before it is open.
    pub fn states(&self) -> Option<(&KeyedStates<K>, &BroadcastStates)> {
        self.opened
            .as_ref()
            .map(|opened| (&opened.keyed, &opened.broadcast))
    }
}

impl<K, A, B, F> KeyedBroadcastProcess<K, A, B, F>
where
    K: Key,
    F: KeyedBroadcastProcessFunction<K, A, B>,
{
    fn fire_event<C: Collector<F::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        let Some(Opened { state, .. }) = &mut self.opened else {
            return Err(not_open());
        };
        let function = &mut self.function;
        self.timers
            .fire_event(out, |cx, at, out| function.on_timer(state, cx, at, out))
    }
}

impl<K, A, B, F> Operator<Either<Keyed<K, A>, B>> for KeyedBroadcastProcess<K, A, B, F>
where
    K: Key,
    A: 'static,
    B: 'static,
    F: KeyedBroadcastProcessFunction<K, A, B>,
{
    type Out = F::Out;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.timers.open(context);
        let mut keyed = KeyedStates::new(context.name(), context.clock());
        let mut broadcast = BroadcastStates::new(context.name());
        let state = self.function.open(&mut keyed, &mut broadcast, context)?;
        let elements = context.take_operator_states();
        distinct(&[&keyed.names(), &broadcast.names(), &elements.names()])?;
        self.opened = Some(Opened {
            state,
            keyed,
            broadcast,
            elements,
        });
        Ok(())
    }

    #[inline(always)]
    fn process<C: Collector<F::Out>>(
        &mut self,
        at: Timestamp,
        value: Either<Keyed<K, A>, B>,
        out: &mut C,
    ) -> Flow {
        let Some(Opened { state, .. }) = &mut self.opened else {
            return Err(not_open());
        };
        match value {
            Either::First(record) => {
                let cx = self.timers.context(record.hash, &record.key, at);
                self.function.process(state, &cx, record.value, out)
            }
            Either::Second(value) => {
                let cx = BroadcastContext(self.timers.record(at));
                self.function.process_broadcast(state, &cx, value, out)
            }
        }
    }

    fn watermark<C: Collector<F::Out>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        match self.timers.advance(at) {
            true => self.fire_event(out),
            false => Ok(Progress::Forward),
        }
    }

    fn resume<C: Collector<F::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        self.fire_event(out)
    }

    fn turn(&mut self, _now: Timestamp) -> Option<Signal> {
        self.timers.publish();
        None
    }

    fn next_timer(&self) -> Option<Timestamp> {
        let sweep = self.opened.as_ref().and_then(|o| o.keyed.next_sweep());
        let timer = self.timers.next_processing();
        timer.into_iter().chain(sweep).min()
    }

    fn timer<C: Collector<F::Out>>(&mut self, now: Timestamp, out: &mut C) -> Flow {
        let Some(Opened { state, keyed, .. }) = &mut self.opened else {
            return Err(not_open());
        };
        keyed.sweep(now);
        if self.timers.next_processing().is_none_or(|at| at > now) {
            return Ok(());
        }
        let function = &mut self.function;
        self.timers.fire_processing(now, out, |cx, at, out| {
            function.on_timer(state, cx, at, out)
        })
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        let Some(opened) = &mut self.opened else {
            return Err(not_open());
        };
        opened.keyed.state(state)?;
        opened.broadcast.state(state)?;
        opened.elements.state(state)?;
        self.timers.state(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::key_hash;
    use crate::process::{ProcessContext, TimerContext};
    use crate::state::{BroadcastState, ElementsState, ValueState};
    use crate::testing::{Attempt, OperatorHarness};
    use std::time::Duration;

    /// Adds up the records of a key, times the factor that was broadcast last; a timer by each kind of
    /// time emits `(key, sum, records of the subtask)`.
    #[derive(Clone)]
    struct Sum {
        elements: &'static str,
    }

    struct Sums {
        sum: ValueState<u64, u64>,
        factor: BroadcastState<(), u64>,
        seen: ElementsState<u64>,
    }

    impl KeyedBroadcastProcessFunction<u64, u64, u64> for Sum {
        type Out = (u64, u64, usize);
        type State = Sums;

        fn open(
            &mut self,
            keyed: &mut KeyedStates<u64>,
            broadcast: &mut BroadcastStates,
            context: &mut OpenContext<'_>,
        ) -> Flow<Sums> {
            Ok(Sums {
                sum: keyed.value("sum")?,
                factor: broadcast.map("factor")?,
                seen: context.operator_states().list(self.elements)?,
            })
        }

        fn process<C: Collector<Self::Out>>(
            &mut self,
            sums: &mut Sums,
            cx: &ProcessContext<'_, u64>,
            value: u64,
            _: &mut C,
        ) -> Flow {
            let factor = sums.factor.get(&()).unwrap_or(1);
            sums.sum.update(cx, |sum| *sum += value * factor);
            sums.seen.add(value);
            cx.register_event_timer(Timestamp(50));
            cx.register_processing_timer(Timestamp(50));
            Ok(())
        }

        fn process_broadcast<C: Collector<Self::Out>>(
            &mut self,
            sums: &mut Sums,
            cx: &BroadcastContext<'_>,
            factor: u64,
            _: &mut C,
        ) -> Flow {
            sums.factor.insert(cx, (), factor);
            Ok(())
        }

        fn on_timer<C: Collector<Self::Out>>(
            &mut self,
            sums: &mut Sums,
            cx: &TimerContext<'_, u64>,
            at: Timestamp,
            out: &mut C,
        ) -> Flow {
            let sum = sums.sum.get(cx).unwrap_or_default();
            out.collect(at, (*cx.key(), sum, sums.seen.len()))
        }
    }

    type Input = Either<u64, u64>;
    type Lifted = Either<Keyed<u64, u64>, u64>;
    type Op = KeyedBroadcastProcess<u64, u64, u64, Sum>;

    fn begin(attempt: Attempt, elements: &'static str) -> Flow<OperatorHarness<Input, Lifted, Op>> {
        let op = KeyedBroadcastProcess::new(Sum { elements });
        attempt.lifted(op, |input| match input {
            Either::First(value) => Either::First(Keyed {
                hash: key_hash(&(value % 2)),
                key: value % 2,
                value,
            }),
            Either::Second(factor) => Either::Second(factor),
        })
    }

    #[test]
    fn all_kinds_of_state_are_restored_together() {
        let mut before = begin(Attempt::new(), "seen").expect("opens");
        for input in [Either::First(1), Either::Second(10), Either::First(2)] {
            before.push(0, input).expect("processes");
        }
        let saved = vec![(0, before.save().expect("saves"))];
        let mut after = begin(Attempt::new().restored(saved), "seen").expect("restores");
        after.push(0, Either::First(3)).expect("processes");
        after.watermark(50).expect("fires");
        assert_eq!(after.values(), [(1, 31, 3), (0, 20, 3)]);
        after.advance(Duration::from_millis(50)).expect("fires");
        assert_eq!(after.values(), [(1, 31, 3), (0, 20, 3)]);
    }

    #[test]
    fn a_name_belongs_to_one_state_of_any_kind() {
        for name in ["sum", "factor"] {
            let fault = begin(Attempt::new(), name)
                .err()
                .expect("the name is taken");
            assert!(fault.message().contains(&format!("'{name}'")), "{fault}");
        }
    }
}
