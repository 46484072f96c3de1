//! Two streams of different records that meet in one operator.

use super::keyed::KeyedStream;
use super::stream::DataStream;
use super::union::Merged;
use super::upstream::{Chained, Upstream};
use crate::checkpoint::Key;
use crate::exchange::{ByEitherKey, Distribution, EdgeKind, Either, Forward, Keyed};
use crate::graph::GraphRef;
use crate::operator::{Blueprint, Operator};
use crate::operators::{Adapt, CoFlatMap, CoMap, KeyedProcessBlueprint, ProcessBlueprint};
use crate::process::{CoProcess, CoProcessFunction, ProcessFunction};
use std::hash::Hash;
use std::marker::PhantomData;

/// Two streams that are to meet, record by record as they come.
#[must_use = "streams that end without a sink do nothing"]
pub struct ConnectedStreams<A: 'static, B: 'static, U: Upstream<Out = A>, V: Upstream<Out = B>> {
    pub(crate) first: DataStream<A, U>,
    pub(crate) second: DataStream<B, V>,
}

/// The records of two streams, at the beginning of a vertex where they met by `P`.
pub type MetBy<A, B, P, Op> = Chained<Merged<Either<A, B>, P>, Op>;

impl<T: Send + 'static, U: Upstream<Out = T>> DataStream<T, U> {
    /// This stream and another, of records of any type, for one operator that sees both.
    pub fn connect<B: Send + 'static, V: Upstream<Out = B>>(
        self,
        other: DataStream<B, V>,
    ) -> ConnectedStreams<T, B, U, V> {
        ConnectedStreams {
            first: self,
            second: other,
        }
    }

    /// Ends this stream in an edge whose records are what `wrap` makes of its own.
    pub(crate) fn send_as<W, P>(
        self,
        to: super::Place,
        kind: EdgeKind,
        partition: P,
        wrap: impl FnMut(T) -> W + Clone + Send + 'static,
    ) where
        W: Send + 'static,
        P: Distribution<W>,
    {
        let DataStream { graph, up, place } = self;
        let up = Chained {
            up,
            op: Adapt::new(wrap),
            operator: place.operator,
        };
        DataStream { graph, up, place }.send_to(to, kind, partition);
    }
}

impl<A, B, U, V> ConnectedStreams<A, B, U, V>
where
    A: Send + 'static,
    B: Send + 'static,
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
{
    /// Groups both streams by keys of one type: equal keys meet in one subtask.
    pub fn key_by<K, F, G>(self, first: F, second: G) -> KeyedConnectedStreams<K, A, B, U, V, F, G>
    where
        F: Fn(&A) -> K + Clone + Send + Sync + 'static,
        G: Fn(&B) -> K + Clone + Send + Sync + 'static,
    {
        KeyedConnectedStreams {
            streams: self,
            select: (first, second),
            key: PhantomData,
        }
    }

    /// One record for each record, by a function for each stream.
    pub fn map<R, F, G>(
        self,
        first: F,
        second: G,
    ) -> DataStream<R, MetBy<A, B, Forward, CoMap<F, G>>>
    where
        R: 'static,
        F: FnMut(A) -> R + Clone + Send + 'static,
        G: FnMut(B) -> R + Clone + Send + 'static,
    {
        self.operate("co-map", CoMap::new(first, second))
    }

    /// Any number of records for each record, by a function for each stream.
    pub fn flat_map<R, I, J, F, G>(
        self,
        first: F,
        second: G,
    ) -> DataStream<R, MetBy<A, B, Forward, CoFlatMap<F, G>>>
    where
        R: 'static,
        I: IntoIterator<Item = R>,
        J: IntoIterator<Item = R>,
        F: FnMut(A) -> I + Clone + Send + 'static,
        G: FnMut(B) -> J + Clone + Send + 'static,
    {
        self.operate("co-flat-map", CoFlatMap::new(first, second))
    }

    /// Each record through a function that knows the record's stream and time.
    pub fn process<F: ProcessFunction<Either<A, B>>>(
        self,
        function: F,
    ) -> DataStream<F::Out, MetBy<A, B, Forward, ProcessBlueprint<F>>> {
        let (forward, op) = (Forward::default(), ProcessBlueprint::new(function));
        self.meet(
            "co-process",
            EdgeKind::Forward,
            EdgeKind::Forward,
            forward,
            op,
        )
    }

    /// Adds an operator of the records of both streams.
    pub fn operate<Op>(self, name: &str, op: Op) -> DataStream<Op::Out, MetBy<A, B, Forward, Op>>
    where
        Op: Operator<Either<A, B>> + Clone + Send,
    {
        let forward = Forward::default();
        self.meet(name, EdgeKind::Forward, EdgeKind::Forward, forward, op)
    }

    /// Sends both streams to a vertex that begins with the operator of a blueprint.
    pub(crate) fn meet<P, Op>(
        self,
        name: &str,
        first: EdgeKind,
        second: EdgeKind,
        partition: P,
        op: Op,
    ) -> DataStream<<Op::Op as Operator<P::Local>>::Out, MetBy<A, B, P, Op>>
    where
        P: Distribution<Either<A, B>>,
        Op: Blueprint<P::Local>,
    {
        let graph = self.first.graph.clone();
        let place = Merged::<Either<A, B>, P>::enter(&graph, name, name);
        self.first
            .send_as(place, first, partition.clone(), Either::First);
        self.second
            .send_as(place, second, partition.clone(), Either::Second);
        let up = Merged::new(place, partition);
        DataStream {
            graph,
            up: Chained {
                up,
                op,
                operator: place.operator,
            },
            place,
        }
    }
}

/// Two streams whose records meet by key.
#[must_use = "streams that end without a sink do nothing"]
pub struct KeyedConnectedStreams<K, A: 'static, B: 'static, U, V, F, G>
where
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
{
    streams: ConnectedStreams<A, B, U, V>,
    select: (F, G),
    key: PhantomData<fn() -> K>,
}

impl<K, A: 'static, B: 'static, U, V, F, G> KeyedConnectedStreams<K, A, B, U, V, F, G>
where
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
{
    /// The graph that both streams build.
    pub(crate) fn graph(&self) -> &GraphRef {
        &self.streams.first.graph
    }
}

impl<K, A, U, F> KeyedStream<K, A, U, F>
where
    A: Send + 'static,
    U: Upstream<Out = A>,
{
    /// This stream and another with keys of the same type, for one operator that sees both.
    pub fn connect<B, V, G>(
        self,
        other: KeyedStream<K, B, V, G>,
    ) -> KeyedConnectedStreams<K, A, B, U, V, F, G>
    where
        B: Send + 'static,
        V: Upstream<Out = B>,
    {
        KeyedConnectedStreams {
            streams: self.stream.connect(other.stream),
            select: (self.select, other.select),
            key: PhantomData,
        }
    }
}

impl<K, A, B, U, V, F, G> KeyedConnectedStreams<K, A, B, U, V, F, G>
where
    K: Hash + Eq + 'static,
    A: Send + 'static,
    B: Send + 'static,
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
    F: Fn(&A) -> K + Clone + Send + Sync + 'static,
    G: Fn(&B) -> K + Clone + Send + Sync + 'static,
{
    /// Adds an operator of the keyed records of both streams.
    pub fn operate<Op>(
        self,
        name: &str,
        op: Op,
    ) -> DataStream<Op::Out, MetBy<A, B, ByEitherKey<F, G, K>, Op>>
    where
        Op: Operator<Keyed<K, Either<A, B>>> + Clone + Send,
    {
        self.install(name, op)
    }

    /// Adds the operator that a blueprint makes in each subtask.
    pub(crate) fn install<Op>(
        self,
        name: &str,
        op: Op,
    ) -> DataStream<
        <Op::Op as Operator<Keyed<K, Either<A, B>>>>::Out,
        MetBy<A, B, ByEitherKey<F, G, K>, Op>,
    >
    where
        Op: Blueprint<Keyed<K, Either<A, B>>>,
    {
        let (first, second) = self.select;
        let by_key = ByEitherKey::new(first, second);
        self.streams
            .meet(name, EdgeKind::Hash, EdgeKind::Hash, by_key, op)
    }

    /// Each record through a function that keeps states and timers which both streams share.
    pub fn process<P: CoProcessFunction<K, A, B>>(
        self,
        function: P,
    ) -> DataStream<P::Out, MetBy<A, B, ByEitherKey<F, G, K>, KeyedProcessBlueprint<CoProcess<P>>>>
    where
        K: Key,
    {
        self.install(
            "co-process",
            KeyedProcessBlueprint::new(CoProcess(function)),
        )
    }
}
