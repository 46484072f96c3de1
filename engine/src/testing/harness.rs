//! One operator, driven by hand.

use crate::alignment::{Alignment, AlignmentMember};
use crate::build::BuildContext;
use crate::clock::Clock;
use crate::exchange::Keyed;
use crate::fault::Flow;
use crate::graph::{GraphRef, JobSettings, OperatorId, SOURCE_KIND};
use crate::hash::key_hash;
use crate::node::Node;
use crate::observe::{JobStats, SubtaskStats};
use crate::operator::{NoOutbox, Operator};
use crate::side::{SideBuffer, SideOutput};
use crate::source::Waker;
use crate::stage::{Collector, Signal, Stage, Turn};
use crate::testing::GrammarCheck;
use crate::time::Timestamp;
use std::cell::{Cell, RefCell};
use std::hash::Hash;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

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
}

impl<T: 'static, Op: Operator<T>> OperatorHarness<T, T, Op> {
    /// Drives an operator of plain records.
    pub fn new(operator: Op) -> Self {
        Self::with(operator, Box::new(|value| value), |_| {})
    }

    /// Drives an operator that puts records to a side output; returns where they arrive.
    pub fn with_side<S: 'static>(operator: Op, tag: &SideOutput<S>) -> (Self, SideBuffer<S>) {
        let buffer = SideBuffer::connected();
        let registered = buffer.clone();
        let lift = Box::new(|value| value);
        (
            Self::with(operator, lift, |c| c.register_side(tag.id(), registered)),
            buffer,
        )
    }
}

impl<T: 'static, K: Hash + 'static, Op: Operator<Keyed<K, T>>> OperatorHarness<T, Keyed<K, T>, Op> {
    /// Drives an operator of keyed records; `select` reads the key.
    pub fn keyed(operator: Op, select: impl Fn(&T) -> K + 'static) -> Self {
        Self::with(operator, Self::lift(select), |_| {})
    }

    /// Drives an operator of keyed records with a side output; returns where its records arrive.
    pub fn keyed_with_side<S: 'static>(
        operator: Op,
        select: impl Fn(&T) -> K + 'static,
        tag: &SideOutput<S>,
    ) -> (Self, SideBuffer<S>) {
        let buffer = SideBuffer::connected();
        let registered = buffer.clone();
        let lift = Self::lift(select);
        (
            Self::with(operator, lift, |c| c.register_side(tag.id(), registered)),
            buffer,
        )
    }

    fn lift(select: impl Fn(&T) -> K + 'static) -> Box<dyn Fn(T) -> Keyed<K, T>> {
        Box::new(move |value| {
            let key = select(&value);
            Keyed {
                hash: key_hash(&key),
                key,
                value,
            }
        })
    }
}

impl<T, In, Op: Operator<In>> OperatorHarness<T, In, Op> {
    fn with(
        mut operator: Op,
        lift: Box<dyn Fn(T) -> In>,
        prepare: impl FnOnce(&mut BuildContext),
    ) -> Self {
        let graph = GraphRef::default();
        graph.edit(|g| {
            let task = g.add_task();
            let vertex = g.add_vertex(task);
            // What may only stand behind a source may stand here too.
            g.add_operator(vertex, "operator", SOURCE_KIND);
            g.set_factory(task, Arc::new(|_| unreachable!("a harness runs no task")));
        });
        let job = graph
            .finish("harness", JobSettings::default())
            .expect("one operator is a graph");
        let clock = Clock::manual(Timestamp(0));
        let stats = Arc::new(JobStats::new([("operator".to_owned(), 1)]));
        let mut context = BuildContext::new(Arc::new(job), 0, clock.clone(), stats, Waker::none());
        prepare(&mut context);
        operator
            .open(&mut context.open(OperatorId(0)))
            .expect("the operator opens");
        let collected = Collected::default();
        let down = GrammarCheck::new(collected.clone());
        let node = Node::new(operator, "operator".into(), down);
        OperatorHarness {
            node,
            lift,
            collected,
            clock,
            context,
            held_back: false,
            wake_at: Timestamp::MAX,
        }
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

/// A stage that keeps what it receives.
pub struct Collected<T> {
    records: Rc<RefCell<Vec<(Timestamp, T)>>>,
    signals: Rc<RefCell<Vec<Signal>>>,
    room: Rc<Cell<bool>>,
}

impl<T> Default for Collected<T> {
    fn default() -> Self {
        let room = Rc::new(Cell::new(true));
        Collected {
            records: Rc::default(),
            signals: Rc::default(),
            room,
        }
    }
}

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        let (records, signals) = (self.records.clone(), self.signals.clone());
        Collected {
            records,
            signals,
            room: self.room.clone(),
        }
    }
}

impl<T> Collector<T> for Collected<T> {
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        self.records.borrow_mut().push((at, value));
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.room.get()
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<T> Stage for Collected<T> {
    fn each(&mut self, _visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        Ok(())
    }

    fn each_ref(&self, _visit: &mut dyn FnMut(&dyn Stage)) {}

    fn signal(&mut self, signal: Signal) -> Flow {
        self.signals.borrow_mut().push(signal);
        Ok(())
    }

    fn room(&self) -> bool {
        self.room.get()
    }
}
