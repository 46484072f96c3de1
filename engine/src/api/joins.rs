//! Two streams whose records are joined: by key and window, or by key and nearness in time.
//!
//! ```
//! # use tidegate_engine::prelude::*;
//! # #[derive(Clone, serde::Serialize, serde::Deserialize)]
//! # struct Flight { origin: String, delay: i64 }
//! # #[derive(Clone, serde::Serialize, serde::Deserialize)]
//! # struct Weather { origin: String, miles: f64 }
//! # fn job<U: Upstream<Out = Flight>, V: Upstream<Out = Weather>>(
//! #     flights: DataStream<Flight, U>, weather: DataStream<Weather, V>,
//! # ) {
//! let delays = flights
//!     .join(weather)
//!     .key_by(|f| f.origin.clone(), |w| w.origin.clone())
//!     .window(Tumbling::event_time(Duration::from_secs(3600)))
//!     .map(|f, w| (f.origin.clone(), w.miles < 3.0, f.delay));
//! # let _: DataStream<(String, bool, i64), _> = delays;
//! # }
//! ```

use super::chaining::StartChain;
use super::connect::{ConnectedStreams, KeyedConnectedStreams, MetBy};
use super::keyed::KeyedStream;
use super::partition::SetParallelism;
use super::stream::DataStream;
use super::upstream::Upstream;
use crate::checkpoint::{Key, StateValue};
use crate::exchange::{ByEitherKey, Either};
use crate::operators::{Interval, IntervalJoin, Pair};
use crate::side::SideOutput;
use crate::time::millis;
use crate::window::{Aligned, CoGroupWindows, GroupFunction, Groups, Pairs, TimeKind, TimeWindow};
use std::marker::PhantomData;
use std::time::Duration;

/// Two streams meet pair by pair: one record of each, of the same key and window.
#[derive(Clone, Copy, Debug)]
pub enum InnerJoin {}

/// Two streams meet group by group: all records of a key and window, where one side may be empty.
#[derive(Clone, Copy, Debug)]
pub enum CoGroup {}

/// Ways to meet that go by windows.
pub trait ByWindow {}

impl ByWindow for InnerJoin {}
impl ByWindow for CoGroup {}

/// Two streams meet pair by pair: one record of each, of the same key, whose times are near.
#[derive(Clone, Copy, Debug)]
pub enum Nearness {}

/// Two streams that meet as `M` says: [`InnerJoin`], [`CoGroup`] or [`Nearness`].
#[must_use = "streams that end without a sink do nothing"]
pub struct Meeting<M, S> {
    streams: S,
    mode: PhantomData<M>,
}

impl<M, S> Meeting<M, S> {
    fn of(streams: S) -> Self {
        Meeting {
            streams,
            mode: PhantomData,
        }
    }
}

impl<A: Send + 'static, U: Upstream<Out = A>> DataStream<A, U> {
    /// Joins this stream with another: every pair of records of the same key and window.
    pub fn join<B: Send + 'static, V: Upstream<Out = B>>(
        self,
        other: DataStream<B, V>,
    ) -> Meeting<InnerJoin, ConnectedStreams<A, B, U, V>> {
        Meeting::of(self.connect(other))
    }

    /// Groups this stream with another: all records of the same key and window, of both.
    pub fn co_group<B: Send + 'static, V: Upstream<Out = B>>(
        self,
        other: DataStream<B, V>,
    ) -> Meeting<CoGroup, ConnectedStreams<A, B, U, V>> {
        Meeting::of(self.connect(other))
    }
}

impl<K, A: Send + 'static, U: Upstream<Out = A>, F> KeyedStream<K, A, U, F> {
    /// Joins this stream with another: every pair of records of the same key and window.
    pub fn join<B: Send + 'static, V: Upstream<Out = B>, G>(
        self,
        other: KeyedStream<K, B, V, G>,
    ) -> Meeting<InnerJoin, KeyedConnectedStreams<K, A, B, U, V, F, G>> {
        Meeting::of(self.connect(other))
    }

    /// Groups this stream with another: all records of the same key and window, of both.
    pub fn co_group<B: Send + 'static, V: Upstream<Out = B>, G>(
        self,
        other: KeyedStream<K, B, V, G>,
    ) -> Meeting<CoGroup, KeyedConnectedStreams<K, A, B, U, V, F, G>> {
        Meeting::of(self.connect(other))
    }

    /// Joins this stream with another: every pair of records of the same key whose times are as
    /// near as [`Meeting::between`] says.
    pub fn interval_join<B: Send + 'static, V: Upstream<Out = B>, G>(
        self,
        other: KeyedStream<K, B, V, G>,
    ) -> Meeting<Nearness, KeyedConnectedStreams<K, A, B, U, V, F, G>> {
        Meeting::of(self.connect(other))
    }
}

impl<M, A, B, U, V> Meeting<M, ConnectedStreams<A, B, U, V>>
where
    A: Send + 'static,
    B: Send + 'static,
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
{
    /// Groups both streams by keys of one type.
    pub fn key_by<K, F, G>(
        self,
        first: F,
        second: G,
    ) -> Meeting<M, KeyedConnectedStreams<K, A, B, U, V, F, G>>
    where
        F: Fn(&A) -> K + Clone + Send + Sync + 'static,
        G: Fn(&B) -> K + Clone + Send + Sync + 'static,
    {
        Meeting::of(self.streams.key_by(first, second))
    }
}

/// Two keyed streams that meet in windows, as `M` says.
#[must_use = "windows that nothing is computed for do nothing"]
pub struct WindowedMeeting<M, A, B, S> {
    streams: S,
    spec: Aligned,
    lateness: Duration,
    late_output: Option<SideOutput<Either<A, B>>>,
    mode: PhantomData<M>,
}

impl<M, K, A: 'static, B: 'static, U, V, F, G>
    Meeting<M, KeyedConnectedStreams<K, A, B, U, V, F, G>>
where
    M: ByWindow,
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
{
    /// Cuts both streams into the same windows, such as `Tumbling::event_time(...)`.
    pub fn window(
        self,
        spec: Aligned,
    ) -> WindowedMeeting<M, A, B, KeyedConnectedStreams<K, A, B, U, V, F, G>> {
        WindowedMeeting {
            streams: self.streams,
            spec,
            lateness: Duration::ZERO,
            late_output: None,
            mode: PhantomData,
        }
    }
}

impl<M, A, B, S> WindowedMeeting<M, A, B, S> {
    /// Keeps windows so long after their end. Each record that still comes for one has the results
    /// of its key and window emitted again, all of them.
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness = lateness;
        self
    }

    /// Puts records that come after all their windows are gone to a side output. Take it with
    /// [`DataStream::side_output`] from the stream of results.
    pub fn late_output(mut self, tag: &SideOutput<Either<A, B>>) -> Self {
        self.late_output = Some(tag.clone());
        self
    }
}

/// Why windows can't be those of a join, as a sentence for the plan's report.
fn problem(spec: &Aligned) -> Option<String> {
    let by_clock = || {
        (spec.time() == TimeKind::Processing).then(|| {
            "streams are joined in windows of event time only; use Tumbling::event_time or \
             Sliding::event_time"
                .to_owned()
        })
    };
    spec.problem().or_else(by_clock)
}

impl<M, K, A, B, U, V, F, G> WindowedMeeting<M, A, B, KeyedConnectedStreams<K, A, B, U, V, F, G>>
where
    K: Key + Send,
    A: StateValue + Clone + Send,
    B: StateValue + Clone + Send,
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
    F: Fn(&A) -> K + Clone + Send + Sync + 'static,
    G: Fn(&B) -> K + Clone + Send + Sync + 'static,
{
    fn emit<E: GroupFunction<K, A, B>>(
        self,
        name: &str,
        function: E,
    ) -> DataStream<E::Out, WindowsMet<K, A, B, F, G, E>> {
        if let Some(problem) = problem(&self.spec) {
            let graph = self.streams.graph();
            graph.edit(|g| g.problem(format!("'{name}': {problem}")));
        }
        let windows = CoGroupWindows::new(self.spec, function)
            .allowed_lateness(self.lateness)
            .late_output(self.late_output);
        self.streams.operate(name, windows)
    }
}

/// Two streams that met in windows.
pub type WindowsMet<K, A, B, F, G, E> =
    MetBy<A, B, ByEitherKey<F, G, K>, CoGroupWindows<K, A, B, E>>;

impl<K, A, B, U, V, F, G>
    WindowedMeeting<InnerJoin, A, B, KeyedConnectedStreams<K, A, B, U, V, F, G>>
where
    K: Key + Send,
    A: StateValue + Clone + Send,
    B: StateValue + Clone + Send,
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
    F: Fn(&A) -> K + Clone + Send + Sync + 'static,
    G: Fn(&B) -> K + Clone + Send + Sync + 'static,
{
    /// One record for each pair of records of the same key and window, when the window ends.
    pub fn map<T, H>(self, function: H) -> DataStream<T, WindowsMet<K, A, B, F, G, Pairs<H>>>
    where
        T: 'static,
        H: FnMut(&A, &B) -> T + Clone + Send + 'static,
    {
        self.emit("join", Pairs::new(function))
    }
}

impl<K, A, B, U, V, F, G> WindowedMeeting<CoGroup, A, B, KeyedConnectedStreams<K, A, B, U, V, F, G>>
where
    K: Key + Send,
    A: StateValue + Clone + Send,
    B: StateValue + Clone + Send,
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
    F: Fn(&A) -> K + Clone + Send + Sync + 'static,
    G: Fn(&B) -> K + Clone + Send + Sync + 'static,
{
    /// Shows all records of each key and window to `function(key, window, first, second, out)`, when
    /// the window ends. One of the sides may be empty, which is what outer joins are made of.
    pub fn process<T, H>(
        self,
        function: H,
    ) -> DataStream<T, WindowsMet<K, A, B, F, G, Groups<H, T>>>
    where
        T: Send + 'static,
        H: FnMut(&K, TimeWindow, &[A], &[B], &mut Vec<T>) + Clone + Send + 'static,
    {
        self.emit("co_group", Groups::new(function))
    }
}

/// How much later a record is than another; earlier where negative.
///
/// Made of milliseconds, a [`Duration`], or [`Offset::before`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offset(i64);

impl Offset {
    /// So much earlier.
    pub fn before(by: Duration) -> Self {
        Offset(-millis(by))
    }

    /// So much later.
    pub fn after(by: Duration) -> Self {
        Offset(millis(by))
    }
}

impl From<Duration> for Offset {
    fn from(later: Duration) -> Self {
        Offset::after(later)
    }
}

impl From<i64> for Offset {
    fn from(millis: i64) -> Self {
        Offset(millis)
    }
}

impl<K, A: 'static, B: 'static, U, V, F, G>
    Meeting<Nearness, KeyedConnectedStreams<K, A, B, U, V, F, G>>
where
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
{
    /// Pairs whose second record is at least `lower` and at most `upper` later than the first, both
    /// included; a negative offset, or [`Offset::before`], means earlier.
    pub fn between(
        self,
        lower: impl Into<Offset>,
        upper: impl Into<Offset>,
    ) -> IntervalJoined<A, B, KeyedConnectedStreams<K, A, B, U, V, F, G>> {
        IntervalJoined {
            streams: self.streams,
            interval: Interval {
                lower: lower.into().0,
                upper: upper.into().0,
            },
            late_output: None,
        }
    }
}

/// Two keyed streams that meet where their records' times are near.
#[must_use = "a join that nothing is made of does nothing"]
pub struct IntervalJoined<A, B, S> {
    streams: S,
    interval: Interval,
    late_output: Option<SideOutput<Either<A, B>>>,
}

impl<A, B, S> IntervalJoined<A, B, S> {
    /// Takes away pairs that are exactly the lower bound apart.
    pub fn exclude_lower(mut self) -> Self {
        self.interval.lower = self.interval.lower.saturating_add(1);
        self
    }

    /// Takes away pairs that are exactly the upper bound apart.
    pub fn exclude_upper(mut self) -> Self {
        self.interval.upper = self.interval.upper.saturating_sub(1);
        self
    }

    /// Puts records that are not newer than the watermark to a side output. Take it with
    /// [`DataStream::side_output`] from the stream of results.
    pub fn late_output(mut self, tag: &SideOutput<Either<A, B>>) -> Self {
        self.late_output = Some(tag.clone());
        self
    }
}

/// Two streams that met where their records' times are near.
pub type NearMet<K, A, B, F, G, H> = MetBy<A, B, ByEitherKey<F, G, K>, IntervalJoin<K, A, B, H>>;

impl<K, A, B, U, V, F, G> IntervalJoined<A, B, KeyedConnectedStreams<K, A, B, U, V, F, G>>
where
    K: Key + Send,
    A: StateValue + Send,
    B: StateValue + Send,
    U: Upstream<Out = A>,
    V: Upstream<Out = B>,
    F: Fn(&A) -> K + Clone + Send + Sync + 'static,
    G: Fn(&B) -> K + Clone + Send + Sync + 'static,
{
    /// One record for each pair, at the later one's time.
    pub fn map<T, H>(
        self,
        mut function: H,
    ) -> DataStream<T, impl SetParallelism<Out = T, Set: StartChain> + StartChain>
    where
        T: 'static,
        H: FnMut(&A, &B) -> T + Clone + Send + 'static,
    {
        self.process(move |_: Pair<'_, K>, first: &A, second: &B| Some(function(first, second)))
    }

    /// Any number of records for each pair, at the later one's time: what
    /// `function(pair, first, second)` returns. The [`Pair`] tells its key and times.
    pub fn process<I, H>(self, function: H) -> DataStream<I::Item, NearMet<K, A, B, F, G, H>>
    where
        I: IntoIterator + 'static,
        I::Item: 'static,
        H: FnMut(Pair<'_, K>, &A, &B) -> I + Clone + Send + 'static,
    {
        if let Some(problem) = self.interval.problem() {
            let graph = self.streams.graph();
            graph.edit(|g| g.problem(format!("'interval_join': {problem}")));
        }
        let join = IntervalJoin::new(self.interval, function).late_output(self.late_output);
        self.streams.operate("interval_join", join)
    }
}
