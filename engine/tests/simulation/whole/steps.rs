//! Operators of whole jobs that the engine doesn't bring: each is hard on checkpoints in its own way.

use super::items::{Item, mix};
use std::collections::{BTreeMap, VecDeque};
use tidegate_engine::checkpoint::StateVisitor;
use tidegate_engine::prelude::*;

/// Holds records until the watermark has come to their time, and lets them out one by one where there is
/// room: barriers meet it half-way. What is leaving is no part of its state.
#[derive(Clone, Default)]
pub struct Hold {
    held: BTreeMap<Timestamp, VecDeque<Item>>,
    leaving: VecDeque<(Timestamp, Item)>,
    watermark: Option<Timestamp>,
    /// Records may come again, behind the watermark that was reached with them before.
    repeats: bool,
}

impl Hold {
    pub fn new(repeats: bool) -> Self {
        Hold {
            repeats,
            ..Hold::default()
        }
    }
}

impl Operator<Item> for Hold {
    type Out = Item;

    fn process<C: Collector<Item>>(&mut self, at: Timestamp, item: Item, out: &mut C) -> Flow {
        if Some(at) <= self.watermark {
            if self.repeats {
                return out.collect(at, item);
            }
            return Err(Fault::internal(format_args!(
                "I5: a record of {at} behind the watermark {:?}, and nothing was idle",
                self.watermark
            )));
        }
        self.held.entry(at).or_default().push_back(item);
        Ok(())
    }

    fn watermark<C: Collector<Item>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        if Some(at) < self.watermark {
            return Err(Fault::internal("I5: the watermark went back"));
        }
        self.watermark = Some(at);
        while let Some(due) = self.held.first_entry().filter(|due| *due.key() <= at) {
            let (at, items) = due.remove_entry();
            self.leaving
                .extend(items.into_iter().map(|item| (at, item)));
        }
        self.resume(out)
    }

    fn resume<C: Collector<Item>>(&mut self, out: &mut C) -> Flow<Progress> {
        while !self.leaving.is_empty() {
            if !out.has_room() {
                return Ok(Progress::Suspended);
            }
            if let Some((at, item)) = self.leaving.pop_front() {
                out.collect(at, item)?;
            }
        }
        Ok(Progress::Forward)
    }

    fn emitting(&self) -> bool {
        !self.leaving.is_empty()
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        let all = self.held.iter();
        let all = all.flat_map(|(at, items)| items.iter().map(|item| (at.0, item.clone())));
        let mut all: Vec<(i64, Item)> = if state.loads() {
            Vec::new()
        } else {
            all.collect()
        };
        state.list("held", &mut all)?;
        if state.loads() {
            for (at, item) in all {
                self.held.entry(Timestamp(at)).or_default().push_back(item);
            }
        }
        Ok(())
    }
}

/// Of copies that went to all subtasks, keeps the one of the subtask that it falls to.
#[derive(Clone, Default)]
pub struct Mine {
    me: u64,
    all: u64,
}

impl Operator<Item> for Mine {
    type Out = Item;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.me = u64::from(context.subtask());
        self.all = u64::from(context.parallelism());
        Ok(())
    }

    fn process<C: Collector<Item>>(&mut self, at: Timestamp, item: Item, out: &mut C) -> Flow {
        if mix(&item) % self.all == self.me {
            return out.collect(at, item);
        }
        Ok(())
    }
}

/// Sums up by stretches of time, with a timer at the end of each.
#[derive(Clone)]
pub struct Stretches(pub i64);

impl KeyedProcessFunction<u64, Item> for Stretches {
    type Out = Item;
    type State = MapState<u64, i64, (u64, u64)>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _context: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        states.map("stretches")
    }

    fn process<C: Collector<Item>>(
        &mut self,
        sums: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        item: Item,
        _out: &mut C,
    ) -> Flow {
        let end = (cx.timestamp().0.div_euclid(self.0) + 1) * self.0;
        let (count, sum) = sums.get(cx, &end).unwrap_or_default();
        sums.insert(cx, end, (count + 1, sum.wrapping_add(mix(&item))));
        cx.register_event_timer(Timestamp(end));
        Ok(())
    }

    fn on_timer<C: Collector<Item>>(
        &mut self,
        sums: &mut Self::State,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        let Some((count, sum)) = sums.remove(cx, &at.0) else {
            return Err(Fault::internal("a timer fired twice, or its state is lost"));
        };
        let item = Item {
            key: *cx.key(),
            n: at.0 as u64,
            value: sum.wrapping_add(count),
        };
        out.collect(at, item)
    }
}

/// Holds the records of a key back until the clock, or the end of a stretch of time, says so.
#[derive(Clone)]
pub struct Parcels(pub i64);

impl KeyedProcessFunction<u64, Item> for Parcels {
    type Out = Item;
    type State = ListState<u64, Item>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _context: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        states.list("parcel")
    }

    fn process<C: Collector<Item>>(
        &mut self,
        parcel: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        item: Item,
        _out: &mut C,
    ) -> Flow {
        parcel.add(cx, item);
        let now = cx.processing_time();
        cx.register_processing_timer(now.plus(Duration::from_millis(self.0 as u64)));
        cx.register_event_timer(Timestamp(cx.timestamp().0 + 4 * self.0));
        Ok(())
    }

    fn on_timer<C: Collector<Item>>(
        &mut self,
        parcel: &mut Self::State,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        for item in parcel.take(cx) {
            out.collect(at, item)?;
        }
        Ok(())
    }
}
