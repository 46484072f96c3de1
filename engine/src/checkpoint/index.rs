//! Where everything lies in a subtask's file: what the file's end and the metadata both hold, so
//! that tools can tell what a checkpoint contains without reading it whole.

use super::barrier::Barrier;
use super::checksum::Checksum;
use super::image::{OperatorImage, StateData, StateImage, StateKind, SubtaskImage};
use super::participant::Timing;
use super::shared::{FilesIndex, SharedFile};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// A section of a file: bytes that are verified as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, Checksum)", into = "(u64, u64, Checksum)")]
pub struct Section {
    /// Where it begins, from the file's beginning.
    pub offset: u64,
    /// How many bytes it has.
    pub length: u64,
    /// Of its bytes.
    pub checksum: Checksum,
}

impl From<(u64, u64, Checksum)> for Section {
    fn from((offset, length, checksum): (u64, u64, Checksum)) -> Self {
        Section {
            offset,
            length,
            checksum,
        }
    }
}

impl From<Section> for (u64, u64, Checksum) {
    fn from(section: Section) -> Self {
        (section.offset, section.length, section.checksum)
    }
}

/// A key group of a keyed state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u64, Section)", into = "(u32, u64, Section)")]
pub struct GroupIndex {
    /// Its number.
    pub group: u32,
    /// How many entries it has.
    pub entries: u64,
    /// Where they lie.
    pub section: Section,
}

impl From<(u32, u64, Section)> for GroupIndex {
    fn from((group, entries, section): (u32, u64, Section)) -> Self {
        GroupIndex {
            group,
            entries,
            section,
        }
    }
}

impl From<GroupIndex> for (u32, u64, Section) {
    fn from(index: GroupIndex) -> Self {
        (index.group, index.entries, index.section)
    }
}

/// Where the content of a state lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DataIndex {
    /// Of a keyed state: one section for each key group.
    Groups(Vec<GroupIndex>),
    /// Of any other: all elements in one section.
    Elements {
        /// How many.
        count: u64,
        /// Where they lie.
        section: Section,
    },
    /// Of a keyed state that spills: its files lie elsewhere, and what ties them together is here.
    Files {
        /// What is told of them.
        index: FilesIndex,
        /// Where their manifest lies.
        section: Section,
    },
}

impl DataIndex {
    /// Its sections, in the order of the file.
    pub fn sections(&self) -> Vec<Section> {
        match self {
            DataIndex::Groups(groups) => groups.iter().map(|g| g.section).collect(),
            DataIndex::Elements { section, .. } | DataIndex::Files { section, .. } => {
                vec![*section]
            }
        }
    }

    /// How many entries or elements there are.
    pub fn entries(&self) -> u64 {
        match self {
            DataIndex::Groups(groups) => groups.iter().map(|g| g.entries).sum(),
            DataIndex::Elements { count, .. } => *count,
            DataIndex::Files { index, .. } => index.entries,
        }
    }

    /// How many bytes they take, in shared files too.
    pub fn bytes(&self) -> u64 {
        let here: u64 = self.sections().iter().map(|section| section.length).sum();
        here + self
            .shared()
            .iter()
            .map(|file| file.file.length)
            .sum::<u64>()
    }

    /// The shared files that it is in.
    pub fn shared(&self) -> &[SharedFile] {
        match self {
            DataIndex::Files { index, .. } => &index.files,
            _ => &[],
        }
    }
}

/// A state in a subtask's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateIndex {
    /// The name that the operator knows it by.
    pub name: String,
    /// How it is dealt out.
    pub kind: StateKind,
    /// The type of its keys; empty where it has none.
    pub key_type: String,
    /// The type of its values.
    pub value_type: String,
    /// Where its content lies.
    pub data: DataIndex,
}

/// An operator in a subtask's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorIndex {
    /// The operator's stable id.
    pub uid: String,
    /// Its name at that time.
    pub name: String,
    /// The number of its key groups.
    pub max_parallelism: u32,
    /// How many subtasks it had.
    pub parallelism: u32,
    /// The watermark that it had seen.
    pub watermark: Timestamp,
    /// Its states.
    pub states: Vec<StateIndex>,
}

/// What a subtask's file contains.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubtaskIndex {
    /// The barrier that it was taken at.
    pub barrier: Barrier,
    /// The subtask's task.
    pub task: u32,
    /// The subtask's number.
    pub subtask: u32,
    /// What it cost the stream.
    #[serde(with = "as_stored")]
    pub timing: Timing,
    /// Its operators that have state.
    pub operators: Vec<OperatorIndex>,
}

/// The part of the figures that files hold. How much was in flight can be seen from its states.
mod as_stored {
    use super::Timing;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Stored {
        start_delay: i64,
        alignment: i64,
        sync_micros: u64,
        save: i64,
    }

    pub fn serialize<S: Serializer>(timing: &Timing, to: S) -> Result<S::Ok, S::Error> {
        let Timing {
            start_delay,
            alignment,
            sync_micros,
            save,
            ..
        } = *timing;
        let stored = Stored {
            start_delay,
            alignment,
            sync_micros,
            save,
        };
        stored.serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Timing, D::Error> {
        let stored = Stored::deserialize(from)?;
        Ok(Timing {
            start_delay: stored.start_delay,
            alignment: stored.alignment,
            sync_micros: stored.sync_micros,
            save: stored.save,
            ..Timing::default()
        })
    }
}

impl SubtaskIndex {
    /// The index of an image, given where each state's content went.
    pub(super) fn of<'a>(
        image: &'a SubtaskImage,
        mut place: impl FnMut(&'a StateData) -> DataIndex,
    ) -> SubtaskIndex {
        let operators = image.operators.iter().map(|operator| OperatorIndex {
            uid: operator.uid.clone(),
            name: operator.name.clone(),
            max_parallelism: operator.max_parallelism,
            parallelism: operator.parallelism,
            watermark: operator.watermark,
            states: operator
                .states
                .iter()
                .map(|state| StateIndex {
                    name: state.name.clone(),
                    kind: state.kind,
                    key_type: state.key_type.clone(),
                    value_type: state.value_type.clone(),
                    data: place(&state.data),
                })
                .collect(),
        });
        SubtaskIndex {
            barrier: image.barrier,
            task: image.task,
            subtask: image.subtask,
            timing: image.timing,
            operators: operators.collect(),
        }
    }

    /// The image that this is the index of, given what each state holds.
    pub(super) fn into_image<E>(
        self,
        mut read: impl FnMut(&str, &StateIndex) -> Result<StateData, E>,
    ) -> Result<SubtaskImage, E> {
        let mut operators = Vec::new();
        for operator in self.operators {
            let mut states = Vec::new();
            for state in operator.states {
                let data = read(&operator.uid, &state)?;
                states.push(StateImage {
                    name: state.name,
                    kind: state.kind,
                    key_type: state.key_type,
                    value_type: state.value_type,
                    data,
                });
            }
            operators.push(OperatorImage {
                uid: operator.uid,
                name: operator.name,
                max_parallelism: operator.max_parallelism,
                parallelism: operator.parallelism,
                watermark: operator.watermark,
                states,
            });
        }
        Ok(SubtaskImage {
            barrier: self.barrier,
            task: self.task,
            subtask: self.subtask,
            operators,
            timing: self.timing,
            positions: Vec::new(),
        })
    }

    /// The shared files that its states are in.
    pub fn shared(&self) -> impl Iterator<Item = &SharedFile> {
        let states = self.operators.iter().flat_map(|operator| &operator.states);
        states.flat_map(|state| state.data.shared())
    }

    /// All sections, in the order of the file.
    pub fn sections(&self) -> Vec<Section> {
        let states = self.operators.iter().flat_map(|operator| &operator.states);
        states.flat_map(|state| state.data.sections()).collect()
    }
}
