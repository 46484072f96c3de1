//! The subtasks of a job, the messages between them, and who is next.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_engine::build::BuildContext;
use tidegate_engine::checkpoint::{
    Barrier, Notice, Participant, RestoredJob, SubtaskImage, SubtaskRef,
};
use tidegate_engine::clock::Clock;
use tidegate_engine::exchange::{AnyBatch, Batch, EdgeId, Message, Outbox};
use tidegate_engine::graph::{JobGraph, VertexId};
use tidegate_engine::observe::JobStats;
use tidegate_engine::source::Waker;
use tidegate_engine::task::{Next, Subtask};
use tidegate_engine::time::Timestamp;

/// Numbers that only the seed decides.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % sides.max(1) as u64) as usize
    }
}

/// Whether one sink has room, and how to tell its subtask that it has again.
type Door = (Arc<AtomicBool>, Waker);

/// Sinks that have room or not, as the simulation says.
#[derive(Clone, Default)]
pub struct Doors(Arc<Mutex<Vec<Door>>>);

impl Doors {
    /// A door of one sink's writer, open at first.
    pub fn add(&self, waker: Waker) -> Arc<AtomicBool> {
        let door = Arc::new(AtomicBool::new(true));
        self.0
            .lock()
            .expect("no panic inside")
            .push((door.clone(), waker));
        door
    }

    /// Opens or shuts one.
    fn flip(&self, dice: &mut Dice) {
        let doors = self.0.lock().expect("no panic inside");
        let (door, waker) = &doors[dice.roll(doors.len())];
        if !door.fetch_xor(true, Relaxed) {
            waker.wake();
        }
    }

    /// Opens all; true if any was shut.
    fn open(&self) -> bool {
        let mut any = false;
        for (door, waker) in self.0.lock().expect("no panic inside").iter() {
            if !door.swap(true, Relaxed) {
                any = true;
                waker.wake();
            }
        }
        any
    }
}

/// How many credits a batch costs, for the types of records that a job has.
pub type Cost = fn(&AnyBatch) -> u64;

/// What a batch of this type costs.
pub fn credits<T: 'static>(batch: &AnyBatch) -> Option<u64> {
    let batch = batch.downcast_ref::<Batch<T>>()?;
    Some(u64::from(batch.credits()))
}

/// A channel as its credits see it.
#[derive(Debug)]
struct Account {
    /// Credits that the producer has been told of.
    granted: u64,
    /// Credits that the consumer has given out.
    issued: u64,
    sent: u64,
    arrived: u64,
}

/// A subtask, and when it wants its next step.
struct Actor {
    subtask: Subtask,
    woken: Arc<AtomicBool>,
    until: Timestamp,
    done: bool,
    /// With checkpoints: all input has ended and all output has left; it ends when it may.
    drained: bool,
    /// It may end, once all is committed where `last` says that this is to come.
    released: bool,
    last: bool,
}

/// What a coordinator tells a subtask.
#[derive(Clone, Copy, Debug)]
pub enum Control {
    Trigger(Barrier),
    Settled(Notice),
    EndInput,
    Release,
}

/// What a subtask tells a coordinator.
pub enum Report {
    Image(SubtaskImage),
    Drained(SubtaskRef),
}

/// One direction of a channel: its edge, its subtasks, and whether it carries credits.
type Link = (u32, u32, u32, bool);

#[derive(Default)]
struct Sent(Vec<(EdgeId, u32, Message)>);

impl Outbox for Sent {
    fn send(&mut self, edge: EdgeId, to: u32, message: Message) {
        self.0.push((edge, to, message));
    }
}

/// A job at work.
pub struct Network {
    job: Arc<JobGraph>,
    clock: Clock,
    dice: Dice,
    doors: Doors,
    actors: Vec<Vec<Actor>>,
    links: BTreeMap<Link, VecDeque<Message>>,
    accounts: BTreeMap<(u32, u32, u32), Account>,
    cost: Cost,
    /// What subtasks have to say to a coordinator.
    pub reports: Vec<Report>,
}

/// Steps after which a job that has not come to its end never will.
const STEPS: usize = 1_000_000;

impl Network {
    /// Builds all subtasks, as a runner does before it starts the first.
    pub fn new(job: JobGraph, seed: u64, doors: Doors, cost: Cost) -> Self {
        let clock = Clock::manual(Timestamp(0));
        Network::attempt(job, clock, seed, (doors, cost), None)
    }

    /// The same for an attempt that goes on from a checkpoint.
    pub fn attempt(
        job: JobGraph,
        clock: Clock,
        seed: u64,
        (doors, cost): (Doors, Cost),
        restored: Option<Arc<RestoredJob>>,
    ) -> Self {
        let job = Arc::new(job);
        let vertices = (0..job.vertices.len() as u32).map(VertexId);
        let vertices = vertices.map(|v| (job.vertex_name(v), job.parallelism(v)));
        let stats = Arc::new(JobStats::new(vertices));
        let mode = job.settings.channels.mode;
        // Often state is saved in many turns, between which records change it.
        let mut dice = Dice(seed ^ 0x5AFE);
        let entries = (dice.roll(2) == 0).then(|| 1 + dice.roll(6));
        let build = |factory: &tidegate_engine::graph::Factory, me| {
            let woken = Arc::new(AtomicBool::new(true));
            let wake = woken.clone();
            let waker = Waker::new(move || wake.store(true, Relaxed));
            let (job, clock, stats) = (job.clone(), clock.clone(), stats.clone());
            let slice = job.settings.slice;
            let mut context = BuildContext::new(job, me, clock, stats, waker);
            let participant = Participant::new(me, mode, restored.clone());
            context.participant = match entries {
                Some(entries) => participant.saving_at_most(entries),
                None => participant,
            };
            let head = factory(&mut context).expect("the chain is built");
            let mut subtask = Subtask::new(head, slice, context.participant.clone());
            subtask.open().expect("the chain opens");
            Actor {
                subtask,
                woken,
                until: Timestamp::MIN,
                done: false,
                drained: false,
                released: false,
                last: false,
            }
        };
        let actors = job.tasks.iter().map(|task| {
            let subtasks = 0..task.parallelism;
            subtasks.map(|me| build(&task.factory, me)).collect()
        });
        Network {
            actors: actors.collect(),
            job: job.clone(),
            clock,
            dice: Dice(seed),
            doors,
            links: BTreeMap::new(),
            accounts: BTreeMap::new(),
            cost,
            reports: Vec::new(),
        }
    }

    /// Runs the job to its end.
    pub fn run(mut self) {
        for _ in 0..STEPS {
            if !self.one_of_all() {
                if self.has_ended() {
                    return;
                }
                self.let_time_pass(Timestamp::MAX, false);
            }
        }
        panic!("the job goes on and on: {}", self.picture());
    }

    /// All subtasks of the job.
    pub fn subtasks(&self) -> Vec<SubtaskRef> {
        let tasks = (0..).zip(&self.actors);
        let of = |(task, actors): (u32, &Vec<Actor>)| {
            (0..actors.len() as u32).map(move |subtask| SubtaskRef { task, subtask })
        };
        tasks.flat_map(of).collect()
    }

    /// Every subtask has ended.
    pub fn has_ended(&self) -> bool {
        self.actors.iter().flatten().all(|actor| actor.done)
    }

    /// Tells a subtask something outside of its steps, as its actor does.
    pub fn tell(&mut self, to: SubtaskRef, control: Control) {
        let actor = &mut self.actors[to.task as usize][to.subtask as usize];
        if actor.done {
            return;
        }
        actor.until = Timestamp::MIN;
        let told = match control {
            Control::Trigger(barrier) => actor.subtask.trigger(barrier),
            Control::Settled(notice) => {
                actor.last |= matches!(notice, Notice::Completed { last: true, .. });
                actor.subtask.notify(notice)
            }
            Control::EndInput => {
                actor.subtask.drain();
                Ok(())
            }
            Control::Release => {
                actor.released = true;
                Ok(())
            }
        };
        told.unwrap_or_else(|fault| panic!("{to}, {control:?}: {fault}"));
        self.look_after(to);
    }

    /// What a turn has brought for the coordinator, and whether the subtask may end.
    fn look_after(&mut self, who: SubtaskRef) {
        let actor = &mut self.actors[who.task as usize][who.subtask as usize];
        while let Some(image) = actor.subtask.take_image(who.task) {
            self.reports.push(Report::Image(image));
        }
        if actor.released {
            let committed = actor.subtask.committed();
            let committed = committed.unwrap_or_else(|fault| panic!("{who}: {fault}"));
            actor.done = !actor.last || committed;
        }
    }

    /// Does one of the things that can happen; false if nothing can before time passes.
    pub fn one_of_all(&mut self) -> bool {
        if self.dice.roll(20) == 0 {
            self.doors.flip(&mut self.dice);
        }
        if self.dice.roll(10) == 0 {
            let pause = self.dice.roll(8) as u64;
            self.clock.advance(Duration::from_millis(pause));
        }
        let arriving = self.links.iter().filter(|(_, q)| !q.is_empty());
        let arriving: Vec<Link> = arriving.map(|(link, _)| *link).collect();
        let ready = self.ready();
        let choices = arriving.len() + ready.len();
        if choices == 0 {
            return false;
        }
        let choice = self.dice.roll(choices);
        match arriving.get(choice) {
            Some(link) => self.deliver(*link),
            None => {
                let (task, me) = ready[choice - arriving.len()];
                self.step(task, me);
            }
        }
        true
    }

    /// Subtasks that an actor would give a step now: neither more nor fewer.
    fn ready(&self) -> Vec<(usize, usize)> {
        let now = self.clock.now();
        let mut ready = Vec::new();
        for (task, actors) in self.actors.iter().enumerate() {
            for (me, actor) in actors.iter().enumerate() {
                if !actor.done && (actor.woken.load(Relaxed) || actor.until <= now) {
                    ready.push((task, me));
                }
            }
        }
        ready
    }

    /// Nobody has anything to do: the next timer, or an open door, must change that. Others have
    /// something to do at `limit`; where they are `patient`, no door stays closed until then.
    pub fn let_time_pass(&mut self, limit: Timestamp, patient: bool) {
        let waiting = self.actors.iter().flatten().filter(|actor| !actor.done);
        let next = waiting.map(|a| a.until).min().unwrap_or(Timestamp::MAX);
        let next = next.min(limit);
        if next == Timestamp::MAX {
            assert!(self.doors.open(), "deadlock: {}", self.picture());
            return;
        }
        let opens = next == limit && (patient || self.dice.roll(2) == 0);
        if opens && self.doors.open() {
            return;
        }
        let pause = next.0.saturating_sub(self.clock.now().0).max(0) as u64;
        self.clock.advance(Duration::from_millis(pause));
    }

    fn step(&mut self, task: usize, me: usize) {
        let now = self.clock.now();
        let limit = (self.dice.roll(4) == 0).then(|| 1 + self.dice.roll(5));
        let who = SubtaskRef {
            task: task as u32,
            subtask: me as u32,
        };
        let actor = &mut self.actors[task][me];
        if actor.woken.swap(false, Relaxed) {
            actor.subtask.wake();
        }
        actor.subtask.allow(limit);
        let mut sent = Sent::default();
        let next = actor.subtask.step(now, &mut sent);
        match next.unwrap_or_else(|fault| panic!("{who}: {fault}")) {
            Next::Again => actor.until = Timestamp::MIN,
            Next::Wait { until, .. } => actor.until = until,
            Next::Done { .. } if self.job.settings.checkpoints.is_none() => actor.done = true,
            Next::Done { until } => {
                actor.until = until;
                if !std::mem::replace(&mut actor.drained, true) {
                    self.reports.push(Report::Drained(who));
                }
            }
        }
        self.look_after(who);
        for (edge, to, message) in sent.0 {
            self.post(edge, me as u32, to, message);
        }
    }

    fn post(&mut self, edge: EdgeId, me: u32, to: u32, message: Message) {
        let link = match &message {
            Message::Batch { from, batch, .. } => {
                assert_eq!(*from, me, "a batch tells who sent it");
                let credits = (self.cost)(batch);
                let account = self.account(edge.0, me, to);
                account.sent += credits;
                assert!(
                    account.sent <= account.granted,
                    "edge {edge:?} from {me} to {to} carries more than was granted: {account:?}"
                );
                (edge.0, me, to, false)
            }
            Message::Barrier { from, .. } => {
                assert_eq!(*from, me, "a barrier tells who sent it");
                (edge.0, me, to, false)
            }
            Message::Credit { from, records, .. } => {
                assert_eq!(*from, me, "a credit tells who gives it");
                let most = u64::from(self.job.settings.channels.max_credits);
                let account = self.account(edge.0, to, me);
                account.issued += u64::from(*records);
                let open = account.issued - account.arrived;
                assert!(
                    open <= most,
                    "edge {edge:?} from {to} to {me}: {open} credits at once: {account:?}"
                );
                (edge.0, me, to, true)
            }
        };
        self.links.entry(link).or_default().push_back(message);
    }

    fn deliver(&mut self, link: Link) {
        let (edge, from, to, credit) = link;
        let queue = self.links.get_mut(&link).expect("it was listed");
        let message = queue.pop_front().expect("it was not empty");
        let edge = EdgeId(edge);
        let (producers, consumers) = self.job.tasks_of(edge);
        let task = match &message {
            Message::Batch { batch, .. } => {
                let credits = (self.cost)(batch);
                self.account(edge.0, from, to).arrived += credits;
                consumers
            }
            Message::Barrier { .. } => consumers,
            Message::Credit { records, .. } => {
                self.account(edge.0, to, from).granted += u64::from(*records);
                producers
            }
        };
        debug_assert_eq!(credit, task == producers && credit);
        let actor = &mut self.actors[task.0 as usize][to as usize];
        if actor.done {
            // Credits may come to a producer that has nothing to send any more. Batches may not, but for what
            // comes behind the last barrier of a job that was stopped.
            assert!(
                credit || actor.released,
                "a batch for a subtask that has ended"
            );
            return;
        }
        actor.until = Timestamp::MIN;
        let received = actor.subtask.receive(edge, message);
        received.unwrap_or_else(|fault| panic!("task {task:?}, subtask {to}: {fault}"));
    }

    fn account(&mut self, edge: u32, from: u32, to: u32) -> &mut Account {
        let initial = u64::from(self.job.settings.channels.initial_credits);
        self.accounts
            .entry((edge, from, to))
            .or_insert_with(|| Account {
                granted: initial,
                issued: initial,
                sent: 0,
                arrived: 0,
            })
    }

    /// What a person needs to see why nothing moves.
    pub fn picture(&self) -> String {
        let mut text = format!("at {}\n{}\n", self.clock.now(), self.job.plan());
        for (task, actors) in self.actors.iter().enumerate() {
            for (me, actor) in actors.iter().enumerate() {
                let (done, until) = (actor.done || actor.drained, actor.until);
                let queued = actor.subtask.queued();
                text += &format!("task {task}/{me}: done {done}, until {until}, {queued} queued\n");
            }
        }
        for (channel, account) in &self.accounts {
            text += &format!("{channel:?}: {account:?}\n");
        }
        text
    }
}
