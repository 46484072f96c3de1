//! What a stream is made of so far, and how it becomes a chain once its end is known.

use crate::build::{BuildContext, Prototype};
use crate::fault::Flow;
use crate::graph::{GraphRef, OperatorId, TaskId};
use crate::node::Node;
use crate::operator::{Blueprint, Operator};
use crate::source::{Source, SourceHead};
use crate::stage::{Collector, Head, Stage};
use std::sync::Arc;

/// Makes the stages behind a point of a chain, in one subtask.
pub trait Make<D>: Fn(&mut BuildContext) -> Flow<D> + Send + Sync + 'static {}

impl<D, F: Fn(&mut BuildContext) -> Flow<D> + Send + Sync + 'static> Make<D> for F {}

/// A stream up to some point: given what comes behind, it completes the chain.
pub trait Upstream: 'static {
    /// The records at this point.
    type Out: 'static;

    /// Completes the chain with the stages that `make` makes, and enters it into the graph.
    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<Self::Out> + Stage + 'static;
}

/// A stream that begins at a source.
pub struct FromSource<S> {
    pub(super) source: S,
    pub(super) operator: OperatorId,
    pub(super) task: TaskId,
}

impl<S: Source> Upstream for FromSource<S> {
    type Out = S::Item;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<S::Item> + Stage + 'static,
    {
        let (source, operator) = (Arc::new(self.source), self.operator);
        let checked = source.clone();
        graph.edit(|g| {
            if !checked.replayable() {
                g.set_forgetful(operator);
            }
            g.add_check(operator, Arc::new(move || checked.check()));
            let factory = move |cx: &mut BuildContext| {
                let down = make(cx)?;
                let name = cx.name(operator);
                let open = || source.open(&mut cx.open(operator)).map_err(|f| f.at(&name));
                let reader = cx.takes_part(operator).then(open).transpose()?;
                let head = SourceHead::<S, D>::new(reader, name, cx.stats_of(operator), down);
                let head = head.participate(cx.participant.clone(), cx.identity(operator));
                Ok(Box::new(head) as Box<dyn Head>)
            };
            g.set_factory(self.task, Arc::new(factory));
        });
    }
}

/// A stream with one more operator in the same chain.
pub struct Chained<U, Op> {
    pub(super) up: U,
    pub(super) op: Op,
    pub(super) operator: OperatorId,
}

impl<U, Op> Upstream for Chained<U, Op>
where
    U: Upstream,
    Op: Blueprint<U::Out>,
{
    type Out = <Op::Op as Operator<U::Out>>::Out;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<Self::Out> + Stage + 'static,
    {
        let (prototype, operator) = (Prototype::new(self.op), self.operator);
        self.up.attach(graph, move |cx| {
            let down = make(cx)?;
            node::<U::Out, Op::Op, D>(cx, operator, prototype.get().operator(), down)
        });
    }
}

/// The opened stage of an operator in one subtask.
pub(super) fn node<In, Op, D>(
    cx: &BuildContext,
    operator: OperatorId,
    mut op: Op,
    down: D,
) -> Flow<Node<In, Op, D>>
where
    Op: Operator<In>,
    D: Collector<Op::Out> + Stage,
{
    let name = cx.name(operator);
    if !cx.takes_part(operator) {
        return Ok(Node::new(op, name, down).absent());
    }
    let mut context = cx.open(operator);
    let opened = op.open(&mut context);
    opened
        .and_then(|()| context.check_states())
        .map_err(|fault| fault.at(&name))?;
    Node::new(op, name, down).participate(cx.participant.clone(), cx.identity(operator))
}
