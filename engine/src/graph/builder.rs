//! A graph in the making, and its validation: all problems at once, each with its operator.

use super::{
    Carried, Check, Edge, Factory, GraphError, JobGraph, JobSettings, OperatorId, OperatorInfo,
    Recovery, TaskId, TaskSpec, Vertex, VertexId,
};
use crate::checkpoint::StateValue;
use crate::exchange::{Codecs, Distribution, EdgeId, EdgeKind};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What streams write into while a job is being defined.
#[derive(Default)]
pub struct GraphBuilder {
    operators: Vec<OperatorInfo>,
    vertices: Vec<Vertex>,
    edges: Vec<Edge>,
    factories: Vec<Option<Factory>>,
    checks: Vec<(OperatorId, Check)>,
    recoveries: Vec<(OperatorId, Recovery)>,
    problems: Vec<String>,
    endless: bool,
    /// Sources that can't go back to where a checkpoint saw them.
    forgetful: Vec<OperatorId>,
    /// What travels over edges.
    carried: HashMap<EdgeId, Carried>,
    codecs: Codecs,
}

/// A shared handle to a graph in the making.
#[derive(Clone, Default)]
pub struct GraphRef(Rc<RefCell<GraphBuilder>>);

impl GraphRef {
    /// Changes the graph.
    pub fn edit<R>(&self, change: impl FnOnce(&mut GraphBuilder) -> R) -> R {
        change(&mut self.0.borrow_mut())
    }

    /// Validates the graph as it is now.
    pub fn finish(&self, name: &str, settings: JobSettings) -> Result<JobGraph, GraphError> {
        self.0.borrow().finish(name, settings)
    }
}

impl GraphBuilder {
    /// A task without a chain yet.
    pub fn add_task(&mut self) -> TaskId {
        self.factories.push(None);
        TaskId(self.factories.len() as u32 - 1)
    }

    /// Gives a task its chain.
    pub fn set_factory(&mut self, task: TaskId, factory: Factory) {
        self.factories[task.0 as usize] = Some(factory);
    }

    /// An empty vertex of a task.
    pub fn add_vertex(&mut self, task: TaskId) -> VertexId {
        let vertex = Vertex {
            operators: vec![],
            task,
            parallelism: None,
            max_parallelism: None,
        };
        self.vertices.push(vertex);
        VertexId(self.vertices.len() as u32 - 1)
    }

    /// An operator at the end of a vertex.
    pub fn add_operator(&mut self, vertex: VertexId, name: &str, kind: &str) -> OperatorId {
        let id = OperatorId(self.operators.len() as u32);
        let (name, kind) = (name.to_owned(), kind.to_owned());
        self.operators.push(OperatorInfo {
            name,
            uid: None,
            kind,
            vertex,
        });
        self.vertices[vertex.0 as usize].operators.push(id);
        id
    }

    /// Moves the last operator of a vertex to another vertex.
    pub fn move_operator(&mut self, operator: OperatorId, to: VertexId) {
        let from = std::mem::replace(&mut self.operators[operator.0 as usize].vertex, to);
        self.vertices[from.0 as usize]
            .operators
            .retain(|o| *o != operator);
        self.vertices[to.0 as usize].operators.push(operator);
    }

    /// Whether an operator is the first of its task.
    pub fn begins_task(&self, operator: OperatorId) -> bool {
        let vertex = self.operators[operator.0 as usize].vertex;
        let Vertex {
            task, operators, ..
        } = &self.vertices[vertex.0 as usize];
        let first = self.vertices.iter().position(|v| v.task == *task);
        first == Some(vertex.0 as usize) && operators.first() == Some(&operator)
    }

    /// An edge whose consumer may come later.
    pub fn add_edge(&mut self, from: VertexId, to: Option<VertexId>, kind: EdgeKind) -> EdgeId {
        self.edges.push(Edge { from, to, kind });
        EdgeId(self.edges.len() as u32 - 1)
    }

    /// Ends an edge in a vertex.
    pub fn end_edge(&mut self, edge: EdgeId, to: VertexId) {
        self.edges[edge.0 as usize].to = Some(to);
    }

    /// Tells what travels over an edge, and how it is distributed.
    pub fn carry<T: 'static, P: Distribution<T>>(&mut self, edge: EdgeId) {
        self.carried.insert(edge, Carried::new::<T, P>());
    }

    /// Records of this type can be kept in checkpoints while they are in flight.
    pub fn add_codec<T: StateValue>(&mut self) {
        self.codecs.add::<T>();
    }

    /// The types of records that can be kept so.
    pub fn codecs_mut(&mut self) -> &mut Codecs {
        &mut self.codecs
    }

    /// Adds a check that runs before the job starts.
    pub fn add_check(&mut self, operator: OperatorId, check: Check) {
        self.checks.push((operator, check));
    }

    /// Enters what a sink does before an attempt.
    pub fn add_recovery(&mut self, operator: OperatorId, recovery: Recovery) {
        self.recoveries.push((operator, recovery));
    }

    /// Notes that a source has no end.
    pub fn set_endless(&mut self) {
        self.endless = true;
    }

    /// Notes that a source can't go back to where a checkpoint saw it.
    pub fn set_forgetful(&mut self, source: OperatorId) {
        self.forgetful.push(source);
    }

    /// Notes a problem that validation reports.
    pub fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// An operator, to change its name or uid.
    pub fn operator_mut(&mut self, operator: OperatorId) -> &mut OperatorInfo {
        &mut self.operators[operator.0 as usize]
    }

    /// A vertex, to change its parallelism.
    pub fn vertex_mut(&mut self, vertex: VertexId) -> &mut Vertex {
        &mut self.vertices[vertex.0 as usize]
    }

    fn finish(&self, name: &str, settings: JobSettings) -> Result<JobGraph, GraphError> {
        let mut problems = self.problems.clone();
        self.check_parallelism(&settings, &mut problems);
        self.check_uids(&mut problems);
        self.check_ends(&mut problems);
        if !problems.is_empty() {
            return Err(GraphError {
                job: name.to_owned(),
                problems,
            });
        }
        let mut graph = JobGraph {
            name: name.to_owned(),
            operators: self.operators.clone(),
            vertices: self.vertices.clone(),
            edges: self.edges.clone(),
            tasks: Vec::new(),
            settings,
            checks: self.checks.clone(),
            recoveries: self.recoveries.clone(),
            bounded: !self.endless,
            forgetful: self.forgetful.clone(),
            carried: self.carried.clone(),
            codecs: self.codecs.clone(),
        };
        if let Some(checkpoints) = &graph.settings.checkpoints {
            graph.settings.channels.mode = checkpoints.mode;
        }
        for vertex in &mut graph.vertices {
            vertex.parallelism.get_or_insert(graph.settings.parallelism);
            vertex
                .max_parallelism
                .get_or_insert(graph.settings.max_parallelism);
        }
        for (id, factory) in self.factories.iter().enumerate() {
            let Some(factory) = factory.clone() else {
                continue;
            };
            let of_task = || graph.vertices.iter().filter(|v| v.task.0 as usize == id);
            let parallelism = of_task().filter_map(|v| v.parallelism).max().unwrap_or(1);
            let first = of_task().flat_map(|v| &v.operators).next();
            let name = first.map(|o| graph.operators[o.0 as usize].name.clone());
            let name = name.unwrap_or_default();
            graph.tasks.push(TaskSpec {
                factory,
                parallelism,
                name,
            });
        }
        let mut problems = graph.misaligned();
        problems.extend(graph.not_encodable_edges());
        if !problems.is_empty() {
            return Err(GraphError {
                job: name.to_owned(),
                problems,
            });
        }
        Ok(graph)
    }

    fn first_name(&self, vertex: &Vertex) -> &str {
        vertex
            .operators
            .first()
            .map_or("?", |o| &self.operators[o.0 as usize].name)
    }

    fn check_parallelism(&self, settings: &JobSettings, problems: &mut Vec<String>) {
        // What the job as a whole is given is one problem, however many vertices go by it.
        let mut seen_default = false;
        for vertex in &self.vertices {
            let by_default = vertex.parallelism.is_none() && vertex.max_parallelism.is_none();
            if by_default && std::mem::replace(&mut seen_default, true) {
                continue;
            }
            let whose = match by_default {
                true => String::new(),
                false => format!("'{}': ", self.first_name(vertex)),
            };
            let parallelism = vertex.parallelism.unwrap_or(settings.parallelism);
            let max = vertex.max_parallelism.unwrap_or(settings.max_parallelism);
            if parallelism == 0 {
                problems.push(format!("{whose}parallelism 0; give it at least 1"));
            }
            if max == 0 || max > 32_768 {
                problems.push(format!("{whose}max_parallelism {max} is not in 1..=32768"));
            }
            if parallelism > max {
                problems.push(format!(
                    "{whose}parallelism {parallelism} is above its max_parallelism {max}; \
                     lower the one or raise the other"
                ));
            }
        }
    }

    fn check_uids(&self, problems: &mut Vec<String>) {
        let mut seen: HashMap<&str, &str> = HashMap::new();
        for operator in &self.operators {
            let Some(uid) = &operator.uid else { continue };
            if let Some(other) = seen.insert(uid, &operator.name) {
                problems.push(format!(
                    "'{}': uid '{uid}' is that of '{other}' too",
                    operator.name
                ));
            }
        }
    }

    fn check_ends(&self, problems: &mut Vec<String>) {
        if self.vertices.is_empty() {
            problems.push("it has no source".to_owned());
        }
        for (id, factory) in self.factories.iter().enumerate() {
            if factory.is_none() {
                let Some(last) = self.vertices.iter().rfind(|v| v.task.0 as usize == id) else {
                    continue; // the edge that leads nowhere tells it
                };
                let last = last.operators.last();
                let name = last.map_or("?", |o| &self.operators[o.0 as usize].name);
                problems.push(format!("'{name}': its stream ends without a sink; add one"));
            }
        }
        for edge in &self.edges {
            let dangling = edge.to.is_none();
            let from = &self.vertices[edge.from.0 as usize];
            if dangling && self.factories[from.task.0 as usize].is_some() {
                let name = self.first_name(from);
                problems.push(format!("'{name}': a {} edge leads nowhere", edge.kind));
            }
        }
    }
}
