//! A subtask as the protocol sees it: alignment of barriers, and what each kind of task keeps.

use super::roles::Role;
use std::collections::BTreeMap;
use tidegate_engine::checkpoint::{Barrier, BarrierKind, CheckpointId, Notice};

/// A record: where it comes from, its key, and how many of that key there were with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    pub split: u32,
    pub seq: u64,
    pub key: u32,
    pub count: u64,
}

/// What flows on a channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item {
    Record(Record),
    Watermark(u64),
    Barrier(Barrier),
    End,
}

/// What the coordinator tells a subtask.
#[derive(Clone, Copy, Debug)]
pub enum Control {
    Trigger(Barrier),
    Notice(Notice),
    EndInput,
}

/// What a subtask saves.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    pub id: CheckpointId,
    pub watermark: u64,
    pub positions: Vec<(u32, u64)>,
    pub counts: Vec<(u32, u64)>,
    /// As a sink saves what it has not committed.
    pub commits: Vec<Vec<u8>>,
}

impl Image {
    /// The names of what it allows to be committed.
    pub fn committables(&self) -> impl Iterator<Item = u64> + '_ {
        let names = self.commits.iter().filter_map(|c| c.last_chunk::<8>());
        names.map(|bytes| u64::from_le_bytes(*bytes))
    }
}

/// What a subtask does to others.
#[derive(Default)]
pub struct Out {
    /// By output.
    pub items: Vec<(usize, Item)>,
    pub snapshots: Vec<(Barrier, Image)>,
    /// Output that is ready to be committed later: its epoch, name and records.
    pub staged: Vec<(CheckpointId, u64, Vec<Record>)>,
    pub commit: Option<u64>,
    pub drained: bool,
    /// The next name for what is staged.
    pub names: u64,
}

/// A subtask of the simulation, whatever it is made of.
pub trait Member {
    fn control(&mut self, control: Control, out: &mut Out);
    /// Whether it takes what comes on this input now.
    fn wants(&self, input: usize) -> bool;
    fn receive(&mut self, input: usize, item: Item, out: &mut Out);
    /// Whether there is something to do besides.
    fn ready(&self) -> bool;
    fn step(&mut self, out: &mut Out);
    /// It knows that the job ends and has nothing left to do.
    fn finished(&self) -> bool;
    /// Its state, for a person.
    fn picture(&self) -> String;
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Input {
    Open,
    /// Its barrier came; it waits for the others.
    Blocked,
    Ended,
}

/// The plain subtask: one role behind aligned inputs.
pub struct Worker<R> {
    role: R,
    inputs: Vec<Input>,
    watermarks: Vec<u64>,
    watermark: u64,
    outputs: usize,
    /// The barrier that is being aligned.
    aligning: Option<Barrier>,
    /// The newest barrier that is done with.
    last: CheckpointId,
    /// Triggers whose barriers have not come.
    triggers: BTreeMap<CheckpointId, Barrier>,
    settled: CheckpointId,
    ended: bool,
    last_notice: bool,
}

impl<R: Role> Worker<R> {
    pub fn new(role: R, inputs: usize, outputs: usize, watermark: u64) -> Self {
        Worker {
            role,
            inputs: vec![Input::Open; inputs],
            watermarks: vec![watermark; inputs],
            watermark,
            outputs,
            aligning: None,
            last: CheckpointId(0),
            triggers: BTreeMap::new(),
            settled: CheckpointId(0),
            ended: false,
            last_notice: false,
        }
    }

    fn broadcast(&self, item: Item, out: &mut Out) {
        out.items.extend((0..self.outputs).map(|o| (o, item)));
    }

    /// The barrier passes: everything before it is in the image, nothing after it.
    fn snapshot(&mut self, barrier: Barrier, out: &mut Out) {
        self.last = barrier.id;
        self.triggers = self.triggers.split_off(&barrier.id.next());
        let mut image = Image {
            id: barrier.id,
            watermark: self.watermark,
            ..Image::default()
        };
        self.role.save(barrier, &mut image, out);
        if !self.ended {
            self.broadcast(Item::Barrier(barrier), out);
        }
        out.snapshots.push((barrier, image));
    }

    fn barrier(&mut self, input: usize, barrier: Barrier, out: &mut Out) {
        let newest = self.aligning.map_or(self.last, |b| b.id);
        if barrier.id < newest || barrier.id <= self.last || barrier.id <= self.settled {
            return; // it can't become complete here any more
        }
        if barrier.id > newest {
            self.release();
            self.aligning = Some(barrier);
        }
        self.inputs[input] = Input::Blocked;
        self.align(out);
    }

    fn release(&mut self) {
        self.aligning = None;
        for input in &mut self.inputs {
            if *input == Input::Blocked {
                *input = Input::Open;
            }
        }
    }

    fn align(&mut self, out: &mut Out) {
        if let Some(barrier) = self.aligning
            && !self.inputs.contains(&Input::Open)
        {
            self.release();
            self.snapshot(barrier, out);
        }
    }

    fn end(&mut self, out: &mut Out) {
        // What was triggered and can't come as a barrier any more.
        for barrier in std::mem::take(&mut self.triggers).into_values() {
            if barrier.id > self.last && barrier.id > self.settled {
                self.snapshot(barrier, out);
            }
        }
        self.ended = true;
        self.broadcast(Item::End, out);
        out.drained = true;
    }

    fn advance(&mut self, out: &mut Out) {
        let ended = |i: usize| self.inputs[i] == Input::Ended;
        let live = (0..self.inputs.len()).filter(|i| !ended(*i));
        let least = live.map(|i| self.watermarks[i]).min();
        let least = least.unwrap_or(self.watermark);
        if least > self.watermark {
            self.watermark = least;
            self.broadcast(Item::Watermark(least), out);
        }
    }
}

impl<R: Role> Member for Worker<R> {
    fn control(&mut self, control: Control, out: &mut Out) {
        match control {
            Control::Trigger(barrier) => {
                if barrier.id <= self.last || barrier.id <= self.settled {
                    return;
                }
                if self.ended || self.inputs.is_empty() {
                    self.role.resume();
                    self.snapshot(barrier, out);
                    if barrier.kind == BarrierKind::Stop {
                        self.role.pause();
                    }
                } else {
                    self.triggers.insert(barrier.id, barrier);
                }
            }
            Control::Notice(Notice::Completed { id, last }) => {
                self.role.completed(id);
                self.last_notice |= last;
            }
            Control::Notice(Notice::Aborted { id }) => {
                self.settled = self.settled.max(id);
                if self.last == id {
                    self.role.resume();
                }
                self.triggers.remove(&id);
                if self.aligning.is_some_and(|b| b.id <= id) {
                    self.release();
                }
            }
            Control::EndInput => self.role.end_input(),
        }
    }

    fn wants(&self, input: usize) -> bool {
        self.inputs[input] == Input::Open && self.role.takes_input()
    }

    fn receive(&mut self, input: usize, item: Item, out: &mut Out) {
        match item {
            Item::Record(record) => {
                let (seq, seen) = (record.seq, self.watermark);
                assert!(seq >= seen, "I5: record {seq} is late for watermark {seen}");
                self.role.record(record, out);
            }
            Item::Watermark(watermark) => {
                let before = self.watermarks[input];
                assert!(watermark >= before, "I5: {watermark} came after {before}");
                self.watermarks[input] = watermark;
                self.advance(out);
            }
            Item::Barrier(barrier) => self.barrier(input, barrier, out),
            Item::End => {
                self.inputs[input] = Input::Ended;
                self.align(out);
                if self.inputs.iter().all(|i| *i == Input::Ended) {
                    self.end(out);
                } else {
                    self.advance(out);
                }
            }
        }
    }

    fn ready(&self) -> bool {
        self.role.ready() || (self.inputs.is_empty() && !self.ended && self.role.at_end())
    }

    fn step(&mut self, out: &mut Out) {
        if self.role.ready() {
            let watermark = self.role.step(out);
            if let Some(watermark) = watermark.filter(|w| *w > self.watermark) {
                self.watermark = watermark;
                self.broadcast(Item::Watermark(watermark), out);
            }
        } else if !self.ended {
            self.end(out);
        }
    }

    fn finished(&self) -> bool {
        self.last_notice && !self.role.ready()
    }

    fn picture(&self) -> String {
        let (inputs, aligning, last) = (&self.inputs, self.aligning, self.last);
        let (triggers, settled, ended) = (&self.triggers, self.settled, self.ended);
        let (ready, takes) = (self.role.ready(), self.role.takes_input());
        format!(
            "{inputs:?}, aligning {aligning:?}, last {last}, {triggers:?}, settled {settled}, \
             ended {ended}, ready {ready}, takes input {takes}"
        )
    }
}
