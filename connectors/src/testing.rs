//! Drives readers and writers without a runtime.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tidegate_engine::build::{BuildContext, OpenContext};
use tidegate_engine::checkpoint::{
    CheckpointId, CheckpointMode, CheckpointSettings, OperatorImage, Participant, RestoredJob,
    StateData, StateImage, StateKind,
};
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::graph::{GraphRef, JobSettings, OperatorId};
use tidegate_engine::observe::JobStats;
use tidegate_engine::sink::{Sink, SinkWriter, TwoPhase};
use tidegate_engine::source::{Poll, Source, SourceReader, Waker};
use tidegate_engine::stage::{Collector, Signal, Stage};
use tidegate_engine::testing::GrammarCheck;
use tidegate_engine::time::Timestamp;

/// Longer than anything a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);

const A_LITTLE: Duration = Duration::from_millis(2);

/// The surroundings of one subtask of a job with a single vertex.
struct Surroundings {
    build: BuildContext,
    woken: Receiver<()>,
}

/// What an attempt begins with, and whether the job takes checkpoints.
#[derive(Clone, Default)]
pub(crate) struct Attempt {
    pub(crate) checkpointed: bool,
    pub(crate) restored: Option<Arc<RestoredJob>>,
}

impl Attempt {
    /// The first one of a job that takes checkpoints.
    pub(crate) fn first() -> Self {
        Attempt {
            checkpointed: true,
            restored: None,
        }
    }

    /// One that goes on from a checkpoint, in which the source's subtasks had these splits.
    pub(crate) fn after(id: u64, splits: Vec<Vec<Vec<u8>>>) -> Self {
        let parallelism = splits.len() as u32;
        let images = splits.into_iter().enumerate().map(|(subtask, splits)| {
            let state = StateImage {
                name: "splits".to_owned(),
                kind: StateKind::List,
                key_type: String::new(),
                value_type: "bytes".to_owned(),
                data: StateData::Elements(splits),
            };
            let image = OperatorImage {
                uid: Surroundings::new(0, 1, &Attempt::default()).uid(),
                name: "connector".to_owned(),
                max_parallelism: 128,
                parallelism,
                watermark: Timestamp::MIN,
                states: vec![state],
            };
            (subtask as u32, image)
        });
        Attempt {
            checkpointed: true,
            restored: Some(Arc::new(RestoredJob::new(CheckpointId(id), images))),
        }
    }
}

impl Surroundings {
    fn uid(&self) -> String {
        self.build.job.uid(OperatorId(0))
    }

    fn new(subtask: u32, parallelism: u32, attempt: &Attempt) -> Self {
        let graph = GraphRef::default();
        graph.edit(|g| {
            let task = g.add_task();
            let vertex = g.add_vertex(task);
            g.add_operator(vertex, "connector", "source");
            g.set_factory(task, Arc::new(|_| unreachable!("this runs no task")));
        });
        let checkpoints = attempt.checkpointed.then(CheckpointSettings::default);
        let settings = JobSettings {
            parallelism,
            checkpoints,
            ..JobSettings::default()
        };
        let job = Arc::new(
            graph
                .finish("test", settings)
                .expect("one operator is a graph"),
        );
        let (wake, woken) = channel();
        let waker = Waker::new(move || {
            let _ = wake.send(());
        });
        let stats = Arc::new(JobStats::new([("connector".to_owned(), parallelism)]));
        let mut build = BuildContext::new(job, subtask, Clock::System, stats, waker);
        let restored = attempt.restored.clone();
        build.participant = Participant::new(subtask, CheckpointMode::ExactlyOnce, restored);
        Surroundings { build, woken }
    }

    fn context(&self) -> OpenContext<'_> {
        self.build.open(OperatorId(0))
    }

    /// Waits to be woken, or for as long as was asked for.
    fn rest(&self, pause: Duration) {
        let woken = self.woken.recv_timeout(pause.min(DEADLINE)).is_ok();
        assert!(woken || pause < DEADLINE, "nobody called the waker");
    }
}

#[derive(Clone)]
struct Kept<T> {
    records: Rc<RefCell<Vec<(Timestamp, T)>>>,
    signals: Rc<RefCell<Vec<Signal>>>,
}

impl<T> Collector<T> for Kept<T> {
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        self.records.borrow_mut().push((at, value));
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<T> Stage for Kept<T> {
    fn each(&mut self, _visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        Ok(())
    }

    fn each_ref(&self, _visit: &mut dyn FnMut(&dyn Stage)) {}

    fn signal(&mut self, signal: Signal) -> Flow {
        self.signals.borrow_mut().push(signal);
        Ok(())
    }
}

/// One subtask of a source at work.
pub(crate) struct Reading<S: Source> {
    pub(crate) reader: S::Reader,
    surroundings: Surroundings,
    check: GrammarCheck<Kept<S::Item>>,
    kept: Kept<S::Item>,
}

impl<S: Source> Reading<S> {
    pub(crate) fn open(source: &S, subtask: u32, parallelism: u32) -> Flow<Self> {
        Reading::begin(source, subtask, parallelism, &Attempt::default())
    }

    /// Opens it as part of an attempt.
    pub(crate) fn begin(
        source: &S,
        subtask: u32,
        parallelism: u32,
        attempt: &Attempt,
    ) -> Flow<Self> {
        let surroundings = Surroundings::new(subtask, parallelism, attempt);
        let reader = source.open(&mut surroundings.context())?;
        let kept = Kept {
            records: Rc::default(),
            signals: Rc::default(),
        };
        let check = GrammarCheck::new(Kept {
            records: kept.records.clone(),
            signals: kept.signals.clone(),
        });
        Ok(Reading {
            reader,
            surroundings,
            check,
            kept,
        })
    }

    /// Reads at least `count` more records, in bites of `budget`, or to the end; true at its end.
    pub(crate) fn some(&mut self, count: usize, budget: usize) -> Flow<bool> {
        let want = self.kept.records.borrow().len() + count;
        let enough = |records: &[(Timestamp, S::Item)]| records.len() >= want;
        self.read(budget, enough)
    }

    /// Reads until `enough` says so or the input ends; true at its end.
    pub(crate) fn until(&mut self, enough: impl Fn(&[(Timestamp, S::Item)]) -> bool) -> Flow<bool> {
        self.read(100, enough)
    }

    fn read(
        &mut self,
        budget: usize,
        enough: impl Fn(&[(Timestamp, S::Item)]) -> bool,
    ) -> Flow<bool> {
        let began = Instant::now();
        while !enough(&self.kept.records.borrow()) {
            assert!(began.elapsed() < DEADLINE, "it takes too long");
            match self.reader.poll(budget, &mut self.check)? {
                Poll::Read(_) => {}
                Poll::Wait(pause) => self.surroundings.rest(pause),
                Poll::End => {
                    self.reader.close()?;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Asks once, and waits a little if there is nothing.
    pub(crate) fn once(&mut self, budget: usize) -> Flow {
        if let Poll::Wait(pause) = self.reader.poll(budget, &mut self.check)? {
            let _ = self.surroundings.woken.recv_timeout(pause.min(A_LITTLE));
        }
        Ok(())
    }

    /// How many records were read and not taken.
    pub(crate) fn kept(&self) -> usize {
        self.kept.records.borrow().len()
    }

    pub(crate) fn take(&mut self) -> Vec<(Timestamp, S::Item)> {
        self.kept.records.take()
    }

    pub(crate) fn position(&self) -> String {
        self.reader.position()
    }

    pub(crate) fn signals(&self) -> Vec<Signal> {
        self.kept.signals.borrow().clone()
    }
}

/// What a source yields at a parallelism, and how it failed if it did.
pub(crate) struct ReadAll<T> {
    pub(crate) values: Vec<T>,
    pub(crate) fault: Option<Fault>,
    pub(crate) position: String,
    pub(crate) dead_letters: u64,
}

/// Checks a source and reads all its subtasks to their end.
pub(crate) fn read_all<S: Source>(source: &S, parallelism: u32) -> ReadAll<S::Item> {
    let (values, position) = (Vec::new(), String::new());
    let mut all = ReadAll {
        values,
        fault: None,
        position,
        dead_letters: 0,
    };
    if let Err(fault) = source.check() {
        all.fault = Some(fault);
        return all;
    }
    for subtask in 0..parallelism {
        let mut reading = Reading::open(source, subtask, parallelism).expect("it opens");
        all.fault = reading.until(|_| false).err();
        all.values
            .extend(reading.take().into_iter().map(|(_, value)| value));
        all.position = reading.reader.position();
        all.dead_letters += reading.reader.dead_letters();
        if all.fault.is_some() {
            break;
        }
    }
    all
}

/// Reads a source to its end in several attempts: each reads some with every subtask, saves where it is
/// and loses what it read behind that. `cuts` has, for each attempt, its parallelism, how many
/// records every subtask reads before the checkpoint and how many it loses behind it. Returns what
/// the checkpoints cover, which should be everything, once.
pub(crate) fn read_in_attempts<S: Source>(
    source: &S,
    cuts: &[(u32, usize, usize)],
    budget: usize,
    last: u32,
) -> Flow<Vec<S::Item>> {
    let mut attempt = Attempt::first();
    let mut covered = Vec::new();
    for (n, (parallelism, before, behind)) in cuts.iter().enumerate() {
        let mut splits = Vec::new();
        for subtask in 0..*parallelism {
            let mut reading = Reading::begin(source, subtask, *parallelism, &attempt)?;
            let ended = reading.some(*before, budget)?;
            covered.extend(reading.take().into_iter().map(|(_, value)| value));
            let saved = if ended {
                Vec::new()
            } else {
                reading.reader.splits()?
            };
            splits.push(saved);
            if !ended {
                reading.some(*behind, budget)?;
            }
        }
        attempt = Attempt::after(n as u64 + 1, splits);
    }
    for subtask in 0..last {
        let mut reading = Reading::begin(source, subtask, last, &attempt)?;
        reading.read(budget, |_| false)?;
        covered.extend(reading.take().into_iter().map(|(_, value)| value));
    }
    Ok(covered)
}

/// Checks a sink and writes records with all its subtasks, one after the other.
pub(crate) fn write_all<T, S: Sink<T>>(
    sink: &S,
    parallelism: u32,
    records: impl IntoIterator<Item = T>,
) -> Flow {
    sink.check()?;
    sink.recover(None)?;
    let mut records = records.into_iter();
    let surroundings: Vec<_> = (0..parallelism)
        .map(|n| Surroundings::new(n, parallelism, &Attempt::default()))
        .collect();
    let mut writers = Vec::new();
    for s in &surroundings {
        writers.push(sink.open(&mut s.context())?);
    }
    for subtask in (0..parallelism as usize).cycle() {
        while !writers[subtask].has_room() {
            surroundings[subtask].rest(Duration::from_secs(60));
            writers[subtask].turn(Clock::System.now())?;
        }
        let Some(record) = records.next() else { break };
        writers[subtask].write(Timestamp::MIN, record)?;
    }
    for (writer, surroundings) in writers.iter_mut().zip(&surroundings) {
        writer.close()?;
        while !writer.closed() {
            surroundings.rest(Duration::from_secs(60));
            writer.turn(Clock::System.now())?;
        }
    }
    Ok(())
}

/// One subtask of a sink at work.
pub(crate) struct Writing<W> {
    pub(crate) writer: W,
    surroundings: Surroundings,
}

impl<W> Writing<W> {
    /// Opens it as part of an attempt.
    pub(crate) fn begin<T, S: Sink<T, Writer = W>>(
        sink: &S,
        subtask: u32,
        parallelism: u32,
        attempt: &Attempt,
    ) -> Flow<Self> {
        let surroundings = Surroundings::new(subtask, parallelism, attempt);
        let writer = sink.open(&mut surroundings.context())?;
        Ok(Writing {
            writer,
            surroundings,
        })
    }

    /// Asks until there is an answer.
    pub(crate) fn wait<T, R>(&mut self, mut ask: impl FnMut(&mut W) -> Flow<Option<R>>) -> Flow<R>
    where
        W: SinkWriter<T>,
    {
        loop {
            if let Some(answer) = ask(&mut self.writer)? {
                return Ok(answer);
            }
            self.surroundings.rest(Duration::from_secs(60));
            self.writer.turn(Clock::System.now())?;
        }
    }

    /// Writes, when there is room.
    pub(crate) fn write<T>(&mut self, record: T) -> Flow
    where
        W: SinkWriter<T>,
    {
        self.wait::<T, ()>(|writer| Ok(writer.has_room().then_some(())))?;
        self.writer.write(Timestamp::MIN, record)
    }

    /// Waits until what was written has left the process.
    pub(crate) fn flush<T>(&mut self) -> Flow
    where
        W: SinkWriter<T>,
    {
        self.writer.flush()?;
        self.wait(|writer| Ok(writer.flushed()?.then_some(())))
    }

    /// Prepares for a checkpoint and waits for the committable.
    pub(crate) fn prepare<T>(&mut self, checkpoint: u64) -> Flow<Vec<u8>>
    where
        W: SinkWriter<T>,
    {
        phases(&mut self.writer).prepare(CheckpointId(checkpoint))?;
        self.wait(|writer| phases(writer).prepared())
    }

    /// Commits and waits until that is done.
    pub(crate) fn commit<T>(&mut self, committable: Vec<u8>, last: bool) -> Flow
    where
        W: SinkWriter<T>,
    {
        phases(&mut self.writer).commit(committable, last)?;
        self.wait(|writer| Ok(phases(writer).committed()?.then_some(())))
    }

    /// Ends the input.
    pub(crate) fn close<T>(&mut self) -> Flow
    where
        W: SinkWriter<T>,
    {
        self.writer.close()?;
        self.wait(|writer| Ok(writer.closed().then_some(())))
    }
}

fn phases<T>(writer: &mut impl SinkWriter<T>) -> &mut dyn TwoPhase {
    writer.two_phase().expect("it commits in two phases")
}
