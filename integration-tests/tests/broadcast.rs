//! Broadcast state, connected and plain process functions in whole jobs, at every parallelism.

use std::collections::BTreeMap;
use tidegate::prelude::*;

/// Counts a key's records; at the end says under which rule they fall.
#[derive(Clone)]
struct ByRule;

struct Ruled {
    count: ValueState<u64, u64>,
    rules: BroadcastState<u64, u64>,
}

const END: Timestamp = Timestamp(1_000_000);

type Rule = (u64, u64);

impl KeyedBroadcastProcessFunction<u64, u64, Rule> for ByRule {
    type Out = (u64, u64, Option<u64>);
    type State = Ruled;

    fn open(
        &mut self,
        keyed: &mut KeyedStates<u64>,
        broadcast: &mut BroadcastStates,
        _: &mut OpenContext<'_>,
    ) -> Flow<Ruled> {
        Ok(Ruled {
            count: keyed.value("count")?,
            rules: broadcast.map("rules")?,
        })
    }

    fn process<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Ruled,
        cx: &ProcessContext<'_, u64>,
        _: u64,
        _: &mut C,
    ) -> Flow {
        state.count.update(cx, |n| *n += 1);
        cx.register_event_timer(END);
        Ok(())
    }

    fn process_broadcast<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Ruled,
        cx: &BroadcastContext<'_>,
        (class, rule): Rule,
        _: &mut C,
    ) -> Flow {
        state.rules.update(cx, class, |sum| *sum += rule);
        Ok(())
    }

    fn on_timer<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Ruled,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        let count = state.count.take(cx).unwrap_or_default();
        out.collect(at, (*cx.key(), count, state.rules.get(&(cx.key() % 10))))
    }
}

#[test]
fn every_subtask_sees_the_whole_broadcast_state() {
    let mut rules: BTreeMap<u64, u64> = BTreeMap::new();
    for n in 0..5_000u64 {
        *rules.entry(n % 9).or_default() += n;
    }
    let want: Vec<_> = (0..500)
        .map(|key| (key, 40, rules.get(&(key % 10)).copied()))
        .collect();
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let out = Collect::new();
        let rules = env.source("rules", Generator::new(5_000, |n| (n % 9, n)));
        env.source("records", Generator::new(20_000, |n| n % 500))
            .key_by(|key| *key)
            .connect_broadcast(rules)
            .process(ByRule)
            .sink("out", out.clone());
        env.execute("rules").expect("the job runs");
        let mut got = out.values();
        got.sort_unstable();
        assert_eq!(got, want, "parallelism {parallelism}");
    }
}

/// Passes records on, and tells of each broadcast record how many there were so far.
#[derive(Clone)]
struct Echo;

impl BroadcastProcessFunction<u64, &'static str> for Echo {
    type Out = Result<u64, u64>;
    type State = BroadcastState<String, u64>;

    fn open(&mut self, states: &mut BroadcastStates, _: &mut OpenContext<'_>) -> Flow<Self::State> {
        states.map("seen")
    }

    fn process<C: Collector<Self::Out>>(
        &mut self,
        _: &mut Self::State,
        cx: &RecordContext<'_>,
        value: u64,
        out: &mut C,
    ) -> Flow {
        out.collect(cx.timestamp(), Ok(value))
    }

    fn process_broadcast<C: Collector<Self::Out>>(
        &mut self,
        seen: &mut Self::State,
        cx: &BroadcastContext<'_>,
        value: &'static str,
        out: &mut C,
    ) -> Flow {
        let so_far = seen.update(cx, value.to_owned(), |n| {
            *n += 1;
            *n
        });
        out.collect(cx.timestamp(), Err(so_far))
    }
}

#[test]
fn a_plain_stream_goes_to_one_subtask_and_the_broadcast_one_to_all() {
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let out = Collect::new();
        let words = env.source("words", Generator::new(100, |_| "tide"));
        env.source("records", Generator::new(3_000, |n| n))
            .connect_broadcast(words)
            .process(Echo)
            .sink("out", out.clone());
        env.execute("echo").expect("the job runs");
        let (records, counts): (Vec<_>, Vec<_>) = out.values().into_iter().partition(Result::is_ok);
        let mut records: Vec<u64> = records.into_iter().flatten().collect();
        records.sort_unstable();
        assert!(
            records.into_iter().eq(0..3_000),
            "parallelism {parallelism}"
        );
        let mut counts: Vec<u64> = counts.into_iter().filter_map(Result::err).collect();
        counts.sort_unstable();
        let each = (1..=100u64).flat_map(|n| std::iter::repeat_n(n, parallelism as usize));
        assert!(counts.into_iter().eq(each), "parallelism {parallelism}");
    }
}

/// Passes even numbers on, odd ones to the side.
#[derive(Clone)]
struct Sort(SideOutput<u64>);

impl ProcessFunction<u64> for Sort {
    type Out = u64;
    type State = SideBuffer<u64>;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow<SideBuffer<u64>> {
        Ok(context.side_output(&self.0))
    }

    fn process<C: Collector<u64>>(
        &mut self,
        odd: &mut SideBuffer<u64>,
        cx: &RecordContext<'_>,
        value: u64,
        out: &mut C,
    ) -> Flow {
        if value.is_multiple_of(2) {
            return out.collect(cx.timestamp(), value);
        }
        odd.collect(cx.timestamp(), value);
        Ok(())
    }
}

#[test]
fn process_puts_to_the_side_and_connected_streams_map_each_their_way() {
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(2);
        let out = Collect::new();
        let tag = SideOutput::new("odd");
        let (even, odd) = env
            .source("numbers", Generator::new(2_000, |n| n))
            .process(Sort(tag.clone()))
            .parallelism(parallelism)
            .side_output(&tag);
        let twice = even.connect(odd.map(|n| n.to_string())).flat_map(
            |n| [Either::First(n), Either::First(n)],
            |text| text.parse::<u64>().ok().map(Either::Second),
        );
        let (first, second) = twice.fork();
        let first = first.filter_map(|n| {
            if let Either::First(n) = n {
                Some(n)
            } else {
                None
            }
        });
        let second = second.filter_map(|n| {
            if let Either::Second(n) = n {
                Some(n)
            } else {
                None
            }
        });
        first
            .connect(second)
            .map(|n| n, |n| n)
            .sink("out", out.clone());
        env.execute("sides").expect("the job runs");
        let mut got = out.values();
        got.sort_unstable();
        let want = (0..2_000).flat_map(|n| std::iter::repeat_n(n, if n % 2 == 0 { 2 } else { 1 }));
        assert!(got.into_iter().eq(want), "parallelism {parallelism}");
    }
}
