//! The job as a graph: vertices of chained operators, edges between them, tasks that run them.
//!
//! Three words for three stages: a [`GraphBuilder`] is what the fluent API (or a person, by hand)
//! writes; a [`JobGraph`] is the same after validation, with every parallelism known; a deployment is
//! what the runner makes of it. A *vertex* is a chain of operators; a *task* is the vertices that
//! share an actor because nothing but in-chain exchanges lies between them.

mod builder;
mod in_flight;
mod plan;

pub use builder::{GraphBuilder, GraphRef};
pub use in_flight::Carried;
pub use plan::Plan;

use crate::build::BuildContext;
use crate::checkpoint::{CheckpointSettings, Checksum, RestoredJob};
use crate::exchange::{ChannelSettings, Codecs, EdgeId, EdgeKind};
use crate::fault::Flow;
use crate::stage::Head;
use crate::state::StateBackend;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// What kind of operator a source is.
pub const SOURCE_KIND: &str = "source";

/// What kind of operator gives aligned watermarks.
pub const ALIGNED_KIND: &str = "aligned watermarks";

/// The number of an operator in its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OperatorId(pub u32);

/// The number of a vertex in its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VertexId(pub u32);

/// The number of a task in its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskId(pub u32);

/// Makes the chain of one subtask.
pub type Factory = Arc<dyn Fn(&mut BuildContext) -> Flow<Box<dyn Head>> + Send + Sync>;

/// Called once in each attempt, before its subtasks are built: a sink makes visible what the restored
/// checkpoint covers, and does away with what no checkpoint covers.
pub type Recovery = Arc<dyn Fn(&JobGraph, Option<&RestoredJob>) -> Flow + Send + Sync>;

/// A check that runs before the job starts.
pub type Check = Arc<dyn Fn() -> Flow + Send + Sync>;

/// One operator, source or sink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperatorInfo {
    /// The name that messages and reports use.
    pub name: String,
    /// The user's stable id, by which state finds its operator again.
    pub uid: Option<String>,
    /// What kind of operator it is, such as `map`.
    pub kind: String,
    /// The vertex that it is part of.
    pub vertex: VertexId,
}

/// A chain of operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vertex {
    /// The operators, first to last.
    pub operators: Vec<OperatorId>,
    /// The task that runs it.
    pub task: TaskId,
    /// How many subtasks it has; in a builder `None` stands for the job's default.
    pub parallelism: Option<u32>,
    /// How many it may ever have: the number of its key groups.
    pub max_parallelism: Option<u32>,
}

/// An edge between two vertices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// The producer.
    pub from: VertexId,
    /// The consumer; in a builder it may not be known yet.
    pub to: Option<VertexId>,
    /// How it distributes.
    pub kind: EdgeKind,
}

/// What runs as one kind of actor.
#[derive(Clone)]
pub struct TaskSpec {
    /// Makes a subtask's chain.
    pub factory: Factory,
    /// How many actors: the greatest parallelism of its vertices.
    pub parallelism: u32,
    /// The name that messages and reports use.
    pub name: String,
}

/// Settings of a whole job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSettings {
    /// Parallelism of vertices that don't name one.
    pub parallelism: u32,
    /// Key groups of vertices that don't name a number.
    pub max_parallelism: u32,
    /// How much a channel may hold and when it flushes.
    pub channels: ChannelSettings,
    /// Records that a source reads in one turn at most.
    pub slice: usize,
    /// Microseconds that one turn of reading may take before the next ones read less; 0 for no limit.
    pub slice_micros: u64,
    /// When checkpoints are taken, and what they promise; `None` for no checkpoints.
    pub checkpoints: Option<CheckpointSettings>,
    /// Where keyed state is kept.
    pub state: StateBackend,
}

impl Default for JobSettings {
    fn default() -> Self {
        JobSettings {
            parallelism: crate::constants::DEFAULT_PARALLELISM,
            max_parallelism: crate::constants::DEFAULT_MAX_PARALLELISM,
            channels: ChannelSettings::default(),
            slice: crate::constants::DEFAULT_SLICE_RECORDS,
            slice_micros: crate::constants::DEFAULT_SLICE_MICROS,
            checkpoints: None,
            state: StateBackend::default(),
        }
    }
}

/// A validated job.
#[derive(Clone)]
pub struct JobGraph {
    /// The job's name.
    pub name: String,
    /// All operators, by [`OperatorId`].
    pub operators: Vec<OperatorInfo>,
    /// All vertices, by [`VertexId`].
    pub vertices: Vec<Vertex>,
    /// All edges, by [`EdgeId`].
    pub edges: Vec<Edge>,
    /// All tasks, by [`TaskId`].
    pub tasks: Vec<TaskSpec>,
    /// The settings.
    pub settings: JobSettings,
    /// Checks of sources and sinks, by operator.
    pub checks: Vec<(OperatorId, Check)>,
    /// What sinks do before an attempt, by operator.
    pub recoveries: Vec<(OperatorId, Recovery)>,
    /// Whether every source comes to an end.
    pub bounded: bool,
    /// Sources that can't go back to where a checkpoint saw them.
    pub forgetful: Vec<OperatorId>,
    /// What travels over edges.
    pub carried: HashMap<EdgeId, Carried>,
    /// The types of records that can be kept in checkpoints while they are in flight.
    pub codecs: Codecs,
}

impl JobGraph {
    /// The parallelism of a vertex.
    pub fn parallelism(&self, vertex: VertexId) -> u32 {
        self.vertices[vertex.0 as usize]
            .parallelism
            .unwrap_or(self.settings.parallelism)
    }

    /// The number of key groups of a vertex.
    pub fn max_parallelism(&self, vertex: VertexId) -> u32 {
        self.vertices[vertex.0 as usize]
            .max_parallelism
            .unwrap_or(self.settings.max_parallelism)
    }

    /// The stable id of an operator, by which state finds it again: the one that it was given, or its
    /// name, with a number where others before it have the same.
    pub fn uid(&self, operator: OperatorId) -> String {
        let place = operator.0 as usize;
        let info = &self.operators[place];
        if let Some(uid) = &info.uid {
            return uid.clone();
        }
        let same = |o: &&OperatorInfo| o.uid.is_none() && o.name == info.name;
        match self.operators[..place].iter().filter(same).count() {
            0 => info.name.clone(),
            before => format!("{}#{}", info.name, before + 1),
        }
    }

    /// A hash of what a savepoint depends on: the operators' stable ids and kinds and how they are
    /// connected. Parallelism and settings are no part of it, nor is a name where there is a uid, so a job
    /// that was only given other ones keeps it. 16 hexadecimal digits.
    pub fn hash(&self) -> String {
        let mut text = String::new();
        for (number, operator) in self.operators.iter().enumerate() {
            let uid = self.uid(OperatorId(number as u32));
            // With their lengths, so that no two graphs spell the same text.
            let (lengths, kind) = ((uid.len(), operator.kind.len()), &operator.kind);
            text += &format!("{lengths:?}{uid}{kind}{}\n", operator.vertex.0);
        }
        for edge in &self.edges {
            let to = edge.to.map_or(u32::MAX, |to| to.0);
            text += &format!("{} {} {to}\n", edge.from.0, edge.kind);
        }
        Checksum::of(text.as_bytes()).to_string()
    }

    /// The vertex of an operator.
    pub fn vertex_of(&self, operator: OperatorId) -> VertexId {
        self.operators[operator.0 as usize].vertex
    }

    /// Why an operator of this vertex can't be aligned with others, if it can't: a source that waits
    /// must be the only one that it waits for, or they wait for each other.
    pub fn alignment_problem(&self, vertex: VertexId) -> Option<String> {
        let operators = &self.vertices[vertex.0 as usize].operators;
        let of = |o: &OperatorId| &self.operators[o.0 as usize];
        if operators.first().is_none_or(|o| of(o).kind != SOURCE_KIND) {
            return Some(
                "an aligned watermark strategy stands behind an exchange, where it can't hold its \
                 source back; put it right behind the source"
                    .to_owned(),
            );
        }
        let aligned = operators.iter().filter(|o| of(o).kind == ALIGNED_KIND);
        (aligned.count() > 1).then(|| {
            "two aligned watermark strategies stand behind one source and would wait for each \
             other; align the stream before it splits"
                .to_owned()
        })
    }

    /// What is wrong with the places of aligned operators.
    fn misaligned(&self) -> Vec<String> {
        let aligned = self.operators.iter().filter(|o| o.kind == ALIGNED_KIND);
        let problem = |o: &OperatorInfo| {
            let problem = self.alignment_problem(o.vertex)?;
            Some(format!("'{}': {problem}", o.name))
        };
        aligned.filter_map(problem).collect()
    }

    /// The two ends of an edge.
    pub fn ends(&self, edge: EdgeId) -> (VertexId, VertexId) {
        let edge = &self.edges[edge.0 as usize];
        (
            edge.from,
            edge.to.expect("validation gave every edge a consumer"),
        )
    }

    /// The tasks at the two ends of an edge.
    pub fn tasks_of(&self, edge: EdgeId) -> (TaskId, TaskId) {
        let (from, to) = self.ends(edge);
        (
            self.vertices[from.0 as usize].task,
            self.vertices[to.0 as usize].task,
        )
    }

    /// The edges that end in a vertex.
    pub fn edges_into(&self, vertex: VertexId) -> impl Iterator<Item = EdgeId> + '_ {
        let into = move |(_, e): &(usize, &Edge)| e.to == Some(vertex);
        self.edges
            .iter()
            .enumerate()
            .filter(into)
            .map(|(i, _)| EdgeId(i as u32))
    }

    /// The name of a vertex: those of its operators.
    pub fn vertex_name(&self, vertex: VertexId) -> String {
        let names = self.vertices[vertex.0 as usize].operators.iter();
        names
            .map(|o| self.operators[o.0 as usize].name.as_str())
            .collect::<Vec<_>>()
            .join(" -> ")
    }

    /// The name of a task: those of all operators that share its actor.
    pub fn task_name(&self, task: TaskId) -> String {
        let of_task = (0..self.vertices.len() as u32).map(VertexId);
        let of_task = of_task.filter(|v| self.vertices[v.0 as usize].task == task);
        of_task
            .map(|v| self.vertex_name(v))
            .collect::<Vec<_>>()
            .join(" -> ")
    }

    /// Runs the checks of all sources and sinks; the first that fails, with its operator's name.
    pub fn check(&self) -> Flow {
        for (operator, check) in &self.checks {
            check().map_err(|fault| fault.at(&self.operators[operator.0 as usize].name))?;
        }
        Ok(())
    }

    /// Has all sinks make visible what the checkpoint covers that an attempt goes on from; `None` where it
    /// begins from scratch.
    pub fn recover(&self, from: Option<&RestoredJob>) -> Flow {
        for (operator, recover) in &self.recoveries {
            let name = &self.operators[operator.0 as usize].name;
            recover(self, from).map_err(|fault| fault.at(name))?;
        }
        Ok(())
    }

    /// What a job with checkpoints does not survive whole, one line each.
    pub fn warnings(&self) -> Vec<String> {
        if self.settings.checkpoints.is_none() {
            return Vec::new();
        }
        let warning = |source: &OperatorId| {
            let name = &self.operators[source.0 as usize].name;
            format!(
                "the source '{name}' can't read again what it has read: records in flight are lost at a \
                 restart, whatever the checkpoints hold"
            )
        };
        self.forgetful.iter().map(warning).collect()
    }

    /// The plan, for printing.
    pub fn plan(&self) -> Plan {
        Plan::of(self)
    }
}

impl fmt::Debug for JobGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobGraph")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Everything that is wrong with a graph, each with the operator that it is about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job '{job}' can't run:{}", list(.problems))]
pub struct GraphError {
    /// The job's name.
    pub job: String,
    /// One line a problem.
    pub problems: Vec<String>,
}

fn list(problems: &[String]) -> String {
    if let [only] = problems {
        return format!(" {only}");
    }
    problems.iter().map(|p| format!("\n  - {p}")).collect()
}
