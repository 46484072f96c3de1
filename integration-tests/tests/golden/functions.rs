//! The functions of the golden job, each with a kind of state: what expires, an accumulator, state that two
//! streams share, broadcast state, lists that belong to no key, timers in event time and in processing time.

use super::super::job::Event;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use tidegate::prelude::*;

/// No run of a test lasts so long, nor lies a golden savepoint so long.
const CENTURY: StateTtl = StateTtl::new(Duration::from_secs(100 * 365 * 24 * 3600));
/// A time by the clock that no test sees.
const SOME_DAY: Timestamp = Timestamp(9_000_000_000_000);
/// Behind all events.
const END: Timestamp = Timestamp(1_000_000);

/// Keeps everything in state that expires, and a timer by the clock; tells of it in the end.
#[derive(Clone)]
pub struct Kept;

/// The states of [`Kept`].
pub struct Keeping {
    greatest: ValueState<u64, u64, Expiring>,
    numbers: ListState<u64, u64, Expiring>,
    counts: MapState<u64, u64, u64, Expiring>,
    total: ReducingState<u64, u64, Expiring>,
}

impl KeyedProcessFunction<u64, Event> for Kept {
    type Out = String;
    type State = Keeping;

    fn open(&mut self, states: &mut KeyedStates<u64>, _: &mut OpenContext<'_>) -> Flow<Keeping> {
        Ok(Keeping {
            greatest: states.value_with("greatest", CENTURY)?,
            numbers: states.list_with("numbers", CENTURY.update_on_read())?,
            counts: states.map_with("counts", CENTURY)?,
            total: states.reducing_with("total", |a, b| a + b, CENTURY)?,
        })
    }

    fn process<C: Collector<String>>(
        &mut self,
        state: &mut Keeping,
        cx: &ProcessContext<'_, u64>,
        event: Event,
        _: &mut C,
    ) -> Flow {
        let greatest = state.greatest.get(cx).unwrap_or_default();
        state.greatest.set(cx, greatest.max(event.n));
        state.numbers.add(cx, event.n);
        state.counts.update(cx, event.n % 5, |n| *n += 1);
        state.total.add(cx, event.n);
        cx.register_event_timer(END);
        cx.register_processing_timer(SOME_DAY);
        Ok(())
    }

    fn on_timer<C: Collector<String>>(
        &mut self,
        state: &mut Keeping,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        if at != END {
            return Ok(());
        }
        let (greatest, total) = (state.greatest.get(cx), state.total.get(cx));
        let numbers = state.numbers.get(cx);
        let (count, sum) = (numbers.len(), numbers.iter().sum::<u64>());
        let counts: Vec<_> = (0..5).map(|n| state.counts.get(cx, &n)).collect();
        let timer = cx.delete_processing_timer(SOME_DAY);
        let line = format!(
            "kept {} {greatest:?} {total:?} {count} {sum} {counts:?} {timer}",
            cx.key()
        );
        out.collect(at, line)
    }
}

/// The mean of a key's numbers, in an accumulator.
#[derive(Clone)]
pub struct Mean;

/// A sum and a count.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub struct SumAndCount {
    sum: u64,
    count: u64,
}

impl Aggregator<u64> for Mean {
    type Acc = SumAndCount;
    type Out = u64;

    fn create(&self) -> SumAndCount {
        SumAndCount::default()
    }

    fn add(&self, acc: &mut SumAndCount, n: u64) {
        acc.sum += n;
        acc.count += 1;
    }

    fn merge(&self, into: &mut SumAndCount, other: &SumAndCount) {
        into.sum += other.sum;
        into.count += other.count;
    }

    fn result(&self, acc: &SumAndCount) -> u64 {
        acc.sum / acc.count.max(1)
    }
}

impl KeyedProcessFunction<u64, Event> for Mean {
    type Out = String;
    type State = AggregatingState<u64, u64, Mean>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        states.aggregating("mean", Mean)
    }

    fn process<C: Collector<String>>(
        &mut self,
        mean: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        event: Event,
        _: &mut C,
    ) -> Flow {
        mean.add(cx, event.n);
        cx.register_event_timer(END);
        Ok(())
    }

    fn on_timer<C: Collector<String>>(
        &mut self,
        mean: &mut Self::State,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        out.collect(at, format!("mean {} {:?}", cx.key(), mean.take(cx)))
    }
}

/// Counts what comes from the two sides in each second.
#[derive(Clone)]
pub struct Meeting;

impl CoProcessFunction<u64, Event, Event> for Meeting {
    type Out = String;
    type State = MapState<u64, i64, (u64, u64)>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        states.map("sides")
    }

    fn process1<C: Collector<String>>(
        &mut self,
        sides: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        event: Event,
        _: &mut C,
    ) -> Flow {
        sides.update(cx, event.at / 1000, |n| n.0 += 1);
        cx.register_event_timer(Timestamp(event.at / 1000 * 1000 + 999));
        Ok(())
    }

    fn process2<C: Collector<String>>(
        &mut self,
        sides: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        event: Event,
        _: &mut C,
    ) -> Flow {
        sides.update(cx, event.at / 1000, |n| n.1 += 1);
        cx.register_event_timer(Timestamp(event.at / 1000 * 1000 + 999));
        Ok(())
    }

    fn on_timer<C: Collector<String>>(
        &mut self,
        sides: &mut Self::State,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        let sides = sides.remove(cx, &(at.0 / 1000));
        out.collect(at, format!("met {} {} {sides:?}", cx.key(), at.0))
    }
}

/// Counts a key's records; at the end says under which rule they fall.
#[derive(Clone)]
pub struct Ruled;

/// The states of [`Ruled`].
pub struct Ruling {
    count: ValueState<u64, u64>,
    rules: BroadcastState<u64, u64>,
}

impl KeyedBroadcastProcessFunction<u64, Event, (u64, u64)> for Ruled {
    type Out = String;
    type State = Ruling;

    fn open(
        &mut self,
        keyed: &mut KeyedStates<u64>,
        broadcast: &mut BroadcastStates,
        _: &mut OpenContext<'_>,
    ) -> Flow<Ruling> {
        Ok(Ruling {
            count: keyed.value("count")?,
            rules: broadcast.map("rules")?,
        })
    }

    fn process<C: Collector<String>>(
        &mut self,
        state: &mut Ruling,
        cx: &ProcessContext<'_, u64>,
        _: Event,
        _: &mut C,
    ) -> Flow {
        state.count.update(cx, |n| *n += 1);
        cx.register_event_timer(END);
        Ok(())
    }

    fn process_broadcast<C: Collector<String>>(
        &mut self,
        state: &mut Ruling,
        cx: &BroadcastContext<'_>,
        (class, rule): (u64, u64),
        _: &mut C,
    ) -> Flow {
        state.rules.update(cx, class, |sum| *sum += rule);
        Ok(())
    }

    fn on_timer<C: Collector<String>>(
        &mut self,
        state: &mut Ruling,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        let count = state.count.take(cx).unwrap_or_default();
        let rule = state.rules.get(cx.key());
        out.collect(at, format!("ruled {} {count} {rule:?}", cx.key()))
    }
}

/// Holds numbers back until the last ones come, which every subtask gets some of.
#[derive(Clone)]
pub struct Waiting {
    /// From here on numbers are the last ones.
    pub end: u64,
}

/// The states of [`Waiting`].
pub struct Held {
    even: ElementsState<u64>,
    odd: ElementsState<u64>,
    /// Which of what all subtasks have been given is this one's, until it has been looked through.
    share: Cell<Option<(u64, u64)>>,
}

impl ProcessFunction<u64> for Waiting {
    type Out = String;
    type State = Held;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow<Held> {
        let share = (context.subtask().into(), context.parallelism().into());
        let states = context.operator_states();
        Ok(Held {
            even: states.list("even")?,
            odd: states.union("odd")?,
            share: Cell::new(Some(share)),
        })
    }

    fn process<C: Collector<String>>(
        &mut self,
        held: &mut Held,
        cx: &RecordContext<'_>,
        n: u64,
        out: &mut C,
    ) -> Flow {
        if let Some((subtask, parallelism)) = held.share.take() {
            held.odd
                .update(|all| all.retain(|n| n / 2 % parallelism == subtask));
        }
        if n < self.end {
            let state = if n.is_multiple_of(2) {
                &held.even
            } else {
                &held.odd
            };
            state.add(n);
            return Ok(());
        }
        for n in held.even.take().into_iter().chain(held.odd.take()) {
            out.collect(cx.timestamp(), format!("waited {n}"))?;
        }
        Ok(())
    }
}
