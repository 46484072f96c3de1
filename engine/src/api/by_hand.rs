//! The graph written by hand: vertex by vertex, edge by edge, each vertex an actor of its own.
//!
//! The fluent API fuses what it can; here nothing is fused. Use it for topologies that a chain of
//! calls doesn't express, and to see what a job is made of.

use super::split::Junction;
use super::stream::Place;
use super::union::gate;
use super::upstream::{FromSource, Upstream, node};
use crate::build::{BuildContext, Prototype};
use crate::exchange::{ByKey, Distribution, EdgeOut, Forward, Keyed};
use crate::graph::{GraphRef, SOURCE_KIND};
use crate::operator::Operator;
use crate::side::{Branch, BranchHead};
use crate::sink::{Sink, SinkStage};
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
    input: PhantomData<fn(In)>,
}

/// A vertex that takes `In` grouped by keys.
pub struct KeyedVertexHandle<F, In, Out> {
    vertex: VertexHandle<In, Out>,
    select: F,
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

    /// A stable id, by which its state is found again.
    pub fn uid(self, uid: &str) -> Self {
        self.graph
            .edit(|g| g.operator_mut(self.place.operator).uid = Some(uid.to_owned()));
        self
    }
}

impl<F, In, Out> KeyedVertexHandle<F, In, Out> {
    /// How many subtasks it has.
    pub fn parallelism(self, parallelism: u32) -> Self {
        let KeyedVertexHandle { vertex, select } = self;
        KeyedVertexHandle {
            vertex: vertex.parallelism(parallelism),
            select,
        }
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
        let branches = handle.branches.clone();
        let up = FromSource {
            source,
            operator: place.operator,
            task: place.task,
        };
        up.attach(&self.graph, move |cx| branches.build(cx, S::Item::clone));
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
        let (branches, prototype) = (handle.branches.clone(), Prototype::new(op));
        let factory = move |cx: &mut BuildContext| {
            let down = branches.build(cx, Op::Out::clone)?;
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
        let (branches, prototype) = (vertex.branches.clone(), Prototype::new(op));
        let key = select.clone();
        let factory = move |cx: &mut BuildContext| {
            let down = branches.build(cx, Op::Out::clone)?;
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
        let operator = place.operator;
        let sink = Arc::new(sink);
        let checked = sink.clone();
        let factory = move |cx: &mut BuildContext| {
            let name = cx.name(operator);
            let open = || {
                sink.open(&mut cx.open(operator))
                    .map_err(|fault| fault.at(&name))
            };
            let writer = cx.takes_part(operator).then(open).transpose()?;
            let down = SinkStage::<T, S::Writer>::new(writer, name, cx.stats_of(operator));
            gate::<T, _, _>(cx, place.vertex, Forward::default(), down)
        };
        self.graph.edit(|g| {
            g.add_check(operator, Arc::new(move || checked.check()));
            g.set_factory(place.task, Arc::new(factory));
        });
        self.handle(place)
    }

    /// An edge: records of `from` go to subtasks of `to` by `partition`.
    pub fn edge<A, T, B, P>(
        &self,
        from: &VertexHandle<A, T>,
        to: &VertexHandle<T, B>,
        partition: P,
    ) -> &Self
    where
        T: Send + 'static,
        P: Distribution<T, Local = T>,
    {
        self.connect(from, to.place, partition)
    }

    /// An edge to a keyed vertex: all records of a key go to the same subtask.
    pub fn hash_edge<A, T, B, K, F>(
        &self,
        from: &VertexHandle<A, T>,
        to: &KeyedVertexHandle<F, T, B>,
    ) -> &Self
    where
        T: Send + 'static,
        K: Hash + 'static,
        F: Fn(&T) -> K + Clone + Send + 'static,
    {
        self.connect(from, to.vertex.place, ByKey::new(to.select.clone()))
    }

    fn connect<A, T, P>(&self, from: &VertexHandle<A, T>, to: Place, partition: P) -> &Self
    where
        T: Send + 'static,
        P: Distribution<T>,
    {
        let edge = self
            .graph
            .edit(|g| g.add_edge(from.place.vertex, Some(to.vertex), P::KIND));
        self.graph.edit(|g| g.carry::<T, P>(edge));
        let prototype = Prototype::new(partition);
        from.branches.add(Box::new(move |cx| {
            let (placement, settings) = (cx.placement(edge), cx.job.settings.channels);
            let (sent, _) = cx.meters::<T>(edge);
            let participant = cx.participant.clone();
            let partition = prototype.get();
            let flight = cx.flight::<T, P>(edge)?;
            let out = EdgeOut::new(
                edge,
                placement,
                partition,
                settings,
                sent,
                participant,
                flight,
            );
            let branch: Box<dyn Branch<T>> = Box::new(BranchHead(out));
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
