//! What becomes of the records of two streams that meet in a key's window: pairs, or a whole group.
//!
//! What a group yields can be far more than its records, so a function emits it bit by bit, as room
//! allows.

use super::TimeWindow;
use crate::fault::Flow;
use crate::stage::Collector;

/// How many records are emitted before a function asks for room again.
const BETWEEN_ASKING: u32 = 256;

/// The records of a key in a window, those of both streams.
#[derive(Clone, Debug)]
pub struct Group<K, A, B> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: TimeWindow,
    /// Its records of the first stream.
    pub first: Vec<A>,
    /// Its records of the second stream.
    pub second: Vec<B>,
}

/// Counts what is emitted, so that room is asked for now and then.
#[derive(Debug, Default)]
pub struct Pace {
    since_asking: u32,
}

impl Pace {
    /// Whether one more record may be emitted now.
    #[inline]
    pub fn allows<T>(&mut self, out: &impl Collector<T>) -> bool {
        if self.since_asking >= BETWEEN_ASKING {
            if !out.has_room() {
                return false;
            }
            self.since_asking = 0;
        }
        self.since_asking += 1;
        true
    }
}

/// Emits what groups yield. A clone begins afresh.
pub trait GroupFunction<K, A, B>: Clone + Send + 'static {
    /// What it emits.
    type Out: 'static;

    /// Whether groups that lack one of the streams yield nothing.
    const INNER: bool;

    /// Emits what a group yields, or goes on with it. False if the rest has to wait for room: then
    /// the next call is for the same group.
    fn emit<C>(&mut self, group: &Group<K, A, B>, pace: &mut Pace, out: &mut C) -> Flow<bool>
    where
        C: Collector<Self::Out>;
}

/// What a function makes of each pair of records, one of each stream.
pub struct Pairs<F> {
    function: F,
    /// The pair that is next.
    next: (usize, usize),
}

impl<F> Pairs<F> {
    /// By the user's function.
    pub fn new(function: F) -> Self {
        Pairs {
            function,
            next: (0, 0),
        }
    }
}

impl<F: Clone> Clone for Pairs<F> {
    fn clone(&self) -> Self {
        Pairs::new(self.function.clone())
    }
}

impl<K, A, B, V, F> GroupFunction<K, A, B> for Pairs<F>
where
    V: 'static,
    F: FnMut(&A, &B) -> V + Clone + Send + 'static,
{
    type Out = V;
    const INNER: bool = true;

    fn emit<C>(&mut self, group: &Group<K, A, B>, pace: &mut Pace, out: &mut C) -> Flow<bool>
    where
        C: Collector<V>,
    {
        let at = group.window.max_timestamp();
        while let Some(first) = group.first.get(self.next.0) {
            while let Some(second) = group.second.get(self.next.1) {
                if !pace.allows(out) {
                    return Ok(false);
                }
                self.next.1 += 1;
                out.collect(at, (self.function)(first, second))?;
            }
            self.next = (self.next.0 + 1, 0);
        }
        self.next = (0, 0);
        Ok(true)
    }
}

/// What a function makes of a whole group, one side of which may be empty.
pub struct Groups<F, V> {
    function: F,
    /// What the group at hand yields, the last first; `None` before the function has seen it.
    results: Option<Vec<V>>,
    spare: Vec<V>,
}

impl<F, V> Groups<F, V> {
    /// By the user's function, which puts what it yields into a vector.
    pub fn new(function: F) -> Self {
        Groups {
            function,
            results: None,
            spare: Vec::new(),
        }
    }
}

impl<F: Clone, V> Clone for Groups<F, V> {
    fn clone(&self) -> Self {
        Groups::new(self.function.clone())
    }
}

impl<K, A, B, V, F> GroupFunction<K, A, B> for Groups<F, V>
where
    V: Send + 'static,
    F: FnMut(&K, TimeWindow, &[A], &[B], &mut Vec<V>) + Clone + Send + 'static,
{
    type Out = V;
    const INNER: bool = false;

    fn emit<C>(&mut self, group: &Group<K, A, B>, pace: &mut Pace, out: &mut C) -> Flow<bool>
    where
        C: Collector<V>,
    {
        let mut results = self.results.take().unwrap_or_else(|| {
            let mut results = std::mem::take(&mut self.spare);
            let Group {
                key,
                window,
                first,
                second,
            } = group;
            (self.function)(key, *window, first, second, &mut results);
            results.reverse();
            results
        });
        let at = group.window.max_timestamp();
        while !results.is_empty() && pace.allows(out) {
            if let Some(value) = results.pop() {
                out.collect(at, value)?;
            }
        }
        let done = results.is_empty();
        if done {
            self.spare = results;
        } else {
            self.results = Some(results);
        }
        Ok(done)
    }
}
