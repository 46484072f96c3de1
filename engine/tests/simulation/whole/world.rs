//! A whole job from its first attempt to its end, with a coordinator that takes checkpoints of it, and all
//! that can go wrong on the way.

use super::build::{Builder, COST, Surroundings};
use super::plan::Plan;
use super::verdict;
use crate::network::{Control, Dice, Network, Report};
use crate::recovery::Tally;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::checkpoint::storage::{checkpoint_folder, join, savepoint_folder};
use tidegate_engine::checkpoint::{
    self, Action, BarrierKind, CheckpointId, CheckpointStorage, Coordinator, Event, Loaded, Notice,
    Publication, RequestId, RestoredJob, SavepointKind, SubtaskFile, SubtaskImage, SubtaskRef,
};
use tidegate_engine::clock::Clock;
use tidegate_engine::exchange::EdgeId;
use tidegate_engine::graph::{JobGraph, OperatorId};
use tidegate_engine::sink::committables;
use tidegate_engine::testing::MemoryStorage;
use tidegate_engine::time::Timestamp;

/// One attempt of the job.
pub(super) struct Attempt {
    network: Network,
    coordinator: Coordinator<SubtaskFile>,
    /// What the coordinator has told each subtask, in order.
    orders: BTreeMap<SubtaskRef, VecDeque<Control>>,
    /// What subtasks have told the coordinator, each in order.
    pub(super) told: BTreeMap<SubtaskRef, VecDeque<Event<SubtaskFile>>>,
    /// Images that are being written.
    pub(super) uploads: Vec<SubtaskImage>,
    pub(super) publishing: Option<Publication<SubtaskFile>>,
    pub(super) resolving: Option<CheckpointId>,
    pub(super) folders: BTreeMap<CheckpointId, String>,
    /// A subtask is gone; no subtask takes a step any more.
    dead: bool,
    settled: bool,
    /// The uids of the sinks.
    pub(super) sinks: Vec<String>,
}

pub struct World {
    plan: Plan,
    dice: Dice,
    clock: Clock,
    around: Surroundings,
    pub(super) storage: MemoryStorage,
    pub(super) attempt: Option<Attempt>,
    next_id: CheckpointId,
    /// The newest that is complete, and whether the job has nothing left to do behind it.
    pub(super) newest: Option<(CheckpointId, Option<Last>)>,
    retained: Vec<CheckpointId>,
    pub(super) drains: BTreeSet<RequestId>,
    requests: u64,
    crashes: usize,
    rarity: usize,
    calm: bool,
    in_order: Vec<u32>,
    sinks: u32,
    tally: Tally,
}

/// What a job's last checkpoint was taken for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Last {
    EndOfInput,
    Stop,
    Drain,
}

/// Steps after which a job that has not come to its end never will.
const STEPS: usize = 1_500_000;
/// Steps after which nothing goes wrong any more.
const CALM: usize = 40_000;

impl World {
    pub fn new(seed: u64) -> Self {
        let plan = Plan::new(seed);
        let mut dice = Dice(seed ^ 0xC0FF_EE00_0000);
        World {
            requests: plan.requests,
            crashes: plan.crashes,
            rarity: 100 + dice.roll(4_000),
            calm: dice.roll(20) == 0,
            plan,
            dice,
            clock: Clock::manual(Timestamp(0)),
            around: Surroundings::default(),
            storage: MemoryStorage::default(),
            attempt: None,
            next_id: CheckpointId(1),
            newest: None,
            retained: Vec::new(),
            drains: BTreeSet::new(),
            in_order: Vec::new(),
            sinks: 0,
            tally: Tally::default(),
        }
    }

    /// Runs the job to its end and checks what came of it.
    pub fn run(mut self, tally: &mut Tally) {
        for step in 0..STEPS {
            self.calm |= step > CALM;
            if self.take_step() {
                let cut = self
                    .newest
                    .is_some_and(|(_, last)| last == Some(Last::Drain));
                let attempts = self.tally.0.get("attempts");
                let shown = verdict::Shown {
                    around: &self.around,
                    sinks: self.sinks,
                    in_order: &self.in_order,
                    cut,
                    repeats: self.plan.repeats() && attempts > Some(&1),
                };
                verdict::check(&self.plan, &shown);
                self.count("whole jobs to their end");
                if self.plan.repeats() {
                    self.count("jobs of at least once");
                }
                if self.plan.checkpoints.unaligned {
                    self.count("unaligned jobs");
                }
                for (what, times) in self.tally.0 {
                    tally.count(what, times);
                }
                return;
            }
        }
        let attempt = self.attempt.as_ref();
        let picture = attempt.map(|a| a.network.picture());
        let (picture, tally) = (picture.unwrap_or_default(), &self.tally);
        panic!("I12: the job goes on and on: {tally:?}\n{picture}");
    }

    pub(super) fn count(&mut self, what: &'static str) {
        self.tally.count(what, 1);
    }

    pub(super) fn happens(&mut self, once_in: usize) -> bool {
        !self.calm && self.dice.roll(once_in) == 0
    }

    /// Does one of the things that can happen; true when the job has come to its end.
    fn take_step(&mut self) -> bool {
        let Some(attempt) = &self.attempt else {
            return self.start();
        };
        if attempt.dead && attempt.settled {
            self.next_id = attempt.coordinator.next_id();
            self.retained = attempt.coordinator.retained().collect();
            self.attempt = None;
            return false;
        }
        if !attempt.dead && attempt.network.has_ended() {
            return self.end_of_job();
        }
        let publishes = attempt.publishing.is_some();
        let rarity = if publishes { 60 } else { self.rarity };
        if self.crashes > 0 && self.happens(rarity) {
            self.crashes -= 1;
            self.go_down();
            return false;
        }
        if self.requests > 0 && self.happens(500) {
            self.request();
            return false;
        }
        self.one_of_all();
        false
    }

    /// All subtasks have ended: so has the job, unless it was only stopped and is carried on.
    fn end_of_job(&mut self) -> bool {
        let last = self.newest.and_then(|(_, last)| last);
        let last = last.expect("the job ends with a checkpoint that is complete");
        if last != Last::Stop {
            return true;
        }
        self.count("stops and resumptions");
        if let Some(attempt) = self.attempt.take() {
            self.next_id = attempt.coordinator.next_id();
            self.retained = attempt.coordinator.retained().collect();
        }
        false
    }

    /// The process dies, or a subtask does.
    fn go_down(&mut self) {
        if self.dice.roll(2) == 0 {
            self.count("crashes");
            self.attempt = None;
            self.tear();
            // A new process knows only what is there.
            let listed = checkpoint::storage::checkpoints(&self.storage).expect("lists");
            let greatest = listed.iter().map(|l| l.id).max();
            self.next_id = greatest.unwrap_or_default().next();
            let kept = listed.iter().filter(|l| l.complete);
            let own = kept.filter(|l| l.kind == BarrierKind::Checkpoint);
            self.retained = own.map(|l| l.id).collect();
            return;
        }
        self.count("lost subtasks");
        let subtask = SubtaskRef {
            task: 0,
            subtask: 0,
        };
        self.die();
        self.tell(Event::SubtaskGone { subtask });
    }

    fn die(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.dead = true;
            attempt.uploads.clear();
            attempt.orders.clear();
            attempt.told.clear();
        }
    }

    /// A person wants something.
    fn request(&mut self) {
        let request = RequestId(self.requests);
        self.requests -= 1;
        let kind = match self.dice.roll(6) {
            0 => SavepointKind::Drain,
            1 | 2 => SavepointKind::Stop,
            _ => SavepointKind::Savepoint,
        };
        if kind == SavepointKind::Drain {
            self.drains.insert(request);
        }
        self.tell(Event::SavepointRequested { request, kind });
        if self.dice.roll(5) == 0 {
            self.tell(Event::AbortRequested { request });
        }
    }

    /// A new attempt, from the newest checkpoint, as wide as the dice say. True if nothing is left to do.
    fn start(&mut self) -> bool {
        self.count("attempts");
        let seed = self.dice.roll(usize::MAX) as u64;
        let (plan, around) = (self.plan.clone(), self.around.clone());
        let mut builder = Builder::new(&plan, &around, seed, false);
        let mut job = builder.job(true);
        if self.calm {
            let calm = job.settings.checkpoints.as_mut().expect("it takes them");
            // Nothing fails any more, and a job with a credit of 1 takes its time.
            calm.timeout = Duration::from_secs(24 * 3600);
        }
        (self.sinks, self.in_order) = (builder.sinks, builder.in_order.clone());
        let uids = job.operators.iter().enumerate();
        let uids = uids.filter(|(_, o)| o.kind == "sink");
        let ids = uids.map(|(at, _)| job.uid(tidegate_engine::graph::OperatorId(at as u32)));
        let sinks: Vec<String> = ids.collect();
        let restored = self.restore(&sinks);
        self.claim(&job, restored.as_ref());
        job.recover(restored.as_ref()).expect("it recovers");
        let drained = self
            .newest
            .is_some_and(|(_, last)| last == Some(Last::Drain));
        if drained {
            return true;
        }
        let settings = job.settings.checkpoints.clone().expect("it takes them");
        let (clock, surroundings) = (self.clock.clone(), (builder.doors, COST));
        let restored = restored.map(Arc::new);
        let network = Network::attempt(job, clock, seed, surroundings, restored);
        let now = self.clock.now();
        let coordinator = Coordinator::new(settings, network.subtasks(), self.next_id, now)
            .two_phase_sinks(true)
            .retaining(self.retained.iter().copied());
        self.attempt = Some(Attempt {
            network,
            coordinator,
            orders: BTreeMap::new(),
            told: BTreeMap::new(),
            uploads: Vec::new(),
            publishing: None,
            resolving: None,
            folders: BTreeMap::new(),
            dead: false,
            settled: false,
            sinks,
        });
        false
    }

    /// All that was saved is that of an operator or an edge that there is.
    fn claim(&self, job: &JobGraph, restored: Option<&RestoredJob>) {
        let operators = (0..job.operators.len() as u32).map(|id| job.uid(OperatorId(id)));
        let edges = (0..job.edges.len() as u32).map(|id| job.edge_uid(EdgeId(id)));
        let known: BTreeSet<String> = operators.chain(edges).collect();
        for uid in restored.into_iter().flat_map(RestoredJob::uids) {
            assert!(known.contains(uid), "I1: nobody claims '{uid}'");
        }
    }

    fn restore(&mut self, sinks: &[String]) -> Option<RestoredJob> {
        let (newest, _) = self.newest?;
        let Loaded { job, .. } = checkpoint::latest(&self.storage).expect("it is whole");
        assert_eq!(job.id, newest, "I6: the newest checkpoint is restored");
        self.cover(&job, sinks);
        self.count("restored attempts");
        Some(job)
    }

    /// What this checkpoint holds of the sinks may be committed now.
    pub(super) fn cover(&self, job: &RestoredJob, sinks: &[String]) {
        let mut outside = self.around.outside.lock().expect("no panic inside");
        for uid in sinks {
            outside.cover(committables(job, uid).expect("they are whole"));
        }
    }

    fn one_of_all(&mut self) {
        let now = self.clock.now();
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let due = attempt.coordinator.next_wakeup();
        if due <= now {
            self.tell(Event::Tick);
            return;
        }
        let orders = attempt.orders.values().filter(|q| !q.is_empty()).count();
        let told = attempt.told.values().filter(|q| !q.is_empty()).count();
        let storing = attempt.uploads.len()
            + usize::from(attempt.publishing.is_some())
            + usize::from(attempt.resolving.is_some());
        let rest = orders + told + storing;
        // Many steps of subtasks for each message about checkpoints, or none at all for a while.
        let works = !attempt.dead && (rest == 0 || self.dice.roll(6) > 0);
        if works && attempt.network.one_of_all() {
            self.take_reports();
            return;
        }
        if rest == 0 {
            if attempt.dead {
                let pause = due.0.saturating_sub(now.0).max(0) as u64;
                assert!(due < Timestamp::MAX, "I12: a dead attempt never settles");
                self.clock.advance(Duration::from_millis(pause));
            } else {
                attempt.network.let_time_pass(due, self.calm);
            }
            return;
        }
        let choice = self.dice.roll(rest);
        if choice < orders {
            self.order(choice);
        } else if choice < orders + told {
            let queues = attempt.told.values_mut().filter(|q| !q.is_empty());
            let event = queues.into_iter().nth(choice - orders);
            let event = event.and_then(VecDeque::pop_front).expect("it was counted");
            self.tell(event);
        } else {
            self.store(choice - orders - told);
        }
    }

    /// Brings a subtask what the coordinator has told it.
    fn order(&mut self, choice: usize) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let mut queues = attempt.orders.iter_mut().filter(|(_, q)| !q.is_empty());
        let (who, queue) = queues.nth(choice).expect("it was counted");
        let (who, control) = (*who, queue.pop_front().expect("it was not empty"));
        if self.is_lost(control) {
            return;
        }
        let repeated =
            matches!(control, Control::Trigger(_) | Control::Settled(_)) && self.happens(40);
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        if repeated {
            // It comes once more, behind what has been sent since.
            attempt.orders.entry(who).or_default().push_back(control);
        }
        attempt.network.tell(who, control);
        if repeated {
            self.count("repeated messages");
        }
        self.take_reports();
    }

    /// Whether a message to a subtask never arrives. What ends a job is said until it is heard.
    fn is_lost(&mut self, control: Control) -> bool {
        let may_be = match control {
            Control::Trigger(barrier) => barrier.kind == BarrierKind::Checkpoint,
            Control::Settled(Notice::Completed { last, .. }) => !last,
            Control::Settled(Notice::Aborted { .. }) | Control::EndInput | Control::Release => {
                false
            }
        };
        let lost = may_be && self.happens(200);
        if lost {
            self.count("lost messages");
        }
        lost
    }

    fn take_reports(&mut self) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        for report in std::mem::take(&mut attempt.network.reports) {
            match report {
                Report::Image(image) => attempt.uploads.push(image),
                Report::Drained(subtask) => {
                    let told = attempt.told.entry(subtask).or_default();
                    told.push_back(Event::Drained { subtask });
                }
            }
        }
    }

    /// Tells the coordinator, and does what it says.
    pub(super) fn tell(&mut self, event: Event<SubtaskFile>) {
        let now = self.clock.now();
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        for action in attempt.coordinator.handle(event, now) {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action<SubtaskFile>) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        match action {
            Action::Trigger(barrier) => {
                let id = barrier.id;
                let folder = match barrier.kind {
                    BarrierKind::Checkpoint => checkpoint_folder(id),
                    _ => savepoint_folder(&self.storage, id),
                };
                attempt.folders.insert(id, folder);
                self.tell_all(Control::Trigger(barrier));
            }
            Action::Publish(publication) => attempt.publishing = Some(publication),
            Action::Resolve { id } => attempt.resolving = Some(id),
            Action::Notify(notice) => self.tell_all(Control::Settled(notice)),
            Action::Discard { id, files } => {
                let folder = &attempt.folders[&id];
                for (_, file) in files {
                    let path = join(folder, &file.file.path);
                    self.storage.delete(&path).expect("it can be deleted");
                }
                self.count("aborts");
            }
            Action::Subsumed(ids) => {
                for id in ids {
                    let files = self.storage.list(&checkpoint_folder(id)).expect("lists");
                    for file in files {
                        self.storage.delete(&file.path).expect("it can be deleted");
                    }
                }
            }
            Action::EndInput => self.tell_all(Control::EndInput),
            Action::ReplySavepoint { .. } => {}
            Action::FailJob(_) => {
                self.count("failed jobs");
                self.die();
            }
            Action::Settled => attempt.settled = true,
            Action::Finish => self.tell_all(Control::Release),
        }
    }

    fn tell_all(&mut self, control: Control) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        for who in attempt.network.subtasks() {
            attempt.orders.entry(who).or_default().push_back(control);
        }
    }
}
