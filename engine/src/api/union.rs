//! Streams that flow together.

use super::stream::{DataStream, Place};
use super::upstream::{Make, Upstream};
use crate::build::{BuildContext, Prototype};
use crate::exchange::{Distribution, EdgeId, EdgeKind, EdgeOut, Forward, GateHead};
use crate::fault::Flow;
use crate::graph::{GraphRef, OperatorId, TaskId, VertexId};
use crate::observe::VertexMeter;
use crate::stage::{Collector, Head, Stage};
use std::marker::PhantomData;
use std::sync::Arc;

impl<T: Send + 'static, U: Upstream<Out = T>> DataStream<T, U> {
    /// All records of both streams.
    pub fn union<V: Upstream<Out = T>>(
        self,
        other: DataStream<T, V>,
    ) -> DataStream<T, Merged<T, Forward>> {
        let graph = self.graph.clone();
        let place = Merged::<T, Forward>::enter(&graph, "union", "union");
        self.send_to(place, EdgeKind::Forward, Forward::default());
        other.send_to(place, EdgeKind::Forward, Forward::default());
        let up = Merged::new(place, Forward::default());
        DataStream { graph, up, place }
    }

    /// Ends this stream in an edge to the vertex at `to`.
    pub(crate) fn send_to<P>(mut self, to: Place, kind: EdgeKind, partition: P)
    where
        P: Distribution<T>,
    {
        let edge = self.leave(kind);
        self.graph.edit(|g| g.end_edge(edge, to.vertex));
        end_in(self.up, &self.graph, edge, partition);
    }
}

/// Ends a chain in an edge to another task.
pub(super) fn end_in<U, P>(up: U, graph: &GraphRef, edge: EdgeId, partition: P)
where
    U: Upstream,
    U::Out: Send,
    P: Distribution<U::Out>,
{
    let prototype = Prototype::new(partition);
    graph.edit(|g| g.carry::<U::Out, P>(edge));
    up.attach(graph, move |cx| {
        let (placement, settings) = (cx.placement(edge), cx.job.settings.channels);
        let (sent, _) = cx.meters::<U::Out>(edge);
        Ok(EdgeOut::new(
            edge,
            placement,
            prototype.get(),
            settings,
            sent,
            cx.participant.clone(),
            cx.flight::<U::Out, P>(edge)?,
        ))
    });
}

/// Begins the chain of a task at the vertex in which an edge ends.
pub(super) fn begin_at<T, P, D>(
    graph: &GraphRef,
    (edge, task): (EdgeId, TaskId),
    partition: P,
    make: impl Make<D>,
) where
    T: Send + 'static,
    P: Distribution<T>,
    D: Collector<P::Local> + Stage + 'static,
{
    let prototype = Prototype::new(partition);
    let factory = move |cx: &mut BuildContext| {
        let down = make(cx)?;
        let (_, vertex) = cx.job.ends(edge);
        gate::<T, P, D>(cx, vertex, prototype.get(), down)
    };
    graph.edit(|g| g.set_factory(task, Arc::new(factory)));
}

/// A stream that begins at edges from other actors.
pub struct Merged<T, P> {
    operator: OperatorId,
    task: TaskId,
    partition: P,
    input: PhantomData<fn() -> T>,
}

impl<T, P> Merged<T, P> {
    /// Enters a vertex in a task of its own into the graph.
    pub(crate) fn enter(graph: &GraphRef, name: &str, kind: &str) -> Place {
        graph.edit(|g| {
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

    pub(crate) fn new(place: Place, partition: P) -> Self {
        let Place { task, operator, .. } = place;
        Merged {
            operator,
            task,
            partition,
            input: PhantomData,
        }
    }
}

impl<T, P> Upstream for Merged<T, P>
where
    T: Send + 'static,
    P: Distribution<T>,
{
    type Out = P::Local;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<P::Local> + Stage + 'static,
    {
        let operator = self.operator;
        let prototype = Prototype::new(self.partition);
        let factory = move |cx: &mut BuildContext| {
            let down = make(cx)?;
            let vertex = cx.job.vertex_of(operator);
            gate::<T, P, D>(cx, vertex, prototype.get(), down)
        };
        graph.edit(|g| g.set_factory(self.task, Arc::new(factory)));
    }
}

/// The head of a vertex that is fed by all edges that end in it, in one subtask.
pub(super) fn gate<T, P, D>(
    cx: &BuildContext,
    vertex: VertexId,
    partition: P,
    down: D,
) -> Flow<Box<dyn Head>>
where
    T: Send + 'static,
    P: Distribution<T>,
    D: Collector<P::Local> + Stage + 'static,
{
    let edges: Vec<EdgeId> = cx.job.edges_into(vertex).collect();
    let flights = edges.iter().map(|edge| cx.flight::<T, P>(*edge));
    let flights = flights.collect::<Flow<Vec<_>>>()?;
    let edges = edges.into_iter();
    let edges = edges.map(|edge| (edge, cx.placement(edge).producers));
    let head = GateHead::<T, P, D>::new(
        &edges.collect::<Vec<_>>(),
        cx.me,
        cx.job.parallelism(vertex),
        partition,
        cx.job.settings.channels,
        VertexMeter::new(cx.stats.subtask(vertex.0, cx.me), size_of::<T>()),
        down,
    );
    let head = head.participate(cx.participant.clone(), flights)?;
    Ok(Box::new(head))
}
