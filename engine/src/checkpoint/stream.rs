//! Keyed state that is too large for memory on its way into one file and out of it, piece by piece.
//!
//! On the way out the entries come from the store that they spilled to, as they were at the barrier, and
//! are read by whoever writes the file, not in the stream's turns. On the way in, a file's sections stay
//! where they are until a subtask asks for them.

use super::checksum::Checksum;
use super::codec;
use super::error::{Error, Result};
use super::file::{self, Trailer};
use super::image::{GroupImage, StateData, SubtaskImage};
use super::index::{DataIndex, GroupIndex, Section, SubtaskIndex};
use super::keyed::KeyedSection;
use super::metadata::{FileRef, SubtaskFile};
use super::storage::{CheckpointStorage, join};
use crate::fault::{Fault, Flow};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Entries that are read at once.
const ENTRIES: usize = if cfg!(test) { 5 } else { 4096 };
/// Bytes of entries that make a section, where a key group has more.
const SECTION: usize = if cfg!(test) { 64 } else { 4 << 20 };
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

    /// Takes the entries out.
    pub fn take(&self) -> Option<Unread> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// All entries, read into memory.
    pub fn gather(&self) -> Flow<Vec<GroupImage>> {
        let Some((mut section, mut entries)) = self.take() else {
            return Err(Fault::internal("a state was read twice"));
        };
        while !entries.next(&mut section, ENTRIES)? {}
        match section.into_data() {
            StateData::Groups(groups) => Ok(groups),
            _ => Err(Fault::internal("keyed state without key groups")),
        }
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

/// Whether an image has states that are yet to be read.
pub fn is_streamed(image: &SubtaskImage) -> bool {
    let mut states = image.operators.iter().flat_map(|o| &o.states);
    states.any(|state| matches!(state.data, StateData::Streamed(_)))
}

/// Writes an image whose states are read on the way: in the format of others, with as much of it in memory
/// as a section has.
pub fn write_streamed(
    storage: &dyn CheckpointStorage,
    path: &str,
    name: String,
    image: &SubtaskImage,
) -> Result<SubtaskFile> {
    let place = storage.place(path);
    let failed = |fault: Fault| Error::Failed {
        action: "read the state for",
        path: place.clone(),
        reason: fault.to_string(),
        advice: "look at the disk of the state's folder",
    };
    let mut written = None;
    storage.write_stream(path, &mut |put| {
        let mut writer = Writer {
            put,
            length: 0,
            hash: Checksum::begin(),
        };
        writer.put(&file::header(image))?;
        let mut wrong = Ok(());
        let index = SubtaskIndex::of(image, |data| {
            let placed = match wrong {
                Ok(()) => writer.place(data, &failed),
                Err(_) => Ok(DataIndex::Groups(Vec::new())),
            };
            placed.unwrap_or_else(|error| {
                wrong = Err(error);
                DataIndex::Groups(Vec::new())
            })
        });
        wrong?;
        writer.put(&codec::encode(&index).map_err(failed)?)?;
        let trailer = file::trailer_of(&index).map_err(failed)?;
        writer.put(&trailer)?;
        let checksum = Checksum::end(&writer.hash);
        writer.put(&file::end_of(checksum))?;
        written = Some((writer.length, checksum, index));
        Ok(())
    })?;
    let Some((length, checksum, index)) = written else {
        return Err(failed(Fault::internal("nothing was written")));
    };
    Ok(SubtaskFile {
        file: FileRef {
            path: name,
            length,
            checksum,
        },
        index,
        positions: image.positions.clone(),
    })
}

/// Takes bytes that follow each other.
pub type Put<'a> = dyn FnMut(&[u8]) -> Result + 'a;

/// Gives the bytes of a file, part by part.
pub type Make<'a> = dyn FnMut(&mut Put<'_>) -> Result + 'a;

struct Writer<'a, 'b> {
    put: &'a mut Put<'b>,
    length: u64,
    hash: super::checksum::Running,
}

impl Writer<'_, '_> {
    fn put(&mut self, bytes: &[u8]) -> Result<Section> {
        self.put_pieces([bytes])
    }

    fn put_pieces<'p>(&mut self, pieces: impl IntoIterator<Item = &'p [u8]>) -> Result<Section> {
        let (offset, mut checksum) = (self.length, Checksum::begin());
        for piece in pieces {
            checksum.update(piece);
            self.hash.update(piece);
            self.length += piece.len() as u64;
            (self.put)(piece)?;
        }
        Ok(Section {
            offset,
            length: self.length - offset,
            checksum: Checksum::end(&checksum),
        })
    }

    fn place(&mut self, data: &StateData, failed: &dyn Fn(Fault) -> Error) -> Result<DataIndex> {
        let mut index = Vec::new();
        match data {
            StateData::Groups(groups) => self.groups(groups, &mut index)?,
            StateData::Streamed(streamed) => {
                let Some((empty, mut entries)) = streamed.take() else {
                    return Err(failed(Fault::internal("a state was read twice")));
                };
                let mut ended = false;
                while !ended {
                    let mut section = empty.fresh();
                    while !ended && section.bytes() < SECTION {
                        ended = entries.next(&mut section, ENTRIES).map_err(failed)?;
                    }
                    match section.into_data() {
                        StateData::Groups(groups) => self.groups(&groups, &mut index)?,
                        _ => return Err(failed(Fault::internal("keyed state without key groups"))),
                    }
                }
            }
            data => return file::place_other(data, &mut |bytes| self.put(bytes)),
        }
        Ok(DataIndex::Groups(index))
    }

    fn groups(&mut self, groups: &[GroupImage], index: &mut Vec<GroupIndex>) -> Result {
        for group in groups {
            index.push(GroupIndex {
                group: group.group,
                entries: group.entries,
                section: self.put_pieces(group.bytes.iter())?,
            });
        }
        Ok(())
    }
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
