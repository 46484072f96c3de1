//! Choosing the subtask by other means than a key, and changing the parallelism.

use super::chaining::Cut;
use super::keyed::KeyedUpstream;
use super::split::WithSide;
use super::stream::{DataStream, Place};
use super::union::Merged;
use super::upstream::{Chained, FromSource, Make, Upstream};
use crate::build::{BuildContext, Prototype};
use crate::exchange::{
    Broadcast, Custom, Distribution, EdgeId, EdgeKind, Exchange, Global, Rebalance, Rescale,
    Shuffle,
};
use crate::fault::Flow;
use crate::graph::GraphRef;
use crate::operator::Blueprint;
use crate::stage::{Collector, Delivery, Signal, Stage, Turn};
use crate::time::Timestamp;

/// A stream behind an exchange whose consumer is still to come.
pub struct Redistributed<U, P> {
    up: U,
    partition: P,
    edge: EdgeId,
}

impl<U, P> Upstream for Redistributed<U, P>
where
    U: Upstream,
    U::Out: Send,
    P: Distribution<U::Out, Local = U::Out>,
{
    type Out = U::Out;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<U::Out> + Stage + 'static,
    {
        let (partition, edge) = (Prototype::new(self.partition), self.edge);
        graph.edit(|g| g.carry::<U::Out, P>(edge));
        self.up.attach(graph, move |cx: &mut BuildContext| {
            let down = make(cx)?;
            let (placement, settings) = (cx.placement(edge), cx.job.settings.channels);
            let meters = cx.meters::<U::Out>(edge);
            let flight = cx.flight::<U::Out, P>(edge)?;
            Exchange::new(edge, placement, partition.get(), settings, meters, down)
                .participate(cx.participant.clone(), flight)
        });
    }
}

impl<T: Send + 'static, U: Upstream<Out = T>> DataStream<T, U> {
    fn redistribute<P: Distribution<T, Local = T>>(
        mut self,
        partition: P,
    ) -> DataStream<T, Redistributed<U, P>> {
        let edge = self.leave(P::KIND);
        let up = Redistributed {
            up: self.up,
            partition,
            edge,
        };
        DataStream {
            graph: self.graph,
            up,
            place: self.place,
        }
    }

    /// To all subtasks of the next operator in turn.
    pub fn rebalance(self) -> DataStream<T, Redistributed<U, Rebalance>> {
        self.redistribute(Rebalance::default())
    }

    /// In turn to a few subtasks of the next operator, near each producer.
    pub fn rescale(self) -> DataStream<T, Redistributed<U, Rescale>> {
        self.redistribute(Rescale::default())
    }

    /// To random subtasks of the next operator.
    pub fn shuffle(self) -> DataStream<T, Redistributed<U, Shuffle>> {
        self.redistribute(Shuffle::default())
    }

    /// A copy to every subtask of the next operator.
    pub fn broadcast(self) -> DataStream<T, Redistributed<U, Broadcast>>
    where
        T: Clone,
    {
        self.redistribute(Broadcast)
    }

    /// Everything to subtask 0 of the next operator.
    pub fn global(self) -> DataStream<T, Redistributed<U, Global>> {
        self.redistribute(Global)
    }

    /// To the subtask that `choose(record, subtasks)` returns, modulo the number of subtasks.
    pub fn partition_custom<F>(self, choose: F) -> DataStream<T, Redistributed<U, Custom<F>>>
    where
        F: Fn(&T, u32) -> u32 + Clone + Send + 'static,
    {
        self.redistribute(Custom::new(choose))
    }
}

/// Streams whose last operator can be given a parallelism of its own.
pub trait SetParallelism: Upstream + Sized {
    /// The stream afterwards.
    type Set: Upstream<Out = Self::Out>;

    /// Sets it in the graph.
    fn set(
        stream: DataStream<Self::Out, Self>,
        parallelism: u32,
    ) -> DataStream<Self::Out, Self::Set>;
}

impl<T: 'static, U: SetParallelism<Out = T>> DataStream<T, U> {
    /// How many subtasks the last operator has. Where this differs from the operator before it,
    /// records are dealt out in turn between them.
    pub fn parallelism(self, parallelism: u32) -> DataStream<T, U::Set> {
        U::set(self, parallelism)
    }
}

fn set_vertex<T, U: Upstream<Out = T>>(stream: &DataStream<T, U>, parallelism: u32) {
    let vertex = stream.place.vertex;
    stream
        .graph
        .edit(|g| g.vertex_mut(vertex).parallelism = Some(parallelism));
}

impl<S: crate::source::Source> SetParallelism for FromSource<S> {
    type Set = Self;
    fn set(stream: DataStream<S::Item, Self>, parallelism: u32) -> DataStream<S::Item, Self> {
        set_vertex(&stream, parallelism);
        stream
    }
}

impl<U, F, K, Op> SetParallelism for KeyedUpstream<U, F, K, Op>
where
    Self: Upstream,
{
    type Set = Self;
    fn set(stream: DataStream<Self::Out, Self>, parallelism: u32) -> DataStream<Self::Out, Self> {
        set_vertex(&stream, parallelism);
        stream
    }
}

impl<T: Send + 'static, P: Distribution<T>> SetParallelism for Merged<T, P> {
    type Set = Self;
    fn set(stream: DataStream<P::Local, Self>, parallelism: u32) -> DataStream<P::Local, Self> {
        set_vertex(&stream, parallelism);
        stream
    }
}

impl<T: Send + 'static> SetParallelism for Cut<T> {
    type Set = Self;
    fn set(stream: DataStream<T, Self>, parallelism: u32) -> DataStream<T, Self> {
        set_vertex(&stream, parallelism);
        stream
    }
}

impl<U: SetParallelism, S: 'static> SetParallelism for WithSide<U, S> {
    type Set = WithSide<U::Set, S>;

    fn set(stream: DataStream<U::Out, Self>, parallelism: u32) -> DataStream<U::Out, Self::Set> {
        let DataStream { graph, up, place } = stream;
        let (up, wrap) = up.take_apart();
        let stream = U::set(DataStream { graph, up, place }, parallelism);
        if stream.place.vertex != place.vertex {
            // The side stream was taken where the operator no longer is.
            stream.graph.edit(|g| {
                let name = g.operator_mut(place.operator).name.clone();
                g.problem(format!(
                    "'{name}': set its parallelism before its side output is taken"
                ));
            });
        }
        let DataStream { graph, up, place } = stream;
        DataStream {
            graph,
            up: wrap.around(up),
            place,
        }
    }
}

impl<U, Op> SetParallelism for Chained<U, Op>
where
    U: Upstream,
    U::Out: Send,
    Op: Blueprint<U::Out>,
{
    type Set = Chained<Detached<U>, Op>;

    fn set(
        mut stream: DataStream<Self::Out, Self>,
        parallelism: u32,
    ) -> DataStream<Self::Out, Self::Set> {
        let edge = stream.detach(parallelism);
        let DataStream { graph, up, place } = stream;
        let Chained { up, op, operator } = up;
        let up = Chained {
            up: Detached::new(up, edge),
            op,
            operator,
        };
        DataStream { graph, up, place }
    }
}

impl<T: 'static, U: Upstream<Out = T>> DataStream<T, U> {
    /// Gives the last operator a vertex of its own with this parallelism. Returns the exchange that it
    /// needs before it, if it has none yet.
    pub(super) fn detach(&mut self, parallelism: u32) -> Option<EdgeId> {
        detach(&self.graph, &mut self.place, parallelism)
    }
}

/// Gives the last operator of a place a vertex of its own, behind an exchange, with a parallelism.
pub(super) fn detach(graph: &GraphRef, place: &mut Place, parallelism: u32) -> Option<EdgeId> {
    let (operator, vertex) = (place.operator, place.vertex);
    graph.edit(|g| {
        // The first operator of a vertex has its exchange already; any other gets one.
        let edge = (g.vertex_mut(vertex).operators.first() != Some(&operator)).then(|| {
            let task = g.vertex_mut(vertex).task;
            let own = g.add_vertex(task);
            g.move_operator(operator, own);
            place.vertex = own;
            g.add_edge(vertex, Some(own), EdgeKind::Rebalance)
        });
        g.vertex_mut(place.vertex).parallelism = Some(parallelism);
        edge
    })
}

/// A stream that may have an exchange before its last operator.
pub struct Detached<U> {
    up: U,
    edge: Option<EdgeId>,
}

impl<U> Detached<U> {
    pub(super) fn new(up: U, edge: Option<EdgeId>) -> Self {
        Detached { up, edge }
    }
}

impl<U: Upstream> Upstream for Detached<U>
where
    U::Out: Send,
{
    type Out = U::Out;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<U::Out> + Stage + 'static,
    {
        let edge = self.edge;
        if let Some(edge) = edge {
            graph.edit(|g| g.carry::<U::Out, Rebalance>(edge));
        }
        self.up.attach(graph, move |cx: &mut BuildContext| {
            let down = make(cx)?;
            Passage::<U::Out, D>::new(cx, edge, down)
        });
    }
}

/// An exchange, or nothing, by what the graph says.
#[allow(
    clippy::large_enum_variant,
    reason = "a subtask holds one, and a box would cost each record a jump"
)]
pub enum Passage<T: Send + 'static, D> {
    /// Straight on.
    Through(D),
    /// Dealt out in turn.
    Across(Exchange<T, Rebalance, D>),
}

impl<T: Send + 'static, D: Collector<T> + Stage> Passage<T, D> {
    /// An exchange before `down`, if there is an edge.
    pub(super) fn new(cx: &BuildContext, edge: Option<EdgeId>, down: D) -> Flow<Self> {
        let Some(edge) = edge else {
            return Ok(Passage::Through(down));
        };
        let (placement, settings) = (cx.placement(edge), cx.job.settings.channels);
        let (meters, deal) = (cx.meters::<T>(edge), Rebalance::default());
        let exchange = Exchange::new(edge, placement, deal, settings, meters, down);
        let flight = cx.flight::<T, Rebalance>(edge)?;
        let exchange = exchange.participate(cx.participant.clone(), flight)?;
        Ok(Passage::Across(exchange))
    }

    fn stage(&mut self) -> &mut dyn Stage {
        match self {
            Passage::Through(down) => down,
            Passage::Across(exchange) => exchange,
        }
    }

    fn stage_ref(&self) -> &dyn Stage {
        match self {
            Passage::Through(down) => down,
            Passage::Across(exchange) => exchange,
        }
    }
}

impl<T: Send + 'static, D: Collector<T> + Stage> Collector<T> for Passage<T, D> {
    #[inline(always)]
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        match self {
            Passage::Through(down) => down.collect(at, value),
            Passage::Across(exchange) => exchange.collect(at, value),
        }
    }

    fn has_room(&self) -> bool {
        self.room()
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        self.stage().signal(signal)
    }
}

impl<T: Send + 'static, D: Collector<T> + Stage> Stage for Passage<T, D> {
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        visit(self.stage())
    }

    fn each_ref(&self, visit: &mut dyn FnMut(&dyn Stage)) {
        visit(self.stage_ref());
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        self.stage().turn(turn)
    }

    fn deliver(&mut self, edge: EdgeId, delivery: &mut Delivery<'_>) -> Flow<bool> {
        self.stage().deliver(edge, delivery)
    }
}
