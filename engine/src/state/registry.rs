//! The keyed states of one operator: declared by name and type, known to the operator by both.
//!
//! User code holds typed handles; the registry sees the same tables through [`StateTable`], without
//! their types. A handle works on the state of one key at a time, the one that its [`KeyScope`]
//! stands at.

use super::content::Content;
use super::migration::{Migration, Migrations};
use super::store::Table;
use super::ttl::{Expiring, Lifetime, StateTtl};
use crate::checkpoint::{Key, StateValue, StateVisitor};
use crate::clock::Clock;
use crate::fault::{Fault, Flow};
use crate::time::Timestamp;
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

    /// Saves or loads it.
    #[doc(hidden)]
    fn state(&self, visitor: &mut StateVisitor<'_>, migrations: &Migrations) -> Flow;

    /// When the next step of the search for what has expired is due, where something can expire.
    fn next_sweep(&self) -> Option<Timestamp> {
        None
    }

    /// Takes that step if it is due: removes what it finds.
    fn sweep(&self, _now: Timestamp) {}
}

/// The states that an operator has declared; no two of the same name.
pub(super) struct Declared {
    operator: String,
    tables: Vec<Rc<dyn StateTable>>,
    migrations: Migrations,
}

impl Declared {
    /// None yet, for the operator of this name.
    pub(super) fn new(operator: String) -> Self {
        Declared {
            operator,
            tables: Vec::new(),
            migrations: Migrations::default(),
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

    /// Saves or loads all of them.
    pub(super) fn state(&self, visitor: &mut StateVisitor<'_>) -> Flow {
        if visitor.loads() {
            self.migrations.check(|state| self.is_taken(state))?;
        }
        let mut tables = self.tables();
        tables.try_for_each(|table| table.state(visitor, &self.migrations))
    }

    fn is_taken(&self, name: &str) -> bool {
        self.tables().any(|table| table.name() == name)
    }
}

/// Where an operator of keyed records declares its states, when it is opened.
pub struct KeyedStates<K> {
    declared: Declared,
    /// Those in which something can expire.
    expiring: Vec<Rc<dyn StateTable>>,
    clock: Clock,
    key: PhantomData<fn(K)>,
}

impl<K: Key> KeyedStates<K> {
    /// No states yet, for the operator of this name. The clock tells the age of those that expire.
    pub fn new(operator: impl Into<String>, clock: Clock) -> Self {
        KeyedStates {
            declared: Declared::new(operator.into()),
            expiring: Vec::new(),
            clock,
            key: PhantomData,
        }
    }

    /// All states, in the order in which they were declared.
    pub fn tables(&self) -> impl Iterator<Item = &dyn StateTable> {
        self.declared.tables()
    }

    /// Declares how values of a former type become values of the present one: those of a value, the
    /// elements of a list, the values of a map, what a reducing or aggregating state has come to.
    /// A state that was saved with the present type is not affected, so the declaration may stay.
    ///
    /// ```
    /// # use tidegate_engine::prelude::*;
    /// # fn open(states: &mut KeyedStates<u64>) -> Flow<ValueState<u64, i64>> {
    /// // The sum was an i32 when it was saved.
    /// states.migrate("sum", |old: i32| i64::from(old));
    /// states.value::<i64>("sum")
    /// # }
    /// ```
    pub fn migrate<Old: StateValue, New: StateValue>(
        &mut self,
        state: &str,
        convert: impl Fn(Old) -> New + 'static,
    ) {
        let migration = Migration::new(state, convert);
        self.declared.migrations.add(migration);
    }

    /// Enters a state; a second one of the same name is a fault.
    pub(super) fn declare<C: Content>(
        &mut self,
        kind: &'static str,
        name: &str,
        life: C::Life,
    ) -> Flow<Rc<Table<K, C>>> {
        let table = Rc::new(Table::new(kind, name, life));
        self.declared.enter(table.clone())?;
        if <C::Life as Lifetime>::EXPIRES {
            self.expiring.push(table.clone());
        }
        Ok(table)
    }

    /// What tells the age of a state with this declaration.
    pub(super) fn expiring(&self, ttl: StateTtl) -> Expiring {
        ttl.with(self.clock.clone())
    }

    /// Saves or loads all states; see [`crate::operator::Operator::state`].
    pub fn state(&mut self, visitor: &mut StateVisitor<'_>) -> Flow {
        self.declared.state(visitor)
    }

    /// The names of all.
    pub fn names(&self) -> Vec<&str> {
        self.tables().map(StateTable::name).collect()
    }

    /// When [`KeyedStates::sweep`] is to be called, if ever.
    #[inline]
    pub fn next_sweep(&self) -> Option<Timestamp> {
        let due = self.expiring.iter().filter_map(|table| table.next_sweep());
        due.min()
    }

    /// Removes some of what has expired: a bounded number of entries in each call.
    pub fn sweep(&mut self, now: Timestamp) {
        for table in &self.expiring {
            table.sweep(now);
        }
    }
}

/// A key to test state at.
#[cfg(test)]
pub(super) struct At<K>(K, u64);

#[cfg(test)]
impl<K: std::hash::Hash> At<K> {
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
        let mut states = KeyedStates::<u64>::new("totals", Clock::System);
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
