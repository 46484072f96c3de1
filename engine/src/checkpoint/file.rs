//! The file that holds a subtask's image, and the image out of it with every byte verified. `writer.rs` writes
//! it.
//!
//! ```text
//! magic                8 bytes  "TIDESTAT"
//! format               4 bytes  1, or 2 where a state is in shared files
//! section, section ...          the key groups and element lists, one behind the other
//! index                         a SubtaskIndex: where the sections lie, with a checksum of each
//! length of the index  8 bytes
//! checksum of the index 8 bytes
//! checksum of all that stands before it  8 bytes
//! end                  8 bytes  "TATSEDIT"
//! ```
//!
//! Numbers are little-endian. The sections fill the room before the index without a gap, so every
//! byte of the file belongs to something that is checked, and no length is believed before the bytes
//! that it speaks of are known to be there.

use super::checksum::Checksum;
use super::codec;
use super::error::{Error, Result};
use super::image::{GroupImage, StateData, SubtaskImage};
use super::index::{DataIndex, Section, StateIndex, SubtaskIndex};
use super::shared::{FilesImage, Local};
use super::storage::CheckpointStorage;

/// The newest format; what the oldest can hold is written in that.
pub const FORMAT: u32 = 2;
pub(super) const WITHOUT_SHARED: u32 = 1;
pub(super) const MAGIC: [u8; 8] = *b"TIDESTAT";
pub(super) const END: [u8; 8] = *b"TATSEDIT";
pub(super) const HEADER: usize = 12;
const TRAILER: usize = 32;
/// The checksum of all that stands before, and the end.
pub(super) const END_BYTES: usize = 16;

/// The end of a file.
pub(super) struct Trailer {
    pub index: SubtaskIndex,
    /// The index and all behind it.
    pub bytes: Vec<u8>,
    /// Of all but the last bytes.
    pub checksum: Checksum,
}

/// Reads the end of a file that has so many bytes.
pub(super) fn read_trailer(
    storage: &dyn CheckpointStorage,
    path: &str,
    length: u64,
) -> Result<Trailer> {
    let place = storage.place(path);
    let damaged = |section: &str, reason: String| Err(Error::damaged(&place, section, reason));
    let beyond = storage.read_range(path, length, 1)?;
    let last = storage.read_range(path, length.saturating_sub(TRAILER as u64), TRAILER as u64)?;
    if !beyond.is_empty() || last.len() != TRAILER {
        return damaged(
            "the whole file",
            format!("it had {length} bytes when it was written"),
        );
    }
    if last[24..] != END {
        return damaged("the end", "it is cut off, or overwritten".to_owned());
    }
    let index = number(&last[..8]);
    let besides = index.saturating_add((TRAILER + HEADER) as u64);
    let Some(begin) = length.checked_sub(besides) else {
        let reason = format!("it claims {index} bytes, more than the file has");
        return damaged("the index", reason);
    };
    let mut bytes = storage.read_range(path, begin + HEADER as u64, index)?;
    check(&place, "the index", &bytes, Checksum(number(&last[8..16])))?;
    let index = codec::decode(&bytes);
    let index = index.map_err(|fault| Error::damaged(&place, "the index", fault))?;
    bytes.extend(&last);
    Ok(Trailer {
        index,
        bytes,
        checksum: Checksum(number(&last[16..24])),
    })
}

/// The content of a state that has no key groups, out of its section.
pub(super) fn read_other(place: &str, bytes: &[u8], data: &DataIndex) -> Result<StateData> {
    match data {
        DataIndex::Groups(_) => Ok(StateData::Groups(Vec::new())),
        DataIndex::Elements { count, .. } => elements(bytes, *count)
            .map(StateData::Elements)
            .ok_or_else(|| {
                let reason = format!("its lengths don't add up to {count} elements");
                Error::damaged(place, "a list of elements", reason)
            }),
        DataIndex::Files { index, .. } => Ok(StateData::Files(FilesImage {
            index: index.clone(),
            manifest: bytes.to_vec(),
            local: Local::default(),
        })),
    }
}

/// The image that a file holds. `path` is what errors call the file.
pub fn decode(path: &str, bytes: &[u8]) -> Result<SubtaskImage> {
    let (_, index) = verify(path, bytes)?;
    image(path, bytes, index)
}

/// The image that a file holds whose index [`verify`] has given.
pub(super) fn image(path: &str, bytes: &[u8], index: SubtaskIndex) -> Result<SubtaskImage> {
    index.into_image(|operator, state| read(path, bytes, operator, state))
}

/// Checks every byte of a file; its checksum and its index.
pub fn verify(path: &str, bytes: &[u8]) -> Result<(Checksum, SubtaskIndex)> {
    let damaged = |section: &str, reason: String| Err(Error::damaged(path, section, reason));
    if bytes.len() < HEADER + TRAILER {
        let reason = format!("{} bytes are fewer than the smallest one has", bytes.len());
        return damaged("the whole file", reason);
    }
    if bytes[..8] != MAGIC {
        return damaged(
            "the beginning",
            "it is not that of a file of state".to_owned(),
        );
    }
    let (body, trailer) = bytes.split_at(bytes.len() - TRAILER);
    if trailer[24..] != END {
        return damaged("the end", "it is cut off, or overwritten".to_owned());
    }
    let stored = Checksum(number(&trailer[16..24]));
    let found = Checksum::of(&bytes[..bytes.len() - 16]);
    let format = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    if !(WITHOUT_SHARED..=FORMAT).contains(&format) && stored == found {
        return Err(Error::TooNew {
            path: path.to_owned(),
            found: format,
            supported: FORMAT,
            writer: String::new(),
        });
    }
    let length = number(&trailer[..8]);
    if length > (body.len() - HEADER) as u64 {
        let reason = format!("it claims {length} bytes, more than the file has");
        return damaged("the index", reason);
    }
    let (sections, index) = body.split_at(body.len() - length as usize);
    let expected = Checksum(number(&trailer[8..16]));
    check(path, "the index", index, expected)?;
    let index: SubtaskIndex =
        codec::decode(index).map_err(|fault| Error::damaged(path, "the index", fault))?;
    check_sections(path, sections, &index)?;
    // Each part is right: only the numbers between them are left.
    check(
        path,
        "its beginning or end",
        &bytes[..bytes.len() - 16],
        stored,
    )?;
    Ok((stored, index))
}

fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn check(path: &str, section: &str, bytes: &[u8], expected: Checksum) -> Result {
    let found = Checksum::of(bytes);
    if found == expected {
        return Ok(());
    }
    let reason = format!("its checksum is {found} and was {expected} when it was written");
    Err(Error::damaged(path, section, reason))
}

fn group_name(operator: &str, state: &StateIndex, group: u32) -> String {
    format!("{}, key group {group}", state_name(operator, state))
}

fn state_name(operator: &str, state: &StateIndex) -> String {
    format!("operator '{operator}', state '{}'", state.name)
}

/// Checks the sections: `bytes` is the file before its index, which they fill without a gap.
fn check_sections(path: &str, bytes: &[u8], index: &SubtaskIndex) -> Result {
    let mut end = HEADER as u64;
    let mut next = |name: String, section: &Section| {
        let after = end.checked_add(section.length);
        let after = after.filter(|a| section.offset == end && *a <= bytes.len() as u64);
        let Some(after) = after else {
            let reason = "the index puts it where it can't be";
            return Err(Error::damaged(path, &name, reason));
        };
        check(
            path,
            &name,
            &bytes[end as usize..after as usize],
            section.checksum,
        )?;
        end = after;
        Ok(())
    };
    for operator in &index.operators {
        for state in &operator.states {
            match &state.data {
                DataIndex::Groups(groups) => {
                    for group in groups {
                        next(
                            group_name(&operator.uid, state, group.group),
                            &group.section,
                        )?;
                    }
                }
                DataIndex::Elements { section, .. } | DataIndex::Files { section, .. } => {
                    next(state_name(&operator.uid, state), section)?;
                }
            }
        }
    }
    if end == bytes.len() as u64 {
        return Ok(());
    }
    let reason = format!("{} bytes belong to no section", bytes.len() as u64 - end);
    Err(Error::damaged(path, "the index", reason))
}

/// The content of a state whose sections have been checked.
fn read(path: &str, bytes: &[u8], operator: &str, state: &StateIndex) -> Result<StateData> {
    let slice = |s: &Section| &bytes[s.offset as usize..(s.offset + s.length) as usize];
    match &state.data {
        DataIndex::Groups(groups) => {
            let images = groups.iter().map(|group| GroupImage {
                group: group.group,
                entries: group.entries,
                bytes: slice(&group.section).to_vec().into(),
            });
            Ok(StateData::Groups(images.collect()))
        }
        DataIndex::Elements { count, section } => elements(slice(section), *count)
            .map(StateData::Elements)
            .ok_or_else(|| {
                let reason = format!("its lengths don't add up to {count} elements");
                Error::damaged(path, &state_name(operator, state), reason)
            }),
        DataIndex::Files { index, section } => Ok(StateData::Files(FilesImage {
            index: index.clone(),
            manifest: slice(section).to_vec(),
            local: Local::default(),
        })),
    }
}

fn elements(mut bytes: &[u8], count: u64) -> Option<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_at_checked(8)?;
        let length = usize::try_from(number(length)).ok()?;
        let (element, rest) = rest.split_at_checked(length)?;
        all.push(element.to_vec());
        bytes = rest;
    }
    (all.len() as u64 == count).then_some(all)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
