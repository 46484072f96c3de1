//! State that every subtask has in full: written by the records of a broadcast stream, read by all.

use super::KeyTable;
use super::migration::Migrations;
use super::registry::{Declared, StateTable};
use crate::checkpoint::codec::{decode, encode};
use crate::checkpoint::stored_name;
use crate::checkpoint::visitor::ElementsPart;
use crate::checkpoint::{Key, StateValue, StateVisitor};
use crate::fault::Flow;
use crate::hash::key_hash;
use crate::process::BroadcastContext;
use std::any::type_name;
use std::cell::RefCell;
use std::hash::Hash;
use std::rc::Rc;

struct Table<K, V> {
    name: String,
    entries: RefCell<KeyTable<K, V>>,
}

impl<K: Key, V: StateValue> StateTable for Table<K, V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "broadcast"
    }

    fn type_name(&self) -> &'static str {
        type_name::<(K, V)>()
    }

    fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    fn state(&self, visitor: &mut StateVisitor<'_>, _: &Migrations) -> Flow {
        visitor.broadcast(&self.name, &mut *self.entries.borrow_mut())
    }
}

impl<K: Key, V: StateValue> ElementsPart for KeyTable<K, V> {
    fn type_name(&self) -> &'static str {
        stored_name::<(K, V)>()
    }

    fn save(&self) -> Flow<Vec<Vec<u8>>> {
        self.iter().map(|entry| encode(&entry)).collect()
    }

    fn load(&mut self, elements: &[&[u8]]) -> Flow {
        for element in elements {
            let (entry, value) = decode::<(K, V)>(element)?;
            self.insert(key_hash(&entry), entry, value);
        }
        Ok(())
    }
}

/// Where an operator with a broadcast input declares what that input writes, when it is opened.
pub struct BroadcastStates(Declared);

impl BroadcastStates {
    /// No states yet, for the operator of this name.
    pub fn new(operator: impl Into<String>) -> Self {
        BroadcastStates(Declared::new(operator.into()))
    }

    /// Declares a map that every subtask has in full.
    pub fn map<K: Key, V: StateValue>(&mut self, name: &str) -> Flow<BroadcastState<K, V>> {
        let table = Rc::new(Table {
            name: name.to_owned(),
            entries: RefCell::default(),
        });
        self.0.enter(table.clone())?;
        Ok(BroadcastState(table))
    }

    /// All states, in the order in which they were declared.
    pub fn tables(&self) -> impl Iterator<Item = &dyn StateTable> {
        self.0.tables()
    }

    /// Saves or loads all states; see [`crate::operator::Operator::state`].
    pub fn state(&mut self, visitor: &mut StateVisitor<'_>) -> Flow {
        self.0.state(visitor)
    }

    /// The names of all.
    pub fn names(&self) -> Vec<&str> {
        self.tables().map(StateTable::name).collect()
    }
}

/// A map that every subtask has in full. It can be read anywhere; writing takes the context that only
/// a record of the broadcast stream comes with. Clones are handles of the same state.
pub struct BroadcastState<K, V>(Rc<Table<K, V>>);

impl<K, V> Clone for BroadcastState<K, V> {
    fn clone(&self) -> Self {
        BroadcastState(self.0.clone())
    }
}

impl<K: Hash + Eq, V> BroadcastState<K, V> {
    /// A copy of an entry.
    pub fn get(&self, entry: &K) -> Option<V>
    where
        V: Clone,
    {
        self.with(entry, |value| value.cloned())
    }

    /// Shows an entry to a function, which must not use the same state again.
    #[inline(always)]
    pub fn with<R>(&self, entry: &K, look: impl FnOnce(Option<&V>) -> R) -> R {
        look(self.0.entries.borrow().get(key_hash(entry), entry))
    }

    /// Whether there is an entry.
    pub fn contains(&self, entry: &K) -> bool {
        self.with(entry, |value| value.is_some())
    }

    /// Shows all entries to a function, in no order. It must not use the same state again.
    pub fn for_each(&self, mut look: impl FnMut(&K, &V)) {
        for (entry, value) in self.0.entries.borrow().iter() {
            look(entry, value);
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.entries.borrow().len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Stores an entry; returns the value before.
    pub fn insert(&self, _cx: &BroadcastContext<'_>, entry: K, value: V) -> Option<V> {
        self.0
            .entries
            .borrow_mut()
            .insert(key_hash(&entry), entry, value)
    }

    /// Changes an entry, which begins with the default, and returns what the function returns. The
    /// function must not use the same state again.
    pub fn update<R>(
        &self,
        _cx: &BroadcastContext<'_>,
        entry: K,
        change: impl FnOnce(&mut V) -> R,
    ) -> R
    where
        V: Default,
    {
        let hash = key_hash(&entry);
        change(
            self.0
                .entries
                .borrow_mut()
                .get_or_insert_with(hash, entry, V::default),
        )
    }

    /// Takes an entry out.
    pub fn remove(&self, _cx: &BroadcastContext<'_>, entry: &K) -> Option<V> {
        self.0.entries.borrow_mut().remove(key_hash(entry), entry)
    }

    /// Forgets all entries.
    pub fn clear(&self, _cx: &BroadcastContext<'_>) {
        self.0.entries.borrow_mut().clear();
    }
}
