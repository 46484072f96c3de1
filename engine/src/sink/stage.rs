//! The last stage of a chain: hosts a writer, and keeps the order of its commits.

use super::SinkWriter;
use super::two_phase::{COMMITTABLES, FILES};
use crate::checkpoint::shared::Local;
use crate::checkpoint::visitor::{Capture, Opaque};
use crate::checkpoint::{
    Barrier, CheckpointId, Commits, FilesImage, FilesIndex, LocalFiles, Notice, OperatorImage,
    Participant, StateData, StateImage, StateKind, StateVisitor, StoredFiles,
};
use crate::fault::{Fault, Flow, PanicMark};
use crate::node::Identity;
use crate::observe::SubtaskStats;
use crate::stage::{Collector, Signal, Stage, Turn};
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// The last stage of a chain.
pub struct SinkStage<T, W> {
    /// Absent in subtasks beyond the sink's parallelism, which are given no record.
    writer: Option<W>,
    name: Rc<str>,
    stats: Arc<SubtaskStats>,
    written: u64,
    published: u64,
    ended: bool,
    participant: Participant,
    identity: Option<Identity>,
    epochs: Epochs,
    input: PhantomData<fn(T)>,
}

/// What of a writer's output is on its way to be seen.
#[derive(Default)]
struct Epochs {
    /// Barriers whose output is not durable yet, oldest first.
    preparing: VecDeque<Barrier>,
    /// What is durable and not known to be committed.
    commits: Commits,
    /// Which of the writer's files checkpoints hold.
    stored: StoredFiles,
    /// Everything up to this checkpoint was given to the writer to commit.
    asked: Option<CheckpointId>,
    /// The job's last checkpoint has been committed.
    over: bool,
}

impl<T, W: SinkWriter<T>> SinkStage<T, W> {
    /// Writes with an opened writer.
    pub fn new(writer: Option<W>, name: Rc<str>, stats: Arc<SubtaskStats>) -> Self {
        SinkStage {
            writer,
            name,
            stats,
            written: 0,
            published: 0,
            ended: false,
            participant: Participant::default(),
            identity: None,
            epochs: Epochs::default(),
            input: PhantomData,
        }
    }

    /// Takes part in checkpoints.
    pub fn participate(mut self, participant: Participant, identity: Identity) -> Self {
        participant.add_leaf();
        self.participant = participant;
        self.identity = Some(identity);
        self
    }

    #[cold]
    fn named(&self, fault: Fault) -> Fault {
        fault.at(&self.name)
    }

    /// Runs a hook of the writer; its error is given the sink's name, and so is its panic.
    fn guarded<R>(&mut self, hook: impl FnOnce(&mut W) -> Flow<R>) -> Flow<Option<R>> {
        let Some(writer) = &mut self.writer else {
            return Ok(None);
        };
        let mark = PanicMark::new(&self.name);
        let result = hook(writer);
        mark.passed();
        result.map(Some).map_err(|fault| self.named(fault))
    }

    fn barrier(&mut self, barrier: Barrier) -> Flow {
        if self.writer.is_some() && self.participant.begin(barrier) {
            self.guarded(|writer| match writer.two_phase() {
                Some(phases) => phases.prepare(barrier.id),
                None => writer.flush(),
            })?;
            self.epochs.preparing.push_back(barrier);
            self.prepare()?;
        }
        self.participant.passed_leaf(barrier);
        Ok(())
    }

    /// Looks which barriers' output has become durable, and saves what a recovery would have to commit.
    fn prepare(&mut self) -> Flow {
        while let Some(&barrier) = self.epochs.preparing.front() {
            let durable = self.guarded(|writer| match writer.two_phase() {
                Some(phases) => phases.prepared(),
                None => Ok(writer.flushed()?.then(Vec::new)),
            })?;
            let Some(committable) = durable.flatten() else {
                return Ok(());
            };
            self.epochs.preparing.pop_front();
            if !committable.is_empty() {
                self.epochs.commits.prepared(barrier.id, committable);
            }
            self.confirm()?;
            let image = self.image(barrier.id)?;
            self.participant.saved(barrier, image);
        }
        Ok(())
    }

    /// The files in which parts lie of what a recovery would have to commit.
    fn files(&mut self, id: CheckpointId) -> Flow<Option<FilesImage>> {
        let Some(writer) = &mut self.writer else {
            return Ok(None);
        };
        let Epochs {
            commits, stored, ..
        } = &self.epochs;
        let covered: Vec<&[u8]> = commits.covered(id).collect();
        let mark = PanicMark::new(&self.name);
        let files = match writer.two_phase() {
            Some(phases) if !covered.is_empty() => phases.files(&covered, stored),
            _ => Ok(None),
        };
        mark.passed();
        let files = files.map_err(|fault| self.named(fault))?;
        let image = |local: Arc<dyn LocalFiles>| FilesImage {
            index: FilesIndex {
                format: FILES.to_owned(),
                entries: local.names().map_or(0, |names| names.len() as u64),
                ..FilesIndex::default()
            },
            manifest: Vec::new(),
            local: Local(Some(local)),
        };
        Ok(files.map(image))
    }

    fn image(&mut self, id: CheckpointId) -> Flow<Option<OperatorImage>> {
        let files = self.files(id)?;
        let Some(identity) = &self.identity else {
            return Ok(None);
        };
        let mut open = Opaque(self.epochs.commits.to_save(id));
        let mut capture = Capture::new(identity.max_parallelism);
        StateVisitor::freeze(&mut capture).union(COMMITTABLES, &mut open)?;
        let mut states = capture.into_states();
        states.extend(files.map(|files| StateImage {
            name: FILES.to_owned(),
            kind: StateKind::Union,
            key_type: String::new(),
            value_type: "bytes".to_owned(),
            data: StateData::Files(files),
        }));
        Ok((!open.0.is_empty()).then(|| identity.image(&self.name, Timestamp::MIN, states)))
    }

    /// Commits everything that a complete checkpoint covers.
    fn commit(&mut self, upto: CheckpointId, last: bool) -> Flow {
        let covered = self.epochs.commits.completed(upto);
        self.guarded(|writer| {
            let Some(phases) = writer.two_phase() else {
                return Ok(());
            };
            let mut covered = covered.into_iter().peekable();
            while let Some(committable) = covered.next() {
                phases.commit(committable, last && covered.peek().is_none())?;
            }
            Ok(())
        })?;
        self.epochs.over |= last;
        self.epochs.asked = Some(upto);
        Ok(())
    }

    /// Looks whether what was given to the writer is committed; what is need not be saved any more.
    fn confirm(&mut self) -> Flow<bool> {
        let done = self.guarded(|writer| match writer.two_phase() {
            Some(phases) => Ok((phases.committed()?, phases.newly_committed()?)),
            None => Ok((true, 0)),
        })?;
        let (done, count) = done.unwrap_or((true, 0));
        self.epochs.commits.oldest_committed(count);
        if let (true, Some(id)) = (done, self.epochs.asked) {
            self.epochs.commits.committed(id);
            self.epochs.asked = None;
        }
        Ok(done)
    }
}

impl<T, W: SinkWriter<T>> Collector<T> for SinkStage<T, W> {
    #[inline(always)]
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        let Some(writer) = &mut self.writer else {
            return Ok(());
        };
        let mark = PanicMark::new(&self.name);
        let result = writer.write(at, value);
        mark.passed();
        self.written += 1;
        result.map_err(|fault| self.named(fault))
    }

    fn has_room(&self) -> bool {
        self.writer.as_ref().is_none_or(SinkWriter::has_room)
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<T, W: SinkWriter<T>> Stage for SinkStage<T, W> {
    fn each(&mut self, _visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        Ok(())
    }

    fn each_ref(&self, _visit: &mut dyn FnMut(&dyn Stage)) {}

    fn signal(&mut self, signal: Signal) -> Flow {
        match signal {
            Signal::EndOfInput => {
                self.ended = true;
                self.guarded(SinkWriter::close).map(drop)
            }
            Signal::Barrier(barrier) => self.barrier(barrier),
            Signal::Watermark(_) | Signal::Idle => Ok(()),
        }
    }

    fn notify(&mut self, notice: Notice) -> Flow {
        self.epochs.stored.settled(notice);
        // What an aborted checkpoint was to cover stays, and goes with the next one.
        if let Notice::Completed { id, last } = notice {
            self.commit(id, last)?;
        }
        Ok(())
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        let now = turn.now;
        if let Some(wake_at) = self.guarded(|writer| writer.turn(now))? {
            turn.wake_at(wake_at);
        }
        self.prepare()?;
        // As soon as it is known: what isn't is saved once more.
        if self.epochs.asked.is_some() {
            self.confirm()?;
        }
        let more = self.written - std::mem::replace(&mut self.published, self.written);
        if more > 0 {
            self.stats.records_out.fetch_add(more, Relaxed);
            let bytes = more * size_of::<T>() as u64;
            self.stats.bytes_out.fetch_add(bytes, Relaxed);
        }
        Ok(())
    }

    fn room(&self) -> bool {
        self.writer.as_ref().is_none_or(SinkWriter::has_room)
    }

    fn finished(&self) -> bool {
        self.writer
            .as_ref()
            .is_none_or(|writer| self.ended && writer.closed())
    }

    fn committed(&mut self) -> Flow<bool> {
        Ok(self.epochs.over && self.confirm()?)
    }
}
