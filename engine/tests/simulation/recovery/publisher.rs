//! Writes checkpoints down, one step at a time, and looks up what became of them.

use super::storage::{Disk, Registry};
use crate::network::Dice;
use std::collections::VecDeque;
use tidegate_engine::checkpoint::{CheckpointId, Outcome, Publication};

enum Work {
    /// With the number of steps taken.
    Publish(Publication<u64>, u32),
    Resolve(CheckpointId),
}

/// One publication at a time.
#[derive(Default)]
pub struct Publisher(VecDeque<Work>);

impl Publisher {
    pub fn publish(&mut self, publication: Publication<u64>) {
        self.0.push_back(Work::Publish(publication, 0));
    }

    pub fn resolve(&mut self, id: CheckpointId) {
        self.0.push_back(Work::Resolve(id));
    }

    pub fn is_idle(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes a step; tells the outcome when there is one.
    pub fn step(
        &mut self,
        registry: &mut Registry,
        disk: &Disk,
        (dice, faults): (&mut Dice, bool),
    ) -> Option<(CheckpointId, Outcome)> {
        let (id, outcome) = match self.0.front_mut()? {
            Work::Resolve(id) if faults && dice.roll(3) == 0 => (*id, Outcome::Unknown),
            Work::Resolve(id) => {
                registry.sync(disk);
                let gone = || Outcome::Failed("it was never recorded".into());
                let found = registry.has(*id).then_some(Outcome::Published);
                (*id, found.unwrap_or_else(gone))
            }
            Work::Publish(publication, step) => {
                let id = publication.id;
                *step += 1;
                let fault = faults && dice.roll(25) == 0;
                match *step {
                    // The metadata is written, synced and renamed.
                    1..=3 if fault => (id, Outcome::Failed("no space left".into())),
                    1..=3 => return None,
                    // It is recorded, or the answer is lost on the way there ...
                    4 if fault => (id, Outcome::Unknown),
                    4 => {
                        registry.append(publication.clone());
                        return None;
                    }
                    // ... or back.
                    _ if fault => (id, Outcome::Unknown),
                    _ => {
                        registry.sync(disk);
                        (id, Outcome::Published)
                    }
                }
            }
        };
        self.0.pop_front();
        Some((id, outcome))
    }
}
