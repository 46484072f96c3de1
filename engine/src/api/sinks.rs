//! The ends of streams.

use super::partition::{Passage, detach};
use super::stream::{DataStream, Place};
use super::upstream::{Make, Upstream};
use crate::build::BuildContext;
use crate::checkpoint::RestoredJob;
use crate::exchange::{EdgeId, Rebalance};
use crate::graph::{GraphBuilder, GraphRef, JobGraph, OperatorId};
use crate::sink::{RecoveryContext, Sink, SinkStage};
use std::sync::{Arc, OnceLock};

/// A sink that a stream ends in, to name it and to give it a parallelism.
pub struct SinkHandle {
    graph: GraphRef,
    place: Place,
    /// The exchange before the sink, if it got one; the subtasks look here when they are built.
    edge: Arc<OnceLock<EdgeId>>,
    /// Tells what travels over it.
    carry: fn(&mut GraphBuilder, EdgeId),
}

/// Enters what a sink checks before a job and does before an attempt. Returns what makes its stage in a subtask.
pub(super) fn enter_sink<T: Send + 'static, S: Sink<T>>(
    graph: &GraphRef,
    operator: OperatorId,
    sink: S,
) -> impl Make<SinkStage<T, S::Writer>> + use<T, S> {
    let sink = Arc::new(sink);
    let (checked, recovered) = (sink.clone(), sink.clone());
    graph.edit(|g| {
        g.add_check(operator, Arc::new(move || checked.check()));
        let recover = move |job: &JobGraph, from: Option<&RestoredJob>| {
            let context = RecoveryContext::new(job, operator, from);
            recovered.recover_in(&context, context.committables()?)
        };
        g.add_recovery(operator, Arc::new(recover));
    });
    move |cx: &mut BuildContext| {
        let name = cx.name(operator);
        let open = || {
            sink.open(&mut cx.open(operator))
                .map_err(|fault| fault.at(&name))
        };
        let writer = cx.takes_part(operator).then(open).transpose()?;
        let stage = SinkStage::<T, S::Writer>::new(writer, name, cx.stats_of(operator));
        Ok(stage.participate(cx.participant.clone(), cx.identity(operator)))
    }
}

impl<T: Send + 'static, U: Upstream<Out = T>> DataStream<T, U> {
    /// Ends the stream in a sink.
    pub fn sink<S: Sink<T>>(mut self, name: &str, sink: S) -> SinkHandle {
        let operator = self.enter(name, "sink");
        let DataStream { graph, up, place } = self;
        let (edge, make) = (
            Arc::new(OnceLock::new()),
            enter_sink(&graph, operator, sink),
        );
        let before = edge.clone();
        up.attach(&graph, move |cx| {
            let stage = make(cx)?;
            Passage::<T, _>::new(cx, before.get().copied(), stage)
        });
        let carry = GraphBuilder::carry::<T, Rebalance>;
        SinkHandle {
            graph,
            place,
            edge,
            carry,
        }
    }
}

impl SinkHandle {
    /// Names the sink.
    pub fn name(self, name: &str) -> Self {
        self.graph
            .edit(|g| name.clone_into(&mut g.operator_mut(self.place.operator).name));
        self
    }

    /// Gives the sink a stable id, by which its state is found again.
    pub fn uid(self, uid: &str) -> Self {
        self.graph
            .edit(|g| g.operator_mut(self.place.operator).uid = Some(uid.to_owned()));
        self
    }

    /// How many subtasks the sink has. Where this differs from the operator before it, records are
    /// dealt out in turn between them.
    pub fn parallelism(mut self, parallelism: u32) -> Self {
        if let Some(edge) = detach(&self.graph, &mut self.place, parallelism) {
            self.edge.get_or_init(|| edge);
            self.graph.edit(|g| (self.carry)(g, edge));
        }
        self
    }
}
