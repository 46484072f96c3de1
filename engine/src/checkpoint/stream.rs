//! Keyed state that is too large for memory on its way into one file and out of it, piece by piece.
//!
//! On the way out the entries come from the store that they spilled to, as they were at the barrier, and
//! are read by whoever writes the file, not in the stream's turns. On the way in, a file's sections stay
//! where they are until a subtask asks for them.

use super::checksum::Checksum;
use super::error::{Error, Result};
use super::file::{self, Trailer};
use super::image::{GroupImage, StateData, SubtaskImage};
use super::index::{DataIndex, GroupIndex, Section};
use super::keyed::KeyedSection;
use super::metadata::SubtaskFile;
use super::storage::{CheckpointStorage, join};
use crate::fault::{Fault, Flow};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Entries that are read at once.
pub(super) const ENTRIES: usize = if cfg!(test) { 5 } else { 4096 };
/// Files of more bytes are not read whole.
pub const READ_WHOLE: u64 = 32 << 20;

/// Entries that come one after the other, in the order of key groups.
pub trait EntryStream: Send {
    /// Adds about `budget` entries; true once there are no more.
    fn next(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool>;
}

/// An empty section, and the entries that belong into it.
type Unread = (KeyedSection, Box<dyn EntryStream>);

/// A state that is yet to be read by whoever writes it. Clones are handles of the same.
#[derive(Clone, Default)]
pub struct Streamed(Arc<Mutex<Option<Unread>>>);

impl Streamed {
    /// These entries; `empty` knows how many key groups there are.
    pub fn new(empty: KeyedSection, entries: Box<dyn EntryStream>) -> Self {
        Streamed(Arc::new(Mutex::new(Some((empty, entries)))))
    }

    /// Takes the entries out, which nobody else may have done.
    pub fn take(&self) -> Flow<Unread> {
        let mut unread = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = unread.take();
        taken.ok_or_else(|| Fault::internal("a state was read twice"))
    }

    /// All entries, read into memory.
    pub fn gather(&self) -> Flow<Vec<GroupImage>> {
        let (mut section, mut entries) = self.take()?;
        while !entries.next(&mut section, ENTRIES)? {}
        section.into_groups()
    }
}

impl fmt::Debug for Streamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("entries")
    }
}

impl PartialEq for Streamed {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Streamed {}

/// A state in sections of a file that is not in memory; its path is taken from the storage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredGroups {
    path: String,
    groups: Vec<GroupIndex>,
}

impl StoredGroups {
    /// Its sections: each the entries of one key group, of which there may be several.
    pub fn groups(&self) -> impl Iterator<Item = StoredGroup<'_>> {
        let path = &self.path;
        self.groups
            .iter()
            .map(move |index| StoredGroup { path, index })
    }

    /// How many bytes the entries have.
    pub fn bytes(&self) -> u64 {
        self.groups.iter().map(|group| group.section.length).sum()
    }
}

/// One section.
#[derive(Clone, Copy, Debug)]
pub struct StoredGroup<'a> {
    path: &'a str,
    /// What is known of it.
    pub index: &'a GroupIndex,
}

impl StoredGroup<'_> {
    /// Its entries.
    pub fn read(&self, storage: &dyn CheckpointStorage) -> Result<Vec<u8>> {
        read_section(storage, self.path, &self.index.section)
    }
}

fn read_section(storage: &dyn CheckpointStorage, path: &str, section: &Section) -> Result<Vec<u8>> {
    let bytes = storage.read_range(path, section.offset, section.length)?;
    let found = Checksum::of(&bytes);
    if (bytes.len() as u64, found) == (section.length, section.checksum) {
        return Ok(bytes);
    }
    let what = format!("{} bytes from {} on", section.length, section.offset);
    let reason = format!(
        "their checksum is {found} and was {} when they were written",
        section.checksum
    );
    Err(Error::damaged(&storage.place(path), &what, reason))
}

/// Reads a large subtask's file: every byte of it is verified, and key groups stay where they are.
pub fn read_large(
    storage: &dyn CheckpointStorage,
    folder: &str,
    subtask: &SubtaskFile,
) -> Result<SubtaskImage> {
    let path = join(folder, &subtask.file.path);
    let place = storage.place(&path);
    let length = subtask.file.length;
    let Trailer {
        index,
        bytes: tail,
        checksum,
    } = file::read_trailer(storage, &path, length)?;
    if checksum != subtask.file.checksum || index != subtask.index {
        let reason = "it is intact and not the one that the metadata names: files were mixed up";
        return Err(Error::damaged(&place, "the whole file", reason));
    }
    let mut hash = Checksum::begin();
    let header = storage.read_range(&path, 0, file::HEADER as u64)?;
    hash.update(&header);
    let mut end = file::HEADER as u64;
    for section in index.sections() {
        if section.offset != end {
            let reason = "the index puts a section where it can't be";
            return Err(Error::damaged(&place, "the index", reason));
        }
        hash.update(&read_section(storage, &path, &section)?);
        end += section.length;
    }
    hash.update(&tail[..tail.len() - file::END_BYTES]);
    if end + tail.len() as u64 != length || Checksum::end(&hash) != checksum {
        let reason = "its parts are not those that were written";
        return Err(Error::damaged(&place, "the whole file", reason));
    }
    index.into_image(|_, state| match &state.data {
        DataIndex::Groups(groups) => Ok(StateData::Stored(StoredGroups {
            path: path.clone(),
            groups: groups.clone(),
        })),
        other => {
            let sections = other.sections();
            let section = sections.first().copied().unwrap_or(Section {
                offset: 0,
                length: 0,
                checksum: Checksum::of(&[]),
            });
            let bytes = read_section(storage, &path, &section)?;
            file::read_other(&place, &bytes, other)
        }
    })
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
