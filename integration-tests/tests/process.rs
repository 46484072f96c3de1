//! Process functions in whole jobs: the answers of a plain model, at every parallelism.

use std::collections::BTreeMap;
use tidegate::prelude::*;

/// Counts the records of a key's bursts: a burst ends when event time is more than a pause past its
/// last record. Records may come in any order; a timer puts each into its place in event time.
#[derive(Clone)]
struct Bursts;

struct Burst {
    pending: MapState<u64, i64, u64>,
    last: ValueState<u64, i64>,
    count: ReducingState<u64, u64>,
}

const PAUSE: i64 = 10;

impl KeyedProcessFunction<u64, (u64, i64)> for Bursts {
    type Out = (u64, i64, u64);
    type State = Burst;

    fn open(&mut self, states: &mut KeyedStates<u64>, _: &mut OpenContext<'_>) -> Flow<Burst> {
        Ok(Burst {
            pending: states.map("pending")?,
            last: states.value("last")?,
            count: states.reducing("count", |so_far, n| so_far + n)?,
        })
    }

    fn process<C: Collector<Self::Out>>(
        &mut self,
        burst: &mut Burst,
        cx: &ProcessContext<'_, u64>,
        _: (u64, i64),
        _: &mut C,
    ) -> Flow {
        burst.pending.update(cx, cx.timestamp().0, |n| *n += 1);
        cx.register_event_timer(cx.timestamp());
        Ok(())
    }

    fn on_timer<C: Collector<Self::Out>>(
        &mut self,
        burst: &mut Burst,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        if let Some(records) = burst.pending.remove(cx, &at.0) {
            burst.last.set(cx, at.0);
            burst.count.add(cx, records);
            cx.register_event_timer(Timestamp(at.0 + PAUSE));
        } else if burst.last.get(cx) == Some(at.0 - PAUSE) {
            burst.last.clear(cx);
            let count = burst.count.take(cx).unwrap_or_default();
            out.collect(at, (*cx.key(), at.0, count))?;
        }
        Ok(())
    }
}

/// A record's key and its time; times go up.
fn event(n: u64) -> (u64, i64) {
    (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58, (n / 3) as i64)
}

fn bursts_of(n: u64) -> Vec<(u64, i64, u64)> {
    let mut open: BTreeMap<u64, (i64, u64)> = BTreeMap::new();
    let mut done = Vec::new();
    for (key, at) in (0..n).map(event) {
        let burst = open.entry(key).or_insert((at, 0));
        if burst.1 > 0 && at > burst.0 + PAUSE {
            done.push((key, burst.0 + PAUSE, burst.1));
            *burst = (at, 0);
        }
        *burst = (at, burst.1 + 1);
    }
    done.extend(
        open.into_iter()
            .map(|(key, (at, count))| (key, at + PAUSE, count)),
    );
    done.sort_unstable();
    done
}

#[test]
fn keyed_state_and_timers_give_the_same_at_every_parallelism() {
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let out = Collect::new();
        env.source("events", Generator::new(20_000, event))
            .watermarks(WatermarkStrategy::monotonous().timestamps(|e: &(u64, i64)| e.1))
            .key_by(|e| e.0)
            .process(Bursts)
            .sink("out", out.clone());
        env.execute("bursts").expect("the job runs");
        let mut got = out.values();
        got.sort_unstable();
        assert_eq!(got, bursts_of(20_000), "parallelism {parallelism}");
    }
}

/// Remembers prices of the second stream, answers each order of the first with the price of its time.
#[derive(Clone)]
struct PriceOf;

struct Prices {
    orders: MapState<u64, i64, u64>,
    prices: MapState<u64, i64, u64>,
    current: ValueState<u64, u64>,
}

type Order = (u64, i64);
type Price = (u64, i64, u64);

impl CoProcessFunction<u64, Order, Price> for PriceOf {
    type Out = (u64, i64, u64, u64);
    type State = Prices;

    fn open(&mut self, states: &mut KeyedStates<u64>, _: &mut OpenContext<'_>) -> Flow<Prices> {
        let (orders, prices) = (states.map("orders")?, states.map("prices")?);
        Ok(Prices {
            orders,
            prices,
            current: states.value("current")?,
        })
    }

    fn process1<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Prices,
        cx: &ProcessContext<'_, u64>,
        (_, at): Order,
        _: &mut C,
    ) -> Flow {
        state.orders.update(cx, at, |orders| *orders += 1);
        cx.register_event_timer(Timestamp(at));
        Ok(())
    }

    fn process2<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Prices,
        cx: &ProcessContext<'_, u64>,
        (_, at, price): Price,
        _: &mut C,
    ) -> Flow {
        state.prices.insert(cx, at, price);
        cx.register_event_timer(Timestamp(at));
        Ok(())
    }

    fn on_timer<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Prices,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        if let Some(price) = state.prices.remove(cx, &at.0) {
            state.current.set(cx, price);
        }
        if let Some(orders) = state.orders.remove(cx, &at.0) {
            let price = state.current.get(cx).unwrap_or_default();
            out.collect(at, (*cx.key(), at.0, orders, price))?;
        }
        Ok(())
    }
}

/// The product, the time and the price of price change `n`.
fn price(n: u64) -> Price {
    (n % 64, (n * 7) as i64, n * 100)
}

fn prices_of(orders: u64, changes: u64) -> Vec<(u64, i64, u64, u64)> {
    let mut at_time: BTreeMap<(i64, u64), (u64, Option<u64>)> = BTreeMap::new();
    for (product, at) in (0..orders).map(event) {
        at_time.entry((at, product)).or_default().0 += 1;
    }
    for (product, at, price) in (0..changes).map(price) {
        at_time.entry((at, product)).or_default().1 = Some(price);
    }
    let mut current = BTreeMap::new();
    let mut answers = Vec::new();
    for ((at, product), (orders, price)) in at_time {
        current.extend(price.map(|price| (product, price)));
        if orders > 0 {
            answers.push((
                product,
                at,
                orders,
                current.get(&product).copied().unwrap_or_default(),
            ));
        }
    }
    answers.sort_unstable();
    answers
}

#[test]
fn two_streams_share_state_and_timers_of_a_key() {
    let want = prices_of(20_000, 900);
    for parallelism in [1, 2, 3] {
        let env = StreamEnv::with_parallelism(parallelism);
        let out = Collect::new();
        let orders = env
            .source("orders", Generator::new(20_000, event))
            .watermarks(WatermarkStrategy::monotonous().timestamps(|order: &Order| order.1));
        let prices = env
            .source("prices", Generator::new(900, price))
            .watermarks(WatermarkStrategy::monotonous().timestamps(|price: &Price| price.1));
        orders
            .connect(prices)
            .key_by(|order| order.0, |price| price.0)
            .process(PriceOf)
            .parallelism(parallelism)
            .sink("out", out.clone());
        let plan = env.graph("prices").expect("a graph").plan().to_json();
        assert_eq!(plan.matches("\"hash\"").count(), 2, "{plan}");
        env.execute("prices").expect("the job runs");
        let mut got = out.values();
        got.sort_unstable();
        assert_eq!(got, want, "parallelism {parallelism}");
    }
}
