//! What is wrong with a graph: all of it at once, each problem with its operator.

use super::{GraphBuilder, GraphError, JobGraph, JobSettings, OperatorId, Vertex};
use crate::constants::MOST_KEY_GROUPS;
use crate::graph::{SOURCE_KIND, TaskId, TaskSpec};
use std::collections::{BTreeSet, HashMap};

impl GraphBuilder {
    pub(super) fn finish(&self, name: &str, settings: JobSettings) -> Result<JobGraph, GraphError> {
        let mut problems = self.problems.clone();
        self.check_parallelism(&settings, &mut problems);
        self.check_uids(&mut problems);
        self.check_ends(&mut problems);
        self.check_inputs(&mut problems);
        self.check_cycles(&mut problems);
        let graph = self.job(name, settings);
        problems.extend(graph.misaligned());
        problems.extend(graph.not_encodable_edges());
        if problems.is_empty() {
            return Ok(graph);
        }
        let job = name.to_owned();
        Err(GraphError { job, problems })
    }

    /// The graph as it is, with every parallelism known, whether or not it can run.
    fn job(&self, name: &str, settings: JobSettings) -> JobGraph {
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
            let of_task = || {
                graph
                    .vertices
                    .iter()
                    .filter(|v| v.task == TaskId(id as u32))
            };
            let parallelism = of_task().filter_map(|v| v.parallelism).max().unwrap_or(1);
            let name = of_task().next().map(|v| self.first_name(v).to_owned());
            let name = name.unwrap_or_default();
            graph.tasks.push(TaskSpec {
                factory,
                parallelism,
                name,
            });
        }
        graph
    }

    fn name(&self, operator: OperatorId) -> &str {
        &self.operators[operator.0 as usize].name
    }

    fn first_name(&self, vertex: &Vertex) -> &str {
        vertex.operators.first().map_or("?", |o| self.name(*o))
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
            if max == 0 || max > MOST_KEY_GROUPS {
                problems.push(format!(
                    "{whose}max_parallelism {max} is not in 1..={MOST_KEY_GROUPS}"
                ));
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
                let name = last.operators.last().map_or("?", |o| self.name(*o));
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
        for (operator, problem) in &self.ends {
            if let Some(problem) = problem() {
                problems.push(format!("'{}': {problem}", self.name(*operator)));
            }
        }
    }

    /// A vertex that nothing leads to would wait for the end of its input for ever.
    fn check_inputs(&self, problems: &mut Vec<String>) {
        let fed: BTreeSet<u32> = self.edges.iter().filter_map(|e| Some(e.to?.0)).collect();
        for (id, vertex) in self.vertices.iter().enumerate() {
            let first = vertex.operators.first();
            let reads = first.is_some_and(|o| self.operators[o.0 as usize].kind == SOURCE_KIND);
            if !reads && !fed.contains(&(id as u32)) {
                let name = self.first_name(vertex);
                problems.push(format!(
                    "'{name}': no edge leads to it; add one, or take it out"
                ));
            }
        }
    }

    /// Where records come round again, no input ever ends.
    fn check_cycles(&self, problems: &mut Vec<String>) {
        let edges = self.edges.iter();
        let edges: Vec<(u32, u32)> = edges.filter_map(|e| Some((e.from.0, e.to?.0))).collect();
        let mut rest: BTreeSet<u32> = (0..self.vertices.len() as u32).collect();
        loop {
            strip(&mut rest, &edges);
            let Some(cycle) = a_cycle(&rest, &edges) else {
                return;
            };
            let name = |vertex: &u32| {
                let vertex = &self.vertices[*vertex as usize];
                format!("'{}'", self.first_name(vertex))
            };
            let names: Vec<String> = cycle.iter().chain(cycle.first()).map(name).collect();
            problems.push(format!(
                "{}: the edges go in a circle, in which the input would never end; take one of them out",
                names.join(" -> ")
            ));
            rest.retain(|vertex| !cycle.contains(vertex));
        }
    }
}

/// Takes out what is part of no cycle: again and again what nothing leads to, or leads nowhere.
fn strip(rest: &mut BTreeSet<u32>, edges: &[(u32, u32)]) {
    loop {
        let within = |e: &&(u32, u32)| rest.contains(&e.0) && rest.contains(&e.1);
        let within = || edges.iter().filter(within);
        let (from, to): (BTreeSet<u32>, BTreeSet<u32>) = within().copied().unzip();
        let left: BTreeSet<u32> = from.intersection(&to).copied().collect();
        if left.len() == rest.len() {
            return;
        }
        *rest = left;
    }
}

/// A cycle among vertices of which each has a successor; none where there are no vertices.
fn a_cycle(vertices: &BTreeSet<u32>, edges: &[(u32, u32)]) -> Option<Vec<u32>> {
    let mut path = vec![*vertices.first()?];
    loop {
        let last = *path.last()?;
        let on = |e: &&(u32, u32)| e.0 == last && vertices.contains(&e.1);
        let next = edges.iter().find(on)?.1;
        if let Some(start) = path.iter().position(|vertex| *vertex == next) {
            return Some(path.split_off(start));
        }
        path.push(next);
    }
}
