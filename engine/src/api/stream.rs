//! A stream of records, and what can be done with each of them.

use super::keyed::KeyedStream;
use super::split::BoxedUpstream;
use super::upstream::{Chained, FromSource, Upstream};
use crate::checkpoint::StateValue;
use crate::exchange::{EdgeId, EdgeKind};
use crate::graph::{ALIGNED_KIND, GraphRef, OperatorId, SOURCE_KIND, TaskId, VertexId};
use crate::operator::{Blueprint, Operator};
use crate::operators::{Filter, FilterMap, FlatMap, Inspect, Map};
use crate::source::Source;
use crate::watermarks::{
    AssignWatermarks, TimestampAssigner, WatermarkGenerator, WatermarkStrategy,
};

/// Where in the graph a stream stands.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The task whose chain it is in.
    pub task: TaskId,
    /// The vertex of the last operator.
    pub vertex: VertexId,
    /// The last operator.
    pub operator: OperatorId,
    /// An exchange whose consumer is still to come.
    pub pending: Option<EdgeId>,
}

/// A stream of records of type `T`.
#[must_use = "a stream that ends without a sink does nothing"]
pub struct DataStream<T: 'static, U: Upstream<Out = T> = BoxedUpstream<T>> {
    pub(crate) graph: GraphRef,
    pub(crate) up: U,
    pub(crate) place: Place,
}

impl<S: Source> DataStream<S::Item, FromSource<S>> {
    /// The stream of a source: the beginning of every job.
    pub fn from_source(graph: &GraphRef, name: &str, source: S) -> Self {
        let bounded = source.bounded();
        let place = graph.edit(|g| {
            if !bounded {
                g.set_endless();
            }
            let task = g.add_task();
            let vertex = g.add_vertex(task);
            let operator = g.add_operator(vertex, name, SOURCE_KIND);
            Place {
                task,
                vertex,
                operator,
                pending: None,
            }
        });
        let up = FromSource {
            source,
            operator: place.operator,
            task: place.task,
        };
        DataStream {
            graph: graph.clone(),
            up,
            place,
        }
    }
}

impl<T: 'static, U: Upstream<Out = T>> DataStream<T, U> {
    /// Adds an operator of the user's own.
    pub fn operate<Op>(self, name: &str, op: Op) -> DataStream<Op::Out, Chained<U, Op>>
    where
        Op: Operator<T> + Clone + Send,
    {
        self.install(name, op)
    }

    /// Adds the operator that a blueprint makes in each subtask.
    pub(crate) fn install<Op>(
        mut self,
        name: &str,
        op: Op,
    ) -> DataStream<<Op::Op as Operator<T>>::Out, Chained<U, Op>>
    where
        Op: Blueprint<T>,
    {
        let operator = self.enter(name, name);
        let up = Chained {
            up: self.up,
            op,
            operator,
        };
        DataStream {
            graph: self.graph,
            up,
            place: self.place,
        }
    }

    /// Enters an operator into the graph: into the vertex at hand, or a new one behind an exchange.
    pub(crate) fn enter(&mut self, name: &str, kind: &str) -> OperatorId {
        let place = &mut self.place;
        self.graph.edit(|g| {
            if let Some(edge) = place.pending.take() {
                place.vertex = g.add_vertex(place.task);
                g.end_edge(edge, place.vertex);
            }
            place.operator = g.add_operator(place.vertex, name, kind);
        });
        self.place.operator
    }

    /// Records of this type can be kept in unaligned checkpoints, here and wherever else they are in flight. A
    /// job that takes such checkpoints asks for it before each exchange; numbers and `String` are known.
    ///
    /// ```
    /// # use tidegate_engine::prelude::*;
    /// # fn job<U: Upstream<Out = String>>(lines: DataStream<String, U>) {
    /// let sums = lines
    ///     .map(|line| (line.len() as u64, line))
    ///     .encodable()
    ///     .key_by(|(length, _)| *length);
    /// # let _ = sums;
    /// # }
    /// ```
    pub fn encodable(self) -> Self
    where
        T: StateValue,
    {
        self.graph.edit(|g| g.add_codec::<T>());
        self
    }

    /// Ends the vertex at hand with an edge.
    pub(crate) fn leave(&mut self, kind: EdgeKind) -> EdgeId {
        if self.place.pending.is_some() {
            self.enter("pass", "pass");
        }
        let vertex = self.place.vertex;
        let edge = self.graph.edit(|g| g.add_edge(vertex, None, kind));
        self.place.pending = Some(edge);
        edge
    }

    /// One record for each record.
    pub fn map<V, F>(self, function: F) -> DataStream<V, Chained<U, Map<F>>>
    where
        V: 'static,
        F: FnMut(T) -> V + Clone + Send + 'static,
    {
        self.operate("map", Map::new(function))
    }

    /// Those records for which the function says yes.
    pub fn filter<F>(self, function: F) -> DataStream<T, Chained<U, Filter<F>>>
    where
        F: FnMut(&T) -> bool + Clone + Send + 'static,
    {
        self.operate("filter", Filter::new(function))
    }

    /// At most one record for each record.
    pub fn filter_map<V, F>(self, function: F) -> DataStream<V, Chained<U, FilterMap<F>>>
    where
        V: 'static,
        F: FnMut(T) -> Option<V> + Clone + Send + 'static,
    {
        self.operate("filter_map", FilterMap::new(function))
    }

    /// Any number of records for each record.
    pub fn flat_map<I, F>(self, function: F) -> DataStream<I::Item, Chained<U, FlatMap<F>>>
    where
        I: IntoIterator + 'static,
        I::Item: 'static,
        F: FnMut(T) -> I + Clone + Send + 'static,
    {
        self.operate("flat_map", FlatMap::new(function))
    }

    /// Shows each record to the function.
    pub fn inspect<F>(self, function: F) -> DataStream<T, Chained<U, Inspect<F>>>
    where
        F: FnMut(&T) + Clone + Send + 'static,
    {
        self.operate("inspect", Inspect::new(function))
    }

    /// Gives records their event time and the stream its watermarks.
    pub fn watermarks<G, A>(
        self,
        strategy: WatermarkStrategy<T, G, A>,
    ) -> DataStream<T, Chained<U, AssignWatermarks<T, G, A>>>
    where
        G: WatermarkGenerator<T>,
        A: TimestampAssigner<T>,
    {
        let aligned = strategy.is_aligned();
        let stream = self.operate("watermarks", AssignWatermarks::new(strategy));
        if aligned {
            let operator = stream.place.operator;
            stream
                .graph
                .edit(|g| ALIGNED_KIND.clone_into(&mut g.operator_mut(operator).kind));
        }
        stream
    }

    /// Groups records by key: all records of a key meet in one subtask.
    pub fn key_by<K, F>(self, select: F) -> KeyedStream<K, T, U, F>
    where
        F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    {
        KeyedStream::new(self, select)
    }

    /// Names the last operator.
    pub fn name(self, name: &str) -> Self {
        self.graph
            .edit(|g| name.clone_into(&mut g.operator_mut(self.place.operator).name));
        self
    }

    /// Gives the last operator a stable id, by which its state is found again.
    pub fn uid(self, uid: &str) -> Self {
        self.graph
            .edit(|g| g.operator_mut(self.place.operator).uid = Some(uid.to_owned()));
        self
    }

    /// The number of key groups of the last vertex: the most subtasks that it may ever have.
    pub fn max_parallelism(self, max: u32) -> Self {
        self.graph
            .edit(|g| g.vertex_mut(self.place.vertex).max_parallelism = Some(max));
        self
    }
}
