//! One value a key.

use super::content::One;
use super::registry::{KeyScope, KeyedStates};
use super::store::Table;
use super::ttl::{Expiring, Forever, Lifetime, StateTtl};
use crate::checkpoint::{Key, StateValue};
use crate::fault::Flow;
use std::rc::Rc;

/// Keeps one value of type `V` for each key. Clones are handles of the same state.
pub struct ValueState<K, V: StateValue, L: Lifetime = Forever>(Rc<Table<K, One<V, L>>>);

impl<K, V: StateValue, L: Lifetime> Clone for ValueState<K, V, L> {
    fn clone(&self) -> Self {
        ValueState(self.0.clone())
    }
}

impl<K: Key> KeyedStates<K> {
    /// Declares a state of one value a key.
    pub fn value<V: StateValue>(&mut self, name: &str) -> Flow<ValueState<K, V>> {
        Ok(ValueState(self.declare("value", name, Forever)?))
    }

    /// Declares a state of one value a key that expires.
    pub fn value_with<V: StateValue>(
        &mut self,
        name: &str,
        ttl: StateTtl,
    ) -> Flow<ValueState<K, V, Expiring>> {
        let life = self.expiring(ttl);
        Ok(ValueState(self.declare("value", name, life)?))
    }
}

impl<K: Key, V: StateValue, L: Lifetime> ValueState<K, V, L> {
    /// A copy of the current key's value.
    #[inline(always)]
    pub fn get(&self, cx: &impl KeyScope<K>) -> Option<V>
    where
        V: Clone,
    {
        self.with(cx, |value| value.cloned())
    }

    /// Shows the current key's value to a function. It must not use the same state again.
    #[inline(always)]
    pub fn with<R>(&self, cx: &impl KeyScope<K>, look: impl FnOnce(Option<&V>) -> R) -> R {
        self.0.look(cx, look)
    }

    /// Whether the current key has a value.
    #[inline(always)]
    pub fn is_set(&self, cx: &impl KeyScope<K>) -> bool {
        self.with(cx, |value| value.is_some())
    }

    /// Gives the current key a value; returns the one before.
    #[inline(always)]
    pub fn set(&self, cx: &impl KeyScope<K>, value: V) -> Option<V> {
        let mut before = None;
        self.0.add(
            cx,
            value,
            |value| One(self.0.life.keep(value, None)),
            |old, value| {
                before = Some(std::mem::replace(self.0.life.renew(&mut old.0), value));
            },
        );
        before
    }

    /// Changes the current key's value, which begins with the default, and returns what the function
    /// returns. The function must not use the same state again.
    #[inline(always)]
    pub fn update<R>(&self, cx: &impl KeyScope<K>, change: impl FnOnce(&mut V) -> R) -> R
    where
        V: Default,
    {
        self.update_or(cx, V::default, change)
    }

    /// Like [`ValueState::update`], beginning with what `initial` returns.
    #[inline(always)]
    pub fn update_or<R>(
        &self,
        cx: &impl KeyScope<K>,
        initial: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> R,
    ) -> R {
        self.0.update(cx, initial, change)
    }

    /// Changes the current key's value, if it has one; says whether it has.
    #[inline(always)]
    pub fn change(&self, cx: &impl KeyScope<K>, change: impl FnOnce(&mut V)) -> bool {
        let changed = |value: &mut One<V, L>| change(self.0.life.renew(&mut value.0));
        self.0.change_existing(cx, changed).is_some()
    }

    /// Takes the current key's value out.
    pub fn take(&self, cx: &impl KeyScope<K>) -> Option<V> {
        let taken = self.0.take(cx)?;
        self.0.life.unwrap(taken.0)
    }

    /// Forgets the current key's value.
    pub fn clear(&self, cx: &impl KeyScope<K>) {
        self.0.take(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::state::registry::At;

    #[test]
    fn a_value_is_set_changed_and_forgotten() {
        let mut states = KeyedStates::new("values", Clock::System);
        let value = states.value::<u32>("value").expect("a first state");
        let (a, b) = (At::new(1u64), At::new(2u64));
        assert_eq!(
            (value.set(&a, 5), value.set(&a, 6), value.get(&b)),
            (None, Some(5), None)
        );
        assert_eq!(value.update_or(&b, || 10, |n| std::mem::replace(n, 11)), 10);
        assert_eq!(
            (value.update(&a, |n| *n + 1), value.with(&b, |n| n.copied())),
            (7, Some(11))
        );
        assert_eq!(value.take(&a), Some(6));
        value.clear(&b);
        assert!(!value.is_set(&a) && states.tables().all(|t| t.is_empty()));
    }
}
