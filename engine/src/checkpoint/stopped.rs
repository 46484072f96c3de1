//! Where a job was stopped: its savepoint may lie anywhere, and the job must not go on from before it.
//!
//! What a stopped job covers is visible outside, so it goes on from that savepoint and from no older
//! checkpoint. Each savepoint that ends a job therefore leaves a small record in the job's folder:
//!
//! ```text
//! <root>/<job>/stopped-8
//!   tidegate-stop 1
//!   {"id":8,"place":"/backup/savepoint-8-5f0c2a9b1d3e"}
//!   checksum 2d06800538d394c2
//! ```
//!
//! It is written behind the savepoint's metadata and before any sink hears of it. A process that dies
//! between the two has committed nothing, and goes on from the checkpoint before. A savepoint that a job
//! goes on after leaves none.

use super::barrier::CheckpointId;
use super::checksum::Checksum;
use super::error::{Error, Result};
use super::storage::CheckpointStorage;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Before the number in the name of a record.
const PREFIX: &str = "stopped-";
const FIRST_LINE: &str = "tidegate-stop 1\n";
/// The largest record that is read.
const LARGEST: u64 = 64 << 10;

/// The record of a savepoint that ended a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The savepoint's number.
    pub id: CheckpointId,
    /// Its folder, where it lies in the job's own: both can be moved together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// Its place, where it lies elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

impl Stopped {
    /// The record, for a job's folder `own`, of the savepoint in a folder of `storage`.
    pub fn new(
        own: &dyn CheckpointStorage,
        id: CheckpointId,
        (storage, folder): (&dyn CheckpointStorage, &str),
    ) -> Self {
        let (home, place) = (own.lasting_place(""), storage.lasting_place(folder));
        let inside = place.strip_prefix(&home);
        match inside.and_then(|rest| rest.strip_prefix('/')) {
            Some(folder) => Stopped {
                id,
                folder: Some(folder.to_owned()),
                place: None,
            },
            None => Stopped {
                id,
                folder: None,
                place: Some(place),
            },
        }
    }

    /// Writes it into the job's folder. No error where the same is there already.
    pub fn record(&self, own: &dyn CheckpointStorage) -> Result {
        match own.publish(&path(self.id), &self.encode()) {
            Err(Error::Exists { .. }) if Stopped::read(own, self.id)? == *self => Ok(()),
            written => written,
        }
    }

    /// Reads the one of this number.
    pub fn read(own: &dyn CheckpointStorage, id: CheckpointId) -> Result<Self> {
        let path = path(id);
        let bytes = own.read(&path, LARGEST)?;
        let damaged = |reason: &str| Error::damaged(&own.place(&path), "the record", reason);
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is no text"))?;
        let body = text.strip_prefix(FIRST_LINE);
        let body = body.ok_or_else(|| damaged("it does not begin as one"))?;
        let (body, _) = body.split_once('\n').unwrap_or((body, ""));
        let stopped: Stopped =
            serde_json::from_str(body).map_err(|error| damaged(&error.to_string()))?;
        if stopped.encode() != bytes {
            return Err(damaged("its checksum is wrong"));
        }
        if stopped.id != id {
            return Err(damaged(&format!("it is that of savepoint {}", stopped.id)));
        }
        Ok(stopped)
    }

    /// The storage and the folder of the savepoint.
    pub fn savepoint<'a>(&'a self, own: &'a dyn CheckpointStorage) -> Result<Located<'a>> {
        match (&self.folder, &self.place) {
            (Some(folder), _) => Ok(Located::Here(own, folder)),
            (None, Some(place)) => {
                let (storage, folder) = own.elsewhere(place)?;
                Ok(Located::Elsewhere(storage, folder))
            }
            (None, None) => {
                let path = own.place(&path(self.id));
                Err(Error::damaged(&path, "the record", "it names no place"))
            }
        }
    }

    fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_string(self).expect("it has no map and no float");
        let checksum = Checksum::of(body.as_bytes());
        format!("{FIRST_LINE}{body}\nchecksum {checksum}\n").into_bytes()
    }
}

/// A savepoint that a record speaks of.
pub enum Located<'a> {
    /// In the job's own storage.
    Here(&'a dyn CheckpointStorage, &'a str),
    /// In another.
    Elsewhere(Arc<dyn CheckpointStorage>, String),
}

impl Located<'_> {
    /// The storage that it lies in, and its folder there.
    pub fn parts(&self) -> (&dyn CheckpointStorage, &str) {
        match self {
            Located::Here(storage, folder) => (*storage, folder),
            Located::Elsewhere(storage, folder) => (&**storage, folder),
        }
    }
}

/// The path of a record.
pub fn path(id: CheckpointId) -> String {
    format!("{PREFIX}{id}")
}

/// The number in the path of a record.
pub fn parse(path: &str) -> Option<CheckpointId> {
    let number = path.strip_prefix(PREFIX)?;
    let digits = number.bytes().all(|b| b.is_ascii_digit());
    digits
        .then(|| number.parse().ok().map(CheckpointId))
        .flatten()
}

/// The numbers of all records in a job's folder, smallest first.
pub fn recorded(own: &dyn CheckpointStorage) -> Result<Vec<CheckpointId>> {
    let stored = own.list("")?;
    let mut all: Vec<_> = stored.iter().filter_map(|file| parse(&file.path)).collect();
    all.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryStorage;

    #[test]
    fn a_record_comes_back_and_may_be_written_twice() {
        let own = MemoryStorage::default();
        let id = CheckpointId(8);
        let stopped = Stopped::new(&own, id, (&own, "savepoint-8-ab"));
        stopped.record(&own).expect("writes");
        stopped.record(&own).expect("the same");
        assert_eq!(Stopped::read(&own, id).expect("reads"), stopped);
        let found = stopped.savepoint(&own).expect("here");
        assert_eq!(found.parts().1, "savepoint-8-ab");
        let other = Stopped::new(&own, id, (&own, "savepoint-8-cd"));
        assert!(matches!(other.record(&own), Err(Error::Exists { .. })));
        assert_eq!(recorded(&own).expect("lists"), [id]);
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_found() {
        let own = MemoryStorage::default();
        let id = CheckpointId(8);
        let stopped = Stopped::new(&own, id, (&own, "savepoint-8-ab"));
        stopped.record(&own).expect("writes");
        let good = own.read("stopped-8", LARGEST).expect("reads");
        for at in 0..good.len() {
            own.damage("stopped-8", |bytes| bytes[at] ^= 1);
            let error = Stopped::read(&own, id).expect_err("damaged").to_string();
            assert!(error.contains("memory:stopped-8 is damaged"), "{error}");
            own.damage("stopped-8", |bytes| bytes.truncate(at));
            assert!(Stopped::read(&own, id).is_err(), "{at} bytes");
            own.damage("stopped-8", |bytes| *bytes = good.clone());
        }
    }

    #[test]
    fn another_file_is_no_record() {
        assert_eq!(parse("stopped-12"), Some(CheckpointId(12)));
        for path in [
            "stopped-",
            "stopped-a",
            "stopped-1.tmp",
            "chk-1/stopped-2",
            "stopped-1/a",
        ] {
            assert_eq!(parse(path), None, "{path}");
        }
    }
}
