//! What goes wrong, and what people ask for, while a job runs.

use super::world::World;
use crate::network::Dice;
use std::time::Duration;
use tidegate_engine::checkpoint::{
    CheckpointSettings, Event, RequestId, SavepointKind, SubtaskRef,
};

/// How much goes wrong.
pub struct Faults {
    /// Nothing does any more.
    pub calm: bool,
    crashes: usize,
    /// One in so many steps is the last of the process.
    rarity: usize,
    requests: u64,
    /// Requests that were for a drain.
    pub drains: Vec<RequestId>,
    /// The input was cut short by a drain.
    pub cut: bool,
}

/// Settings that a job may have.
pub fn settings(dice: &mut Dice) -> CheckpointSettings {
    let ms = |n: usize| Duration::from_millis(n as u64);
    let interval = (dice.roll(10) > 0).then(|| ms(5 + dice.roll(60)));
    let max_concurrent = if dice.roll(3) == 0 {
        1 + dice.roll(3)
    } else {
        1
    };
    CheckpointSettings {
        interval,
        timeout: ms(60 + dice.roll(400)),
        min_pause: (dice.roll(2) == 0).then(|| ms(dice.roll(30))),
        max_concurrent: max_concurrent as u32,
        tolerable_failures: dice.roll(4) as u32,
        retained: 1 + dice.roll(3) as u32,
        ..CheckpointSettings::default()
    }
}

impl Faults {
    pub fn new(dice: &mut Dice) -> Self {
        Faults {
            calm: dice.roll(20) == 0,
            crashes: dice.roll(10),
            rarity: 50 + dice.roll(1_000),
            requests: dice.roll(6) as u64,
            drains: Vec::new(),
            cut: false,
        }
    }

    /// Whether the process dies now; more likely while something is being made public.
    pub fn strikes(&mut self, dice: &mut Dice, publishing: bool) -> bool {
        let rarity = if publishing { 40 } else { self.rarity };
        let strikes = !self.calm && self.crashes > 0 && dice.roll(rarity) == 0;
        self.crashes -= usize::from(strikes);
        strikes
    }

    /// Whether something that happens once in so many times happens now.
    pub fn happens(&self, dice: &mut Dice, once_in: usize) -> bool {
        !self.calm && dice.roll(once_in) == 0
    }
}

impl World {
    /// A subtask dies, or a person wants something.
    pub fn disturb(&mut self) {
        if self.faults.calm || self.attempt.is_none() || self.dice.roll(300) > 0 {
            return;
        }
        let requests = self.faults.requests;
        if self.dice.roll(3) == 0 {
            let subtask = SubtaskRef {
                task: 0,
                subtask: 0,
            };
            self.fail("lost subtasks");
            self.tell(Event::SubtaskGone { subtask });
        } else if requests > 0 {
            self.faults.requests -= 1;
            let request = RequestId(requests);
            let kind = match self.dice.roll(8) {
                0 => SavepointKind::Drain,
                1..=3 => SavepointKind::Stop,
                _ => SavepointKind::Savepoint,
            };
            if kind == SavepointKind::Drain {
                self.faults.drains.push(request);
            }
            self.tell(Event::SavepointRequested { request, kind });
            if self.dice.roll(4) == 0 {
                let withdrawn = Event::AbortRequested { request };
                let number = self.attempt.as_ref().map_or(0, |a| a.number);
                self.wires
                    .push((number, super::world::Wire::Coordinator(withdrawn)));
            }
        }
    }
}
