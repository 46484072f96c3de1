//! Keyed state on its way into a checkpoint and out of it, cut into key groups.

use super::codec::{decode_from, encode_into};
use super::image::{GroupImage, StateData};
use crate::fault::Flow;
use crate::hash::key_group;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Something that keeps entries by key: a table, the slices of a window, timers.
pub trait KeyedPart {
    /// The names of the types of its keys and of its values.
    fn types(&self) -> (&'static str, &'static str);

    /// What is kept for a key, by a name that outlives a rearrangement of this part's own types.
    fn value_type(&self) -> Cow<'static, str> {
        self.types().1.into()
    }

    /// Whether it can load values that were saved under another name than [`KeyedPart::value_type`]; if
    /// so, it is given them next.
    fn accept(&mut self, _saved: &str) -> bool {
        false
    }

    /// A barrier is here: what [`KeyedPart::save`] writes from now on is what is here now, whatever
    /// records change meanwhile. A part that saves everything in one step has nothing to do.
    fn freeze(&mut self) -> Flow {
        Ok(())
    }

    /// Writes entries of the frozen state, about `budget` of them; true once all are written.
    /// A part that has no way to go on later writes all.
    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool>;

    /// The checkpoint was given up: what is frozen may go.
    fn thaw(&mut self) {}

    /// Takes the entries of one key group, in addition to what is there.
    fn load(&mut self, entries: &mut Entries<'_>) -> Flow;
}

/// The entries of a keyed state, cut into key groups.
#[derive(Clone, Debug, Default)]
pub struct KeyedSection {
    max_parallelism: u32,
    groups: BTreeMap<u32, (u64, Vec<u8>)>,
}

impl KeyedSection {
    /// Nothing yet, of a state with so many key groups.
    pub fn new(max_parallelism: u32) -> Self {
        KeyedSection {
            max_parallelism,
            groups: BTreeMap::new(),
        }
    }

    /// Nothing yet, of a state with as many key groups.
    pub fn fresh(&self) -> Self {
        KeyedSection::new(self.max_parallelism)
    }

    /// Adds an entry of a key with this hash.
    pub fn put<E: Serialize + ?Sized>(&mut self, hash: u64, entry: &E) -> Flow {
        let group = key_group(hash, self.max_parallelism);
        let (entries, bytes) = self.groups.entry(group).or_default();
        *entries += 1;
        encode_into(entry, bytes)
    }

    /// Adds what another section holds.
    pub fn append(&mut self, other: KeyedSection) {
        for (group, (entries, bytes)) in other.groups {
            let mine = self.groups.entry(group).or_default();
            mine.0 += entries;
            mine.1.extend(bytes);
        }
    }

    /// What goes into the image.
    pub fn into_data(self) -> StateData {
        let groups = self.groups.into_iter();
        let image = |(group, (entries, bytes))| GroupImage {
            group,
            entries,
            bytes,
        };
        StateData::Groups(groups.map(image).collect())
    }
}

/// The entries of one key group.
pub struct Entries<'a> {
    left: &'a [u8],
}

impl<'a> Entries<'a> {
    /// Entries that were encoded one behind the other.
    pub fn new(bytes: &'a [u8]) -> Self {
        Entries { left: bytes }
    }

    /// Whether there is no other.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// A part of an entry that is taken to pieces.
    pub fn read<E: DeserializeOwned>(&mut self) -> Flow<E> {
        let (part, taken) = decode_from(self.left)?;
        self.left = &self.left[taken..];
        Ok(part)
    }

    /// The next one.
    pub fn next<E: DeserializeOwned>(&mut self) -> Flow<Option<E>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let (entry, taken) = decode_from(self.left)?;
        self.left = &self.left[taken..];
        Ok(Some(entry))
    }
}
