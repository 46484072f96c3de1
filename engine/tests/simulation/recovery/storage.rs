//! What outlives a crash: a disk that loses what was not synced, a registry, and the world outside.

use super::member::{Image, Record};
use crate::network::Dice;
use std::collections::{BTreeMap, HashSet};
use tidegate_engine::checkpoint::{BarrierKind, CheckpointId, Publication, SubtaskRef};

struct File {
    image: Image,
    synced: bool,
}

/// Files by their random names.
#[derive(Default)]
pub struct Disk(BTreeMap<u64, File>);

impl Disk {
    pub fn write(&mut self, name: u64, image: Image) {
        let file = File {
            image,
            synced: false,
        };
        self.0.insert(name, file);
    }

    /// False where the file is gone: somebody has deleted it.
    pub fn sync(&mut self, name: u64) -> bool {
        self.0.get_mut(&name).map(|f| f.synced = true).is_some()
    }

    /// What a reader finds after any crash.
    pub fn read(&self, name: u64) -> Option<&Image> {
        self.0.get(&name).filter(|f| f.synced).map(|f| &f.image)
    }

    pub fn delete(&mut self, name: u64) {
        self.0.remove(&name);
    }

    fn crash(&mut self) {
        self.0.retain(|_, f| f.synced);
    }
}

/// The checkpoints that exist, and what must always be true of them.
#[derive(Default)]
pub struct Registry {
    pub records: Vec<Publication<u64>>,
    /// How many of them will be there after a crash for certain.
    durable: usize,
    last_id: CheckpointId,
    /// The newest that a recovery goes on from, as it should be.
    pub latest: Option<CheckpointId>,
    /// What a durable checkpoint allows to be committed.
    pub covered: HashSet<u64>,
    pub recorded: u64,
}

impl Registry {
    pub fn append(&mut self, record: Publication<u64>) {
        self.records.push(record);
    }

    pub fn has(&self, id: CheckpointId) -> bool {
        self.records[..self.durable].iter().any(|r| r.id == id)
    }

    pub fn next_id(&self) -> CheckpointId {
        self.last_id.next()
    }

    /// What was appended lasts from now on.
    pub fn sync(&mut self, disk: &Disk) {
        while self.durable < self.records.len() {
            let record = &self.records[self.durable];
            let (id, last) = (record.id, self.last_id);
            assert!(id > last, "I6: checkpoint {id} was recorded after {last}");
            self.last_id = id;
            self.recorded += 1;
            for (who, image) in images(record, disk) {
                assert_eq!(
                    image.id, id,
                    "I6: {who} gave checkpoint {id} another's part"
                );
                if record.recovery_point {
                    self.covered.extend(image.committables());
                }
            }
            if record.recovery_point {
                self.latest = Some(id);
            }
            self.durable += 1;
        }
    }

    /// What was not synced may be there or not.
    fn crash(&mut self, dice: &mut Dice, disk: &Disk) {
        if dice.roll(2) == 0 {
            self.records.truncate(self.durable);
        }
        self.sync(disk);
    }

    /// The checkpoint that a recovery goes on from.
    pub fn newest(&self) -> Option<&Publication<u64>> {
        let newest = self.records.iter().rfind(|r| r.recovery_point);
        let id = newest.map(|r| r.id);
        assert_eq!(id, self.latest, "I6: the newest checkpoint is restored");
        newest
    }

    /// Deletes checkpoints with the files that no other refers to.
    pub fn subsume(&mut self, ids: &[CheckpointId], disk: &mut Disk) {
        let (gone, kept): (Vec<_>, Vec<_>) =
            self.records.drain(..).partition(|r| ids.contains(&r.id));
        self.durable -= gone.len();
        self.records = kept;
        for record in gone {
            assert!(
                record.kind != BarrierKind::Savepoint,
                "a savepoint is its owner's"
            );
            self.discard(&record.files, disk);
        }
    }

    pub fn discard(&self, files: &[(SubtaskRef, u64)], disk: &mut Disk) {
        for (who, file) in files {
            let mut all = self.records.iter().flat_map(|r| &r.files);
            let user = all.any(|(_, used)| used == file);
            assert!(
                !user,
                "a file of {who} is deleted and a checkpoint needs it"
            );
            disk.delete(*file);
        }
    }
}

/// The parts of a checkpoint, all of which have to be there.
pub fn images(record: &Publication<u64>, disk: &Disk) -> Vec<(SubtaskRef, Image)> {
    let files = record.files.iter();
    files
        .map(|(who, file)| {
            let image = disk.read(*file).cloned();
            let id = record.id;
            (
                *who,
                image.unwrap_or_else(|| panic!("checkpoint {id}: the part of {who} is lost")),
            )
        })
        .collect()
}

pub fn crash(disk: &mut Disk, registry: &mut Registry, dice: &mut Dice) {
    registry.crash(dice, disk);
    disk.crash();
}

/// Where sinks write: staged output becomes visible by a commit.
#[derive(Default)]
pub struct Outside {
    staged: BTreeMap<u64, (CheckpointId, Vec<Record>)>,
    committed: BTreeMap<u64, usize>,
    order: usize,
}

impl Outside {
    pub fn stage(&mut self, name: u64, epoch: CheckpointId, records: Vec<Record>) {
        self.staged.insert(name, (epoch, records));
    }

    /// Harmless when repeated.
    pub fn commit(&mut self, name: u64, registry: &Registry) {
        assert!(
            registry.covered.contains(&name),
            "I7: output is committed before a checkpoint covers it"
        );
        self.order += 1;
        self.committed.entry(name).or_insert(self.order);
    }

    pub fn is_committed(&self, name: u64) -> bool {
        self.committed.contains_key(&name)
    }

    /// All that a reader sees, by epoch and in each epoch's order.
    pub fn visible(&self) -> Vec<Record> {
        let names = self.committed.keys().map(|name| &self.staged[name]);
        let mut parts: Vec<_> = names.collect();
        parts.sort_by_key(|(epoch, _)| *epoch);
        let records = parts.into_iter().flat_map(|(_, records)| records);
        records.copied().collect()
    }
}
