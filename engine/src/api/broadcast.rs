//! A stream beside a broadcast one, whose records every subtask sees.

use super::connect::{ConnectedStreams, MetBy};
use super::keyed::KeyedStream;
use super::stream::DataStream;
use super::upstream::Upstream;
use crate::checkpoint::Key;
use crate::exchange::EdgeKind;
use crate::exchange::{ByKey, Forward, WithBroadcast};
use crate::operators::{BroadcastProcessBlueprint, KeyedBroadcastProcessBlueprint};
use crate::process::{BroadcastProcessFunction, KeyedBroadcastProcessFunction};
use std::marker::PhantomData;

/// A stream, and one whose records go to all of its subtasks.
#[must_use = "streams that end without a sink do nothing"]
pub struct BroadcastConnectedStreams<A: 'static, B: 'static, U, V>(ConnectedStreams<A, B, U, V>)
where
    U: Upstream<Out = A>,
    V: Upstream<Out = B>;

impl<A: Send + 'static, U: Upstream<Out = A>> DataStream<A, U> {
    /// This stream, and one whose records go to all of its subtasks.
    pub fn connect_broadcast<B, V>(
        self,
        other: DataStream<B, V>,
    ) -> BroadcastConnectedStreams<A, B, U, V>
    where
        B: Clone + Send + 'static,
        V: Upstream<Out = B>,
    {
        BroadcastConnectedStreams(self.connect(other))
    }
}

impl<A, B, U, V> BroadcastConnectedStreams<A, B, U, V>
where
    A: Send + 'static,
    B: Clone + Send + 'static,
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
{
    /// Each record through a function with broadcast state.
    pub fn process<F: BroadcastProcessFunction<A, B>>(
        self,
        function: F,
    ) -> DataStream<F::Out, MetBy<A, B, WithBroadcast<Forward>, BroadcastProcessBlueprint<F>>> {
        let partition = WithBroadcast::new(Forward::default());
        let op = BroadcastProcessBlueprint::new(function);
        self.0.meet(
            "broadcast-process",
            EdgeKind::Forward,
            EdgeKind::Broadcast,
            partition,
            op,
        )
    }
}

/// A keyed stream, and one whose records go to all of its subtasks.
#[must_use = "streams that end without a sink do nothing"]
pub struct KeyedBroadcastConnectedStreams<K, A: 'static, B: 'static, U, V, S>
where
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
{
    streams: ConnectedStreams<A, B, U, V>,
    select: S,
    key: PhantomData<fn() -> K>,
}

impl<K, A: Send + 'static, U: Upstream<Out = A>, S> KeyedStream<K, A, U, S> {
    /// This stream, and one whose records go to all of its subtasks.
    pub fn connect_broadcast<B, V>(
        self,
        other: DataStream<B, V>,
    ) -> KeyedBroadcastConnectedStreams<K, A, B, U, V, S>
    where
        B: Clone + Send + 'static,
        V: Upstream<Out = B>,
    {
        let streams = self.stream.connect(other);
        KeyedBroadcastConnectedStreams {
            streams,
            select: self.select,
            key: PhantomData,
        }
    }
}

impl<K, A, B, U, V, S> KeyedBroadcastConnectedStreams<K, A, B, U, V, S>
where
    K: Key,
    A: Send + 'static,
    B: Clone + Send + 'static,
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
    S: Fn(&A) -> K + Clone + Send + Sync + 'static,
{
    /// Each record through a function with broadcast state, and with state and timers of its key.
    pub fn process<F: KeyedBroadcastProcessFunction<K, A, B>>(
        self,
        function: F,
    ) -> DataStream<
        F::Out,
        MetBy<A, B, WithBroadcast<ByKey<S, K>>, KeyedBroadcastProcessBlueprint<F>>,
    > {
        let partition = WithBroadcast::new(ByKey::new(self.select));
        let op = KeyedBroadcastProcessBlueprint::new(function);
        self.streams.meet(
            "broadcast-process",
            EdgeKind::Hash,
            EdgeKind::Broadcast,
            partition,
            op,
        )
    }
}
