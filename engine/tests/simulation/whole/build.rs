//! The job of a plan, written with the fluent API.

use super::items::{Item, KEYS_OF_SOURCE, Reached, Splits, mix};
use super::outside::{Outside, Parts};
use super::plan::{Ending, Meeting, Plan, Step};
use super::steps::{Hold, Mine, Parcels, Stretches};
use crate::network::{Cost, Dice, Doors, credits};
use std::sync::{Arc, Mutex};
use tidegate_engine::api::FromSource;
use tidegate_engine::exchange::AnyBatch;
use tidegate_engine::graph::{GraphRef, JobGraph, JobSettings};
use tidegate_engine::prelude::*;
use tidegate_engine::window::aggregate_with;

/// What batches of the jobs' edges cost.
pub const COST: Cost = |batch: &AnyBatch| {
    let both = || credits::<Either<Item, Item>>(batch);
    let cost = credits::<Item>(batch).or_else(both);
    cost.expect("a batch of the job's records")
};

/// What a job leaves behind, attempt after attempt.
#[derive(Clone, Default)]
pub struct Surroundings {
    pub outside: Arc<Mutex<Outside>>,
    pub reached: Arc<Mutex<Reached>>,
}

/// Builds the job of one attempt.
pub struct Builder<'a> {
    plan: &'a Plan,
    around: &'a Surroundings,
    pub doors: Doors,
    graph: GraphRef,
    /// Says how wide everything is in this attempt.
    dice: Dice,
    /// All have one subtask.
    narrow: bool,
    /// The records of a key are in order.
    ordered: bool,
    /// Their times are those of the source.
    timed: bool,
    /// Sinks so far.
    pub sinks: u32,
    /// The sink that shows the records of each key in order.
    pub in_order: Vec<u32>,
}

fn sum_up(key: u64, n: i64, value: u64) -> Item {
    let n = n as u64;
    Item { key, n, value }
}

impl<'a> Builder<'a> {
    pub fn new(plan: &'a Plan, around: &'a Surroundings, seed: u64, narrow: bool) -> Self {
        Builder {
            plan,
            around,
            doors: Doors::default(),
            graph: GraphRef::default(),
            dice: Dice(seed),
            narrow,
            ordered: true,
            timed: true,
            sinks: 0,
            in_order: Vec::new(),
        }
    }

    fn width(&mut self) -> u32 {
        let width = 1 + self.dice.roll(4) as u32;
        if self.narrow { 1 } else { width }
    }

    /// The job, with checkpoints or without.
    pub fn job(&mut self, checkpointed: bool) -> JobGraph {
        let plan = self.plan;
        let mut stream = self.source(0);
        for step in &plan.steps[0] {
            stream = self.step(stream, *step);
        }
        if let Some(meeting) = plan.meeting {
            let ordered = std::mem::replace(&mut self.ordered, true);
            let timed = std::mem::replace(&mut self.timed, true);
            let mut other = self.source(1);
            for step in &plan.steps[1] {
                other = self.step(other, *step);
            }
            self.ordered &= ordered;
            self.timed &= timed;
            stream = self.meet(stream, other, meeting);
        }
        for step in &plan.steps[2] {
            stream = self.step(stream, *step);
        }
        self.end(stream);
        self.graph.edit(|g| g.add_codec::<Item>());
        let settings = JobSettings {
            parallelism: self.width(),
            max_parallelism: 16,
            channels: plan.channels,
            slice: plan.slice,
            slice_micros: 0,
            checkpoints: checkpointed.then(|| plan.checkpoints.clone()),
            ..JobSettings::default()
        };
        self.graph.finish("whole", settings).expect("a sound graph")
    }

    fn source(&mut self, number: u32) -> DataStream<Item> {
        let plan = self.plan;
        let source = Splits {
            source: number,
            lengths: plan.inputs[number as usize].clone(),
            pace: plan.pace,
            jitter: plan.jitter,
            seed: self.dice.roll(usize::MAX) as u64,
            reached: self.around.reached.clone(),
        };
        let delay = Duration::from_millis(2 * plan.jitter as u64);
        let mut strategy = WatermarkStrategy::bounded_out_of_orderness(delay);
        if let Some(drift) = plan.drift {
            strategy = strategy.align("all", Duration::from_millis(drift));
        }
        if let Some(idle) = plan.idle {
            strategy = strategy.idle_after(Duration::from_millis(idle));
        }
        let stream: DataStream<Item, FromSource<Splits>> =
            DataStream::from_source(&self.graph, &format!("splits {number}"), source);
        let width = self.width();
        stream.parallelism(width).watermarks(strategy).boxed()
    }

    /// The key by which a step groups, and whether records of a key are still in order then.
    fn key(&mut self) -> impl Fn(&Item) -> u64 + Clone + Send + Sync + 'static + use<> {
        let rekey = self.plan.rekey && !self.ordered;
        move |item: &Item| if rekey { item.n % 5 } else { item.key }
    }

    fn step(&mut self, stream: DataStream<Item>, step: Step) -> DataStream<Item> {
        let (width, repeats) = (self.width(), self.plan.repeats());
        match step {
            Step::Sessions if !self.timed => self.step(stream, Step::Tumbling),
            Step::Fold | Step::Reduce if !self.ordered => self.step(stream, Step::Distinct),
            Step::Fold => stream
                .key_by(self.key())
                .fold(7u64, |so_far: &mut u64, _: &u64, item: Item| {
                    *so_far = so_far.wrapping_mul(31).wrapping_add(item.value);
                    let value = *so_far;
                    Item { value, ..item }
                })
                .parallelism(width)
                .boxed(),
            Step::Reduce => stream
                .key_by(self.key())
                .reduce(|so_far: &Item, item: Item| Item {
                    value: so_far.value.rotate_left(5) ^ item.value,
                    ..item
                })
                .parallelism(width)
                .boxed(),
            Step::Hold => {
                self.ordered = false;
                let stream = stream.operate("hold", Hold::new(repeats));
                stream.parallelism(width).boxed()
            }
            Step::Chain => {
                let up = |item: Item| Item {
                    value: item.value.wrapping_add(1),
                    ..item
                };
                let stream = stream.map(up).start_new_chain();
                stream.boxed()
            }
            Step::Alone => {
                self.ordered = false;
                let stream = stream.operate("alone", Hold::new(repeats));
                stream.disable_chaining().boxed()
            }
            Step::Tumbling | Step::Sliding | Step::Sessions | Step::Stretches | Step::Distinct => {
                let stream = self.summed_up(stream, step, width);
                self.ordered = false;
                self.timed &= step == Step::Distinct;
                stream
            }
            Step::Deal | Step::Broadcast | Step::Diamond => {
                self.ordered = false;
                self.spread(stream, step, width)
            }
            Step::Branch => {
                let (stream, branch) = stream.fork();
                self.sink(branch.boxed());
                stream
            }
        }
    }

    fn summed_up(&mut self, stream: DataStream<Item>, step: Step, width: u32) -> DataStream<Item> {
        let plan = self.plan;
        let size = Duration::from_millis(plan.size as u64);
        let keyed = stream.key_by(self.key());
        let sum = aggregate_with(
            0u64,
            |sum: &mut u64, item: Item| *sum = sum.wrapping_add(mix(&item)),
            |into: &mut u64, other: &u64| *into = into.wrapping_add(*other),
            |sum: &u64| *sum,
        );
        let result = |w: Windowed<u64, u64>| sum_up(w.key, w.window.start.0, w.value);
        match step {
            Step::Tumbling => {
                let windows = keyed.window(Tumbling::event_time(size)).aggregate(sum);
                windows.parallelism(width).map(result).boxed()
            }
            Step::Sliding => {
                let slide = Duration::from_millis(1 + plan.size as u64 / 3);
                let windows = Sliding::event_time(slide * 3, slide);
                let windows = keyed.window(windows).aggregate(sum);
                windows.parallelism(width).map(result).boxed()
            }
            Step::Sessions => {
                let gap = Duration::from_millis(plan.size as u64 | 1);
                let windows = keyed.window(Session::event_time(gap)).aggregate(sum);
                windows.parallelism(width).map(result).boxed()
            }
            Step::Stretches => {
                let stream = keyed.process(Stretches(plan.size));
                stream.parallelism(width).boxed()
            }
            _ => {
                let seen: Vec<Item> = Vec::new();
                let fold = keyed.fold(seen, |seen, _: &u64, item: Item| {
                    let times = seen.iter().filter(|s| **s == item).count();
                    seen.push(item.clone());
                    let value = item.value.wrapping_add(times as u64) << 1;
                    Item { value, ..item }
                });
                fold.parallelism(width).boxed()
            }
        }
    }

    fn spread(&mut self, stream: DataStream<Item>, step: Step, width: u32) -> DataStream<Item> {
        let (other, repeats) = (self.width(), self.plan.repeats());
        match step {
            Step::Deal => stream
                .rebalance()
                .operate("dealt", Hold::new(repeats))
                .parallelism(width)
                .shuffle()
                .map(|item: Item| item)
                .parallelism(other)
                .boxed(),
            Step::Broadcast => stream
                .broadcast()
                .operate("mine", Mine::default())
                .parallelism(width)
                .boxed(),
            _ => {
                let (left, right) = stream.fork();
                let left = left.rebalance().operate("left", Hold::new(repeats));
                let left = left.parallelism(width);
                let right = right.map(|item: Item| Item {
                    value: !item.value,
                    ..item
                });
                left.union(right.parallelism(other)).boxed()
            }
        }
    }

    fn meet(
        &mut self,
        one: DataStream<Item>,
        other: DataStream<Item>,
        meeting: Meeting,
    ) -> DataStream<Item> {
        let width = self.width();
        let size = Duration::from_millis(self.plan.size as u64);
        let key = |item: &Item| item.key % KEYS_OF_SOURCE;
        let met = |key: u64, one: &Item, other: &Item| Item {
            key,
            n: mix(one) ^ mix(other).rotate_left(9),
            value: one.n << 20 | (other.n & 0xF_FFFF),
        };
        // Between vertices of different width a union deals its records out in turn.
        self.ordered = false;
        if meeting == Meeting::Union {
            return one.union(other).boxed();
        }
        self.timed &= meeting == Meeting::Interval;
        let pair = move |one: &Item, other: &Item| met(key(one), one, other);
        match meeting {
            Meeting::Join => {
                let joined = one.join(other).key_by(key, key);
                let joined = joined.window(Tumbling::event_time(size)).map(pair);
                joined.parallelism(width).boxed()
            }
            Meeting::CoGroup => {
                let sum = |items: &[Item]| {
                    let mixed = items.iter().map(mix);
                    mixed.fold(items.len() as u64, u64::wrapping_add)
                };
                let groups = one.co_group(other).key_by(key, key);
                let groups = groups.window(Tumbling::event_time(size)).process(
                    move |key: &u64,
                          window,
                          first: &[Item],
                          second: &[Item],
                          out: &mut Vec<Item>| {
                        let value = sum(first) ^ sum(second).rotate_left(3);
                        out.push(sum_up(*key, window.start.0, value));
                    },
                );
                groups.parallelism(width).boxed()
            }
            _ => {
                let near = one.key_by(key).interval_join(other.key_by(key));
                let near = near.between(Offset::before(size / 2), size / 3);
                near.map(pair).parallelism(width).boxed()
            }
        }
    }

    fn end(&mut self, stream: DataStream<Item>) {
        let width = self.width();
        let size = Duration::from_millis(self.plan.size as u64);
        let ids = aggregate_with(
            Vec::new(),
            |ids: &mut Vec<u64>, item: Item| ids.push(item.n),
            |into: &mut Vec<u64>, other: &Vec<u64>| into.extend(other),
            |ids: &Vec<u64>| ids.clone(),
        );
        let each = |w: Windowed<u64, Vec<u64>>| {
            let key = w.key;
            w.value.into_iter().map(move |n| Item { key, n, value: 0 })
        };
        let alone = |item: Item| Item { value: 0, ..item };
        let key = |item: &Item| item.key;
        let tag = SideOutput::new("late");
        let (stream, late) = match self.plan.ending {
            Ending::Plain => return self.sink(stream),
            Ending::Parcels => {
                self.ordered = false;
                let key = self.key();
                let stream = stream.key_by(key).process(Parcels(self.plan.size));
                return self.sink(stream.parallelism(width).boxed());
            }
            Ending::Late => {
                let windows = stream.key_by(key).window(Tumbling::event_time(size));
                let windows = windows.late_output(&tag).aggregate(ids);
                let (windows, late) = windows.parallelism(width).side_output(&tag);
                (windows.flat_map(each).boxed(), late)
            }
            Ending::LateSessions => {
                let windows = stream.key_by(key).window(Session::event_time(size));
                let windows = windows.late_output(&tag).aggregate(ids);
                let (windows, late) = windows.parallelism(width).side_output(&tag);
                (windows.flat_map(each).boxed(), late)
            }
        };
        self.ordered = false;
        let late = late.map(alone).rebalance().map(|item: Item| item);
        let width = self.width();
        self.sink(late.parallelism(width).boxed());
        self.sink(stream);
    }

    fn sink(&mut self, stream: DataStream<Item>) {
        let sink = Parts {
            sink: self.sinks,
            outside: self.around.outside.clone(),
            doors: self.doors.clone(),
            seed: self.dice.roll(usize::MAX) as u64,
        };
        self.sinks += 1;
        let handle = stream.sink(&format!("parts {}", sink.sink), sink);
        // What is in flight before a sink has to find its way there again: the edge is there in each attempt.
        let mut dice = match self.plan.checkpoints.unaligned {
            true => Dice(self.plan.seed ^ u64::from(self.sinks) << 30),
            false => self.dice.clone(),
        };
        self.dice.roll(2);
        if dice.roll(2) == 0 && !self.ordered {
            let width = self.width();
            handle.parallelism(width);
        }
        if self.ordered {
            self.in_order.push(self.sinks - 1);
        }
    }
}
