//! A list a key.

use super::content::Many;
use super::registry::{KeyScope, KeyedStates};
use super::store::Table;
use super::ttl::{Expiring, Forever, Lifetime, StateTtl};
use crate::checkpoint::{Key, StateValue};
use crate::fault::Flow;
use std::rc::Rc;

/// Keeps a list of elements of type `V` for each key. Clones are handles of the same state. In one
/// that expires, each element does so by itself.
pub struct ListState<K, V: StateValue, L: Lifetime = Forever>(Rc<Table<K, Many<V, L>>>);

impl<K, V: StateValue, L: Lifetime> Clone for ListState<K, V, L> {
    fn clone(&self) -> Self {
        ListState(self.0.clone())
    }
}

impl<K: Key> KeyedStates<K> {
    /// Declares a state of a list a key.
    pub fn list<V: StateValue>(&mut self, name: &str) -> Flow<ListState<K, V>> {
        Ok(ListState(self.declare("list", name, Forever)?))
    }

    /// Declares a state of a list a key whose elements expire.
    pub fn list_with<V: StateValue>(
        &mut self,
        name: &str,
        ttl: StateTtl,
    ) -> Flow<ListState<K, V, Expiring>> {
        let life = self.expiring(ttl);
        Ok(ListState(self.declare("list", name, life)?))
    }
}

impl<K: Key, V: StateValue, L: Lifetime> ListState<K, V, L> {
    /// Shows the current key's list, empty where there is none. The function must not use the same
    /// state again.
    #[inline(always)]
    pub fn with<R>(&self, cx: &impl KeyScope<K>, look: impl FnOnce(&[V]) -> R) -> R {
        let life = &self.0.life;
        if self.0.renews_on_read() {
            let renewed = |list: &mut Many<V, L>| life.rewrite(&mut list.0, |_| ());
            self.0.change_existing(cx, renewed);
        }
        let read = |list: Option<&Many<V, L>>| match list {
            Some(list) => look(life.elements(&list.0)),
            None => look(&[]),
        };
        self.0.read(cx, read)
    }

    /// A copy of the current key's list.
    pub fn get(&self, cx: &impl KeyScope<K>) -> Vec<V>
    where
        V: Clone,
    {
        self.with(cx, <[V]>::to_vec)
    }

    /// How many elements the current key's list has.
    pub fn len(&self, cx: &impl KeyScope<K>) -> usize {
        self.with(cx, <[V]>::len)
    }

    /// Whether the current key's list has no element.
    pub fn is_empty(&self, cx: &impl KeyScope<K>) -> bool {
        self.len(cx) == 0
    }

    /// Adds an element at the end.
    #[inline(always)]
    pub fn add(&self, cx: &impl KeyScope<K>, element: V) {
        let life = &self.0.life;
        self.0
            .change(cx, Many::default, |l| life.push(&mut l.0, element, None));
    }

    /// Replaces the current key's list.
    pub fn set(&self, cx: &impl KeyScope<K>, elements: Vec<V>) {
        self.update(cx, |list| *list = elements);
    }

    /// Changes the current key's list. A list that is left empty is forgotten. Where elements expire,
    /// the time of all of them begins anew. The function must not use the same state again.
    pub fn update<R>(&self, cx: &impl KeyScope<K>, change: impl FnOnce(&mut Vec<V>) -> R) -> R {
        let life = &self.0.life;
        let (result, empty) = self.0.change(cx, Many::default, |list| {
            life.rewrite(&mut list.0, |list| (change(list), list.is_empty()))
        });
        if empty {
            self.clear(cx);
        }
        result
    }

    /// Takes the current key's list out.
    pub fn take(&self, cx: &impl KeyScope<K>) -> Vec<V> {
        let taken = self.0.take(cx);
        let taken = taken.map(|mut list| self.0.life.rewrite(&mut list.0, std::mem::take));
        taken.unwrap_or_default()
    }

    /// Forgets the current key's list.
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
    fn a_list_belongs_to_its_key_and_an_empty_one_is_forgotten() {
        let mut states = KeyedStates::new("lists", Clock::System);
        let list = states.list::<u8>("list").expect("a first state");
        let (a, b) = (At::new('a'), At::new('b'));
        list.add(&a, 1);
        list.add(&a, 2);
        list.set(&b, vec![9]);
        assert_eq!((list.get(&a), list.get(&b)), (vec![1, 2], vec![9]));
        list.update(&a, |list| list.retain(|n| *n > 1));
        assert_eq!((list.len(&a), list.take(&b)), (1, vec![9]));
        assert_eq!(states.tables().next().map(|t| t.len()), Some(1));
        list.update(&a, Vec::clear);
        assert!(list.is_empty(&a) && states.tables().all(|t| t.is_empty()));
    }
}
