//! States that keep what the records of a key amount to, instead of the records.

use super::registry::{KeyScope, KeyedStates, Table};
use crate::fault::Flow;
use crate::window::Aggregator;
use std::hash::Hash;
use std::marker::PhantomData;
use std::rc::Rc;

/// Keeps one value a key, into which others are merged. Clones are handles of the same state.
pub struct ReducingState<K, V> {
    table: Rc<Table<K, V>>,
    reduce: fn(&V, V) -> V,
}

impl<K, V> Clone for ReducingState<K, V> {
    fn clone(&self) -> Self {
        ReducingState {
            table: self.table.clone(),
            reduce: self.reduce,
        }
    }
}

/// Keeps one accumulator a key, to which records of type `T` are added. Clones are handles of the same
/// state.
pub struct AggregatingState<K, T, A: Aggregator<T>> {
    table: Rc<Table<K, A::Acc>>,
    aggregator: A,
    input: PhantomData<fn(T)>,
}

impl<K, T, A: Aggregator<T>> Clone for AggregatingState<K, T, A> {
    fn clone(&self) -> Self {
        let (table, aggregator) = (self.table.clone(), self.aggregator.clone());
        AggregatingState {
            table,
            aggregator,
            input: PhantomData,
        }
    }
}

impl<K: Hash + Eq + 'static> KeyedStates<K> {
    /// Declares a state of one value a key that becomes `reduce(so far, added)` by each that is added.
    pub fn reducing<V: 'static>(
        &mut self,
        name: &str,
        reduce: fn(&V, V) -> V,
    ) -> Flow<ReducingState<K, V>> {
        Ok(ReducingState {
            table: self.declare("reducing", name)?,
            reduce,
        })
    }

    /// Declares a state of one accumulator a key.
    pub fn aggregating<T, A: Aggregator<T>>(
        &mut self,
        name: &str,
        aggregator: A,
    ) -> Flow<AggregatingState<K, T, A>> {
        let table = self.declare("aggregating", name)?;
        Ok(AggregatingState {
            table,
            aggregator,
            input: PhantomData,
        })
    }
}

impl<K: Hash + Eq, V> ReducingState<K, V> {
    /// Merges a value into that of the current key; the first one stays as it is.
    #[inline(always)]
    pub fn add(&self, cx: &impl KeyScope<K>, value: V)
    where
        K: Clone,
    {
        self.table.add(
            cx,
            value,
            |value| value,
            |so_far, value| {
                *so_far = (self.reduce)(so_far, value);
            },
        );
    }

    /// A copy of the current key's value.
    pub fn get(&self, cx: &impl KeyScope<K>) -> Option<V>
    where
        V: Clone,
    {
        self.with(cx, |value| value.cloned())
    }

    /// Shows the current key's value to a function. It must not use the same state again.
    #[inline(always)]
    pub fn with<R>(&self, cx: &impl KeyScope<K>, look: impl FnOnce(Option<&V>) -> R) -> R {
        self.table.read(cx, look)
    }

    /// Takes the current key's value out.
    pub fn take(&self, cx: &impl KeyScope<K>) -> Option<V> {
        self.table.take(cx)
    }

    /// Forgets the current key's value.
    pub fn clear(&self, cx: &impl KeyScope<K>) {
        self.table.take(cx);
    }
}

impl<K: Hash + Eq, T, A: Aggregator<T>> AggregatingState<K, T, A> {
    /// Adds a record to the current key's accumulator.
    #[inline(always)]
    pub fn add(&self, cx: &impl KeyScope<K>, record: T)
    where
        K: Clone,
    {
        let aggregator = &self.aggregator;
        self.table.change(
            cx,
            || aggregator.create(),
            |acc| aggregator.add(acc, record),
        );
    }

    /// What the current key's records amount to, if there are any.
    pub fn get(&self, cx: &impl KeyScope<K>) -> Option<A::Out> {
        self.table
            .read(cx, |acc| acc.map(|acc| self.aggregator.result(acc)))
    }

    /// Takes the current key's accumulator out; returns what its records amounted to.
    pub fn take(&self, cx: &impl KeyScope<K>) -> Option<A::Out> {
        self.table.take(cx).map(|acc| self.aggregator.result(&acc))
    }

    /// Forgets the current key's accumulator.
    pub fn clear(&self, cx: &impl KeyScope<K>) {
        self.table.take(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::registry::At;
    use crate::window::Count;

    #[test]
    fn reducing_keeps_one_value_a_key() {
        let mut states = KeyedStates::new("combining");
        let highest = states
            .reducing("highest", |a: &u32, b| b.max(*a))
            .expect("a first state");
        let (a, b) = (At::new("a"), At::new("b"));
        for (at, value) in [(&a, 3), (&b, 1), (&a, 7), (&a, 5)] {
            highest.add(at, value);
        }
        assert_eq!(
            (highest.get(&a), highest.take(&b), highest.get(&b)),
            (Some(7), Some(1), None)
        );
        highest.clear(&a);
        assert!(states.tables().all(|t| t.is_empty()));
    }

    #[test]
    fn aggregating_keeps_one_accumulator_a_key() {
        let mut states = KeyedStates::new("combining");
        let count = states.aggregating("count", Count).expect("a first state");
        let (a, b) = (At::new("a"), At::new("b"));
        for at in [&a, &b, &a] {
            count.add(at, "record");
        }
        assert_eq!(
            (count.get(&a), count.take(&b), count.get(&b)),
            (Some(2), Some(1), None)
        );
        count.clear(&a);
        assert!(states.tables().all(|t| t.is_empty()));
    }
}
