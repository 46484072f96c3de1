//! Runs a user's function on each record of a key, with state and timers, and on each record of a
//! broadcast stream.

use super::keyed_process::not_open;
use crate::build::OpenContext;
use crate::exchange::{Either, Keyed};
use crate::fault::Flow;
use crate::operator::{Blueprint, Operator, Progress};
use crate::process::{BroadcastContext, KeyedBroadcastProcessFunction, TimerService};
use crate::stage::{Collector, Signal};
use crate::state::{BroadcastStates, KeyedStates};
use crate::time::Timestamp;
use std::hash::Hash;
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
    K: Hash + Eq + Clone + 'static,
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
    K: Hash + Eq + Clone + 'static,
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
    K: Hash + Eq + Clone + 'static,
    A: 'static,
    B: 'static,
    F: KeyedBroadcastProcessFunction<K, A, B>,
{
    type Out = F::Out;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.timers.open(context);
        let mut keyed = KeyedStates::new(context.name());
        let mut broadcast = BroadcastStates::new(context.name());
        let state = self.function.open(&mut keyed, &mut broadcast, context)?;
        self.opened = Some(Opened {
            state,
            keyed,
            broadcast,
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
        self.timers.advance(at);
        self.fire_event(out)
    }

    fn resume<C: Collector<F::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        self.fire_event(out)
    }

    fn turn(&mut self, _now: Timestamp) -> Option<Signal> {
        self.timers.publish();
        None
    }

    fn next_timer(&self) -> Option<Timestamp> {
        self.timers.next_processing()
    }

    fn timer<C: Collector<F::Out>>(&mut self, now: Timestamp, out: &mut C) -> Flow {
        let Some(Opened { state, .. }) = &mut self.opened else {
            return Err(not_open());
        };
        let function = &mut self.function;
        self.timers.fire_processing(now, out, |cx, at, out| {
            function.on_timer(state, cx, at, out)
        })
    }
}
