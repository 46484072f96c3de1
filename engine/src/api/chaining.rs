//! Where chains begin and end: operators that run in an actor of their own.
//!
//! Operators share an actor wherever they can. Where one of them is to have a core for itself, say
//! because it is slow and the others are not, [`DataStream::start_new_chain`] and
//! [`DataStream::disable_chaining`] put a mailbox between them.

use super::keyed::KeyedUpstream;
use super::stream::{DataStream, Place};
use super::union::{Merged, begin_at, end_in};
use super::upstream::{Chained, FromSource, Make, Upstream};
use crate::exchange::{ByKey, Distribution, EdgeId, EdgeKind, Forward, Keyed};
use crate::graph::{GraphRef, TaskId};
use crate::operator::Blueprint;
use crate::source::Source;
use crate::stage::{Collector, Stage};
use std::hash::Hash;
use std::marker::PhantomData;

/// Streams whose last operator can begin an actor.
pub trait StartChain: Upstream + Sized {
    /// The stream afterwards.
    type Started: Upstream<Out = Self::Out>;

    /// Has it begin one.
    fn start(stream: DataStream<Self::Out, Self>) -> DataStream<Self::Out, Self::Started>;
}

impl<T: 'static, U: StartChain<Out = T>> DataStream<T, U> {
    /// The last operator begins a new actor: what is before it goes on in another one, and sends its
    /// records through a mailbox. An operator that begins its actor anyway is left as it is.
    ///
    /// ```
    /// # use tidegate_engine::prelude::*;
    /// # fn job<U: Upstream<Out = u64>>(numbers: DataStream<u64, U>) {
    /// let slow = numbers.filter(|n| n % 2 == 0).map(|n| n.pow(3)).start_new_chain().uid("cubes");
    /// # let _ = slow;
    /// # }
    /// ```
    pub fn start_new_chain(self) -> DataStream<T, U::Started> {
        U::start(self)
    }

    /// The last operator runs in an actor of its own: neither what is before it nor what is behind
    /// shares it.
    pub fn disable_chaining(self) -> DataStream<T, Cut<T>>
    where
        T: Send,
    {
        U::start(self).cut()
    }
}

/// Moves the last operator of a place to a new task, behind a forward edge; nothing where it begins
/// a task already.
fn split_off(graph: &GraphRef, place: &mut Place) -> Option<(EdgeId, TaskId)> {
    let (operator, vertex) = (place.operator, place.vertex);
    graph.edit(|g| {
        if g.begins_task(operator) {
            return None;
        }
        let task = g.add_task();
        let own = g.add_vertex(task);
        let before = g.vertex_mut(vertex);
        let (parallelism, max) = (before.parallelism, before.max_parallelism);
        let first = before.operators.first() == Some(&operator);
        g.move_operator(operator, own);
        if first {
            // The exchange before it keeps a vertex to end in.
            g.add_operator(vertex, "pass", "pass");
        }
        let moved = g.vertex_mut(own);
        (moved.parallelism, moved.max_parallelism) = (parallelism, max);
        place.vertex = own;
        place.task = task;
        Some((g.add_edge(vertex, Some(own), EdgeKind::Forward), task))
    })
}

/// A stream that may go on in another task.
pub struct Started<U> {
    up: U,
    cut: Option<(EdgeId, TaskId)>,
}

impl<U> Started<U> {
    /// Has the last operator of `place` begin a task; `up` is the stream before it.
    pub(super) fn new(up: U, graph: &GraphRef, place: &mut Place) -> Self {
        let cut = split_off(graph, place);
        Started { up, cut }
    }
}

impl<U: Upstream> Upstream for Started<U>
where
    U::Out: Send,
{
    type Out = U::Out;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<U::Out> + Stage + 'static,
    {
        let Some(cut) = self.cut else {
            return self.up.attach(graph, make);
        };
        end_in(self.up, graph, cut.0, Forward::default());
        begin_at::<U::Out, _, D>(graph, cut, Forward::default(), make);
    }
}

impl<U, Op> StartChain for Chained<U, Op>
where
    U: Upstream,
    U::Out: Send,
    Op: Blueprint<U::Out>,
{
    type Started = Chained<Started<U>, Op>;

    fn start(stream: DataStream<Self::Out, Self>) -> DataStream<Self::Out, Self::Started> {
        let DataStream {
            graph,
            up,
            mut place,
        } = stream;
        let Chained { up, op, operator } = up;
        let up = Started::new(up, &graph, &mut place);
        let up = Chained { up, op, operator };
        DataStream { graph, up, place }
    }
}

/// A stream behind an exchange that leads to another task.
pub struct Crossed<U, P> {
    up: U,
    partition: P,
    edge: EdgeId,
    task: TaskId,
}

impl<U, P> Upstream for Crossed<U, P>
where
    U: Upstream,
    U::Out: Send,
    P: Distribution<U::Out>,
{
    type Out = P::Local;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<P::Local> + Stage + 'static,
    {
        end_in(self.up, graph, self.edge, self.partition.clone());
        begin_at::<U::Out, P, D>(graph, (self.edge, self.task), self.partition, make);
    }
}

impl<U, F, K, Op> StartChain for KeyedUpstream<U, F, K, Op>
where
    U: Upstream,
    U::Out: Send,
    K: Hash + Eq + 'static,
    F: Fn(&U::Out) -> K + Clone + Send + Sync + 'static,
    Op: Blueprint<Keyed<K, U::Out>>,
{
    type Started = Chained<Crossed<U, ByKey<F, K>>, Op>;

    fn start(stream: DataStream<Self::Out, Self>) -> DataStream<Self::Out, Self::Started> {
        let DataStream {
            graph,
            up,
            mut place,
        } = stream;
        // Its exchange is there already: only where it leads to changes.
        place.task = graph.edit(|g| {
            let task = g.add_task();
            g.vertex_mut(place.vertex).task = task;
            task
        });
        let KeyedUpstream {
            up,
            select,
            op,
            operator,
            edge,
            ..
        } = up;
        let up = Crossed {
            up,
            partition: ByKey::new(select),
            edge,
            task: place.task,
        };
        let up = Chained { up, op, operator };
        DataStream { graph, up, place }
    }
}

impl<S: Source> StartChain for FromSource<S> {
    type Started = Self;

    fn start(stream: DataStream<S::Item, Self>) -> DataStream<S::Item, Self> {
        stream
    }
}

impl<T: Send + 'static, P: Distribution<T>> StartChain for Merged<T, P> {
    type Started = Self;

    fn start(stream: DataStream<P::Local, Self>) -> DataStream<P::Local, Self> {
        stream
    }
}

/// A stream that goes on in an actor which nothing runs in so far.
pub struct Cut<T> {
    edge: EdgeId,
    task: TaskId,
    record: PhantomData<fn() -> T>,
}

impl<T: Send + 'static> Upstream for Cut<T> {
    type Out = T;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<T> + Stage + 'static,
    {
        begin_at::<T, _, D>(graph, (self.edge, self.task), Forward::default(), make);
    }
}

impl<T: Send + 'static, U: Upstream<Out = T>> DataStream<T, U> {
    /// Ends the actor at hand here.
    fn cut(mut self) -> DataStream<T, Cut<T>> {
        let edge = self.leave(EdgeKind::Forward);
        let task = self.graph.edit(|g| g.add_task());
        let DataStream {
            graph,
            up,
            mut place,
        } = self;
        end_in(up, &graph, edge, Forward::default());
        place.task = task;
        let up = Cut {
            edge,
            task,
            record: PhantomData,
        };
        DataStream { graph, up, place }
    }
}
