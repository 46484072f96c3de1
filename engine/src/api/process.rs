//! Streams through process functions.

use super::keyed::{KeyedStream, KeyedUpstream};
use super::stream::DataStream;
use super::upstream::Upstream;
use crate::operators::KeyedProcessBlueprint;
use crate::process::KeyedProcessFunction;
use std::hash::Hash;

impl<K, T, U, S> KeyedStream<K, T, U, S>
where
    K: Hash + Eq + Clone + 'static,
    T: Send + 'static,
    U: Upstream<Out = T>,
    S: Fn(&T) -> K + Clone + Send + Sync + 'static,
{
    /// Each record through a function that keeps state and timers for its key.
    pub fn process<F: KeyedProcessFunction<K, T>>(
        self,
        function: F,
    ) -> DataStream<F::Out, KeyedUpstream<U, S, K, KeyedProcessBlueprint<F>>> {
        self.install("process", KeyedProcessBlueprint::new(function))
    }
}
