//! Partitions as splits: whose each is, how far it is read, and how that is saved.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tidegate_engine::checkpoint::codec;
use tidegate_engine::fault::{Fault, Flow};

/// The layout of what is saved.
const VERSION: u8 = 2;

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

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, partition {}: ", self.topic, self.partition)?;
        match self.next {
            BEGINNING => write!(f, "its beginning")?,
            next => write!(f, "offset {next}")?,
        }
        match self.end {
            Some(end) => write!(f, " of {end}"),
            None => Ok(()),
        }
    }
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
    /// Partitions that nobody had looked for yet.
    Unsearched(Region),
}

/// A subtask, and how many there were.
pub(super) type Share = (u32, u32);

/// The partitions that belong to all of these shares: of a subtask that had not found its partitions yet, as far as
/// those before it, whose positions it began with, had not found them either.
pub(super) type Region = Vec<Share>;

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
    /// What nobody had looked for yet.
    unsearched: Vec<Region>,
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
                Saved::Unsearched(region) => restored.unsearched.push(region),
            }
        }
        Ok(restored)
    }

    /// Whether a partition that is not among the splits was looked for already, so that it is a new one, or
    /// one that was read to its end.
    pub(super) fn was_searched(&self, topic: &str, partition: i32) -> bool {
        let owns = |(subtask, of): &Share| owner(topic, partition, *of) == *subtask;
        !self.unsearched.iter().any(|region| region.iter().all(owns))
    }

    /// Whether all partitions were found.
    pub(super) fn complete(&self) -> bool {
        self.unsearched.is_empty()
    }

    /// What a subtask has yet to look for in the beginning.
    pub(super) fn unsearched_by(restored: Option<&Self>, share: Share) -> Vec<Region> {
        let Some(restored) = restored else {
            return vec![vec![share]];
        };
        let (subtask, parallelism) = share;
        let narrowed = restored.unsearched.iter().filter_map(|region| {
            let mut region = region.clone();
            match region.iter().find(|(_, of)| *of == parallelism) {
                Some((other, _)) if *other != subtask => return None,
                Some(_) => {}
                None => region.push(share),
            }
            Some(region)
        });
        narrowed.collect()
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
        let saved = [
            Saved::from(&split).encode().unwrap(),
            Saved::Unsearched(vec![(1, 2)]).encode().unwrap(),
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

    /// What became of a subtask until the checkpoint that the next attempt begins with: it found its partitions, and
    /// read some of them to their end.
    #[derive(Clone, Copy, Debug)]
    struct Fate {
        found: bool,
        ended: u16,
    }

    proptest::proptest! {
        #[test]
        fn a_partition_is_begun_once_however_often_attempts_end_while_they_look(
            attempts in proptest::collection::vec(
                proptest::collection::vec((proptest::bool::ANY, proptest::num::u16::ANY), 1..5), 1..6)
        ) {
            const PARTITIONS: i32 = 12;
            let mut begun = [0; PARTITIONS as usize];
            let mut saved: Option<Vec<Vec<u8>>> = None;
            for fates in attempts {
                let parallelism = fates.len() as u32;
                let restored = saved.map(|saved| Restored::decode(&saved).unwrap());
                let mut next = Vec::new();
                for (subtask, fate) in fates.iter().enumerate() {
                    let fate = Fate { found: fate.0, ended: fate.1 };
                    let share = (subtask as u32, parallelism);
                    let mine = |partition: i32| owner("orders", partition, parallelism) == share.0;
                    let known = restored.iter().flat_map(|r| &r.splits);
                    let mut reading: Vec<i32> =
                        known.map(|s| s.partition).filter(|p| mine(*p)).collect();
                    if fate.found {
                        for partition in (0..PARTITIONS).filter(|p| mine(*p)) {
                            let was = restored.as_ref().is_some_and(|r| r.was_searched("orders", partition));
                            if !reading.contains(&partition) && !was {
                                begun[partition as usize] += 1;
                                reading.push(partition);
                            }
                        }
                    } else {
                        let regions = Restored::unsearched_by(restored.as_ref(), share);
                        next.extend(regions.into_iter().map(|r| Saved::Unsearched(r).encode().unwrap()));
                    }
                    reading.retain(|partition| fate.ended >> partition & 1 == 0);
                    next.extend(reading.into_iter().map(|partition| {
                        let topic = "orders".into();
                        let split = Split { topic, partition, next: 1, end: Some(9) };
                        Saved::from(&split).encode().unwrap()
                    }));
                }
                saved = Some(next);
            }
            // An attempt that finds everything begins what is left.
            let restored = Restored::decode(&saved.unwrap()).unwrap();
            for partition in 0..PARTITIONS {
                let known = restored.splits.iter().any(|s| s.partition == partition);
                begun[partition as usize] += i32::from(!known && !restored.was_searched("orders", partition));
            }
            proptest::prop_assert_eq!(begun, [1; PARTITIONS as usize]);
        }
    }
}
