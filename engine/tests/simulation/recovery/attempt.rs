//! One attempt of the job: its subtasks, built from a checkpoint, and the channels between them.

use super::member::{Image, Item, Member, Worker};
use super::roles::{Counter, Reader, Writer, owner};
use std::collections::{BTreeMap, VecDeque};
use tidegate_engine::checkpoint::{CheckpointId, Coordinator, SubtaskRef};

/// The job's input.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    pub splits: u32,
    pub length: u64,
    pub keys: u32,
}

pub struct Attempt {
    pub number: u64,
    pub coordinator: Coordinator<u64>,
    pub refs: Vec<SubtaskRef>,
    pub members: Vec<Box<dyn Member>>,
    /// By member, then by its input.
    pub channels: Vec<Vec<VecDeque<Item>>>,
    /// The first member of each task, and how many there are.
    pub tasks: [(usize, usize); 3],
    /// A subtask is gone.
    pub dead: bool,
    pub settled: bool,
    pub finishing: bool,
}

/// Records that wait in a channel before its producer waits too.
const CHANNEL: usize = 8;

pub fn subtasks(widths: [u32; 3]) -> Vec<SubtaskRef> {
    let tasks = widths.iter().zip(0..);
    let refs = tasks.flat_map(|(width, task)| (0..*width).map(move |subtask| (task, subtask)));
    refs.map(|(task, subtask)| SubtaskRef { task, subtask })
        .collect()
}

impl Attempt {
    pub fn new(
        number: u64,
        coordinator: Coordinator<u64>,
        widths: [u32; 3],
        input: Input,
        (id, images): (CheckpointId, &[(SubtaskRef, Image)]),
    ) -> Self {
        let [readers, counters, writers] = widths;
        let watermark = |task| {
            let mine = images.iter().filter(|(who, _)| who.task == task);
            mine.map(|(_, image)| image.watermark).min().unwrap_or(0)
        };
        let mut members: Vec<Box<dyn Member>> = Vec::new();
        for role in restored_readers(readers, counters, input, images) {
            members.push(Box::new(Worker::new(role, 0, counters as usize, 0)));
        }
        for me in 0..counters {
            let counts = images.iter().flat_map(|(_, image)| &image.counts);
            let mine = counts.filter(|(key, _)| owner(*key, counters) == me as usize);
            let role = Counter {
                counts: mine.copied().collect(),
                consumers: writers,
            };
            let (inputs, outputs) = (readers as usize, writers as usize);
            members.push(Box::new(Worker::new(role, inputs, outputs, watermark(1))));
        }
        let commits: Vec<_> = images
            .iter()
            .flat_map(|(_, image)| &image.commits)
            .collect();
        for me in 0..writers as usize {
            let mine = commits.iter().skip(me).step_by(writers as usize);
            let mine: Vec<_> = mine.map(|c| (*c).clone()).collect();
            let role = Writer::restore(id, &mine);
            members.push(Box::new(Worker::new(
                role,
                counters as usize,
                0,
                watermark(2),
            )));
        }
        let inputs = [0, readers, counters];
        let per_task = widths.iter().zip(inputs);
        let channels = per_task.flat_map(|(width, inputs)| {
            let empty = vec![VecDeque::new(); inputs as usize];
            vec![empty; *width as usize]
        });
        let [r, c, w] = widths.map(|w| w as usize);
        Attempt {
            number,
            coordinator,
            refs: subtasks(widths),
            channels: channels.collect(),
            members,
            tasks: [(0, r), (r, c), (r + c, w)],
            dead: false,
            settled: false,
            finishing: false,
        }
    }

    /// All its outputs have room.
    pub fn has_room(&self, member: usize) -> bool {
        let me = self.refs[member];
        let Some((first, count)) = self.tasks.get(me.task as usize + 1) else {
            return true;
        };
        let mut outputs = *first..first + count;
        outputs.all(|to| self.channels[to][me.subtask as usize].len() < CHANNEL)
    }

    pub fn send(&mut self, member: usize, output: usize, item: Item) {
        let me = self.refs[member];
        let (first, _) = self.tasks[me.task as usize + 1];
        self.channels[first + output][me.subtask as usize].push_back(item);
    }

    /// Sinks have committed everything and know that the job ends.
    pub fn has_finished(&self) -> bool {
        let (first, count) = self.tasks[2];
        let mut sinks = self.members[first..first + count].iter();
        self.finishing && sinks.all(|sink| sink.finished())
    }
}

fn restored_readers(
    readers: u32,
    consumers: u32,
    input: Input,
    images: &[(SubtaskRef, Image)],
) -> Vec<Reader> {
    let saved = images.iter().flat_map(|(_, image)| image.positions.iter());
    let saved: BTreeMap<u32, u64> = saved.copied().collect();
    let position = |split| (split, saved.get(&split).copied().unwrap_or(0));
    let of = |me| (0..input.splits).filter(move |split| split % readers == me);
    let reader = |me| Reader {
        positions: of(me).map(position).collect(),
        length: input.length,
        keys: input.keys,
        consumers,
        turn: 0,
        paused: false,
        cut: false,
    };
    (0..readers).map(reader).collect()
}
