//! A subtask's image on its way into one file: laid out, checksummed and handed to the storage part by part, so
//! that each part is in the processor's caches for all of it, and the storage writes while the rest is made.

use super::checksum::{Checksum, Running};
use super::codec;
use super::error::{Error, Result};
use super::file::{END, FORMAT, MAGIC, WITHOUT_SHARED};
use super::image::{GroupImage, StateData, SubtaskImage};
use super::index::{DataIndex, GroupIndex, Section, SubtaskIndex};
use super::metadata::{FileRef, SubtaskFile};
use super::storage::{CheckpointStorage, Put, join};
use super::stream::{ENTRIES, Streamed};
use crate::fault::Fault;

/// Bytes of entries that make a section, where a key group has more.
const SECTION: usize = if cfg!(test) { 64 } else { 4 << 20 };

/// Writes a subtask's file into the folder of a checkpoint or savepoint. Of states that are yet to be read no more is in
/// memory than a section has.
pub fn write_image_to(
    storage: &dyn CheckpointStorage,
    folder: &str,
    image: &SubtaskImage,
) -> Result<SubtaskFile> {
    let name = storage.fresh_name();
    let path = join(folder, &name);
    let place = storage.place(&path);
    let mut written = None;
    storage.write_stream(&path, &mut |put| {
        let mut writer = Writer {
            place: &place,
            put,
            length: 0,
            hash: Checksum::begin(),
        };
        written = Some(writer.image(image)?);
        Ok(())
    })?;
    let Some((length, checksum, index)) = written else {
        return Err(defect(&place, &Fault::internal("nothing was written")));
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

fn defect(place: &str, fault: &Fault) -> Error {
    Error::Failed {
        action: "encode",
        path: place.to_owned(),
        reason: fault.to_string(),
        advice: "this is a defect of Tidegate, please report it",
    }
}

struct Writer<'a, 'b> {
    /// What errors call the file.
    place: &'a str,
    put: &'a mut Put<'b>,
    length: u64,
    hash: Running,
}

impl Writer<'_, '_> {
    /// Puts a whole file; its length, its checksum and its index.
    fn image(&mut self, image: &SubtaskImage) -> Result<(u64, Checksum, SubtaskIndex)> {
        self.put(&MAGIC)?;
        self.put(&format_of(image).to_le_bytes())?;
        let mut wrong = Ok(());
        let index = SubtaskIndex::of(image, |data| {
            let placed = match wrong {
                Ok(()) => self.place(data),
                Err(_) => Ok(DataIndex::Groups(Vec::new())),
            };
            placed.unwrap_or_else(|error| {
                wrong = Err(error);
                DataIndex::Groups(Vec::new())
            })
        });
        wrong?;
        let encoded = codec::encode(&index).map_err(|fault| defect(self.place, &fault))?;
        let section = self.put(&encoded)?;
        self.put(&section.length.to_le_bytes())?;
        self.put(&section.checksum.0.to_le_bytes())?;
        let checksum = Checksum::end(&self.hash);
        self.put(&checksum.0.to_le_bytes())?;
        self.put(&END)?;
        Ok((self.length, checksum, index))
    }

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

    fn place(&mut self, data: &StateData) -> Result<DataIndex> {
        Ok(match data {
            StateData::Groups(groups) => {
                let mut index = Vec::with_capacity(groups.len());
                self.groups(groups, &mut index)?;
                DataIndex::Groups(index)
            }
            StateData::Streamed(streamed) => DataIndex::Groups(self.streamed(streamed)?),
            StateData::Elements(elements) => DataIndex::Elements {
                count: elements.len() as u64,
                section: self.put(&element_bytes(elements))?,
            },
            StateData::Files(files) => DataIndex::Files {
                index: files.index.clone(),
                section: self.put(&files.manifest)?,
            },
            StateData::Stored(_) => DataIndex::Groups(Vec::new()),
        })
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

    /// Reads a state and puts it, section by section.
    fn streamed(&mut self, streamed: &Streamed) -> Result<Vec<GroupIndex>> {
        let place = self.place;
        let failed = |fault: Fault| Error::Failed {
            action: "read the state for",
            path: place.to_owned(),
            reason: fault.to_string(),
            advice: "look at the disk of the state's folder",
        };
        let mut index = Vec::new();
        let (empty, mut entries) = streamed.take().map_err(failed)?;
        let mut ended = false;
        while !ended {
            let mut section = empty.fresh();
            while !ended && section.bytes() < SECTION {
                ended = entries.next(&mut section, ENTRIES).map_err(failed)?;
            }
            let groups = section.into_groups().map_err(failed)?;
            self.groups(&groups, &mut index)?;
        }
        Ok(index)
    }
}

fn format_of(image: &SubtaskImage) -> u32 {
    let mut states = image.operators.iter().flat_map(|o| &o.states);
    match states.any(|state| matches!(state.data, StateData::Files(_))) {
        true => FORMAT,
        false => WITHOUT_SHARED,
    }
}

fn element_bytes(elements: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for element in elements {
        bytes.extend((element.len() as u64).to_le_bytes());
        bytes.extend(element);
    }
    bytes
}
