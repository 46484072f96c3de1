//! The graph written by hand: vertex by vertex, edge by edge, each vertex an actor of its own.
//!
//! The fluent API fuses what it can; here nothing is fused. Use it for topologies that a chain of
//! calls doesn't express, and to see what a job is made of.

use super::sides::Sides;
use super::sinks::enter_sink;
use super::split::Junction;
use super::stream::Place;
use super::union::gate;
use super::upstream::{FromSource, Upstream, node};
use crate::build::{BuildContext, Prototype};
use crate::exchange::{ByKey, Distribution, EdgeOut, Forward, Keyed};
use crate::graph::{GraphRef, SOURCE_KIND, VertexId};
use crate::operator::Operator;
use crate::side::{Branch, BranchHead, SideOutput, WithSides};
use crate::sink::Sink;
use crate::source::Source;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

/// A graph that is written by hand.
#[derive(Clone, Default)]
pub struct ActorGraph {
    graph: GraphRef,
}

/// A vertex that takes `In` and emits `Out`.
pub struct VertexHandle<In, Out> {
    graph: GraphRef,
    place: Place,
    branches: Junction<Out>,
    sides: Sides,
    input: PhantomData<fn(In)>,
}

/// A vertex that takes `In` grouped by keys.
pub struct KeyedVertexHandle<F, In, Out> {
    vertex: VertexHandle<In, Out>,
    select: F,
}

/// A side output of a vertex.
pub struct SideHandle<S> {
    vertex: VertexId,
    branches: Junction<S>,
}

/// What edges begin at: a vertex, or a side output of one.
pub trait Outlet {
    /// What comes out.
    type Record: 'static;

    /// The vertex, and where what comes out of it is handed on.
    fn outlet(&self) -> (VertexId, &Junction<Self::Record>);
}

impl<In, Out: 'static> Outlet for VertexHandle<In, Out> {
    type Record = Out;

    fn outlet(&self) -> (VertexId, &Junction<Out>) {
        (self.place.vertex, &self.branches)
    }
}

impl<F, In, Out: 'static> Outlet for KeyedVertexHandle<F, In, Out> {
    type Record = Out;

    fn outlet(&self) -> (VertexId, &Junction<Out>) {
        self.vertex.outlet()
    }
}

impl<S: 'static> Outlet for SideHandle<S> {
    type Record = S;

    fn outlet(&self) -> (VertexId, &Junction<S>) {
        (self.vertex, &self.branches)
    }
}

/// What a source takes: nothing. No edge can lead to it.
#[derive(Clone, Copy, Debug)]
pub enum Nothing {}

impl<In, Out> VertexHandle<In, Out> {
    /// How many subtasks it has.
    pub fn parallelism(self, parallelism: u32) -> Self {
        self.graph
            .edit(|g| g.vertex_mut(self.place.vertex).parallelism = Some(parallelism));
        self
    }

    /// The number of its key groups: the most subtasks that it may ever have.
    pub fn max_parallelism(self, max: u32) -> Self {
        self.graph
            .edit(|g| g.vertex_mut(self.place.vertex).max_parallelism = Some(max));
        self
    }

    /// A stable id, by which its state is found again.
    pub fn uid(self, uid: &str) -> Self {
        self.graph
            .edit(|g| g.operator_mut(self.place.operator).uid = Some(uid.to_owned()));
        self
    }

    /// The records that its operator puts to a side output; edges lead on from there.
    pub fn side_output<S: Clone + 'static>(&self, tag: &SideOutput<S>) -> SideHandle<S> {
        SideHandle {
            vertex: self.place.vertex,
            branches: self.sides.take(&self.graph, self.place.operator, tag),
        }
    }

    /// Has validation tell where nobody takes what it emits.
    fn emits(&self)
    where
        Out: 'static,
    {
        let branches = self.branches.clone();
        let problem = move || {
            let unused = branches.is_empty();
            unused.then(|| "no edge leads on from it; add one, to a sink at the latest".to_owned())
        };
        self.graph.edit(|g| g.add_end(self.place.operator, problem));
    }
}

impl<F, In, Out> KeyedVertexHandle<F, In, Out> {
    fn with(self, set: impl FnOnce(VertexHandle<In, Out>) -> VertexHandle<In, Out>) -> Self {
        let KeyedVertexHandle { vertex, select } = self;
        let vertex = set(vertex);
        KeyedVertexHandle { vertex, select }
    }

    /// How many subtasks it has.
    pub fn parallelism(self, parallelism: u32) -> Self {
        self.with(|vertex| vertex.parallelism(parallelism))
    }

    /// The number of its key groups: the most subtasks that it may ever have.
    pub fn max_parallelism(self, max: u32) -> Self {
        self.with(|vertex| vertex.max_parallelism(max))
    }

    /// A stable id, by which its state is found again.
    pub fn uid(self, uid: &str) -> Self {
        self.with(|vertex| vertex.uid(uid))
    }

    /// The records that its operator puts to a side output; edges lead on from there.
    pub fn side_output<S: Clone + 'static>(&self, tag: &SideOutput<S>) -> SideHandle<S> {
        self.vertex.side_output(tag)
    }
}

impl ActorGraph {
    /// Writes into the graph of an environment.
    pub fn new(graph: GraphRef) -> Self {
        ActorGraph { graph }
    }

    fn enter(&self, name: &str, kind: &str) -> Place {
        self.graph.edit(|g| {
            let task = g.add_task();
            let vertex = g.add_vertex(task);
            let operator = g.add_operator(vertex, name, kind);
            Place {
                task,
                vertex,
                operator,
                pending: None,
            }
        })
    }

    fn handle<In, Out>(&self, place: Place) -> VertexHandle<In, Out> {
        let graph = self.graph.clone();
        VertexHandle {
            graph,
            place,
            branches: Junction::default(),
            sides: Sides::default(),
            input: PhantomData,
        }
    }

    /// A vertex that reads a source.
    pub fn source<S: Source>(&self, name: &str, source: S) -> VertexHandle<Nothing, S::Item>
    where
        S::Item: Clone,
    {
        let place = self.enter(name, SOURCE_KIND);
        if !source.bounded() {
            self.graph.edit(|g| g.set_endless());
        }
        let handle = self.handle::<Nothing, S::Item>(place);
        handle.emits();
        let (branches, sides) = (handle.branches.clone(), handle.sides.clone());
        let up = FromSource {
            source,
            operator: place.operator,
            task: place.task,
        };
        up.attach(&self.graph, move |cx| {
            let down = branches.build(cx, S::Item::clone)?;
            sides.build(cx, down)
        });
        handle
    }

    /// A vertex that runs an operator.
    pub fn vertex<In, Op>(&self, name: &str, op: Op) -> VertexHandle<In, Op::Out>
    where
        In: Send + 'static,
        Op: Operator<In> + Clone + Send,
        Op::Out: Clone,
    {
        let place = self.enter(name, "operator");
        let handle = self.handle::<In, Op::Out>(place);
        handle.emits();
        let (branches, sides) = (handle.branches.clone(), handle.sides.clone());
        let prototype = Prototype::new(op);
        let factory = move |cx: &mut BuildContext| {
            let down = branches.build(cx, Op::Out::clone)?;
            let down = sides.build(cx, down)?;
            let down = node::<In, Op, _>(cx, place.operator, prototype.get(), down)?;
            gate::<In, _, _>(cx, place.vertex, Forward::default(), down)
        };
        self.graph
            .edit(|g| g.set_factory(place.task, Arc::new(factory)));
        handle
    }

    /// A vertex that runs an operator of keyed records; `select` reads the key.
    pub fn keyed_vertex<K, In, F, Op>(
        &self,
        name: &str,
        select: F,
        op: Op,
    ) -> KeyedVertexHandle<F, In, Op::Out>
    where
        K: Hash + Eq + 'static,
        In: Send + 'static,
        F: Fn(&In) -> K + Clone + Send + Sync + 'static,
        Op: Operator<Keyed<K, In>> + Clone + Send,
        Op::Out: Clone,
    {
        let place = self.enter(name, "operator");
        let vertex = self.handle::<In, Op::Out>(place);
        vertex.emits();
        let (branches, sides) = (vertex.branches.clone(), vertex.sides.clone());
        let (prototype, key) = (Prototype::new(op), select.clone());
        let factory = move |cx: &mut BuildContext| {
            let down = branches.build(cx, Op::Out::clone)?;
            let down = sides.build(cx, down)?;
            let down = node::<Keyed<K, In>, Op, _>(cx, place.operator, prototype.get(), down)?;
            gate::<In, _, _>(cx, place.vertex, ByKey::new(key.clone()), down)
        };
        self.graph
            .edit(|g| g.set_factory(place.task, Arc::new(factory)));
        KeyedVertexHandle { vertex, select }
    }

    /// A vertex that writes a sink.
    pub fn sink<T: Send + 'static, S: Sink<T>>(
        &self,
        name: &str,
        sink: S,
    ) -> VertexHandle<T, Nothing> {
        let place = self.enter(name, "sink");
        let make = enter_sink::<T, S>(&self.graph, place.operator, sink);
        let handle = self.handle(place);
        let sides = handle.sides.clone();
        let factory = move |cx: &mut BuildContext| {
            let sides = sides.stages(cx)?;
            let down = WithSides::new(sides, make(cx)?);
            gate::<T, _, _>(cx, place.vertex, Forward::default(), down)
        };
        self.graph
            .edit(|g| g.set_factory(place.task, Arc::new(factory)));
        handle
    }

    /// An edge: records of `from` go to subtasks of `to` by `partition`.
    pub fn edge<O, B, P>(&self, from: &O, to: &VertexHandle<O::Record, B>, partition: P) -> &Self
    where
        O: Outlet,
        O::Record: Send,
        P: Distribution<O::Record, Local = O::Record>,
    {
        self.connect(from, to.place.vertex, partition)
    }

    /// An edge to a keyed vertex: all records of a key go to the same subtask.
    pub fn hash_edge<O, B, K, F>(&self, from: &O, to: &KeyedVertexHandle<F, O::Record, B>) -> &Self
    where
        O: Outlet,
        O::Record: Send,
        K: Hash + 'static,
        F: Fn(&O::Record) -> K + Clone + Send + 'static,
    {
        self.connect(from, to.vertex.place.vertex, ByKey::new(to.select.clone()))
    }

    fn connect<O, P>(&self, from: &O, to: VertexId, partition: P) -> &Self
    where
        O: Outlet,
        O::Record: Send,
        P: Distribution<O::Record>,
    {
        let (from, branches) = from.outlet();
        let edge = self.graph.edit(|g| {
            let edge = g.add_edge(from, Some(to), P::KIND);
            g.carry::<O::Record, P>(edge);
            edge
        });
        let prototype = Prototype::new(partition);
        branches.add(Box::new(move |cx| {
            let (placement, settings) = (cx.placement(edge), cx.job.settings.channels);
            let (sent, _) = cx.meters::<O::Record>(edge);
            let participant = cx.participant.clone();
            let partition = prototype.get();
            let flight = cx.flight::<O::Record, P>(edge)?;
            let out = EdgeOut::new(
                edge,
                placement,
                partition,
                settings,
                sent,
                participant,
                flight,
            );
            let branch: Box<dyn Branch<O::Record>> = Box::new(BranchHead(out));
            Ok(branch)
        }));
        self
    }
}

impl<F, In, Out> KeyedVertexHandle<F, In, Out> {
    /// The vertex as the beginning of further edges.
    pub fn output(&self) -> &VertexHandle<In, Out> {
        &self.vertex
    }
}
