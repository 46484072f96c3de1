//! State whose type has changed since it was saved: what reads the old one, and what makes the new one of it.

use crate::checkpoint::shape::{fits, has_shape, with_shape_of};
use crate::checkpoint::{Entries, StateValue, stored_name};
use crate::fault::{Fault, Flow};
use crate::time::Timestamp;
use std::any::{Any, type_name};
use std::rc::Rc;

type ReadOld<V> = dyn Fn(&mut Entries<'_>) -> Flow<V>;

/// Reads a value of an old type and makes one of `V` of it.
struct Convert<V>(Box<ReadOld<V>>);

/// A declared way from an old type to a new one, for the state of a name.
#[derive(Clone)]
pub(super) struct Migration {
    state: String,
    from: &'static str,
    to: &'static str,
    /// A `Convert` to the type that `to` names.
    convert: Rc<dyn Any>,
}

impl Migration {
    pub(super) fn new<Old: StateValue, New: StateValue>(
        state: &str,
        convert: impl Fn(Old) -> New + 'static,
    ) -> Self {
        let convert = Convert::<New>(Box::new(move |entries| Ok(convert(entries.read()?))));
        Migration {
            state: state.to_owned(),
            from: stored_name::<Old>(),
            to: type_name::<New>(),
            convert: Rc::new(convert),
        }
    }

    /// Whether it leads to values of this type; the fault names both.
    fn leads_to<V: StateValue>(&self) -> Flow {
        if self.convert.is::<Convert<V>>() {
            return Ok(());
        }
        Err(Fault::user(format_args!(
            "the migration of the state '{}' makes a {}, but the state keeps a {}",
            self.state,
            self.to,
            type_name::<V>()
        )))
    }
}

/// All that an operator has declared.
#[derive(Default)]
pub struct Migrations(Vec<Migration>);

impl Migrations {
    pub(super) fn add(&mut self, migration: Migration) {
        self.0.push(migration);
    }

    /// Those for a state that keeps values of this type.
    pub(super) fn of<V: StateValue>(&self, state: &str) -> Flow<Vec<Migration>> {
        let of_state = self.0.iter().filter(|m| m.state == state);
        let checked = of_state.map(|m| m.leads_to::<V>().map(|()| m.clone()));
        checked.collect()
    }

    /// Fails for one whose state is not there.
    pub(super) fn check(&self, is_there: impl Fn(&str) -> bool) -> Flow {
        match self.0.iter().find(|m| !is_there(&m.state)) {
            Some(migration) => Err(Fault::user(format_args!(
                "there is a migration for a state '{}', but no such state",
                migration.state
            ))),
            None => Ok(()),
        }
    }
}

/// How the elements of a state were saved.
pub(super) struct Format<V> {
    /// Each behind the time at which its life began.
    stamped: bool,
    migration: Option<Migration>,
    element: std::marker::PhantomData<fn() -> V>,
}

impl<V: StateValue> Format<V> {
    /// The format that goes by this name, which `name` makes of the name of an element.
    pub fn find(
        saved: &str,
        name: impl Fn(&str) -> String,
        migrations: &[Migration],
    ) -> Option<Self> {
        let now = stored_name::<V>();
        let ways = migrations.iter().map(|m| (m.from.to_owned(), Some(m)));
        // A type that was changed where it stands: the path is that of the present one, and the shape of it as
        // it was is that of the old one, which goes by another path now.
        let in_place = migrations.iter().filter(|_| has_shape(saved));
        let in_place = in_place.filter_map(|m| Some((with_shape_of(now, m.from)?, Some(m))));
        for (element, migration) in ways.chain([(now.to_owned(), None)]).chain(in_place) {
            for stamped in [false, true] {
                if fits(saved, &name(&element_name(&element, stamped))) {
                    return Some(Format {
                        stamped,
                        migration: migration.cloned(),
                        element: std::marker::PhantomData,
                    });
                }
            }
        }
        None
    }

    /// The next element, and since when it lives.
    pub fn element(&self, entries: &mut Entries<'_>) -> Flow<(Option<Timestamp>, V)> {
        let since = match self.stamped {
            true => Some(entries.read::<Timestamp>()?),
            false => None,
        };
        let convert = self.migration.as_ref().map(|m| m.convert.downcast_ref());
        let value = match convert {
            Some(Some(Convert(convert))) => convert(entries)?,
            Some(None) => return Err(Fault::internal("a migration to another type")),
            None => entries.read()?,
        };
        Ok((since, value))
    }
}

/// Under what name an element is saved.
pub(super) fn element_name(element: &str, expires: bool) -> String {
    match expires {
        true => format!("expiring {element}"),
        false => element.to_owned(),
    }
}
