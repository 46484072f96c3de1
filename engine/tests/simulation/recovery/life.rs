//! How attempts of the job, and the process that they run in, come and go.

use super::attempt::{Attempt, subtasks};
use super::publisher::Publisher;
use super::storage::images;
use super::world::World;
use tidegate_engine::checkpoint::restart::Decision;
use tidegate_engine::checkpoint::{BarrierKind, CheckpointId, Coordinator};
use tidegate_engine::time::Timestamp;

impl World {
    /// The attempt can't go on; the next one waits for its turn.
    pub fn fail(&mut self, why: &'static str) {
        if self.is_dead() {
            return;
        }
        self.tally.count(why, 1);
        self.with_attempt(|a| a.dead = true);
        match self.policy.on_failure(Timestamp(self.now)) {
            Decision::RestartAfter(pause) => self.restart_at = self.now + pause.as_millis() as i64,
            Decision::GiveUp(reason) => panic!("a job is given up: {reason}"),
        }
    }

    /// The process dies.
    pub fn crash(&mut self) {
        self.tally.count("crashes", 1);
        self.attempt = None;
        self.epilogue = None;
        self.wires.clear();
        self.uploads.clear();
        self.publisher = Publisher::default();
        super::storage::crash(&mut self.disk, &mut self.registry, &mut self.dice);
        // A new process knows only what was recorded.
        self.next_id = self.registry.next_id();
    }

    /// A new attempt, from the newest checkpoint, with the parallelism of the day.
    pub fn start(&mut self) {
        self.attempts += 1;
        self.wires.clear();
        let newest = self.registry.newest().cloned();
        // A drain that did not come to its last checkpoint never was.
        let request = newest.as_ref().and_then(|r| r.request);
        self.faults.cut = request.is_some_and(|r| self.faults.drains.contains(&r));
        let parts = newest
            .as_ref()
            .map(|r| images(r, &self.disk))
            .unwrap_or_default();
        let by_drain = self.faults.cut;
        let ended = newest
            .as_ref()
            .is_some_and(|r| r.last && r.kind == BarrierKind::Checkpoint);
        if by_drain || (ended && self.dice.roll(2) == 0) {
            let names = parts.iter().flat_map(|(_, image)| image.committables());
            self.epilogue = Some(names.collect());
            return;
        }
        let id = newest.map_or(CheckpointId(0), |r| r.id);
        let widths = [0; 3].map(|_| 1 + self.dice.roll(4) as u32);
        let kept = self.registry.records.iter();
        let kept = kept
            .filter(|r| r.kind == BarrierKind::Checkpoint)
            .map(|r| r.id);
        let next_id = self.next_id.max(self.registry.next_id());
        let now = Timestamp(self.now);
        let settings = self.settings.clone();
        let coordinator = Coordinator::new(settings, subtasks(widths), next_id, now)
            .two_phase_sinks(true)
            .retaining(kept);
        self.policy.on_healthy(now);
        let parts = (id, parts.as_slice());
        let attempt = Attempt::new(self.attempts, coordinator, widths, self.input, parts);
        self.attempt = Some(attempt);
        self.tally.count("attempts", 1);
    }

    /// All is committed: the run is over, unless the job was only stopped and is carried on.
    pub fn end_of_job(&mut self) -> bool {
        let last = self.registry.newest();
        let stopped = last.is_some_and(|r| r.kind == BarrierKind::Stop) && !self.faults.cut;
        if stopped {
            self.tally.count("stops and resumptions", 1);
            self.attempt = None;
            self.uploads.clear();
            self.next_id = self.registry.next_id();
        }
        !stopped
    }
}
