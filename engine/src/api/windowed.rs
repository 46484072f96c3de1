//! Streams that are cut into windows, and what can be computed per window.
//!
//! A windowed stream is generic over the kind of windows; each kind brings its own `aggregate`,
//! `reduce` and `count`.

use super::keyed::{KeyedStream, KeyedUpstream};
use super::partition::Redistributed;
use super::parts::{with_late, without_late};
use super::stream::DataStream;
use super::upstream::{Chained, Upstream};
use crate::checkpoint::{Key, StateValue};
use crate::exchange::Global;
use crate::graph::GraphRef;
use crate::side::SideOutput;
use crate::window::{
    Aggregator, Aligned, AllWindows, Count, LocalSlices, Part, Reduced, SlicedWindows, Windowed,
};
use std::time::Duration;

/// A keyed stream cut into windows by `S`.
#[must_use = "windows that nothing is computed for do nothing"]
pub struct WindowedStream<K, T: 'static, U: Upstream<Out = T>, F, S> {
    pub(crate) stream: KeyedStream<K, T, U, F>,
    pub(crate) spec: S,
    pub(crate) lateness: Duration,
    pub(crate) late_output: Option<SideOutput<T>>,
}

impl<K, T: 'static, U: Upstream<Out = T>, F> KeyedStream<K, T, U, F> {
    /// Cuts the stream into windows, such as `Tumbling::event_time(...)`.
    pub fn window<S>(self, spec: S) -> WindowedStream<K, T, U, F, S> {
        WindowedStream {
            stream: self,
            spec,
            lateness: Duration::ZERO,
            late_output: None,
        }
    }
}

impl<K, T: 'static, U: Upstream<Out = T>, F, S> WindowedStream<K, T, U, F, S> {
    /// Keeps windows so long after their end; each record that still comes for one refines its
    /// result, which is emitted again.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = lateness;
        self
    }

    /// Puts records that come after all their windows are gone to a side output. Take it with
    /// [`DataStream::side_output`] from the stream of results.
    pub fn late_output(mut self, tag: &SideOutput<T>) -> Self {
        self.late_output = Some(tag.clone());
        self
    }
}

/// The results of aligned windows per key.
pub type SlicedStream<K, T, U, F, A> = DataStream<
    Windowed<K, <A as Aggregator<T>>::Out>,
    KeyedUpstream<U, F, K, SlicedWindows<K, T, A>>,
>;

impl<K, T, U, F> WindowedStream<K, T, U, F, Aligned>
where
    K: Key + Send,
    T: Send + 'static,
    U: Upstream<Out = T>,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
{
    /// Aggregates the records of each key and window; each window yields its result when it ends.
    pub fn aggregate<A>(self, aggregator: A) -> SlicedStream<K, T, U, F, A>
    where
        A: Aggregator<T>,
        A::Acc: Send,
    {
        report(&self.stream.stream.graph, "window", &self.spec);
        let windows = SlicedWindows::new(self.spec, aggregator)
            .allowed_lateness(self.lateness)
            .late_output(self.late_output);
        self.stream.operate("window", windows)
    }

    /// Combines the records of each key and window two by two: `function(so far, record)`.
    pub fn reduce<G>(self, function: G) -> SlicedStream<K, T, U, F, Reduced<G>>
    where
        T: StateValue + Clone,
        G: Fn(&T, T) -> T + Clone + Send + 'static,
    {
        self.aggregate(Reduced::new(function))
    }

    /// Counts the records of each key and window.
    pub fn count(self) -> SlicedStream<K, T, U, F, Count> {
        self.aggregate(Count)
    }
}

fn report(graph: &GraphRef, operator: &str, spec: &Aligned) {
    if let Some(problem) = spec.problem() {
        graph.edit(|g| g.problem(format!("'{operator}': {problem}")));
    }
}

/// A stream cut into windows over all its records.
#[must_use = "windows that nothing is computed for do nothing"]
pub struct AllWindowedStream<T: 'static, U: Upstream<Out = T>, S> {
    pub(crate) stream: DataStream<T, U>,
    pub(crate) spec: S,
    pub(crate) lateness: Duration,
    pub(crate) late_output: Option<SideOutput<T>>,
}

impl<T: 'static, U: Upstream<Out = T>> DataStream<T, U> {
    /// Cuts the stream into windows over all its records. Their results come from a single subtask.
    pub fn window_all<S>(self, spec: S) -> AllWindowedStream<T, U, S> {
        AllWindowedStream {
            stream: self,
            spec,
            lateness: Duration::ZERO,
            late_output: None,
        }
    }
}

impl<T: 'static, U: Upstream<Out = T>, S> AllWindowedStream<T, U, S> {
    /// Keeps windows so long after their end; see [`WindowedStream::allowed_lateness`].
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = lateness;
        self
    }

    /// Puts late records to a side output; see [`WindowedStream::late_output`].
    pub fn late_output(mut self, tag: &SideOutput<T>) -> Self {
        self.late_output = Some(tag.clone());
        self
    }
}

/// The results of aligned windows over all records.
pub type AllSlicedStream<T, U, A> = DataStream<
    Windowed<(), <A as Aggregator<T>>::Out>,
    Chained<Redistributed<Chained<U, LocalSlices<T, A>>, Global>, AllWindows<T, A>>,
>;

impl<T, U> AllWindowedStream<T, U, Aligned>
where
    T: Send + 'static,
    U: Upstream<Out = T>,
{
    /// Aggregates the records of each window: first where they are, then in one place.
    pub fn aggregate<A>(self, aggregator: A) -> AllSlicedStream<T, U, A>
    where
        A: Aggregator<T>,
        A::Acc: Send,
    {
        let AllWindowedStream {
            stream,
            spec,
            lateness,
            late_output,
        } = self;
        report(&stream.graph, "window_all", &spec);
        let keeps_late = late_output.is_some();
        stream.graph.edit(|g| match keeps_late {
            true => g.codecs_mut().add_derived(with_late::<T, A::Acc>),
            false => g.codecs_mut().or_derived(without_late::<T, A::Acc>),
        });
        let local = LocalSlices::new(spec, aggregator.clone(), lateness, keeps_late);
        let windows = AllWindows::new(spec, aggregator, lateness, late_output);
        let slices: DataStream<Part<T, A::Acc>, _> = stream.operate("slices", local);
        let results = slices.global().operate("window_all", windows);
        results
            .graph
            .edit(|g| g.vertex_mut(results.place.vertex).parallelism = Some(1));
        results
    }

    /// Combines the records of each window two by two: `function(so far, record)`.
    pub fn reduce<G>(self, function: G) -> AllSlicedStream<T, U, Reduced<G>>
    where
        T: StateValue + Clone,
        G: Fn(&T, T) -> T + Clone + Send + 'static,
    {
        self.aggregate(Reduced::new(function))
    }

    /// Counts the records of each window.
    pub fn count(self) -> AllSlicedStream<T, U, Count> {
        self.aggregate(Count)
    }
}
