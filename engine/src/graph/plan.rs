//! A job graph for reading: as JSON, and as a picture in text.

use super::{JobGraph, VertexId};
use crate::exchange::EdgeKind;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What `--plan` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The job's name.
    pub job: String,
    /// The vertices in the order of their definition.
    pub vertices: Vec<PlanVertex>,
    /// What it does not survive whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A vertex of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanVertex {
    /// Its number.
    pub id: u32,
    /// The actor that runs it: vertices of one task share actors.
    pub task: u32,
    /// Its subtasks.
    pub parallelism: u32,
    /// Its key groups.
    pub max_parallelism: u32,
    /// Its chained operators.
    pub operators: Vec<PlanOperator>,
    /// Where its records come from.
    pub inputs: Vec<PlanInput>,
}

/// An operator of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanOperator {
    /// Its name.
    pub name: String,
    /// What kind it is.
    pub kind: String,
    /// Its stable id, where given.
    pub uid: Option<String>,
}

/// An input of a vertex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanInput {
    /// The producing vertex.
    pub from: u32,
    /// How records are distributed.
    pub kind: EdgeKind,
    /// Barriers of unaligned checkpoints overtake records here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unaligned: bool,
}

impl Plan {
    pub(super) fn of(graph: &JobGraph) -> Self {
        let vertices = (0..graph.vertices.len() as u32).map(|id| {
            let vertex = &graph.vertices[id as usize];
            let operators = vertex.operators.iter().map(|o| {
                let info = &graph.operators[o.0 as usize];
                let (name, kind) = (info.name.clone(), info.kind.clone());
                PlanOperator {
                    name,
                    kind,
                    uid: info.uid.clone(),
                }
            });
            let inputs = graph.edges_into(VertexId(id)).map(|e| {
                let edge = &graph.edges[e.0 as usize];
                PlanInput {
                    from: edge.from.0,
                    kind: edge.kind,
                    unaligned: graph.overtakes(e),
                }
            });
            PlanVertex {
                id,
                task: vertex.task.0,
                parallelism: graph.parallelism(VertexId(id)),
                max_parallelism: graph.max_parallelism(VertexId(id)),
                operators: operators.collect(),
                inputs: inputs.collect(),
            }
        });
        Plan {
            job: graph.name.clone(),
            vertices: vertices.collect(),
            warnings: graph.warnings(),
        }
    }

    /// The plan as indented JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan has only strings and numbers")
    }
}

impl fmt::Display for Plan {
    /// A picture in text: a box a vertex, its inputs above it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.job)?;
        for vertex in &self.vertices {
            for input in &vertex.inputs {
                let unaligned = if input.unaligned { ", unaligned" } else { "" };
                writeln!(
                    f,
                    "      |  {} from [{}]{unaligned}",
                    input.kind, input.from
                )?;
            }
            if !vertex.inputs.is_empty() {
                writeln!(f, "      v")?;
            }
            let names: Vec<&str> = vertex.operators.iter().map(|o| o.name.as_str()).collect();
            let text = format!(
                "[{}] {}  x{}",
                vertex.id,
                names.join(" -> "),
                vertex.parallelism
            );
            let line = "-".repeat(text.chars().count() + 2);
            writeln!(f, "  +{line}+\n  | {text} |\n  +{line}+")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}
