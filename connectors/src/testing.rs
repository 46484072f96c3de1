//! Drives readers and writers without a runtime.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tidegate_engine::build::{BuildContext, OpenContext};
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::graph::{GraphRef, JobSettings, OperatorId};
use tidegate_engine::observe::JobStats;
use tidegate_engine::sink::{Sink, SinkWriter};
use tidegate_engine::source::{Poll, Source, SourceReader, Waker};
use tidegate_engine::stage::{Collector, Signal, Stage};
use tidegate_engine::testing::GrammarCheck;
use tidegate_engine::time::Timestamp;

/// Longer than anything a test waits for.
const DEADLINE: Duration = Duration::from_secs(20);

/// The surroundings of one subtask of a job with a single vertex.
struct Surroundings {
    build: BuildContext,
    woken: Receiver<()>,
}

impl Surroundings {
    fn new(subtask: u32, parallelism: u32) -> Self {
        let graph = GraphRef::default();
        graph.edit(|g| {
            let task = g.add_task();
            let vertex = g.add_vertex(task);
            g.add_operator(vertex, "connector", "source");
            g.set_factory(task, Arc::new(|_| unreachable!("this runs no task")));
        });
        let settings = JobSettings {
            parallelism,
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
        Surroundings {
            build: BuildContext::new(job, subtask, Clock::System, stats, waker),
            woken,
        }
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
        let surroundings = Surroundings::new(subtask, parallelism);
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

    /// Reads until `enough` says so or the input ends; true at its end.
    pub(crate) fn until(&mut self, enough: impl Fn(&[(Timestamp, S::Item)]) -> bool) -> Flow<bool> {
        let began = Instant::now();
        while !enough(&self.kept.records.borrow()) {
            assert!(began.elapsed() < DEADLINE, "it takes too long");
            match self.reader.poll(100, &mut self.check)? {
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

/// Checks a sink and writes records with all its subtasks, one after the other.
pub(crate) fn write_all<T, S: Sink<T>>(
    sink: &S,
    parallelism: u32,
    records: impl IntoIterator<Item = T>,
) -> Flow {
    sink.check()?;
    let mut records = records.into_iter();
    let surroundings: Vec<_> = (0..parallelism)
        .map(|n| Surroundings::new(n, parallelism))
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
