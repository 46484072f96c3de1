//! How far a reader is in each of its splits, and how that becomes part of a checkpoint.

use super::fetch::FileMark;
use super::plan::Split;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use tidegate_engine::checkpoint::codec;
use tidegate_engine::fault::{Fault, Flow};

/// The layout of a saved split.
const VERSION: u8 = 1;

/// Where in a split to go on: behind the record that was emitted last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// In the file's bytes, decompressed.
    pub(crate) offset: u64,
    pub(crate) line: u64,
    /// The file's header; `None` where it has none or it is still to come.
    pub(crate) header: Option<Vec<u8>>,
}

/// A split as it is saved.
type Saved<'a> = (
    u8,
    &'a [u8],
    Option<(u64, u64)>,
    Option<(u64, u64, Option<Vec<u8>>)>,
    bool,
);

pub(crate) fn encode(split: &Split) -> Flow<Vec<u8>> {
    let path = split.path.as_os_str().as_bytes();
    let at = split.at.clone().map(|at| (at.offset, at.line, at.header));
    let saved: Saved<'_> = (VERSION, path, split.range, at, split.done);
    codec::encode(&saved)
}

pub(crate) fn decode(bytes: &[u8]) -> Flow<Split> {
    if bytes.first() != Some(&VERSION) {
        return Err(Fault::user(
            "the positions in the checkpoint are not those of a file source of this version; start \
             without the checkpoint, or with the version that wrote it",
        ));
    }
    type Owned = (
        u8,
        Vec<u8>,
        Option<(u64, u64)>,
        Option<(u64, u64, Option<Vec<u8>>)>,
        bool,
    );
    let (_, path, range, at, done): Owned = codec::decode(bytes)?;
    let at = at.map(|(offset, line, header)| Place {
        offset,
        line,
        header,
    });
    let path: Arc<Path> = Path::new(OsStr::from_bytes(&path)).into();
    Ok(Split {
        path,
        range,
        at,
        done,
    })
}

/// The splits of one reader, by the numbers that the reading thread knows them by.
#[derive(Default)]
pub(crate) struct Progress(Vec<Option<Entry>>);

struct Entry {
    split: Split,
    /// Of the newest block: behind the records that were emitted of it.
    newest: Option<(Arc<FileMark>, u64, u64)>,
}

impl Progress {
    pub(crate) fn new(splits: &[Split]) -> Self {
        let mut progress = Progress::default();
        splits.iter().for_each(|split| progress.add(split.clone()));
        progress
    }

    /// One more, with the next number.
    pub(crate) fn add(&mut self, split: Split) {
        self.0.push(Some(Entry {
            split,
            newest: None,
        }));
    }

    /// Everything before this place has been emitted.
    pub(crate) fn note(&mut self, mark: &Arc<FileMark>, line: u64, offset: u64) {
        if let Some(Some(entry)) = self.0.get_mut(mark.split) {
            entry.newest = Some((mark.clone(), line, offset));
        }
    }

    /// It is read from its beginning.
    pub(crate) fn restart(&mut self, split: usize) {
        if let Some(Some(entry)) = self.0.get_mut(split) {
            (entry.newest, entry.split.at) = (None, None);
        }
    }

    /// It is read to its end, and need not be known any more.
    pub(crate) fn forget(&mut self, split: usize) {
        if let Some(entry) = self.0.get_mut(split) {
            *entry = None;
        }
    }

    /// It is read to its end, and must not be taken for a new one.
    pub(crate) fn finish(&mut self, split: usize) {
        if let Some(Some(entry)) = self.0.get_mut(split) {
            (entry.split.done, entry.newest, entry.split.at) = (true, None, None);
        }
    }

    /// How far it is in each split.
    pub(crate) fn positions(&self) -> Vec<String> {
        // There may have been many that are read by now.
        let splits = self.0.iter().flatten().map(|entry| &entry.split);
        let open = splits.filter(|split| !split.done);
        open.map(ToString::to_string).collect()
    }

    /// All that a later attempt has to know.
    pub(crate) fn save(&mut self) -> Flow<Vec<Vec<u8>>> {
        let entries = self.0.iter_mut().flatten();
        let saved = entries.map(|entry| {
            if let Some((mark, line, offset)) = entry.newest.take() {
                let header = (!mark.provisional).then(|| mark.header.clone());
                entry.split.at = Some(Place {
                    offset,
                    line,
                    header,
                });
            }
            encode(&entry.split)
        });
        saved.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_saved_whatever_their_names_and_damage_is_told() {
        let path = Path::new(OsStr::from_bytes(b"/tmp/\xff name"));
        let at = Place {
            offset: 1 << 40,
            line: 7,
            header: Some(b"a,b".to_vec()),
        };
        let split = Split {
            path: path.into(),
            range: Some((3, 1 << 41)),
            at: Some(at),
            done: false,
        };
        let bytes = encode(&split).unwrap();
        assert_eq!(decode(&bytes), Ok(split));
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        let mut other = bytes;
        other[0] = 9;
        let fault = decode(&other).unwrap_err().to_string();
        assert!(fault.contains("not those of a file source"), "{fault}");
    }
}
