//! A stream whose records are grouped by key.

use super::stream::DataStream;
use super::upstream::{Make, Upstream, node};
use crate::build::{BuildContext, Prototype};
use crate::checkpoint::{Key, StateValue};
use crate::exchange::{ByKey, EdgeId, EdgeKind, Exchange, Keyed};
use crate::graph::{GraphRef, OperatorId};
use crate::operator::{Blueprint, Operator};
use crate::operators::{Fold, Reduce};
use crate::stage::{Collector, Stage};
use std::hash::Hash;
use std::marker::PhantomData;

/// A stream of records of type `T`, grouped by keys of type `K`.
#[must_use = "a stream that ends without a sink does nothing"]
pub struct KeyedStream<K, T: 'static, U: Upstream<Out = T>, F> {
    pub(crate) stream: DataStream<T, U>,
    pub(crate) select: F,
    key: PhantomData<fn() -> K>,
}

impl<K, T: 'static, U: Upstream<Out = T>, F> KeyedStream<K, T, U, F> {
    pub(super) fn new(stream: DataStream<T, U>, select: F) -> Self {
        KeyedStream {
            stream,
            select,
            key: PhantomData,
        }
    }
}

impl<K, T, U, F> KeyedStream<K, T, U, F>
where
    K: Hash + Eq + 'static,
    T: Send + 'static,
    U: Upstream<Out = T>,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
{
    /// Adds an operator of keyed records.
    pub fn operate<Op>(self, name: &str, op: Op) -> DataStream<Op::Out, KeyedUpstream<U, F, K, Op>>
    where
        Op: Operator<Keyed<K, T>> + Clone + Send,
    {
        self.install(name, op)
    }

    /// Adds the operator that a blueprint makes in each subtask.
    pub(crate) fn install<Op>(
        mut self,
        name: &str,
        op: Op,
    ) -> DataStream<<Op::Op as Operator<Keyed<K, T>>>::Out, KeyedUpstream<U, F, K, Op>>
    where
        Op: Blueprint<Keyed<K, T>>,
    {
        let edge = self.stream.leave(EdgeKind::Hash);
        let operator = self.stream.enter(name, name);
        let DataStream { graph, up, place } = self.stream;
        let up = KeyedUpstream {
            up,
            select: self.select,
            op,
            operator,
            edge,
            key: PhantomData,
        };
        DataStream { graph, up, place }
    }

    /// A running combination per key: each record yields `function(so far, record)`.
    pub fn reduce<G>(self, function: G) -> DataStream<T, KeyedUpstream<U, F, K, Reduce<K, T, G>>>
    where
        K: Key + Send,
        T: StateValue + Clone,
        G: FnMut(&T, T) -> T + Clone + Send + 'static,
    {
        self.operate("reduce", Reduce::new(function))
    }

    /// A running accumulator per key, starting from `initial`: each record yields what
    /// `function(accumulator, key, record)` returns.
    pub fn fold<A, V, G>(
        self,
        initial: A,
        function: G,
    ) -> DataStream<V, KeyedUpstream<U, F, K, Fold<K, A, G>>>
    where
        K: Key + Send,
        A: StateValue + Clone + Send,
        V: 'static,
        G: FnMut(&mut A, &K, T) -> V + Clone + Send + 'static,
    {
        self.operate("fold", Fold::new(initial, function))
    }
}

/// A stream behind a hash exchange and the operator that needs it.
pub struct KeyedUpstream<U, F, K, Op> {
    pub(super) up: U,
    pub(super) select: F,
    pub(super) op: Op,
    pub(super) operator: OperatorId,
    pub(super) edge: EdgeId,
    key: PhantomData<fn() -> K>,
}

impl<U, F, K, Op> Upstream for KeyedUpstream<U, F, K, Op>
where
    U: Upstream,
    U::Out: Send,
    K: Hash + Eq + 'static,
    F: Fn(&U::Out) -> K + Clone + Send + Sync + 'static,
    Op: Blueprint<Keyed<K, U::Out>>,
{
    type Out = <Op::Op as Operator<Keyed<K, U::Out>>>::Out;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<Self::Out> + Stage + 'static,
    {
        let (prototype, operator, edge) = (Prototype::new(self.op), self.operator, self.edge);
        let select = self.select;
        graph.edit(|g| g.carry::<U::Out, ByKey<F, K>>(edge));
        self.up.attach(graph, move |cx: &mut BuildContext| {
            let down = make(cx)?;
            let op = prototype.get().operator();
            let down = node::<Keyed<K, U::Out>, Op::Op, D>(cx, operator, op, down)?;
            let flight = cx.flight::<U::Out, ByKey<F, K>>(edge)?;
            Exchange::new(
                edge,
                cx.placement(edge),
                ByKey::new(select.clone()),
                cx.job.settings.channels,
                cx.meters::<U::Out>(edge),
                down,
            )
            .participate(cx.participant.clone(), flight)
        });
    }
}
