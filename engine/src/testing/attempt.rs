//! Where an operator that is driven by hand begins: as which subtask of how many, and with what state.

use super::OperatorHarness;
use crate::build::BuildContext;
use crate::checkpoint::{CheckpointId, CheckpointMode, OperatorImage, Participant, RestoredJob};
use crate::clock::Clock;
use crate::exchange::Keyed;
use crate::fault::{Fault, Flow};
use crate::graph::{GraphRef, JobSettings, SOURCE_KIND};
use crate::hash::key_hash;
use crate::observe::JobStats;
use crate::operator::Operator;
use crate::side::{SideBuffer, SideOutput};
use crate::source::Waker;
use crate::state::backing::Spill;
use crate::time::Timestamp;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::Arc;

/// One subtask's attempt at an operator.
///
/// ```
/// use tidegate_engine::operators::Reduce;
/// use tidegate_engine::testing::{Attempt, OperatorHarness};
///
/// let sum = || Reduce::new(|a: &u64, b| a + b);
/// let mut before = OperatorHarness::keyed(sum(), |x: &u64| x % 2);
/// before.push(0, 3).unwrap();
/// let saved = vec![(0, before.save().unwrap())];
///
/// let mut after = Attempt::new().restored(saved).keyed(sum(), |x: &u64| x % 2).unwrap();
/// after.push(0, 5).unwrap();
/// assert_eq!(after.values(), [8]);
/// ```
#[must_use]
pub struct Attempt {
    me: u32,
    parallelism: u32,
    max_parallelism: u32,
    now: Timestamp,
    images: Vec<(u32, OperatorImage)>,
    sides: Vec<Box<Prepare>>,
    spill: Option<Rc<dyn Spill>>,
    when_short: bool,
}

type Prepare = dyn FnOnce(&mut BuildContext);

impl Default for Attempt {
    fn default() -> Self {
        Attempt::new()
    }
}

impl Attempt {
    /// The only subtask, at time 0, from scratch.
    pub fn new() -> Self {
        Attempt {
            me: 0,
            parallelism: 1,
            max_parallelism: JobSettings::default().max_parallelism,
            now: Timestamp(0),
            images: Vec::new(),
            sides: Vec::new(),
            spill: None,
            when_short: false,
        }
    }

    /// Subtask `me` of `parallelism`. Keyed records of other subtasks must be kept from it.
    pub fn subtask(mut self, me: u32, parallelism: u32) -> Self {
        (self.me, self.parallelism) = (me, parallelism);
        self
    }

    /// With another number of key groups than usual.
    pub fn max_parallelism(mut self, groups: u32) -> Self {
        self.max_parallelism = groups;
        self
    }

    /// The processing time that it begins at.
    pub fn at(mut self, now: i64) -> Self {
        self.now = Timestamp(now);
        self
    }

    /// Its state may become larger than memory.
    pub fn spilling(mut self, spill: Rc<dyn Spill>) -> Self {
        self.spill = Some(spill);
        self
    }

    /// Its state is in memory until [`OperatorHarness::run_short`] is called.
    pub fn when_short(mut self) -> Self {
        self.when_short = true;
        self
    }

    /// Begins with its share of what these subtasks saved, each with its number.
    pub fn restored(mut self, images: Vec<(u32, OperatorImage)>) -> Self {
        self.images = images;
        self
    }

    /// Connects a side output; returns where its records arrive.
    pub fn side<S: 'static>(&mut self, tag: &SideOutput<S>) -> SideBuffer<S> {
        let buffer = SideBuffer::connected();
        let (id, registered) = (tag.id(), buffer.clone());
        self.sides
            .push(Box::new(move |c| c.register_side(id, registered)));
        buffer
    }

    /// Drives an operator of plain records.
    pub fn plain<T: 'static, Op: Operator<T>>(self, op: Op) -> Flow<OperatorHarness<T, T, Op>> {
        self.lifted(op, |value| value)
    }

    /// Drives an operator of keyed records; `select` reads the key.
    pub fn keyed<T: 'static, K, Op>(
        self,
        operator: Op,
        select: impl Fn(&T) -> K + 'static,
    ) -> Flow<OperatorHarness<T, Keyed<K, T>, Op>>
    where
        K: Hash + 'static,
        Op: Operator<Keyed<K, T>>,
    {
        self.lifted(operator, move |value| {
            let key = select(&value);
            let hash = key_hash(&key);
            Keyed { hash, key, value }
        })
    }

    /// Drives an operator; `lift` makes what it takes of what is pushed.
    pub fn lifted<T, In, Op: Operator<In>>(
        self,
        operator: Op,
        lift: impl Fn(T) -> In + 'static,
    ) -> Flow<OperatorHarness<T, In, Op>> {
        let graph = GraphRef::default();
        graph.edit(|g| {
            let task = g.add_task();
            let vertex = g.add_vertex(task);
            let settings = g.vertex_mut(vertex);
            settings.parallelism = Some(self.parallelism);
            settings.max_parallelism = Some(self.max_parallelism);
            // What may only stand behind a source may stand here too.
            g.add_operator(vertex, "operator", SOURCE_KIND);
            g.set_factory(task, Arc::new(|_| unreachable!("a harness runs no task")));
        });
        let job = graph.finish("harness", JobSettings::default());
        let job = Arc::new(job.map_err(Fault::user)?);
        let stats = JobStats::new([("operator".to_owned(), self.parallelism)]);
        let clock = Clock::manual(self.now);
        let mut context = BuildContext::new(job, self.me, clock, Arc::new(stats), Waker::none());
        let restored = (!self.images.is_empty())
            .then(|| Arc::new(RestoredJob::new(CheckpointId(1), self.images)));
        let participant = Participant::new(self.me, CheckpointMode::default(), restored);
        context.participant = match self.spill {
            Some(spill) if self.when_short => participant.spilling(spill).when_short(),
            Some(spill) => participant.spilling(spill),
            None => participant,
        };
        for register in self.sides {
            register(&mut context);
        }
        OperatorHarness::begin(operator, Box::new(lift), context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::{key_group, owner_of_group};
    use crate::operators::{Map, Reduce};

    #[test]
    fn goes_on_in_another_number_of_subtasks() {
        let sum = || Reduce::new(|a: &(u64, u64), b: (u64, u64)| (a.0, a.1 + b.1));
        let key = |r: &(u64, u64)| r.0;
        let mut one = OperatorHarness::keyed(sum(), key);
        for x in 0..100 {
            one.push(0, (x, x)).expect("reduces");
        }
        let saved = vec![(0, one.save().expect("saves"))];
        let groups = JobSettings::default().max_parallelism;
        for me in 0..3 {
            let attempt = Attempt::new().subtask(me, 3).restored(saved.clone());
            let mut h = attempt.keyed(sum(), key).expect("restores");
            for x in 0..100 {
                h.push(0, (x, 1)).expect("reduces");
                let mine = owner_of_group(key_group(key_hash(&x), groups), groups, 3) == me;
                assert_eq!(h.values(), [(x, if mine { x + 1 } else { 1 })]);
            }
        }
    }

    #[test]
    fn the_image_of_an_operator_without_state_is_empty() {
        let mut h = OperatorHarness::new(Map::new(|x: u64| x));
        assert_eq!(h.save().expect("saves").states, []);
    }
}
