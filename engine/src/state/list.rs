//! A list a key.

use super::registry::{KeyScope, KeyedStates, Table};
use crate::fault::Flow;
use std::hash::Hash;
use std::rc::Rc;

/// Keeps a list of elements of type `V` for each key. Clones are handles of the same state.
pub struct ListState<K, V>(Rc<Table<K, Vec<V>>>);

impl<K, V> Clone for ListState<K, V> {
    fn clone(&self) -> Self {
        ListState(self.0.clone())
    }
}

impl<K: Hash + Eq + 'static> KeyedStates<K> {
    /// Declares a state of a list a key.
    pub fn list<V: 'static>(&mut self, name: &str) -> Flow<ListState<K, V>> {
        Ok(ListState(self.declare("list", name)?))
    }
}

impl<K: Hash + Eq, V> ListState<K, V> {
    /// Shows the current key's list, empty where there is none. The function must not use the same
    /// state again.
    #[inline(always)]
    pub fn with<R>(&self, cx: &impl KeyScope<K>, look: impl FnOnce(&[V]) -> R) -> R {
        self.0
            .read(cx, |list| look(list.map_or(&[], Vec::as_slice)))
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
    pub fn add(&self, cx: &impl KeyScope<K>, element: V)
    where
        K: Clone,
    {
        self.0.change(cx, Vec::new, |list| list.push(element));
    }

    /// Replaces the current key's list.
    pub fn set(&self, cx: &impl KeyScope<K>, elements: Vec<V>)
    where
        K: Clone,
    {
        if elements.is_empty() {
            self.clear(cx);
        } else {
            self.0.change(cx, Vec::new, |list| *list = elements);
        }
    }

    /// Changes the current key's list. A list that is left empty is forgotten. The function must not
    /// use the same state again.
    pub fn update<R>(&self, cx: &impl KeyScope<K>, change: impl FnOnce(&mut Vec<V>) -> R) -> R
    where
        K: Clone,
    {
        let (result, empty) = self.0.change(cx, Vec::new, |list| {
            let result = change(list);
            (result, list.is_empty())
        });
        if empty {
            self.clear(cx);
        }
        result
    }

    /// Takes the current key's list out.
    pub fn take(&self, cx: &impl KeyScope<K>) -> Vec<V> {
        self.0.take(cx).unwrap_or_default()
    }

    /// Forgets the current key's list.
    pub fn clear(&self, cx: &impl KeyScope<K>) {
        self.0.take(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::registry::At;

    #[test]
    fn a_list_belongs_to_its_key_and_an_empty_one_is_forgotten() {
        let mut states = KeyedStates::new("lists");
        let list = states.list::<u8>("list").expect("a first state");
        let (a, b) = (At::new("a"), At::new("b"));
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
