//! What makes files a checkpoint: the one small file that is published last and names all others.
//!
//! ```text
//! tidegate-checkpoint 1 00000000000000002711
//! {"min_reader_version":1, ... }
//! checksum 2d06800538d394c2
//! ```
//!
//! The body is JSON, for two reasons: it must be readable when nothing else works any more (`sed 1d`
//! and any JSON tool), and a later version may add fields that this one skips, which a binary
//! encoding without names can't offer. The first line tells the format and the body's length, the
//! last one the checksum of everything before it.

use super::barrier::{BarrierKind, CheckpointId};
use super::checksum::Checksum;
use super::error::{Error, Result};
use super::index::SubtaskIndex;
use super::storage::join;
use crate::hash::KEY_HASH_VERSION;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The newest format. What has no shared files is written in the first, which older versions read.
pub const FORMAT: u32 = 2;
const WITHOUT_SHARED: u32 = 1;
const MAGIC: &str = "tidegate-checkpoint ";

/// One file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// A subtask's own file: from the checkpoint's folder. A shared one: from the job's folder, or from
    /// the savepoint's.
    pub path: String,
    /// How many bytes it has.
    pub length: u64,
    /// Of its bytes.
    pub checksum: Checksum,
}

/// The file that a subtask wrote, and what it contains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubtaskFile {
    /// The file.
    pub file: FileRef,
    /// What it contains, as it says itself at its end.
    pub index: SubtaskIndex,
    /// How far its source is in each split, in words for people; nothing depends on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub positions: Vec<String>,
}

/// A checkpoint or savepoint: what it is, and which files belong to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointMetadata {
    /// The format that it was written in.
    pub format_version: u32,
    /// The oldest format whose readers understand it.
    pub min_reader_version: u32,
    /// The version of Tidegate that wrote it.
    pub tidegate_version: String,
    /// The job's name.
    pub job: String,
    /// The hash of the job's graph.
    pub graph_hash: String,
    /// The hash that dealt keys out to key groups.
    pub key_hash_version: u32,
    /// The checkpoint's number.
    pub id: CheckpointId,
    /// Why it was taken.
    pub kind: BarrierKind,
    /// The attempt that took it.
    pub attempt: u32,
    /// When it was triggered.
    pub created: Timestamp,
    /// The file of each subtask.
    pub subtasks: Vec<SubtaskFile>,
    /// Files that later checkpoints may name too. Those of a savepoint nobody else names, and they lie in its
    /// own folder: it stands alone.
    pub shared: Vec<FileRef>,
}

impl CheckpointMetadata {
    /// Of a checkpoint of this version of Tidegate.
    pub fn new(id: CheckpointId, kind: BarrierKind, job: impl Into<String>) -> Self {
        CheckpointMetadata {
            format_version: WITHOUT_SHARED,
            min_reader_version: WITHOUT_SHARED,
            tidegate_version: env!("CARGO_PKG_VERSION").to_owned(),
            job: job.into(),
            graph_hash: String::new(),
            key_hash_version: KEY_HASH_VERSION,
            id,
            kind,
            attempt: 0,
            created: Timestamp(0),
            subtasks: Vec::new(),
            shared: Vec::new(),
        }
    }

    /// Names the files that its subtasks' states are in.
    pub fn name_shared(&mut self) {
        let files = self.subtasks.iter().flat_map(|s| s.index.shared());
        let files: BTreeMap<_, _> = files.map(|f| (&f.file.path, &f.file)).collect();
        self.shared = files.into_values().cloned().collect();
        if !self.shared.is_empty() {
            (self.format_version, self.min_reader_version) = (FORMAT, FORMAT);
        }
    }

    /// The path of one of its shared files, where it lies in this folder itself.
    pub fn shared_path(&self, folder: &str, file: &FileRef) -> String {
        match self.kind {
            BarrierKind::Checkpoint => file.path.clone(),
            BarrierKind::Savepoint | BarrierKind::Stop => join(folder, &file.path),
        }
    }

    /// How many bytes its files have, without itself.
    pub fn bytes(&self) -> u64 {
        let own = self.subtasks.iter().map(|subtask| &subtask.file);
        own.chain(&self.shared).map(|file| file.length).sum()
    }

    /// The content of the metadata file.
    pub fn encode(&self) -> Vec<u8> {
        let body = serde_json::to_vec(self).expect("it has no map and no float");
        let mut bytes = header(self.format_version, body.len()).into_bytes();
        bytes.extend(body);
        bytes.extend(trailer(&bytes).into_bytes());
        bytes
    }

    /// What a metadata file says, once its checksum is right. `path` is what errors call it.
    pub fn decode(path: &str, bytes: &[u8]) -> Result<Self> {
        let damaged = |section: &str, reason: &str| Err(Error::damaged(path, section, reason));
        if !bytes.starts_with(MAGIC.as_bytes()) {
            return damaged("the first line", "it is not that of a checkpoint");
        }
        let empty = header(0, 0).len();
        let end = trailer(&[]).len();
        if bytes.len() < empty + end {
            return damaged("the whole file", "it is cut off");
        }
        let (content, last) = bytes.split_at(bytes.len() - end);
        if trailer(content).as_bytes() != last {
            let expected = content.len().checked_sub(empty);
            let promised = promised_length(content);
            let reason = match (promised, expected) {
                (Some(promised), Some(found)) if promised > found as u64 => "it is cut off",
                _ => "its checksum is wrong",
            };
            return damaged("the whole file", reason);
        }
        let body = &content[empty..];
        let version: Version = parse(path, body)?;
        if version.min_reader_version > FORMAT {
            return Err(Error::TooNew {
                path: path.to_owned(),
                found: version.min_reader_version,
                supported: FORMAT,
                writer: version.tidegate_version,
            });
        }
        let metadata: CheckpointMetadata = parse(path, body)?;
        metadata.check(path)?;
        Ok(metadata)
    }

    /// What must hold of it besides being undamaged.
    fn check(&self, path: &str) -> Result {
        if self.key_hash_version != KEY_HASH_VERSION {
            return Err(Error::OtherHash {
                path: path.to_owned(),
                found: self.key_hash_version,
                supported: KEY_HASH_VERSION,
            });
        }
        let mut paths = BTreeSet::new();
        for (subtask, file) in self.subtasks.iter().map(|s| (s.index.subtask, &s.file)) {
            check_path(&file.path)?;
            if !paths.insert(&file.path) {
                let reason = format!("subtask {subtask} shares '{}' with another", file.path);
                return Err(Error::damaged(path, "the files", reason));
            }
        }
        let named: BTreeSet<_> = self.shared.iter().map(|file| &file.path).collect();
        for file in self.subtasks.iter().flat_map(|s| s.index.shared()) {
            if !named.contains(&file.file.path) {
                let reason = format!("'{}' is not named", file.file.path);
                return Err(Error::damaged(path, "the shared files", reason));
            }
        }
        self.shared
            .iter()
            .try_for_each(|file| check_path(&file.path))
    }
}

/// The fields that every version has, whatever else changes.
#[derive(Deserialize)]
struct Version {
    min_reader_version: u32,
    tidegate_version: String,
}

fn parse<'de, T: Deserialize<'de>>(path: &str, body: &'de [u8]) -> Result<T> {
    serde_json::from_slice(body).map_err(|error| Error::damaged(path, "the body", error))
}

fn header(format: u32, length: usize) -> String {
    format!("{MAGIC}{format:03} {length:020}\n")
}

fn promised_length(content: &[u8]) -> Option<u64> {
    let line = content.split(|byte| *byte == b'\n').next()?;
    let text = std::str::from_utf8(line).ok()?;
    text.rsplit(' ').next()?.parse().ok()
}

fn trailer(content: &[u8]) -> String {
    format!("\nchecksum {}\n", Checksum::of(content))
}

/// A path that stays below the folder that it is taken from, on every system and every store.
pub(super) fn check_path(path: &str) -> Result {
    let bad = |reason| {
        Err(Error::BadPath {
            path: path.to_owned(),
            reason,
        })
    };
    if path.len() > 1024 {
        return bad("it is longer than 1024 bytes");
    }
    if path.contains(|c: char| c.is_control() || matches!(c, '\\' | ':')) {
        return bad("it has a control character, a backslash or a colon");
    }
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return bad("it is absolute, or has an empty part, '.' or '..'");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Barrier, Timing};

    fn metadata() -> CheckpointMetadata {
        let mut metadata = CheckpointMetadata::new(CheckpointId(7), BarrierKind::Savepoint, "job");
        metadata.graph_hash = "5f".to_owned();
        metadata.created = Timestamp(1_700_000_000_000);
        metadata.subtasks.push(SubtaskFile {
            file: FileRef {
                path: "a".to_owned(),
                length: 1 << 60,
                checksum: Checksum(u64::MAX),
            },
            index: SubtaskIndex {
                barrier: Barrier::checkpoint(7),
                task: 0,
                subtask: 0,
                timing: Timing::default(),
                operators: Vec::new(),
            },
            positions: vec!["flights.csv: line 7".to_owned()],
        });
        metadata
    }

    fn error(bytes: &[u8]) -> String {
        let decoded = CheckpointMetadata::decode("chk-7/_metadata", bytes);
        decoded.expect_err("not to be read").to_string()
    }

    /// The file with another body, and a checksum that fits.
    fn with_body(change: impl FnOnce(String) -> String) -> Vec<u8> {
        let body = change(serde_json::to_string(&metadata()).expect("serializes"));
        let mut bytes = header(FORMAT, body.len()).into_bytes();
        bytes.extend(body.bytes());
        bytes.extend(trailer(&bytes).into_bytes());
        bytes
    }

    #[test]
    fn it_comes_back_as_it_was() {
        let bytes = metadata().encode();
        assert_eq!(
            CheckpointMetadata::decode("f", &bytes).expect("undamaged"),
            metadata()
        );
    }

    #[test]
    fn every_changed_byte_and_every_other_length_is_found() {
        let good = metadata().encode();
        for at in 0..good.len() {
            for change in 1..=255 {
                let mut bytes = good.clone();
                bytes[at] ^= change;
                let decoded = CheckpointMetadata::decode("f", &bytes);
                assert!(decoded.is_err(), "byte {at} xor {change:#x}");
            }
        }
        for length in 0..good.len() {
            assert!(CheckpointMetadata::decode("f", &good[..length]).is_err());
        }
        assert!(error(&good[..good.len() - 40]).contains("it is cut off"));
        assert!(error(&[&good[..], b"\n"].concat()).contains("its checksum is wrong"));
    }

    #[test]
    fn fields_of_a_later_version_are_skipped() {
        let bytes = with_body(|body| body.replacen('{', "{\"mood\":[1,{}],", 1));
        assert_eq!(
            CheckpointMetadata::decode("f", &bytes).expect("readable"),
            metadata()
        );
    }

    #[test]
    fn a_format_that_needs_a_later_reader_is_refused() {
        let bytes = with_body(|_| {
            "{\"min_reader_version\":9,\"tidegate_version\":\"3.1.0\",\"job\":{}}".to_owned()
        });
        let found = error(&bytes);
        assert!(
            found.contains("format 9") && found.contains("(3.1.0)"),
            "{found}"
        );
    }

    #[test]
    fn another_hash_of_keys_is_refused() {
        let bytes = with_body(|b| b.replace("\"key_hash_version\":1", "\"key_hash_version\":2"));
        assert!(error(&bytes).contains("keys were hashed by version 2"));
    }

    #[test]
    fn a_path_that_leads_out_is_refused() {
        for path in [
            "../b",
            "/etc/passwd",
            "a/../../b",
            "",
            "a//b",
            "C:x",
            "a\\\\b",
            "a\\u0000",
        ] {
            let bytes = with_body(|b| b.replace("\"path\":\"a\"", &format!("\"path\":\"{path}\"")));
            assert!(error(&bytes).contains("can't be the path"), "{path}");
        }
    }
}
