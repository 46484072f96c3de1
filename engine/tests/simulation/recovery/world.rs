//! Everything that can happen next, of which the dice choose one.

use super::Tally;
use super::attempt::{Attempt, Input};
use super::faults::Faults;
use super::member::{Control, Image, Out};
use super::publisher::Publisher;
use super::storage::{Disk, Outside, Registry};
use super::verdict;
use crate::network::Dice;
use tidegate_engine::checkpoint::restart::{RestartPolicy, RestartStrategy};
use tidegate_engine::checkpoint::{
    Action, Barrier, CheckpointId, CheckpointSettings, Event, Notice, Phase, Timing,
};
use tidegate_engine::time::Timestamp;

/// A message between actors of an attempt.
#[derive(Clone)]
pub enum Wire {
    Coordinator(Event<u64>),
    Member(usize, Control),
}

/// A snapshot on its way to the disk: written, synced, told.
pub struct Upload {
    attempt: u64,
    member: usize,
    barrier: Barrier,
    file: u64,
    image: Option<Image>,
    synced: bool,
}

pub struct World {
    pub dice: Dice,
    pub faults: Faults,
    pub now: i64,
    pub input: Input,
    pub settings: CheckpointSettings,
    pub disk: Disk,
    pub registry: Registry,
    pub outside: Outside,
    pub publisher: Publisher,
    pub attempt: Option<Attempt>,
    pub attempts: u64,
    pub next_id: CheckpointId,
    pub wires: Vec<(u64, Wire)>,
    pub uploads: Vec<Upload>,
    pub policy: RestartPolicy,
    pub restart_at: i64,
    pub names: u64,
    /// What a recovery has still to commit of a job that has ended.
    pub epilogue: Option<Vec<u64>>,
    pub tally: Tally,
}

/// Steps after which a run that has not come to its end never will.
const STEPS: usize = 400_000;

impl World {
    pub fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x5851_F42D_4C95_7F2D));
        let input = Input {
            splits: 1 + dice.roll(5) as u32,
            length: dice.roll(60) as u64,
            keys: 1 + dice.roll(12) as u32,
        };
        let settings = super::faults::settings(&mut dice);
        World {
            faults: Faults::new(&mut dice),
            policy: RestartPolicy::new(RestartStrategy::default(), seed),
            dice,
            now: 0,
            input,
            settings,
            disk: Disk::default(),
            registry: Registry::default(),
            outside: Outside::default(),
            publisher: Publisher::default(),
            attempt: None,
            attempts: 0,
            next_id: CheckpointId(1),
            wires: Vec::new(),
            uploads: Vec::new(),
            restart_at: 0,
            names: 0,
            epilogue: None,
            tally: Tally::default(),
        }
    }

    /// Runs the job to its end and checks what came of it.
    pub fn run(mut self, tally: &mut Tally) {
        for step in 0..STEPS {
            self.faults.calm |= step > 20_000;
            let hurry = if self.faults.calm { 16 } else { 4 };
            if self.dice.roll(hurry) == 0 {
                self.now += self.dice.roll(3) as i64;
            }
            if self
                .faults
                .strikes(&mut self.dice, !self.publisher.is_idle())
            {
                self.crash();
            }
            self.disturb();
            if self.take_step() {
                let cut = self.faults.cut;
                verdict::check(self.input, cut, &self.registry, &self.disk, &self.outside);
                self.tally.count("runs to the end", 1);
                self.tally.count("checkpoints", self.registry.recorded);
                for (what, times) in self.tally.0 {
                    tally.count(what, times);
                }
                return;
            }
        }
        panic!("I12: the job goes on and on");
    }

    /// Does one of the things that can happen; true when the job has come to its end.
    fn take_step(&mut self) -> bool {
        if let Some(left) = &mut self.epilogue {
            let next = left.pop();
            let done = left.is_empty();
            next.into_iter()
                .for_each(|name| self.outside.commit(name, &self.registry));
            return done;
        }
        let Some(attempt) = &self.attempt else {
            self.start();
            return false;
        };
        if attempt.dead && attempt.settled {
            self.now = self.now.max(self.restart_at);
            self.next_id = attempt.coordinator.next_id();
            self.attempt = None;
            return false;
        }
        if !attempt.dead && attempt.has_finished() {
            return self.end_of_job();
        }
        let due = attempt.coordinator.next_wakeup();
        if due.0 <= self.now {
            self.tell(Event::Tick);
            return false;
        }
        if !self.one_of_all() {
            assert!(
                due < Timestamp::MAX,
                "I12: nothing can happen: {}",
                self.picture()
            );
            self.now = due.0;
        }
        false
    }

    /// What a person needs to see why nothing moves.
    fn picture(&self) -> String {
        let Some(attempt) = &self.attempt else {
            return "no attempt".into();
        };
        let members = attempt.refs.iter().zip(&attempt.members);
        let members = members.map(|(who, member)| format!("{who}: {}\n", member.picture()));
        let members: String = members.collect();
        let flags = (attempt.dead, attempt.settled, attempt.finishing);
        let (coordinator, channels) = (&attempt.coordinator, &attempt.channels);
        format!("(dead, settled, finishing) {flags:?}\n{coordinator:#?}\n{members}{channels:?}")
    }

    fn one_of_all(&mut self) -> bool {
        let workers = if self.is_dead() { 0 } else { self.members() };
        let busy = usize::from(!self.publisher.is_idle());
        let total = workers * 2 + self.wires.len() + self.uploads.len() + busy;
        let start = self.dice.roll(total);
        // What can't be done now leaves its turn to the next.
        for at in (0..total).map(|n| (start + n) % total) {
            let mut at = at;
            if at < workers * 2 {
                if self.work(at / 2) {
                    return true;
                }
                continue;
            }
            at -= workers * 2;
            if at < self.wires.len() {
                self.deliver(at);
            } else if at < self.wires.len() + self.uploads.len() {
                self.upload(at - self.wires.len());
            } else {
                self.publish();
            }
            return true;
        }
        false
    }

    fn members(&self) -> usize {
        self.attempt.as_ref().map_or(0, |a| a.members.len())
    }

    pub fn is_dead(&self) -> bool {
        self.attempt.as_ref().is_none_or(|a| a.dead)
    }

    /// A subtask takes in something, or does something of its own.
    fn work(&mut self, member: usize) -> bool {
        let Some(attempt) = &mut self.attempt else {
            return false;
        };
        if !attempt.has_room(member) {
            return false;
        }
        let inputs = attempt.channels[member].len();
        let worker = &mut attempt.members[member];
        let mut out = Out {
            names: self.names,
            ..Out::default()
        };
        let from = self.dice.roll(inputs + 1);
        let mut worked = false;
        for input in (0..=inputs).map(|n| (from + n) % (inputs + 1)) {
            if input == inputs {
                worked = worker.ready();
                if worked {
                    worker.step(&mut out);
                }
            } else if worker.wants(input)
                && let Some(item) = attempt.channels[member][input].pop_front()
            {
                worker.receive(input, item, &mut out);
                worked = true;
            }
            if worked {
                break;
            }
        }
        self.carry_out(member, out);
        worked
    }

    fn carry_out(&mut self, member: usize, out: Out) {
        self.names = out.names;
        for (epoch, name, records) in out.staged {
            self.outside.stage(name, epoch, records);
        }
        if let Some(name) = out.commit {
            self.outside.commit(name, &self.registry);
            self.tally.count("commits", 1);
        }
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        for (output, item) in out.items {
            attempt.send(member, output, item);
        }
        let (number, subtask) = (attempt.number, attempt.refs[member]);
        for (barrier, image) in out.snapshots {
            self.names += 1;
            let id = barrier.id;
            if self.faults.happens(&mut self.dice, 400) {
                let reason = "it can't be saved".to_owned();
                let phase = Phase::Sync;
                let declined = Event::SnapshotDeclined {
                    id,
                    subtask,
                    reason,
                    phase,
                };
                self.wires.push((number, Wire::Coordinator(declined)));
                continue;
            }
            self.uploads.push(Upload {
                attempt: number,
                member,
                barrier,
                file: self.names,
                image: Some(image),
                synced: false,
            });
        }
        if out.drained {
            let drained = Event::Drained { subtask };
            self.wires.push((number, Wire::Coordinator(drained)));
        }
    }

    fn upload(&mut self, at: usize) {
        let upload = &mut self.uploads[at];
        if let Some(image) = upload.image.take() {
            self.disk.write(upload.file, image);
            return;
        }
        let failed = self.faults.happens(&mut self.dice, 40);
        if !upload.synced && !failed {
            upload.synced = self.disk.sync(upload.file);
            return;
        }
        let Upload {
            attempt,
            member,
            barrier,
            file,
            synced,
            ..
        } = self.uploads.swap_remove(at);
        let Some(current) = self.attempt.as_ref().filter(|a| a.number == attempt) else {
            return;
        };
        let (id, subtask) = (barrier.id, current.refs[member]);
        let event = if synced {
            let timing = Timing::default();
            let bytes = 100;
            Event::SnapshotDone {
                id,
                subtask,
                file,
                bytes,
                timing,
            }
        } else {
            let reason = "no space left".to_owned();
            let phase = Phase::Async;
            Event::SnapshotDeclined {
                id,
                subtask,
                reason,
                phase,
            }
        };
        self.wires.push((attempt, Wire::Coordinator(event)));
    }

    fn publish(&mut self) {
        let faults = !self.faults.calm;
        let dice = (&mut self.dice, faults);
        let told = self.publisher.step(&mut self.registry, &self.disk, dice);
        if let (Some((id, outcome)), Some(attempt)) = (told, &self.attempt) {
            if outcome == tidegate_engine::checkpoint::Outcome::Unknown {
                self.tally.count("unknown outcomes", 1);
            }
            let event = Event::MetadataPublished { id, outcome };
            self.wires.push((attempt.number, Wire::Coordinator(event)));
        }
    }

    fn deliver(&mut self, at: usize) {
        let twice = self.faults.happens(&mut self.dice, 8);
        let (number, wire) = if twice {
            self.tally.count("repeated messages", 1);
            self.wires[at].clone()
        } else {
            self.wires.swap_remove(at)
        };
        let Some(attempt) = self.attempt.as_mut().filter(|a| a.number == number) else {
            return;
        };
        match wire {
            Wire::Coordinator(event) => self.tell(event),
            Wire::Member(member, control) if !attempt.dead => {
                let mut out = Out {
                    names: self.names,
                    ..Out::default()
                };
                attempt.members[member].control(control, &mut out);
                self.carry_out(member, out);
            }
            Wire::Member(..) => {}
        }
    }

    /// Tells the coordinator, and does what it says.
    pub fn tell(&mut self, event: Event<u64>) {
        let now = Timestamp(self.now);
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        for action in attempt.coordinator.handle(event, now) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action<u64>) {
        match action {
            Action::Trigger(barrier) => self.tell_all(Control::Trigger(barrier)),
            Action::Publish(publication) => self.publisher.publish(publication),
            Action::Resolve { id } => self.publisher.resolve(id),
            Action::Notify(notice) => self.notify(notice),
            Action::Discard { files, .. } => self.registry.discard(&files, &mut self.disk),
            Action::Subsumed(ids) => self.registry.subsume(&ids, &mut self.disk),
            Action::EndInput => {
                self.faults.cut = true;
                self.tell_all(Control::EndInput);
            }
            Action::ReplySavepoint { result, .. } => {
                self.tally.count("answers to savepoint requests", 1);
                if let Ok(id) = result {
                    assert!(
                        self.registry.has(id),
                        "savepoint {id} is told and not there"
                    );
                    self.tally.count("savepoints", 1);
                }
            }
            Action::FailJob(_) => self.fail("failed jobs"),
            Action::Settled => self.with_attempt(|a| a.settled = true),
            Action::Finish => self.with_attempt(|a| a.finishing = true),
        }
    }

    pub fn with_attempt(&mut self, change: impl FnOnce(&mut Attempt)) {
        if let Some(attempt) = &mut self.attempt {
            change(attempt);
        }
    }

    fn tell_all(&mut self, control: Control) {
        let Some(attempt) = &self.attempt else {
            return;
        };
        let all = (0..attempt.members.len()).map(|m| (attempt.number, Wire::Member(m, control)));
        self.wires.extend(all);
    }

    /// A notice of completion may be lost, as the next one repairs that.
    fn notify(&mut self, notice: Notice) {
        let mut repaired = false;
        if let Notice::Completed { id, last } = notice {
            assert!(
                self.registry.has(id),
                "I7: {id} is told complete and not recorded"
            );
            repaired = !last;
        }
        let Some(attempt) = &self.attempt else {
            return;
        };
        for member in 0..attempt.members.len() {
            if !(repaired && self.faults.happens(&mut self.dice, 8)) {
                let wire = Wire::Member(member, Control::Notice(notice));
                self.wires.push((attempt.number, wire));
            }
        }
    }
}
