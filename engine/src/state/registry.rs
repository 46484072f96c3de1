//! The keyed states of one operator: declared by name and type, known to the operator by both.
//!
//! User code holds typed handles; the registry sees the same tables through [`StateTable`], without
//! their types. A handle works on the state of one key at a time, the one that its [`KeyScope`]
//! stands at.

use super::KeyTable;
use crate::fault::{Fault, Flow};
use std::any::type_name;
use std::cell::RefCell;
use std::hash::Hash;
use std::marker::PhantomData;
use std::rc::Rc;

/// A key at which state is read and written, with the hash that travels with its record.
pub trait KeyScope<K> {
    /// The key.
    fn key(&self) -> &K;

    /// [`crate::hash::key_hash`] of the key.
    fn hash(&self) -> u64;
}

/// One state of an operator, for all of its keys, without its types.
pub trait StateTable {
    /// The name that it was declared with.
    fn name(&self) -> &str;

    /// What kind of state it is, such as `value`.
    fn kind(&self) -> &'static str;

    /// The type of what is kept for a key.
    fn type_name(&self) -> &'static str;

    /// How many keys have state.
    fn len(&self) -> usize;

    /// Whether no key has state.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// One state in memory. Handles and the registry share it.
pub(super) struct Table<K, V> {
    name: String,
    kind: &'static str,
    entries: RefCell<KeyTable<K, V>>,
}

impl<K: Hash + Eq, V> Table<K, V> {
    /// Reads the current key's entry.
    #[inline(always)]
    pub(super) fn read<R>(
        &self,
        scope: &impl KeyScope<K>,
        look: impl FnOnce(Option<&V>) -> R,
    ) -> R {
        look(self.entries.borrow().get(scope.hash(), scope.key()))
    }

    /// Changes the current key's entry, made first where there is none.
    #[inline(always)]
    pub(super) fn change<R>(
        &self,
        scope: &impl KeyScope<K>,
        make: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> R,
    ) -> R
    where
        K: Clone,
    {
        let mut entries = self.entries.borrow_mut();
        let (hash, key) = (scope.hash(), scope.key());
        // A key that is known is not cloned.
        if let Some(value) = entries.get_mut(hash, key) {
            return change(value);
        }
        change(entries.insert_new(hash, key.clone(), make()))
    }

    /// Adds a value to the current key's entry, or makes it the entry where there is none.
    #[inline(always)]
    pub(super) fn add<T>(
        &self,
        scope: &impl KeyScope<K>,
        value: T,
        make: impl FnOnce(T) -> V,
        add: impl FnOnce(&mut V, T),
    ) where
        K: Clone,
    {
        let mut entries = self.entries.borrow_mut();
        let (hash, key) = (scope.hash(), scope.key());
        match entries.get_mut(hash, key) {
            Some(entry) => add(entry, value),
            None => {
                entries.insert_new(hash, key.clone(), make(value));
            }
        }
    }

    /// Changes the current key's entry where there is one.
    #[inline(always)]
    pub(super) fn change_existing<R>(
        &self,
        scope: &impl KeyScope<K>,
        change: impl FnOnce(&mut V) -> R,
    ) -> Option<R> {
        self.entries
            .borrow_mut()
            .get_mut(scope.hash(), scope.key())
            .map(change)
    }

    /// Takes the current key's entry out.
    pub(super) fn take(&self, scope: &impl KeyScope<K>) -> Option<V> {
        self.entries.borrow_mut().remove(scope.hash(), scope.key())
    }
}

impl<K: Hash + Eq, V> StateTable for Table<K, V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn type_name(&self) -> &'static str {
        type_name::<V>()
    }

    fn len(&self) -> usize {
        self.entries.borrow().len()
    }
}

/// The states that an operator has declared; no two of the same name.
pub(super) struct Declared {
    operator: String,
    tables: Vec<Rc<dyn StateTable>>,
}

impl Declared {
    /// None yet, for the operator of this name.
    pub(super) fn new(operator: String) -> Self {
        Declared {
            operator,
            tables: Vec::new(),
        }
    }

    /// Enters a state; a second one of the same name is a fault.
    pub(super) fn enter(&mut self, table: Rc<dyn StateTable>) -> Flow {
        if let Some(other) = self.tables.iter().find(|t| t.name() == table.name()) {
            return Err(Fault::user(format_args!(
                "the {} state '{}' has the name of another state, a {} of {}; \
                 give each state a name of its own",
                table.kind(),
                table.name(),
                other.kind(),
                other.type_name(),
            ))
            .at(&self.operator));
        }
        self.tables.push(table);
        Ok(())
    }

    /// All of them, in the order in which they were declared.
    pub(super) fn tables(&self) -> impl Iterator<Item = &dyn StateTable> {
        self.tables.iter().map(Rc::as_ref)
    }
}

/// Where an operator of keyed records declares its states, when it is opened.
pub struct KeyedStates<K> {
    declared: Declared,
    key: PhantomData<fn(K)>,
}

impl<K: Hash + Eq + 'static> KeyedStates<K> {
    /// No states yet, for the operator of this name.
    pub fn new(operator: impl Into<String>) -> Self {
        KeyedStates {
            declared: Declared::new(operator.into()),
            key: PhantomData,
        }
    }

    /// All states, in the order in which they were declared.
    pub fn tables(&self) -> impl Iterator<Item = &dyn StateTable> {
        self.declared.tables()
    }

    /// Enters a state; a second one of the same name is a fault.
    pub(super) fn declare<V: 'static>(
        &mut self,
        kind: &'static str,
        name: &str,
    ) -> Flow<Rc<Table<K, V>>> {
        let table = Table {
            name: name.to_owned(),
            kind,
            entries: RefCell::default(),
        };
        let table = Rc::new(table);
        self.declared.enter(table.clone())?;
        Ok(table)
    }
}

/// A key to test state at.
#[cfg(test)]
pub(super) struct At<K>(K, u64);

#[cfg(test)]
impl<K: Hash> At<K> {
    pub(super) fn new(key: K) -> Self {
        let hash = crate::hash::key_hash(&key);
        At(key, hash)
    }
}

#[cfg(test)]
impl<K> KeyScope<K> for At<K> {
    fn key(&self) -> &K {
        &self.0
    }

    fn hash(&self) -> u64 {
        self.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_states_and_refuses_a_second_of_the_same_name() {
        let mut states = KeyedStates::<u64>::new("totals");
        states.value::<i64>("sum").expect("a first state");
        states.value::<String>("last").expect("another name");
        let fault = states.value::<u8>("sum").err().expect("the name is taken");
        assert_eq!(fault.operator(), Some("totals"));
        assert!(fault.message().contains("'sum'"), "{fault}");
        let known: Vec<_> = states
            .tables()
            .map(|t| (t.name(), t.kind(), t.type_name()))
            .collect();
        assert_eq!(
            known,
            [
                ("sum", "value", "i64"),
                ("last", "value", "alloc::string::String")
            ]
        );
        assert!(states.tables().all(StateTable::is_empty));
    }
}
