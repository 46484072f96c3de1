//! What the chain of one subtask is built with.

use crate::alignment::{Alignment, AlignmentMember};
use crate::checkpoint::visitor::Opaque;
use crate::checkpoint::{CheckpointId, Participant, StateVisitor};
use crate::clock::Clock;
use crate::exchange::{Distribution, EdgeId, Flight, Placement};
use crate::fault::{Fault, Flow};
use crate::graph::{JobGraph, OperatorId, VertexId};
use crate::memory::MemoryManager;
use crate::metrics::{MetricGroup, MetricRegistry};
use crate::node::Identity;
use crate::observe::{EdgeMeter, JobStats, SubtaskStats, VertexMeter};
use crate::side::{SideBuffer, SideOutput};
use crate::source::{SPLITS, Waker};
use crate::splits::SplitTrack;
use crate::state::OperatorStates;
use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

/// The surroundings of one subtask while its chain is built, from its sink to its source.
pub struct BuildContext {
    /// The job.
    pub job: Arc<JobGraph>,
    /// The subtask's number.
    pub me: u32,
    /// Where processing time comes from.
    pub clock: Clock,
    /// The job's live numbers.
    pub stats: Arc<JobStats>,
    /// Asks this subtask's actor for a turn.
    pub waker: Waker,
    /// Where the metrics of user code are counted.
    pub metrics: MetricRegistry,
    /// The job's budget of pooled memory.
    pub memory: MemoryManager,
    /// This subtask's part in checkpoints.
    pub participant: Participant,
    sides: HashMap<u64, Rc<dyn Any>>,
    splits: RefCell<HashMap<VertexId, SplitTrack>>,
}

impl BuildContext {
    /// The surroundings of subtask `me`, with metrics and memory of their own until the fields are
    /// set.
    pub fn new(
        job: Arc<JobGraph>,
        me: u32,
        clock: Clock,
        stats: Arc<JobStats>,
        waker: Waker,
    ) -> Self {
        let (metrics, memory) = (MetricRegistry::new(), MemoryManager::default());
        BuildContext {
            job,
            me,
            clock,
            stats,
            waker,
            metrics,
            memory,
            participant: Participant::default(),
            sides: HashMap::new(),
            splits: RefCell::default(),
        }
    }

    /// By what an operator is known in checkpoints.
    pub fn identity(&self, operator: OperatorId) -> Identity {
        let vertex = self.job.vertex_of(operator);
        Identity {
            uid: self.job.uid(operator),
            me: self.me,
            parallelism: self.job.parallelism(vertex),
            max_parallelism: self.job.max_parallelism(vertex),
        }
    }

    /// Whether this subtask has a part in a vertex: its number is below the vertex's parallelism.
    pub fn takes_part(&self, operator: OperatorId) -> bool {
        self.me < self.job.parallelism(self.job.vertex_of(operator))
    }

    /// The context in which an operator is opened.
    pub fn open(&self, operator: OperatorId) -> OpenContext<'_> {
        OpenContext {
            build: self,
            operator,
            states: OperatorStates::default(),
        }
    }

    /// An operator's name.
    pub fn name(&self, operator: OperatorId) -> Rc<str> {
        self.job.operators[operator.0 as usize].name.as_str().into()
    }

    /// This subtask's numbers in the vertex of an operator.
    pub fn stats_of(&self, operator: OperatorId) -> Arc<SubtaskStats> {
        self.stats.subtask(self.job.vertex_of(operator).0, self.me)
    }

    /// Where an edge stands, seen from this subtask.
    pub fn placement(&self, edge: EdgeId) -> Placement {
        let (from, to) = self.job.ends(edge);
        Placement {
            me: self.me,
            producers: self.job.parallelism(from),
            consumers: self.job.parallelism(to),
            max_parallelism: self.job.max_parallelism(to),
        }
    }

    /// The meters of the two ends of an edge for records of type `T`.
    pub fn meters<T>(&self, edge: EdgeId) -> (EdgeMeter, VertexMeter) {
        let (from, to) = self.job.ends(edge);
        let stats = |v: VertexId| self.stats.subtask(v.0, self.me);
        let size = size_of::<T>();
        (
            EdgeMeter::new(stats(from), size),
            VertexMeter::new(stats(to), size),
        )
    }

    /// How the records of an edge are kept in checkpoints; `None` where they can't be. `key_groups` are those of
    /// the consumer, and this subtask's number is that at either end.
    pub fn flight<T: 'static, P: Distribution<T>>(&self, edge: EdgeId) -> Flow<Option<Flight<T>>> {
        let uid = self.job.edge_uid(edge);
        let Placement {
            me,
            consumers: parallelism,
            max_parallelism,
            ..
        } = self.placement(edge);
        let identity = Identity {
            uid,
            me,
            parallelism,
            max_parallelism,
        };
        let dealing = self.job.dealing(edge);
        let (Some(dealing), Some(codec)) = (dealing, P::codec(&self.job.codecs)) else {
            let restored = self.participant.restored();
            let left = |uid: &str| restored.is_some_and(|job| job.uids().any(|known| known == uid));
            if left(&identity.uid) {
                return Err(self.job.not_encodable(edge));
            }
            return Ok(None);
        };
        Ok(Some(Flight {
            identity,
            dealing,
            codec,
            overtakes: self.job.overtakes(edge),
            participant: self.participant.clone(),
        }))
    }

    /// Registers where the records of a side output go; operators that are built later find it.
    pub fn register_side<S: 'static>(&mut self, tag: u64, buffer: SideBuffer<S>) {
        self.sides.insert(tag, Rc::new(buffer));
    }
}

/// What an operator, source or sink learns when it is opened in a subtask.
pub struct OpenContext<'a> {
    build: &'a BuildContext,
    operator: OperatorId,
    states: OperatorStates,
}

impl OpenContext<'_> {
    /// The subtask's number, from 0.
    pub fn subtask(&self) -> u32 {
        self.build.me
    }

    /// How many subtasks there are.
    pub fn parallelism(&self) -> u32 {
        self.build
            .job
            .parallelism(self.build.job.vertex_of(self.operator))
    }

    /// The number of key groups.
    pub fn max_parallelism(&self) -> u32 {
        self.build
            .job
            .max_parallelism(self.build.job.vertex_of(self.operator))
    }

    /// The operator's name.
    pub fn name(&self) -> &str {
        &self.build.job.operators[self.operator.0 as usize].name
    }

    /// The job's name.
    pub fn job(&self) -> &str {
        &self.build.job.name
    }

    /// Whether the job takes checkpoints: sinks with two phases show nothing before one is complete.
    pub fn checkpointed(&self) -> bool {
        self.build.job.settings.checkpoints.is_some()
    }

    /// Where a process function declares its state without keys: elements that are dealt out anew when
    /// there are more or fewer subtasks. What was saved is there once `open` has returned. An
    /// [`crate::operator::Operator`] shows its state in a hook of its own instead.
    pub fn operator_states(&mut self) -> &mut OperatorStates {
        &mut self.states
    }

    /// Fails where states were declared that nobody will save.
    pub(crate) fn check_states(&self) -> Flow {
        match self.states.names().first() {
            Some(name) => Err(Fault::user(format_args!(
                "the state '{name}' would not be saved: only process functions declare states when \
                 they are opened, an operator shows its own in `Operator::state`"
            ))),
            None => Ok(()),
        }
    }

    /// What was declared, for the operator that runs the function.
    pub(crate) fn take_operator_states(&mut self) -> OperatorStates {
        std::mem::take(&mut self.states)
    }

    /// The positions of the splits that this subtask of a source goes on with; `None` where the source
    /// begins from scratch.
    pub fn restored_splits(&self) -> Flow<Option<Vec<Vec<u8>>>> {
        let Some(job) = self.build.participant.restored() else {
            return Ok(None);
        };
        let (parallelism, uid) = (self.parallelism(), self.build.job.uid(self.operator));
        let restored = job.operator(&uid, self.subtask(), parallelism, self.max_parallelism())?;
        let Some(mut restored) = restored else {
            return Ok(None);
        };
        let mut splits = Opaque::default();
        StateVisitor::load(&mut restored).list(SPLITS, &mut splits)?;
        Ok(Some(splits.0))
    }

    /// The positions of the splits of all subtasks of a source; for sources that deal them out by a rule of
    /// their own. `None` where the source begins from scratch.
    pub fn all_restored_splits(&self) -> Option<Vec<Vec<u8>>> {
        let job = self.build.participant.restored()?;
        let uid = self.build.job.uid(self.operator);
        let known = job.uids().any(|known| known == uid);
        let all = job.all_elements(&uid, SPLITS);
        known.then(|| all.into_iter().map(<[u8]>::to_vec).collect())
    }

    /// The checkpoint that this attempt goes on from, 0 for none. What is named after it and the subtask
    /// can't be mistaken for what another attempt made and a checkpoint covers.
    pub fn restored_from(&self) -> CheckpointId {
        let restored = self.build.participant.restored();
        restored.map_or(CheckpointId::default(), |job| job.id)
    }

    /// Where processing time comes from.
    pub fn clock(&self) -> Clock {
        self.build.clock.clone()
    }

    /// Asks this subtask for a turn; for sources and sinks that wait for another thread.
    pub fn waker(&self) -> Waker {
        self.build.waker.clone()
    }

    /// The subtask's live numbers.
    pub fn stats(&self) -> Arc<SubtaskStats> {
        self.build.stats_of(self.operator)
    }

    /// Where to name metrics of one's own, labelled with the job, the vertex, the subtask and the
    /// operator: `context.metrics().add_group("kafka").counter("records.consumed")`. Ask once in
    /// `open` and keep the handle.
    pub fn metrics(&self) -> MetricGroup {
        let job = &self.build.job;
        let vertex = job.vertex_of(self.operator);
        let group = self.build.metrics.root().add_label("job", &job.name);
        let group = group.add_label("vertex", job.vertex_name(vertex));
        let group = group.add_label("vertex_id", vertex.0);
        group
            .add_label("subtask", self.build.me)
            .add_label("operator", self.name())
    }

    /// The job's budget of pooled memory, for buffers that are counted and bounded.
    pub fn memory(&self) -> MemoryManager {
        self.build.memory.clone()
    }

    /// Enters this subtask into an alignment group. Only what runs in a source's own vertex can hold
    /// that source, and no other, back; anywhere else this is an error.
    pub fn align(&self, alignment: &Alignment) -> Flow<AlignmentMember> {
        let job = &self.build.job;
        let vertex = job.vertex_of(self.operator);
        if let Some(problem) = job.alignment_problem(vertex) {
            return Err(Fault::user(problem));
        }
        Ok(self.build.stats.alignment.join(alignment))
    }

    /// Where a source tells which of its splits it reads, and a watermark strategy of the same vertex hears it.
    pub fn split_track(&self) -> SplitTrack {
        let vertex = self.build.job.vertex_of(self.operator);
        let mut tracks = self.build.splits.borrow_mut();
        tracks.entry(vertex).or_default().clone()
    }

    /// Where records for a side output go. Without a taker downstream they are dropped.
    pub fn side_output<S: 'static>(&self, tag: &SideOutput<S>) -> SideBuffer<S> {
        let found = self.build.sides.get(&tag.id());
        found
            .and_then(|b| b.downcast_ref::<SideBuffer<S>>())
            .cloned()
            .unwrap_or_default()
    }
}

/// The prototype of which each subtask gets a clone.
pub struct Prototype<T>(Mutex<T>);

impl<T: Clone> Prototype<T> {
    /// Keeps a prototype.
    pub fn new(value: T) -> Self {
        Prototype(Mutex::new(value))
    }

    /// A clone of it.
    pub fn get(&self) -> T {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
