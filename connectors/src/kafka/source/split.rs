//! Partitions as splits: whose each is, how far it is read, and how that is saved.

use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tidegate_engine::checkpoint::codec;
use tidegate_engine::fault::{Fault, Flow};

/// The layout of what is saved.
const VERSION: u8 = 1;

/// Stands for the partition's beginning, wherever that is when reading starts.
pub(super) const BEGINNING: i64 = -2;

/// A partition that is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    /// The offset behind the record that was emitted last, or [`BEGINNING`].
    pub(super) next: i64,
    /// Where reading ends.
    pub(super) end: Option<i64>,
}

/// What a checkpoint keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Saved {
    /// A partition that is not read to its end.
    Split {
        topic: String,
        partition: i32,
        next: i64,
        end: Option<i64>,
    },
    /// A subtask of so many that had not found its partitions yet.
    Searching { subtask: u32, parallelism: u32 },
}

impl Saved {
    pub(super) fn encode(&self) -> Flow<Vec<u8>> {
        codec::encode(&(VERSION, self))
    }

    fn decode(bytes: &[u8]) -> Flow<Self> {
        if bytes.first() != Some(&VERSION) {
            return Err(Fault::user(
                "the positions in the checkpoint are not those of a Kafka source of this version; start \
                 without the checkpoint, or with the version that wrote it",
            ));
        }
        codec::decode::<(u8, Saved)>(bytes).map(|(_, saved)| saved)
    }
}

impl From<&Split> for Saved {
    fn from(split: &Split) -> Saved {
        Saved::Split {
            topic: split.topic.to_string(),
            partition: split.partition,
            next: split.next,
            end: split.end,
        }
    }
}

/// Which subtask reads a partition: a rule that all subtasks know, so that nobody has to deal them out. The
/// partitions of a topic go round, from a subtask that depends on the topic's name.
pub(super) fn owner(topic: &str, partition: i32, parallelism: u32) -> u32 {
    // FNV-1a, as it has to be the same in all versions.
    let hash = topic.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let of = u64::from(parallelism.max(1));
    ((hash % of + partition.max(0) as u64) % of) as u32
}

/// What an earlier attempt left.
#[derive(Debug, Default)]
pub(super) struct Restored {
    pub(super) splits: Vec<Split>,
    /// Subtasks that had not found their partitions yet.
    searching: Vec<(u32, u32)>,
}

impl Restored {
    pub(super) fn decode(saved: &[Vec<u8>]) -> Flow<Self> {
        let mut restored = Restored::default();
        for bytes in saved {
            match Saved::decode(bytes)? {
                Saved::Split {
                    topic,
                    partition,
                    next,
                    end,
                } => restored.splits.push(Split {
                    topic: topic.into(),
                    partition,
                    next,
                    end,
                }),
                Saved::Searching {
                    subtask,
                    parallelism,
                } => restored.searching.push((subtask, parallelism)),
            }
        }
        Ok(restored)
    }

    /// Whether a partition that is not among the splits was looked for already, so that it is a new one, or
    /// one that was read to its end.
    pub(super) fn was_searched(&self, topic: &str, partition: i32) -> bool {
        let mut searching = self.searching.iter();
        !searching.any(|(subtask, parallelism)| owner(topic, partition, *parallelism) == *subtask)
    }

    /// Whether all partitions were found.
    pub(super) fn complete(&self) -> bool {
        self.searching.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_dealt_out_evenly_and_the_same_way_always() {
        for parallelism in 1..6 {
            let mut count = vec![0; parallelism as usize];
            (0..12).for_each(|p| count[owner("orders", p, parallelism) as usize] += 1);
            assert!(count.iter().max().unwrap() - count.iter().min().unwrap() <= 1);
        }
        assert_eq!(
            (owner("orders", 0, 7), owner("payments", 3, 5)),
            (4, 0),
            "never another one"
        );
    }

    #[test]
    fn what_is_saved_is_read_again_and_damage_is_told() {
        let split = Split {
            topic: "orders".into(),
            partition: 3,
            next: 17,
            end: Some(40),
        };
        let searching = Saved::Searching {
            subtask: 1,
            parallelism: 2,
        };
        let saved = [
            Saved::from(&split).encode().unwrap(),
            searching.encode().unwrap(),
        ];
        let restored = Restored::decode(&saved).unwrap();
        assert_eq!(restored.splits, [split]);
        let (mut found, mut sought) = (0, 0);
        for partition in 0..8 {
            let searched = restored.was_searched("orders", partition);
            assert_eq!(searched, owner("orders", partition, 2) != 1);
            *(if searched { &mut found } else { &mut sought }) += 1;
        }
        assert_eq!((found, sought, restored.complete()), (4, 4, false));
        let mut other = saved[0].clone();
        other[0] = 9;
        let fault = Restored::decode(&[other]).unwrap_err().to_string();
        assert!(fault.contains("not those of a Kafka source"), "{fault}");
    }
}
