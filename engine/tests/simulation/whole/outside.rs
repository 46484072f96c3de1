//! The world outside of whole jobs: a two-phase sink with little room, and what a reader sees of it.

use super::items::Item;
use crate::network::{Dice, Doors};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use tidegate_engine::checkpoint::CheckpointId;
use tidegate_engine::clock::Clock;
use tidegate_engine::prelude::*;
use tidegate_engine::sink::TwoPhase;

/// The output of one writer between two barriers.
struct Part {
    sink: u32,
    epoch: CheckpointId,
    items: Vec<Item>,
    committed: bool,
}

#[derive(Default)]
pub struct Outside {
    parts: BTreeMap<u64, Part>,
    names: u64,
    /// What complete checkpoints allow to be committed.
    covered: BTreeSet<u64>,
}

/// The name that a committable stands for.
fn name_of(committable: &[u8]) -> u64 {
    let bytes = committable.try_into().expect("a name is as long as it was");
    u64::from_le_bytes(bytes)
}

impl Outside {
    /// A checkpoint is complete that holds these committables.
    pub fn cover(&mut self, committables: impl IntoIterator<Item = Vec<u8>>) {
        let names = committables.into_iter().map(|c| name_of(&c));
        self.covered.extend(names);
    }

    fn commit(&mut self, name: u64) {
        let covered = self.covered.contains(&name);
        assert!(
            covered,
            "I7: output is committed before a checkpoint covers it"
        );
        let part = self.parts.get_mut(&name);
        let part = part.expect("I1: output that a checkpoint covers is thrown away");
        part.committed = true;
    }

    /// All that a checkpoint covers can be seen.
    pub fn check_committed(&self) {
        for name in &self.covered {
            let committed = self.parts.get(name).is_some_and(|part| part.committed);
            assert!(committed, "I8: a complete epoch is never committed");
        }
    }

    /// What a reader sees of a sink, in the order of the epochs.
    pub fn visible(&self, sink: u32) -> Vec<Item> {
        let mine = |part: &&Part| part.sink == sink && part.committed;
        let mut parts: Vec<&Part> = self.parts.values().filter(mine).collect();
        parts.sort_by_key(|part| part.epoch);
        parts.into_iter().flat_map(|p| p.items.clone()).collect()
    }
}

/// A sink of the outside.
#[derive(Clone)]
pub struct Parts {
    pub sink: u32,
    pub outside: Arc<Mutex<Outside>>,
    pub doors: Doors,
    pub seed: u64,
}

impl Parts {
    fn outside(&self) -> MutexGuard<'_, Outside> {
        self.outside.lock().unwrap_or_else(|e| e.into_inner())
    }
}

pub struct PartsWriter {
    sink: Parts,
    door: Arc<AtomicBool>,
    clock: Clock,
    dice: Dice,
    /// It shows everything at once, without checkpoints.
    direct: bool,
    items: Vec<Item>,
    /// What is being made durable: when it is, and its epoch.
    preparing: VecDeque<(Timestamp, Vec<u8>)>,
    /// What is being committed.
    committing: VecDeque<(Timestamp, Vec<u8>)>,
}

impl Sink<Item> for Parts {
    type Writer = PartsWriter;

    fn recover(&self, committables: Option<Vec<Vec<u8>>>) -> Flow {
        let mut outside = self.outside();
        for committable in committables.into_iter().flatten() {
            outside.commit(name_of(&committable));
        }
        let mine = |part: &Part| part.sink == self.sink && !part.committed;
        outside.parts.retain(|_, part| !mine(part));
        Ok(())
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<PartsWriter> {
        Ok(PartsWriter {
            door: self.doors.add(context.waker()),
            clock: context.clock(),
            dice: Dice(self.seed ^ u64::from(context.subtask() + 77) << 20),
            direct: !context.checkpointed(),
            sink: self.clone(),
            items: Vec::new(),
            preparing: VecDeque::new(),
            committing: VecDeque::new(),
        })
    }
}

impl PartsWriter {
    fn stage(&mut self, epoch: CheckpointId) -> Option<u64> {
        let items = std::mem::take(&mut self.items);
        if items.is_empty() {
            return None;
        }
        let mut outside = self.sink.outside();
        outside.names += 1;
        let (name, sink) = (outside.names, self.sink.sink);
        let part = Part {
            sink,
            epoch,
            items,
            committed: self.direct,
        };
        outside.parts.insert(name, part);
        Some(name)
    }

    fn soon(&mut self) -> Timestamp {
        let pause = self.dice.roll(3) * self.dice.roll(6);
        self.clock.now().plus(Duration::from_millis(pause as u64))
    }
}

impl SinkWriter<Item> for PartsWriter {
    fn write(&mut self, _at: Timestamp, item: Item) -> Flow {
        self.items.push(item);
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.door.load(Relaxed)
    }

    fn turn(&mut self, now: Timestamp) -> Flow<Timestamp> {
        while let Some((_, name)) = self.committing.pop_front_if(|(at, _)| *at <= now) {
            self.sink.outside().commit(name_of(&name));
        }
        let next = self
            .preparing
            .front()
            .into_iter()
            .chain(self.committing.front());
        let next = next.map(|(at, _)| *at).filter(|at| *at > now);
        Ok(next.min().unwrap_or(Timestamp::MAX))
    }

    fn two_phase(&mut self) -> Option<&mut dyn TwoPhase> {
        Some(self)
    }

    fn close(&mut self) -> Flow {
        if self.direct {
            self.stage(CheckpointId(0));
        }
        Ok(())
    }
}

impl TwoPhase for PartsWriter {
    fn prepare(&mut self, checkpoint: CheckpointId) -> Flow {
        let name = self.stage(checkpoint);
        let bytes = name.map(|n| n.to_le_bytes().to_vec()).unwrap_or_default();
        let last = self.preparing.back().map(|(at, _)| *at);
        let at = self.soon().max(last.unwrap_or(Timestamp::MIN));
        self.preparing.push_back((at, bytes));
        Ok(())
    }

    fn prepared(&mut self) -> Flow<Option<Vec<u8>>> {
        let now = self.clock.now();
        let first = self.preparing.pop_front_if(|(at, _)| *at <= now);
        Ok(first.map(|(_, bytes)| bytes))
    }

    fn commit(&mut self, committable: Vec<u8>, _last: bool) -> Flow {
        let last = self.committing.back().map(|(at, _)| *at);
        let at = self.soon().max(last.unwrap_or(Timestamp::MIN));
        self.committing.push_back((at, committable));
        Ok(())
    }

    fn committed(&mut self) -> Flow<bool> {
        Ok(self.committing.is_empty())
    }
}
