//! Streams through process functions.

use super::chaining::{StartChain, Started};
use super::keyed::{KeyedStream, KeyedUpstream};
use super::partition::{Detached, SetParallelism};
use super::stream::DataStream;
use super::upstream::{Make, Upstream, node};
use crate::build::Prototype;
use crate::checkpoint::Key;
use crate::graph::{GraphRef, OperatorId};
use crate::operators::{KeyedProcessBlueprint, Process};
use crate::process::{KeyedProcessFunction, ProcessFunction};
use crate::stage::{Collector, Stage};

impl<K, T, U, S> KeyedStream<K, T, U, S>
where
    K: Key,
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

impl<T: 'static, U: Upstream<Out = T>> DataStream<T, U> {
    /// Each record through a function that knows the record's time.
    pub fn process<F: ProcessFunction<T>>(
        mut self,
        function: F,
    ) -> DataStream<F::Out, Processed<U, F>> {
        let operator = self.enter("process", "process");
        let up = Processed {
            up: self.up,
            function,
            operator,
        };
        DataStream {
            graph: self.graph,
            up,
            place: self.place,
        }
    }
}

/// A stream with a process function in the same chain.
pub struct Processed<U, F> {
    up: U,
    function: F,
    operator: OperatorId,
}

impl<U, F> Upstream for Processed<U, F>
where
    U: Upstream,
    F: ProcessFunction<U::Out>,
{
    type Out = F::Out;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<F::Out> + Stage + 'static,
    {
        let (prototype, operator) = (Prototype::new(self.function), self.operator);
        self.up.attach(graph, move |cx| {
            let down = make(cx)?;
            node::<U::Out, Process<U::Out, F>, D>(cx, operator, Process::new(prototype.get()), down)
        });
    }
}

impl<U, F> StartChain for Processed<U, F>
where
    U: Upstream,
    U::Out: Send,
    F: ProcessFunction<U::Out>,
{
    type Started = Processed<Started<U>, F>;

    fn start(stream: DataStream<F::Out, Self>) -> DataStream<F::Out, Self::Started> {
        let DataStream {
            graph,
            up,
            mut place,
        } = stream;
        let Processed {
            up,
            function,
            operator,
        } = up;
        let up = Processed {
            up: Started::new(up, &graph, &mut place),
            function,
            operator,
        };
        DataStream { graph, up, place }
    }
}

impl<U, F> SetParallelism for Processed<U, F>
where
    U: Upstream,
    U::Out: Send,
    F: ProcessFunction<U::Out>,
{
    type Set = Processed<Detached<U>, F>;

    fn set(
        mut stream: DataStream<F::Out, Self>,
        parallelism: u32,
    ) -> DataStream<F::Out, Self::Set> {
        let edge = stream.detach(parallelism);
        let DataStream { graph, up, place } = stream;
        let Processed {
            up,
            function,
            operator,
        } = up;
        let up = Processed {
            up: Detached::new(up, edge),
            function,
            operator,
        };
        DataStream { graph, up, place }
    }
}
