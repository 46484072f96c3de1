//! What a window keeps of its records and makes of them when it is emitted.
//!
//! An aggregate keeps an accumulator; a window function that wants to see the records keeps them all.

use super::{Aggregator, Elements, Evictor, TimeWindow, Windowed};
use crate::checkpoint::StateValue;
use crate::fault::Flow;
use crate::stage::Collector;
use crate::time::Timestamp;
use std::marker::PhantomData;

/// The window that is being emitted.
#[derive(Clone, Copy, Debug)]
pub struct PaneContext<'a, K> {
    /// Its key.
    pub key: &'a K,
    /// The window.
    pub window: TimeWindow,
    /// The timestamp that results carry.
    pub at: Timestamp,
    /// How far event time has come.
    pub watermark: Timestamp,
    /// Processing time.
    pub processing_time: Timestamp,
}

/// What the user's window function learns about the window.
pub type WindowContext<'a, K> = PaneContext<'a, K>;

/// How the contents of windows are kept and emitted.
pub trait PaneFunction<K, T>: Clone + 'static {
    /// The contents of a window.
    type Pane: StateValue;
    /// What it emits.
    type Out: 'static;

    /// A window without records.
    fn create(&self) -> Self::Pane;

    /// Adds a record.
    fn add(&self, pane: &mut Self::Pane, at: Timestamp, value: T);

    /// Adds the records of another window.
    fn absorb(&self, into: &mut Self::Pane, other: Self::Pane);

    /// Emits the window.
    fn fire<C: Collector<Self::Out>>(
        &mut self,
        context: &PaneContext<'_, K>,
        pane: &mut Self::Pane,
        out: &mut C,
    ) -> Flow;
}

/// Keeps an accumulator, emits its result.
#[derive(Clone, Debug)]
pub struct Aggregated<A>(pub A);

impl<K, T, A> PaneFunction<K, T> for Aggregated<A>
where
    K: Clone + 'static,
    A: Aggregator<T>,
{
    type Pane = A::Acc;
    type Out = Windowed<K, A::Out>;

    fn create(&self) -> A::Acc {
        self.0.create()
    }

    fn add(&self, pane: &mut A::Acc, _at: Timestamp, value: T) {
        self.0.add(pane, value);
    }

    fn absorb(&self, into: &mut A::Acc, other: A::Acc) {
        self.0.merge(into, &other);
    }

    fn fire<C: Collector<Self::Out>>(
        &mut self,
        context: &PaneContext<'_, K>,
        pane: &mut A::Acc,
        out: &mut C,
    ) -> Flow {
        let (key, window) = (context.key.clone(), context.window);
        out.collect(
            context.at,
            Windowed {
                key,
                window,
                value: self.0.result(pane),
            },
        )
    }
}

/// Computes any number of results from all records of a window.
pub trait ProcessWindowFunction<K, T>: Clone + Send + 'static {
    /// What it emits.
    type Out: 'static;

    /// Sees the records of a window that is emitted, in the order in which they came.
    fn process(
        &mut self,
        context: &WindowContext<'_, K>,
        elements: &Elements<T>,
        out: &mut WindowOutput<Self::Out>,
    ) -> Flow;
}

/// Takes the results of a window function.
#[derive(Debug)]
pub struct WindowOutput<V> {
    at: Timestamp,
    results: Vec<(Timestamp, V)>,
}

impl<V> WindowOutput<V> {
    /// Emits a result with the window's timestamp.
    pub fn emit(&mut self, value: V) {
        self.results.push((self.at, value));
    }

    /// Emits a result with a timestamp of its own.
    pub fn emit_at(&mut self, at: impl Into<Timestamp>, value: V) {
        self.results.push((at.into(), value));
    }
}

/// A window function made of a closure `(context, elements, out)`.
pub struct ProcessFn<F, V> {
    function: F,
    result: PhantomData<fn() -> V>,
}

impl<F: Clone, V> Clone for ProcessFn<F, V> {
    fn clone(&self) -> Self {
        ProcessFn::new(self.function.clone())
    }
}

impl<F, V> ProcessFn<F, V> {
    /// By the user's closure.
    pub fn new(function: F) -> Self {
        ProcessFn {
            function,
            result: PhantomData,
        }
    }
}

impl<K, T, V, F> ProcessWindowFunction<K, T> for ProcessFn<F, V>
where
    V: 'static,
    F: FnMut(&WindowContext<'_, K>, &Elements<T>, &mut WindowOutput<V>) + Clone + Send + 'static,
{
    type Out = V;

    fn process(
        &mut self,
        context: &WindowContext<'_, K>,
        elements: &Elements<T>,
        out: &mut WindowOutput<V>,
    ) -> Flow {
        (self.function)(context, elements, out);
        Ok(())
    }
}

/// Keeps all records, shows them to a window function behind an evictor.
pub struct Buffered<E, P, V> {
    evictor: E,
    function: P,
    output: WindowOutput<V>,
}

impl<E, P, V> Buffered<E, P, V> {
    /// Shows `function` what `evictor` leaves.
    pub fn new(evictor: E, function: P) -> Self {
        let output = WindowOutput {
            at: Timestamp::MIN,
            results: Vec::new(),
        };
        Buffered {
            evictor,
            function,
            output,
        }
    }
}

impl<E: Clone, P: Clone, V> Clone for Buffered<E, P, V> {
    fn clone(&self) -> Self {
        Buffered::new(self.evictor.clone(), self.function.clone())
    }
}

impl<K, T, E, P> PaneFunction<K, T> for Buffered<E, P, P::Out>
where
    T: StateValue,
    E: Evictor<T>,
    P: ProcessWindowFunction<K, T>,
{
    type Pane = Elements<T>;
    type Out = P::Out;

    fn create(&self) -> Elements<T> {
        Elements::new()
    }

    fn add(&self, pane: &mut Elements<T>, at: Timestamp, value: T) {
        pane.push_back((at, value));
    }

    fn absorb(&self, into: &mut Elements<T>, mut other: Elements<T>) {
        into.append(&mut other);
    }

    fn fire<C: Collector<P::Out>>(
        &mut self,
        context: &PaneContext<'_, K>,
        pane: &mut Elements<T>,
        out: &mut C,
    ) -> Flow {
        self.output.at = context.at;
        self.evictor.evict_before(pane, context.window);
        self.function.process(context, pane, &mut self.output)?;
        self.evictor.evict_after(pane, context.window);
        for (at, result) in self.output.results.drain(..) {
            out.collect(at, result)?;
        }
        Ok(())
    }
}

/// An aggregate over what an evictor leaves.
#[derive(Clone, Debug)]
pub struct AggregateElements<A>(pub A);

impl<K, T, A> ProcessWindowFunction<K, T> for AggregateElements<A>
where
    K: Clone + 'static,
    T: Clone + 'static,
    A: Aggregator<T>,
{
    type Out = Windowed<K, A::Out>;

    fn process(
        &mut self,
        context: &WindowContext<'_, K>,
        elements: &Elements<T>,
        out: &mut WindowOutput<Self::Out>,
    ) -> Flow {
        if elements.is_empty() {
            return Ok(());
        }
        let mut acc = self.0.create();
        for (_, value) in elements {
            self.0.add(&mut acc, value.clone());
        }
        let (key, window) = (context.key.clone(), context.window);
        out.emit(Windowed {
            key,
            window,
            value: self.0.result(&acc),
        });
        Ok(())
    }
}
