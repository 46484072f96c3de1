//! One state of an operator, for all of its keys: read and changed at one key, saved, loaded
//! and freed of what has expired without its types being known.

use super::content::{Content, One};
use super::entries::EntryTable;
use super::migration::{Format, Migration, Migrations, element_name};
use super::registry::{KeyScope, StateTable};
use super::ttl::Lifetime;
use crate::checkpoint::stored_name;
use crate::checkpoint::{
    Entries, Key, KeyedPart, KeyedSection, OpenBacking, RestoredFiles, StateValue, StateVisitor,
};
use crate::fault::Flow;
use crate::hash::key_hash;
use crate::time::Timestamp;
use std::any::type_name;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Buckets, and elements in them, that one step of a sweep looks at.
const SWEPT_AT_ONCE: usize = 1024;

/// A step of a sweep follows the one before after a millisecond at the earliest.
const BETWEEN_SWEEPS: Duration = Duration::from_millis(1);

/// One state. Handles and the registry share it.
pub(super) struct Table<K, C: Content> {
    name: String,
    kind: &'static str,
    entries: EntryTable<K, C>,
    /// From which of the entries that are not in memory the search for what has expired goes on.
    swept: RefCell<Vec<u8>>,
    pub life: C::Life,
    sweep: Cell<Sweep>,
}

/// How far the search for what has expired has come.
#[derive(Clone, Copy)]
struct Sweep {
    bucket: usize,
    /// Within the bucket's content.
    slot: usize,
    /// When the last step was.
    last: Timestamp,
    /// About how many entries were not in memory when the pass through them began.
    spilled: u64,
}

impl<K: Key, C: Content> Table<K, C> {
    /// An empty one.
    pub fn new(kind: &'static str, name: &str, life: C::Life) -> Self {
        Table {
            name: name.to_owned(),
            kind,
            entries: EntryTable::default(),
            swept: RefCell::default(),
            life,
            sweep: Cell::new(Sweep {
                bucket: 0,
                slot: 0,
                last: Timestamp::MIN,
                spilled: 0,
            }),
        }
    }

    /// Reads the current key's entry.
    #[inline(always)]
    pub fn read<R>(&self, scope: &impl KeyScope<K>, look: impl FnOnce(Option<&C>) -> R) -> R {
        self.entries.read(scope.hash(), scope.key(), look)
    }

    /// Changes the current key's entry, made first where there is none.
    #[inline(always)]
    pub fn change<R>(
        &self,
        scope: &impl KeyScope<K>,
        make: impl FnOnce() -> C,
        change: impl FnOnce(&mut C) -> R,
    ) -> R {
        self.prune(scope);
        let (hash, key) = (scope.hash(), scope.key());
        self.entries.change(hash, key, make, change)
    }

    /// Adds a value to the current key's entry, or makes it the entry where there is none.
    #[inline(always)]
    pub fn add<T>(
        &self,
        scope: &impl KeyScope<K>,
        value: T,
        make: impl FnOnce(T) -> C,
        add: impl FnOnce(&mut C, T),
    ) {
        self.prune(scope);
        let (hash, key) = (scope.hash(), scope.key());
        self.entries.add(hash, key, value, make, add);
    }

    /// Changes the current key's entry where there is one.
    #[inline(always)]
    pub fn change_existing<R>(
        &self,
        scope: &impl KeyScope<K>,
        change: impl FnOnce(&mut C) -> R,
    ) -> Option<R> {
        self.prune(scope);
        let (hash, key) = (scope.hash(), scope.key());
        self.entries.edit(hash, key, |entry| entry.map(change))
    }

    /// Takes the current key's entry out.
    #[inline(always)]
    pub fn take(&self, scope: &impl KeyScope<K>) -> Option<C> {
        self.prune(scope);
        self.entries.take(scope.hash(), scope.key())
    }

    /// Whether reading changes what is kept.
    #[inline(always)]
    pub fn renews_on_read(&self) -> bool {
        <C::Life as Lifetime>::EXPIRES && self.life.renews_on_read()
    }

    /// Before a change: what has expired is removed, so that a change never meets it.
    #[inline(always)]
    fn prune(&self, scope: &impl KeyScope<K>) {
        if <C::Life as Lifetime>::EXPIRES && C::PRUNED_BY_CHANGES {
            self.clean(scope.hash(), scope.key(), 0..usize::MAX);
        }
    }

    /// Removes what has expired of a key.
    fn clean(&self, hash: u64, key: &K, slots: std::ops::Range<usize>) {
        let (life, entries) = (&self.life, &self.entries);
        let stale = |content: &C| content.stale(life, slots.clone());
        if !entries.read(hash, key, |found| found.is_some_and(stale)) {
            return;
        }
        let spent = entries.edit(hash, key, |content| {
            content.is_some_and(|content| {
                content.clean(life, slots);
                content.is_spent(life)
            })
        });
        if spent {
            entries.take(hash, key);
        }
    }
}

impl<K: Key, V: StateValue, L: Lifetime> Table<K, One<V, L>> {
    /// Shows the current key's value.
    #[inline(always)]
    pub fn look<R>(&self, scope: &impl KeyScope<K>, look: impl FnOnce(Option<&V>) -> R) -> R {
        let life = &self.life;
        if !self.renews_on_read() {
            return self.read(scope, |one| look(one.and_then(|one| life.live(&one.0))));
        }
        self.prune(scope);
        self.entries.edit(scope.hash(), scope.key(), |one| {
            look(one.map(|one| &*life.renew(&mut one.0)))
        })
    }

    /// Changes the current key's value, made first where there is none.
    #[inline(always)]
    pub fn update<R>(
        &self,
        scope: &impl KeyScope<K>,
        make: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> R,
    ) -> R {
        let life = &self.life;
        let make = || One(life.keep(make(), None));
        self.change(scope, make, |one| change(life.renew(&mut one.0)))
    }
}

impl<K: Key, C: Content> Table<K, C> {
    /// One step of the search for what has expired.
    fn sweep_on(&self, from: Sweep) -> Sweep {
        let Sweep {
            mut bucket,
            mut slot,
            ..
        } = from;
        let mut left = SWEPT_AT_ONCE;
        while left > 0 {
            if bucket >= self.entries.buckets() {
                (bucket, slot) = (0, 0);
                break;
            }
            let looked = self.entries.bucket(bucket, |key, content| {
                let slots = content.slots(&self.life);
                let looked_at = slot..slots.min(slot + left);
                let stale = content.stale(&self.life, looked_at.clone());
                (slots, looked_at, stale.then(|| key.clone()))
            });
            let Some((slots, looked_at, stale)) = looked else {
                (bucket, slot) = (bucket + 1, 0);
                left -= 1;
                continue;
            };
            left -= looked_at.len().clamp(1, left);
            (bucket, slot) = match looked_at.end >= slots {
                true => (bucket + 1, 0),
                false => (bucket, looked_at.end),
            };
            if let Some(key) = stale {
                self.clean(key_hash(&key), &key, looked_at);
            }
        }
        Sweep {
            bucket,
            slot,
            ..from
        }
    }
}

impl<K: Key, C: Content> Table<K, C> {
    /// What sets the pace: it is not to slow down because what has been found so far is gone.
    fn spilled_in_this_pass(&self) -> u64 {
        let now = self.entries.estimate();
        match self.swept.borrow().is_empty() {
            true => now,
            false => now.max(self.sweep.get().spilled),
        }
    }

    /// One step of the same search among what is not in memory.
    fn sweep_spilled(&self) -> Flow {
        let (life, mut stale) = (&self.life, Vec::new());
        let mut from = self.swept.borrow_mut();
        let next = self.entries.walk(&from, SWEPT_AT_ONCE, |key, content| {
            let slots = 0..content.slots(life);
            if content.stale(life, slots.clone()) {
                stale.push((key, slots));
            }
        })?;
        *from = next.unwrap_or_default();
        for (key, slots) in stale {
            self.clean(key_hash(&key), &key, slots);
        }
        Ok(())
    }
}

impl<K: Key, C: Content> StateTable for Table<K, C> {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn type_name(&self) -> &'static str {
        type_name::<C::Element>()
    }

    fn len(&self) -> usize {
        self.entries.len()
    }

    fn state(&self, visitor: &mut StateVisitor<'_>, migrations: &Migrations) -> Flow {
        let mut part = Part {
            table: self,
            migrations: migrations.of::<C::Element>(&self.name)?,
            format: None,
        };
        visitor.keyed(&self.name, &mut part)
    }

    /// A table of any size is looked through about once in the time that state stays, and so is what it has spilled.
    fn next_sweep(&self) -> Option<Timestamp> {
        let after = self.life.after()?;
        let entries = &self.entries;
        if entries.len() == 0 && !entries.spills() {
            return None;
        }
        let entries = (entries.buckets() as u64).max(self.sweep.get().spilled);
        let steps = u32::try_from(entries / SWEPT_AT_ONCE as u64 + 1).unwrap_or(u32::MAX);
        let pause = (after / steps).max(BETWEEN_SWEEPS);
        Some(self.sweep.get().last.plus(pause))
    }

    fn sweep(&self, now: Timestamp) {
        if self.next_sweep().is_some_and(|at| at <= now) {
            let from = Sweep {
                last: now,
                spilled: self.spilled_in_this_pass(),
                ..self.sweep.get()
            };
            self.sweep.set(self.sweep_on(from));
            if self.entries.spills()
                && let Err(fault) = self.sweep_spilled()
            {
                fault.unwind();
            }
        }
    }
}

/// A table on its way into a checkpoint or out of it.
struct Part<'a, K, C: Content> {
    table: &'a Table<K, C>,
    migrations: Vec<Migration>,
    /// How it was saved, where not as it would be now.
    format: Option<Format<C::Element>>,
}

impl<K: Key, C: Content> KeyedPart for Part<'_, K, C> {
    fn types(&self) -> (&'static str, &'static str) {
        (stored_name::<K>(), stored_name::<C::Element>())
    }

    fn value_type(&self) -> Cow<'static, str> {
        let expires = <C::Life as Lifetime>::EXPIRES;
        C::name(&element_name(stored_name::<C::Element>(), expires)).into()
    }

    fn accept(&mut self, saved: &str) -> bool {
        self.format = Format::find(saved, C::name, &self.migrations);
        self.format.is_some()
    }

    fn freeze(&mut self) -> Flow {
        self.table.entries.with_part(|part| part.freeze())
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        let entries = &self.table.entries;
        let life = &self.table.life;
        if !<C::Life as Lifetime>::EXPIRES {
            return entries.with_part(|part| part.save(into, budget));
        }
        let mut all = into.fresh();
        let complete = entries.with_part(|part| part.save(&mut all, budget))?;
        into.wait(all.waits());
        // What is taken in one piece has what expired in it too, and no one is ever shown that.
        let groups = into.take_whole(all).unwrap_or_default();
        for group in groups {
            let bytes = group.bytes.joined();
            let mut entries = Entries::new(&bytes);
            while let Some((key, mut content)) = entries.take_next::<(K, C)>()? {
                content.clean(life, 0..content.slots(life));
                if !content.is_spent(life) {
                    into.put(key_hash(&key), &(key, content))?;
                }
            }
        }
        Ok(complete)
    }

    fn thaw(&mut self) {
        self.table.entries.with_part(|part| part.thaw());
    }

    fn spill(&mut self, open: &mut OpenBacking<'_>) -> Flow {
        self.table.entries.spill(open)
    }

    fn maintain(&mut self) -> Flow {
        self.table.entries.with_part(|part| part.maintain())
    }

    fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        if let Some(format) = &self.format {
            let life = &self.table.life;
            let mut convert = |entries: &mut Entries<'_>| C::read(entries, format, life);
            return self.table.entries.load_converted(files, &mut convert);
        }
        let entries = &self.table.entries;
        entries.with_part(|part| part.load_files(files))
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        let table = &self.table.entries;
        let life = &self.table.life;
        let Some(format) = &self.format else {
            return table.with_part(|part| part.load(entries));
        };
        while !entries.is_empty() {
            let key = entries.read::<K>()?;
            let content = C::read(entries, format, life)?;
            table.set(key_hash(&key), key, content)?;
            table.with_part(|part| part.maintain())?;
        }
        Ok(())
    }
}
