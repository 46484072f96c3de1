//! A graph in the making.

mod validation;

use super::{
    Carried, Check, Edge, Factory, GraphError, JobGraph, JobSettings, OperatorId, OperatorInfo,
    Recovery, TaskId, Vertex, VertexId,
};
use crate::checkpoint::StateValue;
use crate::exchange::{Codecs, Distribution, EdgeId, EdgeKind};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// What is wrong with a place in the graph once that is complete, if anything is.
type End = Box<dyn Fn() -> Option<String>>;

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
    /// Places at which a stream may yet turn out to go nowhere.
    ends: Vec<(OperatorId, End)>,
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

    /// Has validation ask whether something is wrong at an operator, which only the whole graph tells.
    pub fn add_end(
        &mut self,
        operator: OperatorId,
        problem: impl Fn() -> Option<String> + 'static,
    ) {
        self.ends.push((operator, Box::new(problem)));
    }

    /// An operator, to change its name or uid.
    pub fn operator_mut(&mut self, operator: OperatorId) -> &mut OperatorInfo {
        &mut self.operators[operator.0 as usize]
    }

    /// A vertex, to change its parallelism.
    pub fn vertex_mut(&mut self, vertex: VertexId) -> &mut Vertex {
        &mut self.vertices[vertex.0 as usize]
    }
}
