//! Which edges let barriers overtake, and by what their records are known in checkpoints.

use super::{JobGraph, VertexId};
use crate::checkpoint::image::IN_FLIGHT;
use crate::exchange::{Codecs, Dealing, Distribution, EdgeId};
use crate::fault::Fault;
use std::any::type_name;

/// What travels over an edge.
#[derive(Clone, Copy)]
pub struct Carried {
    record: &'static str,
    dealing: Option<Dealing>,
    encodable: fn(&Codecs) -> bool,
}

impl Carried {
    /// Records of type `T`, distributed by `P`.
    pub fn new<T: 'static, P: Distribution<T>>() -> Self {
        Carried {
            record: type_name::<T>(),
            dealing: P::DEALING,
            encodable: |codecs| P::codec(codecs).is_some(),
        }
    }
}

impl JobGraph {
    /// By what an edge is known in checkpoints: the stable ids of the operators at its ends, with a number where
    /// others before it lie between the same.
    pub fn edge_uid(&self, edge: EdgeId) -> String {
        let place = edge.0 as usize;
        let name = self.edge_name(place);
        let same = (0..place).filter(|before| self.edge_name(*before) == name);
        match same.count() {
            0 => name,
            before => format!("{name}#{}", before + 1),
        }
    }

    fn edge_name(&self, edge: usize) -> String {
        let (from, to) = self.ends(EdgeId(edge as u32));
        let operators = |vertex: VertexId| &self.vertices[vertex.0 as usize].operators;
        let uid = |operator: Option<_>| operator.map_or_else(String::new, |o| self.uid(o));
        let from = uid(operators(from).last().copied());
        let to = uid(operators(to).first().copied());
        format!("{IN_FLIGHT}: {from} -> {to}")
    }

    /// How records in flight over an edge find their subtask in a later attempt.
    pub fn dealing(&self, edge: EdgeId) -> Option<Dealing> {
        self.carried.get(&edge)?.dealing
    }

    /// Whether barriers overtake records on an edge. Barriers of all edges into a vertex meet, so they do on
    /// all of them or on none.
    pub fn overtakes(&self, edge: EdgeId) -> bool {
        let checkpoints = self.settings.checkpoints.as_ref();
        let (_, to) = self.ends(edge);
        checkpoints.is_some_and(|settings| settings.unaligned)
            && self.edges_into(to).all(|edge| self.dealing(edge).is_some())
    }

    fn edges_that_overtake(&self) -> impl Iterator<Item = EdgeId> + '_ {
        // An edge without a consumer is a problem of its own.
        let all = self.edges.iter().zip(0..).filter(|(e, _)| e.to.is_some());
        let all = all.map(|(_, number)| EdgeId(number));
        all.filter(|edge| self.overtakes(*edge))
    }

    /// What is wrong with edges whose barriers are to overtake records that nobody can keep.
    pub(super) fn not_encodable_edges(&self) -> Vec<String> {
        let known = |edge: &EdgeId| {
            let carried = self.carried.get(edge);
            carried.is_some_and(|carried| (carried.encodable)(&self.codecs))
        };
        let unknown = self.edges_that_overtake().filter(|edge| !known(edge));
        unknown
            .map(|edge| self.not_encodable(edge).to_string())
            .collect()
    }

    /// Why records of an edge can't be kept in checkpoints, and what to do.
    pub fn not_encodable(&self, edge: EdgeId) -> Fault {
        let (from, to) = self.ends(edge);
        let (from, to) = (self.vertex_name(from), self.vertex_name(to));
        let record = self
            .carried
            .get(&edge)
            .map_or("?", |carried| carried.record);
        if self.dealing(edge).is_none() {
            let kind = self.edges[edge.0 as usize].kind;
            return Fault::user(format_args!(
                "the checkpoint holds records that were in flight from '{from}' to '{to}', and that edge is \
                 of kind {kind} now, over which they can't be dealt out; go back to what it was"
            ));
        }
        Fault::user(format_args!(
            "records in flight from '{from}' to '{to}' can't be kept in unaligned checkpoints: how a {record} \
             is encoded is not known; derive serde's Serialize and Deserialize for it, and call .encodable() on \
             the stream, or leave out --unaligned"
        ))
    }
}
