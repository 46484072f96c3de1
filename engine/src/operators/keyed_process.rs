//! Runs a user's function on each record of a key, with state and timers.

use crate::build::OpenContext;
use crate::checkpoint::{Key, StateVisitor};
use crate::exchange::Keyed;
use crate::fault::{Fault, Flow};
use crate::operator::{Blueprint, Operator, Progress};
use crate::process::{KeyedProcessFunction, TimerService};
use crate::stage::{Collector, Signal};
use crate::state::{KeyedStates, OperatorStates};
use crate::time::Timestamp;

/// What [`KeyedProcess`] is made of in each subtask.
#[derive(Clone, Debug)]
pub struct KeyedProcessBlueprint<F>(F);

impl<F> KeyedProcessBlueprint<F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        KeyedProcessBlueprint(function)
    }
}

impl<K, T, F> Blueprint<Keyed<K, T>> for KeyedProcessBlueprint<F>
where
    K: Key,
    T: 'static,
    F: KeyedProcessFunction<K, T>,
{
    type Op = KeyedProcess<K, T, F>;

    fn operator(self) -> Self::Op {
        KeyedProcess::new(self.0)
    }
}

/// Runs a [`KeyedProcessFunction`].
pub struct KeyedProcess<K, T, F: KeyedProcessFunction<K, T>> {
    function: F,
    opened: Option<Opened<K, F::State>>,
    timers: TimerService<K>,
}

struct Opened<K, S> {
    state: S,
    /// What the function declared: the tables behind its handles.
    declared: KeyedStates<K>,
    elements: OperatorStates,
}

impl<K, T, F: KeyedProcessFunction<K, T>> KeyedProcess<K, T, F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        KeyedProcess {
            function,
            opened: None,
            timers: TimerService::default(),
        }
    }

    /// The states that the function declared; none before it is open.
    pub fn states(&self) -> Option<&KeyedStates<K>> {
        self.opened.as_ref().map(|opened| &opened.declared)
    }
}

/// The fault of an operator that is given work too early.
#[cold]
pub(super) fn not_open() -> Fault {
    Fault::internal("a process function works before it is open")
}

/// Fails where two of an operator's states have the same name.
pub(super) fn distinct(groups: &[&[&str]]) -> Flow {
    let mut names = groups.concat();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Fault::user(format_args!(
            "two states of different kinds are named '{}'; give each state a name of its own",
            pair[0]
        ))),
        None => Ok(()),
    }
}

impl<K, T, F> KeyedProcess<K, T, F>
where
    K: Key,
    F: KeyedProcessFunction<K, T>,
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

impl<K, T, F> Operator<Keyed<K, T>> for KeyedProcess<K, T, F>
where
    K: Key,
    T: 'static,
    F: KeyedProcessFunction<K, T>,
{
    type Out = F::Out;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.timers.open(context);
        let mut declared = KeyedStates::new(context.name(), context.clock());
        let state = self.function.open(&mut declared, context)?;
        let elements = context.take_operator_states();
        distinct(&[&declared.names(), &elements.names()])?;
        self.opened = Some(Opened {
            state,
            declared,
            elements,
        });
        Ok(())
    }

    #[inline(always)]
    fn process<C: Collector<F::Out>>(
        &mut self,
        at: Timestamp,
        record: Keyed<K, T>,
        out: &mut C,
    ) -> Flow {
        let Some(Opened { state, .. }) = &mut self.opened else {
            return Err(not_open());
        };
        let cx = self.timers.context(record.hash, &record.key, at);
        self.function.process(state, &cx, record.value, out)
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
        let sweep = self.opened.as_ref().and_then(|o| o.declared.next_sweep());
        let timer = self.timers.next_processing();
        timer.into_iter().chain(sweep).min()
    }

    fn timer<C: Collector<F::Out>>(&mut self, now: Timestamp, out: &mut C) -> Flow {
        let Some(Opened {
            state, declared, ..
        }) = &mut self.opened
        else {
            return Err(not_open());
        };
        declared.sweep(now);
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
        opened.declared.state(state)?;
        opened.elements.state(state)?;
        self.timers.state(state)
    }
}

#[cfg(test)]
mod restore_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{ProcessContext, TimeDomain, TimerContext};
    use crate::state::ValueState;
    use crate::testing::OperatorHarness;
    use std::sync::atomic::Ordering::Relaxed;
    use std::time::Duration;

    /// What a test tells its function to do with a key.
    #[derive(Clone, Copy, Debug)]
    enum Do {
        Count,
        Event(i64),
        DeleteEvent(i64),
        Processing(i64),
        DeleteProcessing(i64),
        Clear,
    }

    /// Obeys, emits `(key, number)`: counts as they are, timers that fire as their time. A timer at a
    /// multiple of 100 sets the next one, 10 later.
    #[derive(Clone)]
    struct Obedient;

    impl KeyedProcessFunction<u64, (u64, Do)> for Obedient {
        type Out = (u64, i64);
        type State = ValueState<u64, i64>;

        fn open(
            &mut self,
            states: &mut KeyedStates<u64>,
            _: &mut OpenContext<'_>,
        ) -> Flow<Self::State> {
            states.value("count")
        }

        fn process<C: Collector<Self::Out>>(
            &mut self,
            count: &mut Self::State,
            cx: &ProcessContext<'_, u64>,
            (key, order): (u64, Do),
            out: &mut C,
        ) -> Flow {
            match order {
                Do::Count => {
                    let n = count.update(cx, |n| {
                        *n += 1;
                        *n
                    });
                    return out.collect(cx.timestamp(), (key, n));
                }
                Do::Event(at) => cx.register_event_timer(Timestamp(at)),
                Do::DeleteEvent(at) => cx.delete_event_timer(Timestamp(at)),
                Do::Processing(at) => cx.register_processing_timer(Timestamp(at)),
                Do::DeleteProcessing(at) => cx.delete_processing_timer(Timestamp(at)),
                Do::Clear => count.take(cx).is_some(),
            };
            Ok(())
        }

        fn on_timer<C: Collector<Self::Out>>(
            &mut self,
            _: &mut Self::State,
            cx: &TimerContext<'_, u64>,
            at: Timestamp,
            out: &mut C,
        ) -> Flow {
            if at.0 % 100 == 0 {
                match cx.domain() {
                    TimeDomain::Event => cx.register_event_timer(Timestamp(at.0 + 10)),
                    TimeDomain::Processing => cx.register_processing_timer(Timestamp(at.0 + 10)),
                };
            }
            out.collect(at, (*cx.key(), at.0))
        }
    }

    type Harness =
        OperatorHarness<(u64, Do), Keyed<u64, (u64, Do)>, KeyedProcess<u64, (u64, Do), Obedient>>;

    fn harness(orders: impl IntoIterator<Item = (u64, Do)>) -> Harness {
        let mut harness = OperatorHarness::keyed(KeyedProcess::new(Obedient), |r: &(u64, Do)| r.0);
        for order in orders {
            harness.push(3, order).expect("obeys");
        }
        harness
    }

    #[test]
    fn a_value_belongs_to_its_key() {
        let (count, clear) = (Do::Count, Do::Clear);
        let mut h = harness([(1, count), (1, count), (2, count), (1, clear), (1, count)]);
        assert_eq!(h.values(), [(1, 1), (1, 2), (2, 1), (1, 1)]);
    }

    #[test]
    fn event_timers_fire_once_in_order_and_before_the_watermark() {
        use Do::{DeleteEvent, Event};
        let mut h = harness([
            (1, Event(30)),
            (2, Event(10)),
            (1, Event(30)),
            (1, Event(20)),
        ]);
        h.push(3, (1, DeleteEvent(20))).expect("obeys");
        assert_eq!(h.stats().timers.load(Relaxed), 2);
        h.watermark(9).expect("fires");
        assert_eq!(h.values(), []);
        h.watermark(30).expect("fires");
        assert_eq!(h.values(), [(2, 10), (1, 30)]);
        h.watermark(90).expect("fires");
        assert_eq!(h.values(), []);
        assert_eq!(h.stats().timers.load(Relaxed), 0);
        h.push(91, (1, Event(5))).expect("obeys");
        assert_eq!(
            h.values(),
            [],
            "a timer for the past waits for the next watermark"
        );
        h.watermark(91).expect("fires");
        assert_eq!(h.values(), [(1, 5)]);
    }

    #[test]
    fn a_timer_may_set_the_next_one() {
        let mut h = harness([
            (1, Do::Event(100)),
            (2, Do::Event(105)),
            (3, Do::Event(200)),
        ]);
        h.watermark(150).expect("fires");
        assert_eq!(h.values(), [(1, 100), (2, 105), (1, 110)]);
        h.watermark(205).expect("fires");
        assert_eq!(h.values(), [(3, 200)]);
        h.end().expect("fires");
        assert_eq!(h.values(), [(3, 210)]);
    }

    #[test]
    fn firing_stops_without_room_and_goes_on_before_the_watermark() {
        let mut h = harness((0..1000).map(|key| (key, Do::Event(key as i64 * 2 + 1))));
        h.set_room(false);
        h.watermark(5000).expect("is suspended");
        assert_eq!(h.records().len(), 0);
        assert_eq!(h.signals(), []);
        h.set_room(true);
        h.turn().expect("fires");
        assert_eq!(
            h.values(),
            (0..1000).map(|k| (k, k as i64 * 2 + 1)).collect::<Vec<_>>()
        );
        assert_eq!(h.signals(), [Signal::Watermark(Timestamp(5000))]);
    }

    #[test]
    fn more_timers_than_fire_at_once_all_fire() {
        let mut h = harness((0..10_000).map(|key| (key, Do::Event(1))));
        h.watermark(1).expect("fires");
        assert_eq!(h.records().len(), 10_000);
        assert_eq!(h.signals(), [Signal::Watermark(Timestamp(1))]);
    }

    #[test]
    fn processing_timers_fire_by_the_clock() {
        use Do::{DeleteProcessing, Processing};
        let mut h = harness([
            (1, Processing(30)),
            (2, Processing(100)),
            (1, Processing(20)),
        ]);
        h.push(3, (1, DeleteProcessing(20))).expect("obeys");
        h.watermark(1000).expect("fires nothing");
        h.advance(Duration::from_millis(30)).expect("fires");
        assert_eq!(h.values(), [(1, 30)]);
        h.advance(Duration::from_millis(70)).expect("fires");
        assert_eq!(h.values(), [(2, 100)]);
        h.advance(Duration::from_millis(10)).expect("fires");
        assert_eq!(h.values(), [(2, 110)]);
    }

    #[test]
    fn a_processing_timer_that_sets_itself_fires_once_a_millisecond() {
        #[derive(Clone)]
        struct Always;
        impl KeyedProcessFunction<u64, u64> for Always {
            type Out = Timestamp;
            type State = ();
            fn open(&mut self, _: &mut KeyedStates<u64>, _: &mut OpenContext<'_>) -> Flow {
                Ok(())
            }
            fn process<C: Collector<Timestamp>>(
                &mut self,
                _: &mut (),
                cx: &ProcessContext<'_, u64>,
                _: u64,
                _: &mut C,
            ) -> Flow {
                cx.register_processing_timer(cx.processing_time());
                Ok(())
            }
            fn on_timer<C: Collector<Timestamp>>(
                &mut self,
                _: &mut (),
                cx: &TimerContext<'_, u64>,
                at: Timestamp,
                out: &mut C,
            ) -> Flow {
                cx.register_processing_timer(cx.processing_time());
                out.collect(at, at)
            }
        }
        let mut h = OperatorHarness::keyed(KeyedProcess::new(Always), |k: &u64| *k);
        h.push(0, 1).expect("sets a timer");
        assert_eq!(h.values(), [Timestamp(0)]);
        h.advance(Duration::from_millis(1)).expect("fires");
        assert_eq!(h.values(), [Timestamp(0)]);
    }
}
