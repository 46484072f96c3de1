//! Keyed state on its way into a checkpoint and out of it, cut into key groups.

use super::codec::{decode_from, encode_into};
use super::image::{GroupImage, StateData};
use super::pieces::Pieces;
use super::shared::{FilesImage, RestoredFiles};
use super::stream::{EntryStream, Streamed};
use crate::fault::{Fault, Flow};
use crate::hash::key_group;
use crate::state::backing::{Backing, Claim};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::borrow::Cow;

/// Opens what a state spills to: the number of key groups, the store, and the use of memory.
pub type OpenBacking<'a> = dyn FnMut() -> Flow<(u32, Box<dyn Backing>, Claim)> + 'a;

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

    /// The state may become larger than memory: a part that can spill gets what it spills to.
    fn spill(&mut self, _open: &mut OpenBacking<'_>) -> Flow {
        Ok(())
    }

    /// Called between turns where the state may spill: the moment to keep to the memory there is.
    fn maintain(&mut self) -> Flow {
        Ok(())
    }

    /// Takes the entries of one key group, in addition to what is there.
    fn load(&mut self, entries: &mut Entries<'_>) -> Flow;

    /// Begins with what was saved as files.
    fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        Err(files.in_memory())
    }
}

/// Entries that were encoded before their section could take them, such as those of a part that is
/// about to be dropped in the middle of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct EncodedEntries {
    /// The hash of each entry's key and where its bytes end.
    ends: Vec<(u64, usize)>,
    bytes: Vec<u8>,
}

impl EncodedEntries {
    /// Adds an entry of a key with this hash, which `encode` appends the bytes of.
    pub fn put(&mut self, hash: u64, encode: impl FnOnce(&mut Vec<u8>) -> Flow) -> Flow {
        let encoded = encode(&mut self.bytes);
        if encoded.is_err() {
            self.bytes
                .truncate(self.ends.last().map_or(0, |(_, end)| *end));
            return encoded;
        }
        self.ends.push((hash, self.bytes.len()));
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds the entries of `other`.
    pub fn append(&mut self, other: EncodedEntries) {
        let before = self.bytes.len();
        self.bytes.extend(other.bytes);
        let ends = other.ends.into_iter();
        self.ends
            .extend(ends.map(|(hash, end)| (hash, before + end)));
    }

    /// The hash and the bytes of each.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut from = 0;
        self.ends.iter().map(move |(hash, end)| {
            let entry = &self.bytes[from..*end];
            from = *end;
            (*hash, entry)
        })
    }
}

/// The entries of a keyed state, cut into key groups.
#[derive(Clone, Debug, Default)]
pub struct KeyedSection {
    max_parallelism: u32,
    /// By key group, as far as there was one to be put: how many entries, and their bytes.
    groups: Vec<(u64, Pieces)>,
    shares_files: bool,
    files: Option<FilesImage>,
    streams: bool,
    streamed: Option<Streamed>,
    waits: bool,
}

impl KeyedSection {
    /// Nothing yet, of a state with so many key groups.
    pub fn new(max_parallelism: u32) -> Self {
        KeyedSection {
            max_parallelism,
            ..KeyedSection::default()
        }
    }

    /// Whether it may be given files that other checkpoints name too.
    pub fn sharing_files(mut self, shares: bool) -> Self {
        self.shares_files = shares;
        self
    }

    /// Whether it may be given entries that are read by whoever writes them.
    pub fn streaming(mut self, streams: bool) -> Self {
        self.streams = streams;
        self
    }

    /// Whether [`KeyedSection::put_stream`] may be called.
    pub fn streams(&self) -> bool {
        self.streams
    }

    /// Takes a state as entries that are yet to be read: all of it.
    pub fn put_stream(&mut self, entries: Box<dyn EntryStream>) {
        let empty = KeyedSection::new(self.max_parallelism);
        self.streamed = Some(Streamed::new(empty, entries));
    }

    /// Takes a state that another section was given in one piece, and returns what is left of that.
    pub fn take_whole(&mut self, other: KeyedSection) -> Option<Vec<GroupImage>> {
        match other.into_data() {
            StateData::Files(files) => self.files = Some(files),
            StateData::Streamed(streamed) => self.streamed = Some(streamed),
            StateData::Groups(groups) => return Some(groups),
            StateData::Elements(_) | StateData::Stored(_) => {}
        }
        None
    }

    /// How many bytes the entries have.
    pub fn bytes(&self) -> usize {
        self.groups.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// Whether [`KeyedSection::put_files`] may be called.
    pub fn shares_files(&self) -> bool {
        self.shares_files
    }

    /// Takes a state as files: all of it, and instead of entries.
    pub fn put_files(&mut self, files: FilesImage) {
        self.files = Some(files);
    }

    /// The state as files, if it was given some.
    pub fn take_files(&mut self) -> Option<FilesImage> {
        self.files.take()
    }

    /// Says whether [`KeyedPart::save`] can't go on before another thread has done its part.
    pub fn wait(&mut self, waits: bool) {
        self.waits = waits;
    }

    /// See [`KeyedSection::wait`].
    pub fn waits(&self) -> bool {
        self.waits
    }

    #[inline]
    fn group(&mut self, group: u32) -> &mut (u64, Pieces) {
        let group = group as usize;
        if group >= self.groups.len() {
            self.groups.resize_with(group + 1, Default::default);
        }
        &mut self.groups[group]
    }

    /// Adds an entry of a key with this hash.
    pub fn put<E: Serialize + ?Sized>(&mut self, hash: u64, entry: &E) -> Flow {
        self.put_with(hash, |bytes| encode_into(entry, bytes))
    }

    /// Adds an entry of a key with this hash, which `encode` appends the bytes of.
    #[inline]
    pub fn put_with(&mut self, hash: u64, encode: impl FnOnce(&mut Vec<u8>) -> Flow) -> Flow {
        let (entries, bytes) = self.group(key_group(hash, self.max_parallelism));
        *entries += 1;
        encode(bytes.end())
    }

    /// Adds an entry of this key group that is encoded in pieces.
    pub fn put_encoded(&mut self, group: u32, pieces: &[&[u8]]) {
        let (entries, bytes) = self.group(group);
        *entries += 1;
        let bytes = bytes.end();
        for piece in pieces {
            bytes.extend_from_slice(piece);
        }
    }

    /// Adds entries that were encoded before.
    pub fn extend(&mut self, encoded: &EncodedEntries) {
        for (hash, entry) in encoded.iter() {
            let (entries, bytes) = self.group(key_group(hash, self.max_parallelism));
            *entries += 1;
            bytes.end().extend_from_slice(entry);
        }
    }

    /// Nothing yet, of a state with as many key groups and the same choices.
    pub fn fresh(&self) -> Self {
        KeyedSection::new(self.max_parallelism)
            .sharing_files(self.shares_files)
            .streaming(self.streams)
    }

    /// How many entries there are.
    pub fn entries(&self) -> u64 {
        self.groups.iter().map(|(entries, _)| entries).sum()
    }

    /// Adds what another section holds as a part of its own: in each key group behind a copy of
    /// `header`. To be read with [`Entries::next_part`].
    pub fn append_part<H: Serialize>(&mut self, header: &H, part: KeyedSection) -> Flow {
        for (group, (entries, bytes)) in (0..).zip(part.groups) {
            if entries == 0 {
                continue;
            }
            let mine = self.group(group);
            mine.0 += entries;
            encode_into(&(header, bytes.len() as u64), mine.1.end())?;
            mine.1.append(bytes);
        }
        Ok(())
    }

    /// Adds what another section holds.
    pub fn append(&mut self, other: KeyedSection) {
        for (group, (entries, bytes)) in (0..).zip(other.groups) {
            let mine = self.group(group);
            mine.0 += entries;
            mine.1.append(bytes);
        }
    }

    /// The entries by key group; an error where the state was given in one piece.
    pub fn into_groups(self) -> Flow<Vec<GroupImage>> {
        match self.into_data() {
            StateData::Groups(groups) => Ok(groups),
            _ => Err(Fault::internal("keyed state without key groups")),
        }
    }

    /// What goes into the image.
    pub fn into_data(self) -> StateData {
        if let Some(files) = self.files {
            return StateData::Files(files);
        }
        if let Some(streamed) = self.streamed {
            return StateData::Streamed(streamed);
        }
        let groups = (0..).zip(self.groups).filter(|(_, group)| group.0 > 0);
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
    pub fn take_next<E: DeserializeOwned>(&mut self) -> Flow<Option<E>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let (entry, taken) = decode_from(self.left)?;
        self.left = &self.left[taken..];
        Ok(Some(entry))
    }

    /// The next part, see [`KeyedSection::append_part`], and its header.
    pub fn next_part<H: DeserializeOwned>(&mut self) -> Flow<Option<(H, Entries<'a>)>> {
        let Some((header, length)) = self.take_next::<(H, u64)>()? else {
            return Ok(None);
        };
        let length = usize::try_from(length).ok();
        let split = length.and_then(|length| self.left.split_at_checked(length));
        let Some((part, rest)) = split else {
            return Err(Fault::user("a part of a keyed state is cut short"));
        };
        self.left = rest;
        Ok(Some((header, Entries::new(part))))
    }
}

/// A part under other type names than its own: those of what the user has put in, where the rest is
/// an operator's own affair and may be called otherwise one day.
pub struct Named<'a, P>(pub &'a mut P, pub (&'static str, &'static str));

impl<P: KeyedPart> KeyedPart for Named<'_, P> {
    fn types(&self) -> (&'static str, &'static str) {
        self.1
    }

    fn freeze(&mut self) -> Flow {
        self.0.freeze()
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        self.0.save(into, budget)
    }

    fn thaw(&mut self) {
        self.0.thaw();
    }

    fn spill(&mut self, open: &mut OpenBacking<'_>) -> Flow {
        self.0.spill(open)
    }

    fn maintain(&mut self) -> Flow {
        self.0.maintain()
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        self.0.load(entries)
    }

    fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        self.0.load_files(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_they_were_appended_and_a_length_that_lies_is_an_error() {
        let mut all = KeyedSection::new(1);
        for header in [7i64, 9] {
            let mut part = all.fresh();
            part.put(0, &(header, "a")).expect("encodes");
            part.put(0, &(header, "b")).expect("encodes");
            all.append_part(&header, part).expect("appends");
        }
        assert_eq!(all.entries(), 4);
        let StateData::Groups(groups) = all.into_data() else {
            panic!("keyed state has groups");
        };
        let bytes = groups[0].bytes.joined();
        let mut entries = Entries::new(&bytes);
        for header in [7i64, 9] {
            let next = entries.next_part::<i64>().expect("reads");
            let (found, mut part) = next.expect("is there");
            assert_eq!(found, header);
            for name in ["a", "b"] {
                let entry = part.take_next::<(i64, String)>().expect("reads");
                assert_eq!(entry, Some((header, name.to_owned())));
            }
        }
        assert!(entries.next_part::<i64>().expect("is at the end").is_none());
        let cut = &bytes[..bytes.len() - 1];
        let mut entries = Entries::new(cut);
        entries.next_part::<i64>().expect("is whole");
        assert!(entries.next_part::<i64>().is_err());
    }
}
