//! One operator, driven by hand.

use super::{Attempt, Collected, GrammarCheck};
use crate::alignment::{Alignment, AlignmentMember};
use crate::build::BuildContext;
use crate::checkpoint::{Barrier, OperatorImage};
use crate::clock::Clock;
use crate::exchange::Keyed;
use crate::fault::{Fault, Flow};
use crate::graph::OperatorId;
use crate::node::Node;
use crate::observe::SubtaskStats;
use crate::operator::{NoOutbox, Operator};
use crate::side::{SideBuffer, SideOutput};
use crate::stage::{Collector, Signal, Stage, Turn};
use crate::time::Timestamp;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

/// Turns in which state has to be saved at most.
const LOOKS: u32 = 1000;

/// Drives one operator with records, watermarks and a clock that stands still until it is moved.
///
/// ```
/// use tidegate_engine::operators::Map;
/// use tidegate_engine::testing::OperatorHarness;
///
/// let mut harness = OperatorHarness::new(Map::new(|x: u64| x * 2));
/// harness.push(1_000, 21).unwrap();
/// assert_eq!(harness.values(), [42]);
/// ```
pub struct OperatorHarness<T, In, Op: Operator<In>> {
    node: Node<In, Op, GrammarCheck<Collected<Op::Out>>>,
    lift: Box<dyn Fn(T) -> In>,
    collected: Collected<Op::Out>,
    clock: Clock,
    context: BuildContext,
    held_back: bool,
    wake_at: Timestamp,
    checkpoints: u64,
}

impl<T: 'static, Op: Operator<T>> OperatorHarness<T, T, Op> {
    /// Drives an operator of plain records.
    pub fn new(operator: Op) -> Self {
        opened(Attempt::new().plain(operator))
    }

    /// Drives an operator that puts records to a side output; returns where they arrive.
    pub fn with_side<S: 'static>(operator: Op, tag: &SideOutput<S>) -> (Self, SideBuffer<S>) {
        let mut attempt = Attempt::new();
        let buffer = attempt.side(tag);
        (opened(attempt.plain(operator)), buffer)
    }
}

impl<T: 'static, K: Hash + 'static, Op: Operator<Keyed<K, T>>> OperatorHarness<T, Keyed<K, T>, Op> {
    /// Drives an operator of keyed records; `select` reads the key.
    pub fn keyed(operator: Op, select: impl Fn(&T) -> K + 'static) -> Self {
        opened(Attempt::new().keyed(operator, select))
    }

    /// Drives an operator of keyed records with a side output; returns where its records arrive.
    pub fn keyed_with_side<S: 'static>(
        operator: Op,
        select: impl Fn(&T) -> K + 'static,
        tag: &SideOutput<S>,
    ) -> (Self, SideBuffer<S>) {
        let mut attempt = Attempt::new();
        let buffer = attempt.side(tag);
        (opened(attempt.keyed(operator, select)), buffer)
    }
}

fn opened<H>(harness: Flow<H>) -> H {
    harness.expect("the operator opens")
}

impl<T, In, Op: Operator<In>> OperatorHarness<T, In, Op> {
    /// Opens the operator, and loads what the context's participant has for it.
    pub(super) fn begin(
        mut operator: Op,
        lift: Box<dyn Fn(T) -> In>,
        context: BuildContext,
    ) -> Flow<Self> {
        let id = OperatorId(0);
        let mut opening = context.open(id);
        operator.open(&mut opening)?;
        opening.check_states()?;
        let participant = context.participant.clone();
        let collected = Collected::leaf(participant.clone());
        let down = GrammarCheck::new(collected.clone());
        let node = Node::new(operator, context.name(id), down);
        Ok(OperatorHarness {
            node: node.participate(participant, context.identity(id))?,
            lift,
            collected,
            clock: context.clock.clone(),
            context,
            held_back: false,
            wake_at: Timestamp::MAX,
            checkpoints: 0,
        })
    }

    /// What a checkpoint saves of the operator: a barrier, and as many turns as saving takes. An
    /// [`Attempt`] goes on from it.
    pub fn save(&mut self) -> Flow<OperatorImage> {
        self.barrier()?;
        self.image()
    }

    /// Gives it a barrier and no turn. Large state is saved in the turns that follow, as it was here.
    pub fn barrier(&mut self) -> Flow {
        self.checkpoints += 1;
        let barrier = Barrier::checkpoint(self.checkpoints);
        Stage::signal(&mut self.node, Signal::Barrier(barrier))?;
        self.context.participant.triggered(barrier);
        Ok(())
    }

    /// What was saved at the last barrier, after as many turns as that takes; nothing of an operator
    /// without state.
    pub fn image(&mut self) -> Flow<OperatorImage> {
        let participant = self.context.participant.clone();
        // State that becomes files is waited for.
        let mut looks = (0..LOOKS).map(|_| self.turn().map(|()| participant.take_image(0)));
        let Some(mut image) = looks.find_map(Result::transpose).transpose()? else {
            return Err(Fault::internal("no barrier has come through the operator"));
        };
        let identity = self.context.identity(OperatorId(0));
        Ok(image.operators.pop().unwrap_or_else(|| OperatorImage {
            name: self.context.name(OperatorId(0)).to_string(),
            uid: identity.uid,
            max_parallelism: identity.max_parallelism,
            parallelism: identity.parallelism,
            watermark: Timestamp::MIN,
            states: Vec::new(),
        }))
    }

    /// Gives it a record and a turn.
    pub fn push(&mut self, at: i64, value: T) -> Flow {
        let value = (self.lift)(value);
        self.node.collect(Timestamp(at), value)?;
        self.turn()
    }

    /// Gives it a watermark and as many turns as it needs.
    pub fn watermark(&mut self, at: i64) -> Flow {
        Stage::signal(&mut self.node, Signal::Watermark(Timestamp(at)))?;
        self.turn()
    }

    /// Ends the input, after the last watermark.
    pub fn end(&mut self) -> Flow {
        Stage::signal(&mut self.node, Signal::Watermark(Timestamp::MAX))?;
        Stage::signal(&mut self.node, Signal::EndOfInput)?;
        self.turn()
    }

    /// Moves processing time and fires the timers that are due.
    pub fn advance(&mut self, by: Duration) -> Flow {
        self.clock.advance(by);
        self.turn()
    }

    /// One turn, and more while the operator asks for them at once.
    pub fn turn(&mut self) -> Flow {
        loop {
            let mut outbox = NoOutbox;
            let mut turn = Turn::new(self.clock.now(), &mut outbox);
            turn.held_back = std::mem::take(&mut self.held_back);
            self.node.turn(&mut turn)?;
            self.wake_at = turn.wake_at;
            if !turn.again {
                return Ok(());
            }
        }
    }

    /// Whether it takes records now.
    pub fn has_room(&self) -> bool {
        self.node.room()
    }

    /// When it wants its next turn at the latest.
    pub fn wake_at(&self) -> Timestamp {
        self.wake_at
    }

    /// Has the next turn say that its subtask could not take input.
    pub fn hold_back(&mut self) {
        self.held_back = true;
    }

    /// Another member of an alignment group.
    pub fn join_alignment(&self, alignment: &Alignment) -> AlignmentMember {
        self.context.stats.alignment.join(alignment)
    }

    /// Has state that is in memory until that is short move to what it spills to, in the next turn.
    pub fn run_short(&self) {
        if let Some(spill) = self.context.participant.spill() {
            spill.memory().run_short();
        }
    }

    /// Says whether there is room downstream from now on.
    pub fn set_room(&mut self, room: bool) {
        self.collected.room.set(room);
    }

    /// The operator's numbers, such as its late records.
    pub fn stats(&self) -> Arc<SubtaskStats> {
        self.context.stats_of(OperatorId(0))
    }

    /// Takes what was emitted, with timestamps.
    pub fn records(&mut self) -> Vec<(Timestamp, Op::Out)> {
        self.collected.records.take()
    }

    /// Takes what was emitted.
    pub fn values(&mut self) -> Vec<Op::Out> {
        self.records().into_iter().map(|(_, value)| value).collect()
    }

    /// Takes the signals that went downstream.
    pub fn signals(&mut self) -> Vec<Signal> {
        self.collected.signals.take()
    }
}
