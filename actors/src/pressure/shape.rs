//! What the pressure monitor must know of a job's graph: who feeds whom, and how much is granted.

use tidegate_engine::graph::{JobGraph, VertexId};

/// One vertex as the monitor sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VertexShape {
    /// Its name.
    pub name: String,
    /// The task that runs it.
    pub task: usize,
    /// Its subtasks.
    pub parallelism: u32,
    /// The vertices that feed it.
    pub producers: Vec<usize>,
    /// Credits that all its channels are granted when it is pressed.
    pub least_credits: u32,
    /// Credits that all its channels are granted at most.
    pub most_credits: u32,
    /// A sink writes beside the edges, so that what it hands on can't be told from what it writes.
    pub mixed: bool,
}

/// All vertices of a job, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(pub Vec<VertexShape>);

impl Shape {
    /// The shape of a job.
    pub fn of(job: &JobGraph) -> Self {
        let vertex = |id: usize| {
            let number = VertexId(id as u32);
            let mut shape = VertexShape {
                name: job.vertex_name(number),
                task: job.vertices[id].task.0 as usize,
                parallelism: job.parallelism(number),
                producers: Vec::new(),
                least_credits: 0,
                most_credits: 0,
                mixed: false,
            };
            for edge in job.edges_into(number) {
                let (from, _) = job.ends(edge);
                let producers = job.parallelism(from);
                let (from_task, to_task) = job.tasks_of(edge);
                // Within a task, subtask i hands on to subtask i by a direct call.
                let direct = if from_task == to_task {
                    producers.min(shape.parallelism)
                } else {
                    0
                };
                let channels = (producers * shape.parallelism).saturating_sub(direct);
                let settings = job.settings.channels.shared_by(producers);
                let sum = |sum: u32, each: u32| sum.saturating_add(each.saturating_mul(channels));
                shape.least_credits = sum(shape.least_credits, settings.initial_credits);
                shape.most_credits = sum(shape.most_credits, settings.max_credits);
                if !shape.producers.contains(&(from.0 as usize)) {
                    shape.producers.push(from.0 as usize);
                }
            }
            let feeds = job.edges.iter().any(|edge| edge.from == number);
            let mut operators = job.vertices[id].operators.iter();
            let writes = operators.any(|o| job.operators[o.0 as usize].kind == "sink");
            shape.mixed = feeds && writes;
            shape
        };
        Shape((0..job.vertices.len()).map(vertex).collect())
    }

    /// The vertices that `vertex` feeds.
    pub fn consumers(&self, vertex: usize) -> impl Iterator<Item = usize> + '_ {
        let fed = move |(_, v): &(usize, &VertexShape)| v.producers.contains(&vertex);
        self.0.iter().enumerate().filter(fed).map(|(id, _)| id)
    }

    /// Whether a vertex reads from outside.
    pub fn is_source(&self, vertex: usize) -> bool {
        self.0[vertex].producers.is_empty()
    }

    /// The sources whose records reach `vertex`, itself if it is one.
    pub fn sources_of(&self, vertex: usize) -> Vec<usize> {
        let (mut found, mut seen, mut open) = (Vec::new(), vec![false; self.0.len()], vec![vertex]);
        while let Some(at) = open.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            if self.is_source(at) {
                found.push(at);
            }
            open.extend(&self.0[at].producers);
        }
        found.sort_unstable();
        found
    }
}
