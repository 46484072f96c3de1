//! Sessions, count windows, and windows with a trigger, an evictor or a function over all records.

use super::keyed::{KeyedStream, KeyedUpstream};
use super::stream::DataStream;
use super::upstream::Upstream;
use super::windowed::WindowedStream;
use crate::checkpoint::{Key, StateValue};
use crate::side::SideOutput;
use crate::window::{
    AggregateElements, Aggregated, Aggregator, Buffered, Count, CountWindow, CountWindows,
    Elements, Evictor, GeneralWindows, NoEvictor, PaneFunction, ProcessFn, ProcessWindowFunction,
    Reduced, Session, SessionGap, SessionWindows, Trigger, WindowAssigner, WindowContext,
    WindowOutput, Windowed, can_not_merge,
};
use std::time::Duration;

/// The results of an operator behind a hash exchange.
type Results<K, U, F, Op, V> = DataStream<V, KeyedUpstream<U, F, K, Op>>;

/// The results of sessions.
pub type SessionStream<K, T, U, F, A, G> =
    Results<K, U, F, SessionWindows<K, T, A, G>, Windowed<K, <A as Aggregator<T>>::Out>>;

/// The results of count windows.
pub type CountedStream<K, T, U, F, A> =
    Results<K, U, F, CountWindows<K, T, A>, Windowed<K, <A as Aggregator<T>>::Out>>;

/// The results of windows with a trigger.
pub type GeneralStream<K, T, U, F, As, Tr, Fun> =
    Results<K, U, F, GeneralWindows<K, T, As, Tr, Fun>, <Fun as PaneFunction<K, T>>::Out>;

/// The results of a function over all records of a window.
pub type BufferedStream<K, T, U, F, As, Tr, Ev, P> =
    GeneralStream<K, T, U, F, As, Tr, Buffered<Ev, P, <P as ProcessWindowFunction<K, T>>::Out>>;

/// The same with the trigger and the evictor that its windows have by default.
pub type ProcessedStream<K, T, U, F, As, P> = BufferedStream<
    K,
    T,
    U,
    F,
    As,
    <As as WindowAssigner<T>>::DefaultTrigger,
    <As as WindowAssigner<T>>::DefaultEvictor,
    P,
>;

impl<K, T, U, F, G> WindowedStream<K, T, U, F, Session<G>>
where
    K: Key + Send,
    T: Send + 'static,
    U: Upstream<Out = T>,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    G: SessionGap<T>,
{
    /// Aggregates the records of each session, which yields its result when it ends.
    pub fn aggregate<A>(self, aggregator: A) -> SessionStream<K, T, U, F, A, G>
    where
        A: Aggregator<T>,
        A::Acc: Send,
    {
        report(&self.stream, WindowAssigner::<T>::problem(&self.spec));
        let sessions = SessionWindows::new(self.spec, aggregator)
            .allowed_lateness(self.lateness)
            .late_output(self.late_output);
        self.stream.operate("session", sessions)
    }

    /// Combines the records of each session two by two: `function(so far, record)`.
    pub fn reduce<R>(self, function: R) -> SessionStream<K, T, U, F, Reduced<R>, G>
    where
        T: StateValue + Clone,
        R: Fn(&T, T) -> T + Clone + Send + 'static,
    {
        self.aggregate(Reduced::new(function))
    }

    /// Counts the records of each session.
    pub fn count(self) -> SessionStream<K, T, U, F, Count, G> {
        self.aggregate(Count)
    }
}

impl<K, T, U, F> WindowedStream<K, T, U, F, CountWindow>
where
    K: Key + Send,
    T: Send + 'static,
    U: Upstream<Out = T>,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
{
    /// Aggregates the records of each window.
    pub fn aggregate<A>(self, aggregator: A) -> CountedStream<K, T, U, F, A>
    where
        A: Aggregator<T>,
        A::Acc: Send,
    {
        report(&self.stream, self.spec.problem());
        self.stream
            .operate("count_window", CountWindows::new(self.spec, aggregator))
    }

    /// Combines the records of each window two by two: `function(so far, record)`.
    pub fn reduce<R>(self, function: R) -> CountedStream<K, T, U, F, Reduced<R>>
    where
        T: StateValue + Clone,
        R: Fn(&T, T) -> T + Clone + Send + 'static,
    {
        self.aggregate(Reduced::new(function))
    }

    /// Counts the records of each window: its size, or less where the first ones are shorter.
    pub fn count(self) -> CountedStream<K, T, U, F, Count> {
        self.aggregate(Count)
    }
}

/// A keyed stream cut into windows that a trigger emits.
#[must_use = "windows that nothing is computed for do nothing"]
pub struct TriggeredStream<K, T: 'static, U: Upstream<Out = T>, F, As, Tr> {
    stream: KeyedStream<K, T, U, F>,
    assigner: As,
    trigger: Tr,
    lateness: Duration,
    late_output: Option<SideOutput<T>>,
}

/// A keyed stream cut into windows that a trigger emits, through an evictor.
#[must_use = "windows that nothing is computed for do nothing"]
pub struct EvictingStream<K, T: 'static, U: Upstream<Out = T>, F, As, Tr, Ev> {
    windows: TriggeredStream<K, T, U, F, As, Tr>,
    evictor: Ev,
}

impl<K, T, U, F, As> WindowedStream<K, T, U, F, As>
where
    K: Key + Send,
    T: Clone + Send + 'static,
    U: Upstream<Out = T>,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    As: WindowAssigner<T>,
{
    fn by_default(self) -> TriggeredStream<K, T, U, F, As, As::DefaultTrigger> {
        let trigger = self.spec.default_trigger();
        self.trigger(trigger)
    }

    /// Emits windows when `trigger` says so, instead of at their end.
    pub fn trigger<Tr: Trigger<T>>(self, trigger: Tr) -> TriggeredStream<K, T, U, F, As, Tr> {
        let WindowedStream {
            stream,
            spec,
            lateness,
            late_output,
        } = self;
        TriggeredStream {
            stream,
            assigner: spec,
            trigger,
            lateness,
            late_output,
        }
    }

    /// Takes records out of windows that are emitted.
    pub fn evictor<Ev: Evictor<T>>(
        self,
        evictor: Ev,
    ) -> EvictingStream<K, T, U, F, As, As::DefaultTrigger, Ev> {
        self.by_default().evictor(evictor)
    }

    /// Computes any number of results from all records of each window:
    /// `function(context, records, out)`.
    pub fn process<V, P>(self, function: P) -> ProcessedStream<K, T, U, F, As, ProcessFn<P, V>>
    where
        T: StateValue,
        V: Send + 'static,
        P: FnMut(&WindowContext<'_, K>, &Elements<T>, &mut WindowOutput<V>)
            + Clone
            + Send
            + 'static,
    {
        self.process_with(ProcessFn::new(function))
    }

    /// Computes any number of results from all records of each window.
    pub fn process_with<P>(self, function: P) -> ProcessedStream<K, T, U, F, As, P>
    where
        T: StateValue,
        P: ProcessWindowFunction<K, T>,
        P::Out: Send,
    {
        let evictor = self.spec.default_evictor();
        self.by_default().evictor(evictor).process_with(function)
    }
}

impl<K, T, U, F, As, Tr> TriggeredStream<K, T, U, F, As, Tr>
where
    K: Key + Send,
    T: Clone + Send + 'static,
    U: Upstream<Out = T>,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    As: WindowAssigner<T>,
    Tr: Trigger<T>,
{
    /// Takes records out of windows that are emitted.
    pub fn evictor<Ev: Evictor<T>>(self, evictor: Ev) -> EvictingStream<K, T, U, F, As, Tr, Ev> {
        EvictingStream {
            windows: self,
            evictor,
        }
    }

    fn emit<Fun>(self, function: Fun) -> GeneralStream<K, T, U, F, As, Tr, Fun>
    where
        Fun: PaneFunction<K, T> + Send,
        Fun::Pane: Send,
    {
        report(&self.stream, self.assigner.problem());
        report(
            &self.stream,
            can_not_merge::<T, _, _>(&self.assigner, &self.trigger),
        );
        let windows = GeneralWindows::new(self.assigner, self.trigger, function)
            .allowed_lateness(self.lateness)
            .late_output(self.late_output);
        self.stream.operate("window", windows)
    }

    /// Aggregates the records of each window; keeps an accumulator, not the records.
    pub fn aggregate<A>(self, aggregator: A) -> GeneralStream<K, T, U, F, As, Tr, Aggregated<A>>
    where
        A: Aggregator<T>,
        A::Acc: Send,
    {
        self.emit(Aggregated(aggregator))
    }

    /// Combines the records of each window two by two: `function(so far, record)`.
    pub fn reduce<R>(self, function: R) -> GeneralStream<K, T, U, F, As, Tr, Aggregated<Reduced<R>>>
    where
        T: StateValue,
        R: Fn(&T, T) -> T + Clone + Send + 'static,
    {
        self.aggregate(Reduced::new(function))
    }

    /// Counts the records of each window.
    pub fn count(self) -> GeneralStream<K, T, U, F, As, Tr, Aggregated<Count>> {
        self.aggregate(Count)
    }

    /// Computes any number of results from all records of each window:
    /// `function(context, records, out)`.
    pub fn process<V, P>(
        self,
        function: P,
    ) -> BufferedStream<K, T, U, F, As, Tr, NoEvictor, ProcessFn<P, V>>
    where
        T: StateValue,
        V: Send + 'static,
        P: FnMut(&WindowContext<'_, K>, &Elements<T>, &mut WindowOutput<V>)
            + Clone
            + Send
            + 'static,
    {
        self.process_with(ProcessFn::new(function))
    }

    /// Computes any number of results from all records of each window.
    pub fn process_with<P>(self, function: P) -> BufferedStream<K, T, U, F, As, Tr, NoEvictor, P>
    where
        T: StateValue,
        P: ProcessWindowFunction<K, T>,
        P::Out: Send,
    {
        self.evictor(NoEvictor).process_with(function)
    }
}

impl<K, T, U, F, As, Tr, Ev> EvictingStream<K, T, U, F, As, Tr, Ev>
where
    K: Key + Send,
    T: StateValue + Clone + Send,
    U: Upstream<Out = T>,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    As: WindowAssigner<T>,
    Tr: Trigger<T>,
    Ev: Evictor<T>,
{
    /// Emits windows when `trigger` says so, instead of when they would be emitted so far.
    pub fn trigger<Other: Trigger<T>>(
        self,
        trigger: Other,
    ) -> EvictingStream<K, T, U, F, As, Other, Ev> {
        let TriggeredStream {
            stream,
            assigner,
            lateness,
            late_output,
            ..
        } = self.windows;
        let windows = TriggeredStream {
            stream,
            assigner,
            trigger,
            lateness,
            late_output,
        };
        EvictingStream {
            windows,
            evictor: self.evictor,
        }
    }

    /// Aggregates the records that the evictor leaves; nothing where it leaves none.
    pub fn aggregate<A>(
        self,
        aggregator: A,
    ) -> BufferedStream<K, T, U, F, As, Tr, Ev, AggregateElements<A>>
    where
        A: Aggregator<T>,
        A::Out: Send,
    {
        self.process_with(AggregateElements(aggregator))
    }

    /// Combines the records that the evictor leaves two by two: `function(so far, record)`.
    pub fn reduce<R>(
        self,
        function: R,
    ) -> BufferedStream<K, T, U, F, As, Tr, Ev, AggregateElements<Reduced<R>>>
    where
        R: Fn(&T, T) -> T + Clone + Send + 'static,
    {
        self.aggregate(Reduced::new(function))
    }

    /// Counts the records that the evictor leaves.
    pub fn count(self) -> BufferedStream<K, T, U, F, As, Tr, Ev, AggregateElements<Count>> {
        self.aggregate(Count)
    }

    /// Computes any number of results from the records that the evictor leaves:
    /// `function(context, records, out)`.
    pub fn process<V, P>(
        self,
        function: P,
    ) -> BufferedStream<K, T, U, F, As, Tr, Ev, ProcessFn<P, V>>
    where
        V: Send + 'static,
        P: FnMut(&WindowContext<'_, K>, &Elements<T>, &mut WindowOutput<V>)
            + Clone
            + Send
            + 'static,
    {
        self.process_with(ProcessFn::new(function))
    }

    /// Computes any number of results from the records that the evictor leaves.
    pub fn process_with<P>(self, function: P) -> BufferedStream<K, T, U, F, As, Tr, Ev, P>
    where
        P: ProcessWindowFunction<K, T>,
        P::Out: Send,
    {
        self.windows.emit(Buffered::new(self.evictor, function))
    }
}

fn report<K, T, U: Upstream<Out = T>, F>(
    stream: &KeyedStream<K, T, U, F>,
    problem: Option<String>,
) {
    if let Some(problem) = problem {
        stream
            .stream
            .graph
            .edit(|g| g.problem(format!("'window': {problem}")));
    }
}
