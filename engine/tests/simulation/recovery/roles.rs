//! What the three tasks of the simulated job do: read splits, count by key, commit in two phases.

use super::MAX_PARALLELISM;
use super::member::{Image, Item, Out, Record};
use std::collections::{BTreeMap, VecDeque};
use tidegate_engine::checkpoint::{Barrier, CheckpointId, Commits};
use tidegate_engine::hash::{key_group, key_hash, owner_of_group};

/// What a worker does between barriers; each role has its share of these.
pub trait Role {
    fn record(&mut self, _record: Record, _out: &mut Out) {}
    fn save(&mut self, barrier: Barrier, image: &mut Image, out: &mut Out);
    fn completed(&mut self, _id: CheckpointId) {}
    fn takes_input(&self) -> bool {
        true
    }
    fn ready(&self) -> bool {
        false
    }
    /// Returns the watermark that this led to.
    fn step(&mut self, _out: &mut Out) -> Option<u64> {
        None
    }
    fn at_end(&self) -> bool {
        false
    }
    fn pause(&mut self) {}
    fn resume(&mut self) {}
    fn end_input(&mut self) {}
}

/// The subtask that owns a key.
pub fn owner(key: u32, parallelism: u32) -> usize {
    let group = key_group(key_hash(&key), MAX_PARALLELISM);
    owner_of_group(group, MAX_PARALLELISM, parallelism) as usize
}

/// The key of a record of the input.
pub fn key_of(split: u32, seq: u64, keys: u32) -> u32 {
    (key_hash(&(split, seq)) % u64::from(keys)) as u32
}

/// Reads splits from their positions, in turns.
pub struct Reader {
    pub positions: BTreeMap<u32, u64>,
    pub length: u64,
    pub keys: u32,
    pub consumers: u32,
    pub turn: usize,
    pub paused: bool,
    pub cut: bool,
}

impl Reader {
    fn open(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        let all = self.positions.iter().map(|(s, p)| (*s, *p));
        all.filter(|(_, position)| *position < self.length)
    }
}

impl Role for Reader {
    fn save(&mut self, _: Barrier, image: &mut Image, _: &mut Out) {
        image.positions = self.positions.iter().map(|(s, p)| (*s, *p)).collect();
    }

    fn ready(&self) -> bool {
        !self.paused && !self.cut && self.open().next().is_some()
    }

    fn step(&mut self, out: &mut Out) -> Option<u64> {
        self.turn += 1;
        let count = self.open().count();
        let (split, seq) = self.open().nth(self.turn % count)?;
        let key = key_of(split, seq, self.keys);
        let record = Record {
            split,
            seq,
            key,
            count: 0,
        };
        out.items
            .push((owner(key, self.consumers), Item::Record(record)));
        self.positions.insert(split, seq + 1);
        self.open().map(|(_, position)| position).min()
    }

    fn at_end(&self) -> bool {
        !self.paused && (self.cut || self.open().next().is_none())
    }

    fn pause(&mut self) {
        self.paused = true;
    }

    fn resume(&mut self) {
        self.paused = false;
    }

    fn end_input(&mut self) {
        self.cut = true;
    }
}

/// Counts by key.
pub struct Counter {
    pub counts: BTreeMap<u32, u64>,
    pub consumers: u32,
}

impl Role for Counter {
    fn record(&mut self, mut record: Record, out: &mut Out) {
        let count = self.counts.entry(record.key).or_default();
        *count += 1;
        record.count = *count;
        let to = owner(record.key, self.consumers);
        out.items.push((to, Item::Record(record)));
    }

    fn save(&mut self, _: Barrier, image: &mut Image, _: &mut Out) {
        image.counts = self.counts.iter().map(|(k, c)| (*k, *c)).collect();
    }
}

/// Collects an epoch, stages it at the barrier, and commits it when its checkpoint is complete.
#[derive(Default)]
pub struct Writer {
    pub buffer: Vec<Record>,
    pub commits: Commits,
    pub to_commit: VecDeque<u64>,
    pub completed: CheckpointId,
    /// It begins with what a checkpoint left to be committed.
    pub recovering: bool,
}

impl Writer {
    /// Of what a checkpoint holds.
    pub fn restore(id: CheckpointId, saved: &[Vec<u8>]) -> Self {
        let mut writer = Writer::default();
        let saved = saved.iter().map(Vec::as_slice);
        let due = writer.commits.restore(saved).expect("it was saved whole");
        writer.take(due);
        writer.completed = id;
        writer.recovering = !writer.to_commit.is_empty();
        writer
    }

    fn take(&mut self, due: Vec<Vec<u8>>) {
        let name = |bytes: Vec<u8>| bytes.last_chunk::<8>().map(|b| u64::from_le_bytes(*b));
        self.to_commit.extend(due.into_iter().filter_map(name));
    }
}

impl Role for Writer {
    fn record(&mut self, record: Record, _: &mut Out) {
        self.buffer.push(record);
    }

    fn save(&mut self, barrier: Barrier, image: &mut Image, out: &mut Out) {
        if !self.buffer.is_empty() {
            let records = std::mem::take(&mut self.buffer);
            out.names += 1;
            out.staged.push((barrier.id, out.names, records));
            let name = out.names.to_le_bytes().to_vec();
            self.commits.prepared(barrier.id, name);
        }
        image.commits = self.commits.to_save(barrier.id);
    }

    fn completed(&mut self, id: CheckpointId) {
        self.completed = self.completed.max(id);
        let due = self.commits.completed(id);
        self.take(due);
    }

    fn takes_input(&self) -> bool {
        !self.recovering
    }

    fn ready(&self) -> bool {
        !self.to_commit.is_empty()
    }

    fn step(&mut self, out: &mut Out) -> Option<u64> {
        out.commit = self.to_commit.pop_front();
        if self.to_commit.is_empty() {
            self.commits.committed(self.completed);
            self.recovering = false;
        }
        None
    }
}
