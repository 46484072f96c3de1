//! The jobs that are simulated, and the operators that watch what comes to them.

use crate::network::{Dice, Doors, Network, credits};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_engine::api::FromSource;
use tidegate_engine::exchange::{AnyBatch, ChannelSettings};
use tidegate_engine::graph::{GraphRef, JobSettings};
use tidegate_engine::prelude::*;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Plan {
    pub shape: Shape,
    /// Parallelism of the sources and of two steps behind them.
    pub width: [u32; 3],
    pub channels: ChannelSettings,
    pub slice: usize,
    /// Records of each source's subtask.
    pub records: u64,
    /// How far sources may drift apart, where they are aligned.
    pub drift: Option<u64>,
    /// After how long a source counts as idle.
    pub idle: Option<u64>,
    pub seed: u64,
}

/// What leads where.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// By key, held until their time has come, dealt out.
    Keyed,
    /// Dealt out, then copied to all.
    Copies,
    /// Two sources, one of them much faster in event time, united and then by key.
    Union,
    /// Every operator in an actor of its own.
    Chains,
    /// A stream in two branches that unite again.
    Diamond,
}

/// A record that remembers its way.
#[derive(Clone, Debug)]
pub struct Item {
    /// The source, its subtask, and the record's number there.
    id: (u32, u32, u64),
    /// The step and subtask that it left last, and its number there.
    hop: (u32, u32, u64),
}

/// Emits `records` items per subtask, a millisecond of event time times `pace` apart.
struct Numbers {
    source: u32,
    records: u64,
    pace: i64,
    seed: u64,
}

struct NumbersReader {
    id: (u32, u32, u64),
    records: u64,
    pace: i64,
    dice: Dice,
}

impl Source for Numbers {
    type Item = Item;
    type Reader = NumbersReader;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<NumbersReader> {
        let me = context.subtask();
        Ok(NumbersReader {
            id: (self.source, me, 0),
            records: self.records,
            pace: self.pace,
            dice: Dice(self.seed ^ u64::from(me) << 32 ^ u64::from(self.source)),
        })
    }
}

impl SourceReader for NumbersReader {
    type Item = Item;

    fn poll<C: Collector<Item>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        let left = self.records - self.id.2;
        if left == 0 {
            return Ok(Poll::End);
        }
        if self.dice.roll(4) == 0 {
            return Ok(Poll::Wait(Duration::from_millis(
                1 + self.dice.roll(60) as u64,
            )));
        }
        let count = (1 + self.dice.roll(budget) as u64).min(left);
        for _ in 0..count {
            let (source, me, n) = self.id;
            let item = Item {
                id: self.id,
                hop: (1000 + source, me, n),
            };
            self.id.2 += 1;
            out.collect(Timestamp(n as i64 * self.pace), item)?;
        }
        Ok(Poll::Read(count as usize))
    }

    fn position(&self) -> String {
        format!("{:?}", self.id)
    }
}

/// A step: checks the order of what comes from each subtask before it and its time against the
/// watermark, and stamps what leaves.
#[derive(Clone)]
struct Hop {
    step: u32,
    me: u32,
    left: u64,
    came: HashMap<(u32, u32), u64>,
    watermark: Timestamp,
    /// Records must not be late: no source was ever taken for idle.
    strict: bool,
    /// Holds records until the watermark has come to them.
    held: Option<BTreeMap<Timestamp, VecDeque<Item>>>,
}

impl Hop {
    fn new(step: u32, plan: &Plan) -> Self {
        Hop {
            step,
            me: 0,
            left: 0,
            came: HashMap::new(),
            watermark: Timestamp::MIN,
            strict: plan.idle.is_none(),
            held: None,
        }
    }

    /// Holds records until their time has come.
    fn holding(step: u32, plan: &Plan) -> Self {
        Hop {
            held: Some(BTreeMap::new()),
            ..Hop::new(step, plan)
        }
    }

    fn check(&mut self, at: Timestamp, item: &Item) -> Flow {
        let (step, from, n) = item.hop;
        if let Some(before) = self.came.insert((step, from), n)
            && before >= n
        {
            return Err(Fault::internal(format_args!(
                "record {n} of subtask {from} of step {step} came behind {before}"
            )));
        }
        if self.strict && at <= self.watermark {
            return Err(Fault::internal(format_args!(
                "a record of {at} behind the watermark {}",
                self.watermark
            )));
        }
        Ok(())
    }

    fn stamp(&mut self, item: &mut Item) {
        item.hop = (self.step, self.me, self.left);
        self.left += 1;
    }
}

impl Operator<Item> for Hop {
    type Out = Item;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.me = context.subtask();
        Ok(())
    }

    fn process<C: Collector<Item>>(&mut self, at: Timestamp, mut item: Item, out: &mut C) -> Flow {
        self.check(at, &item)?;
        if let Some(held) = &mut self.held
            && at > self.watermark
        {
            held.entry(at).or_default().push_back(item);
            return Ok(());
        }
        self.stamp(&mut item);
        out.collect(at, item)
    }

    fn watermark<C: Collector<Item>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        if at < self.watermark {
            return Err(Fault::internal("the watermark went back"));
        }
        self.watermark = at;
        Operator::<Item>::resume(self, out)
    }

    fn resume<C: Collector<Item>>(&mut self, out: &mut C) -> Flow<Progress> {
        while let Some(mut due) = self.held.as_mut().and_then(BTreeMap::first_entry) {
            let at = *due.key();
            if at > self.watermark {
                break;
            }
            if !out.has_room() {
                return Ok(Progress::Suspended);
            }
            match due.get_mut().pop_front() {
                None => drop(due.remove()),
                Some(mut item) => {
                    self.stamp(&mut item);
                    out.collect(at, item)?;
                }
            }
        }
        Ok(Progress::Forward)
    }
}

/// The same step for records with a key.
#[derive(Clone)]
struct KeyedHop(Hop);

impl Operator<Keyed<u64, Item>> for KeyedHop {
    type Out = Item;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.0.open(context)
    }

    fn process<C: Collector<Item>>(
        &mut self,
        at: Timestamp,
        record: Keyed<u64, Item>,
        out: &mut C,
    ) -> Flow {
        if record.key != key(&record.value) {
            return Err(Fault::internal("a record with another's key"));
        }
        self.0.process(at, record.value, out)
    }

    fn watermark<C: Collector<Item>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        self.0.watermark(at, out)
    }

    fn resume<C: Collector<Item>>(&mut self, out: &mut C) -> Flow<Progress> {
        self.0.resume(out)
    }
}

fn key(item: &Item) -> u64 {
    item.id.2 % 13
}

/// How often each `(subtask, source, number)` arrived.
type Counts = BTreeMap<(u32, u32, u64), u32>;

/// How often each record arrived.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<Counts>>, Doors);

struct ArrivalsWriter {
    arrivals: Arrivals,
    door: Arc<AtomicBool>,
}

impl Sink<Item> for Arrivals {
    type Writer = ArrivalsWriter;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<ArrivalsWriter> {
        let door = self.1.add(context.waker());
        let arrivals = self.clone();
        Ok(ArrivalsWriter { arrivals, door })
    }
}

impl SinkWriter<Item> for ArrivalsWriter {
    fn write(&mut self, _at: Timestamp, item: Item) -> Flow {
        let mut arrivals = self.arrivals.0.lock().expect("no panic inside");
        *arrivals.entry(item.id).or_default() += 1;
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.door.load(Relaxed)
    }
}

fn source(
    graph: &GraphRef,
    plan: &Plan,
    number: u32,
    pace: i64,
) -> DataStream<Item, impl Upstream<Out = Item> + use<>> {
    let source = Numbers {
        source: number,
        records: plan.records,
        pace,
        seed: plan.seed,
    };
    let mut strategy = WatermarkStrategy::monotonous();
    if let Some(drift) = plan.drift {
        strategy = strategy.align("all", Duration::from_millis(drift));
    }
    if let Some(idle) = plan.idle {
        strategy = strategy.idle_after(Duration::from_millis(idle));
    }
    let name = format!("numbers {number}");
    let stream: DataStream<Item, FromSource<Numbers>> =
        DataStream::from_source(graph, &name, source);
    stream.parallelism(plan.width[0]).watermarks(strategy)
}

/// Writes the plan's job into the graph. Returns its number of sources and how often each record is to
/// arrive.
fn define(graph: &GraphRef, plan: &Plan, sink: Arrivals) -> (u32, u32) {
    let [_, second, third] = plan.width;
    let slow = source(graph, plan, 0, 1);
    let hop = |step| Hop::new(step, plan);
    match plan.shape {
        Shape::Keyed => {
            slow.operate("before", hop(1))
                .key_by(key)
                .operate("held", KeyedHop(Hop::holding(2, plan)))
                .parallelism(second)
                .rebalance()
                .operate("after", hop(3))
                .parallelism(third)
                .sink("out", sink);
            (1, 1)
        }
        Shape::Copies => {
            slow.operate("before", hop(1))
                .rebalance()
                .operate("dealt", hop(2))
                .parallelism(second)
                .broadcast()
                .operate("copied", Hop::holding(3, plan))
                .parallelism(third)
                .sink("out", sink);
            (1, third)
        }
        Shape::Union => {
            let fast = source(graph, plan, 1, 50).operate("fast", hop(1));
            slow.operate("slow", hop(2))
                .parallelism(second)
                .union(fast)
                .operate("united", hop(3))
                .key_by(key)
                .operate("held", KeyedHop(Hop::holding(4, plan)))
                .parallelism(third)
                .sink("out", sink);
            (2, 1)
        }
        Shape::Chains => {
            slow.operate("alone", hop(1))
                .disable_chaining()
                .operate("begins", Hop::holding(2, plan))
                .key_by(key)
                .operate("keyed", KeyedHop(hop(3)))
                .parallelism(second)
                .start_new_chain()
                .shuffle()
                .operate("shuffled", hop(4))
                .parallelism(third)
                .start_new_chain()
                .check_grammar()
                .sink("out", sink)
                .parallelism(1);
            (1, 1)
        }
        Shape::Diamond => {
            let (left, right) = slow.fork();
            let left = left
                .rebalance()
                .operate("left", Hop::holding(1, plan))
                .parallelism(second);
            let right = right.operate("right", hop(2)).parallelism(third);
            left.union(right)
                .operate("united", hop(3))
                .sink("out", sink)
                .parallelism(2);
            (1, 2)
        }
    }
}

/// Runs a plan's job and counts what arrived.
pub fn run(plan: &Plan) {
    let graph = GraphRef::default();
    let sink = Arrivals::default();
    let doors = sink.1.clone();
    let (sources, times) = define(&graph, plan, sink.clone());
    let settings = JobSettings {
        parallelism: plan.width[0],
        max_parallelism: 16,
        channels: plan.channels,
        slice: plan.slice,
        slice_micros: 0,
        checkpoints: None,
        state: Default::default(),
    };
    let job = graph.finish("simulated", settings).expect("a sound graph");
    let cost = |batch: &AnyBatch| credits::<Item>(batch).expect("a batch of the job's records");
    Network::new(job, plan.seed, doors, cost).run();
    let arrivals = sink.0.lock().expect("no panic inside");
    for source in 0..sources {
        for subtask in 0..plan.width[0] {
            for n in 0..plan.records {
                let id = (source, subtask, n);
                let got = arrivals.get(&id).copied().unwrap_or(0);
                assert_eq!(got, times, "record {id:?} arrived {got} times");
            }
        }
    }
    let expected = u64::from(sources * plan.width[0]) * plan.records;
    assert_eq!(arrivals.len() as u64, expected, "records that nobody sent");
}
