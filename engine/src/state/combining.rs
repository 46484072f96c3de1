//! States that keep what the records of a key amount to, instead of the records.

use super::content::One;
use super::registry::{KeyScope, KeyedStates};
use super::store::Table;
use super::ttl::{Expiring, Forever, Lifetime, StateTtl};
use crate::checkpoint::{Key, StateValue};
use crate::fault::Flow;
use crate::window::Aggregator;
use std::marker::PhantomData;
use std::rc::Rc;

/// Keeps one value a key, into which others are merged. Clones are handles of the same state.
pub struct ReducingState<K, V: StateValue, L: Lifetime = Forever> {
    table: Rc<Table<K, One<V, L>>>,
    reduce: fn(&V, V) -> V,
}

impl<K, V: StateValue, L: Lifetime> Clone for ReducingState<K, V, L> {
    fn clone(&self) -> Self {
        ReducingState {
            table: self.table.clone(),
            reduce: self.reduce,
        }
    }
}

/// Keeps one accumulator a key, to which records of type `T` are added. Clones are handles of the same
/// state.
pub struct AggregatingState<K, T, A, L = Forever>
where
    A: Aggregator<T>,
    A::Acc: StateValue,
    L: Lifetime,
{
    table: Rc<Table<K, One<A::Acc, L>>>,
    aggregator: A,
    input: PhantomData<fn(T)>,
}

impl<K, T, A, L> Clone for AggregatingState<K, T, A, L>
where
    A: Aggregator<T>,
    A::Acc: StateValue,
    L: Lifetime,
{
    fn clone(&self) -> Self {
        let (table, aggregator) = (self.table.clone(), self.aggregator.clone());
        AggregatingState {
            table,
            aggregator,
            input: PhantomData,
        }
    }
}

impl<K: Key> KeyedStates<K> {
    /// Declares a state of one value a key that becomes `reduce(so far, added)` by each that is added.
    pub fn reducing<V: StateValue>(
        &mut self,
        name: &str,
        reduce: fn(&V, V) -> V,
    ) -> Flow<ReducingState<K, V>> {
        let table = self.declare("reducing", name, Forever)?;
        Ok(ReducingState { table, reduce })
    }

    /// The same, of a state that expires.
    pub fn reducing_with<V: StateValue>(
        &mut self,
        name: &str,
        reduce: fn(&V, V) -> V,
        ttl: StateTtl,
    ) -> Flow<ReducingState<K, V, Expiring>> {
        let life = self.expiring(ttl);
        let table = self.declare("reducing", name, life)?;
        Ok(ReducingState { table, reduce })
    }

    /// Declares a state of one accumulator a key.
    pub fn aggregating<T, A>(
        &mut self,
        name: &str,
        aggregator: A,
    ) -> Flow<AggregatingState<K, T, A>>
    where
        A: Aggregator<T>,
        A::Acc: StateValue,
    {
        let table = self.declare("aggregating", name, Forever)?;
        Ok(AggregatingState {
            table,
            aggregator,
            input: PhantomData,
        })
    }

    /// The same, of a state that expires.
    pub fn aggregating_with<T, A>(
        &mut self,
        name: &str,
        aggregator: A,
        ttl: StateTtl,
    ) -> Flow<AggregatingState<K, T, A, Expiring>>
    where
        A: Aggregator<T>,
        A::Acc: StateValue,
    {
        let life = self.expiring(ttl);
        let table = self.declare("aggregating", name, life)?;
        Ok(AggregatingState {
            table,
            aggregator,
            input: PhantomData,
        })
    }
}

impl<K: Key, V: StateValue, L: Lifetime> ReducingState<K, V, L> {
    /// Merges a value into that of the current key; the first one stays as it is.
    #[inline(always)]
    pub fn add(&self, cx: &impl KeyScope<K>, value: V) {
        let life = &self.table.life;
        self.table.add(
            cx,
            value,
            |value| One(life.keep(value, None)),
            |one, value| {
                let so_far = life.renew(&mut one.0);
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
        self.table.look(cx, look)
    }

    /// Takes the current key's value out.
    pub fn take(&self, cx: &impl KeyScope<K>) -> Option<V> {
        let taken = self.table.take(cx)?;
        self.table.life.unwrap(taken.0)
    }

    /// Forgets the current key's value.
    pub fn clear(&self, cx: &impl KeyScope<K>) {
        self.table.take(cx);
    }
}

impl<K, T, A, L> AggregatingState<K, T, A, L>
where
    K: Key,
    A: Aggregator<T>,
    A::Acc: StateValue,
    L: Lifetime,
{
    /// Adds a record to the current key's accumulator.
    #[inline(always)]
    pub fn add(&self, cx: &impl KeyScope<K>, record: T) {
        let aggregator = &self.aggregator;
        self.table.update(
            cx,
            || aggregator.create(),
            |acc| aggregator.add(acc, record),
        );
    }

    /// What the current key's records amount to, if there are any.
    pub fn get(&self, cx: &impl KeyScope<K>) -> Option<A::Out> {
        self.table
            .look(cx, |acc| acc.map(|acc| self.aggregator.result(acc)))
    }

    /// Takes the current key's accumulator out; returns what its records amounted to.
    pub fn take(&self, cx: &impl KeyScope<K>) -> Option<A::Out> {
        let taken = self.table.take(cx)?;
        let acc = self.table.life.unwrap(taken.0)?;
        Some(self.aggregator.result(&acc))
    }

    /// Forgets the current key's accumulator.
    pub fn clear(&self, cx: &impl KeyScope<K>) {
        self.table.take(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::state::registry::At;
    use crate::window::Count;

    #[test]
    fn reducing_keeps_one_value_a_key() {
        let mut states = KeyedStates::new("combining", Clock::System);
        let highest = states
            .reducing("highest", |a: &u32, b| b.max(*a))
            .expect("a first state");
        let (a, b) = (At::new('a'), At::new('b'));
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
        let mut states = KeyedStates::new("combining", Clock::System);
        let count = states.aggregating("count", Count).expect("a first state");
        let (a, b) = (At::new('a'), At::new('b'));
        for at in [&a, &b, &a] {
            count.add(at, 'r');
        }
        assert_eq!(
            (count.get(&a), count.take(&b), count.get(&b)),
            (Some(2), Some(1), None)
        );
        count.clear(&a);
        assert!(states.tables().all(|t| t.is_empty()));
    }
}
