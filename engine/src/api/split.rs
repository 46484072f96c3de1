//! Streams that go on in several branches, and streams whose type is erased.

use super::stream::DataStream;
use super::upstream::{Make, Upstream};
use crate::build::BuildContext;
use crate::fault::Flow;
use crate::graph::{GraphRef, OperatorId};
use crate::side::{Branch, BranchHead, Fork, SideBuffer, SideOutput, SideStage};
use crate::stage::{Collector, Stage};
use std::sync::{Arc, Mutex, PoisonError};

type BranchFactory<T> = Box<dyn Fn(&mut BuildContext) -> Flow<Box<dyn Branch<T>>> + Send + Sync>;

/// Where branches of a stream are gathered while the job is defined.
pub struct Junction<T>(Arc<Mutex<Vec<BranchFactory<T>>>>);

impl<T> Clone for Junction<T> {
    fn clone(&self) -> Self {
        Junction(self.0.clone())
    }
}

impl<T> Default for Junction<T> {
    fn default() -> Self {
        Junction(Arc::default())
    }
}

impl<T: 'static> Junction<T> {
    /// Adds a branch.
    pub fn add(&self, branch: BranchFactory<T>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(branch);
    }

    /// How many branches there are.
    pub fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stage that feeds all branches, in one subtask.
    pub fn build(&self, cx: &mut BuildContext, copy: fn(&T) -> T) -> Flow<Fork<T>> {
        let factories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let branches = factories
            .iter()
            .map(|make| make(cx))
            .collect::<Flow<Vec<_>>>()?;
        Ok(Fork::new(branches, copy))
    }
}

/// A stream whose chain is hidden behind one dynamic call per batch.
pub struct BoxedUpstream<T> {
    junction: Junction<T>,
}

impl<T: 'static> Upstream for BoxedUpstream<T> {
    type Out = T;

    fn attach<D>(self, _graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<T> + Stage + 'static,
    {
        self.junction.add(Box::new(move |cx| {
            let branch: Box<dyn Branch<T>> = Box::new(BranchHead(make(cx)?));
            Ok(branch)
        }));
    }
}

/// A copy function for forks with a single branch, which never copy.
fn never<T>(_: &T) -> T {
    unreachable!("a stream with one branch is not copied")
}

impl<T: 'static, U: Upstream<Out = T>> DataStream<T, U> {
    /// The same stream as `DataStream<T>`, for functions that take or return streams. Records cross
    /// this point in small batches.
    pub fn boxed(self) -> DataStream<T> {
        let [stream] = self.split_with(never);
        stream
    }

    /// The stream twice: each branch sees every record, in the same actor.
    pub fn fork(self) -> (DataStream<T>, DataStream<T>)
    where
        T: Clone,
    {
        let [first, second] = self.fork_n();
        (first, second)
    }

    /// The stream `N` times.
    pub fn fork_n<const N: usize>(self) -> [DataStream<T>; N]
    where
        T: Clone,
    {
        self.split_with(T::clone)
    }

    fn split_with<const N: usize>(mut self, copy: fn(&T) -> T) -> [DataStream<T>; N] {
        if self.place.pending.is_some() {
            self.enter("pass", "pass");
        }
        let junction = Junction::default();
        let (built, whole) = (junction.clone(), junction.clone());
        self.graph.edit(|g| {
            g.add_end(self.place.operator, move || {
                let missing = N - whole.len().min(N);
                (missing > 0).then(|| {
                    format!(
                        "{missing} of the {N} streams behind it end without a sink; add one to each"
                    )
                })
            });
        });
        self.up.attach(&self.graph, move |cx| built.build(cx, copy));
        std::array::from_fn(|_| DataStream {
            graph: self.graph.clone(),
            up: BoxedUpstream {
                junction: junction.clone(),
            },
            place: self.place,
        })
    }

    /// Takes the records that an operator before this point puts to a side output: returns the stream
    /// as it is, and the side stream.
    pub fn side_output<S: 'static>(
        self,
        tag: &SideOutput<S>,
    ) -> (DataStream<T, WithSide<U, S>>, DataStream<S>) {
        let junction = Junction::default();
        watch_side(&self.graph, self.place.operator, tag, &junction);
        let up = WithSide {
            up: self.up,
            tag: tag.clone(),
            junction: junction.clone(),
        };
        let side = BoxedUpstream { junction };
        (
            DataStream {
                graph: self.graph.clone(),
                up,
                place: self.place,
            },
            DataStream {
                graph: self.graph,
                up: side,
                place: self.place,
            },
        )
    }
}

/// Has validation tell of a side stream that was taken and goes nowhere.
pub(super) fn watch_side<S: 'static>(
    graph: &GraphRef,
    operator: OperatorId,
    tag: &SideOutput<S>,
    junction: &Junction<S>,
) {
    let (name, junction) = (tag.name().to_owned(), junction.clone());
    let problem = move || {
        let unused = junction.is_empty();
        unused.then(|| format!("its side stream '{name}' ends without a sink; add one"))
    };
    graph.edit(|g| g.add_end(operator, problem));
}

/// A stream from which a side stream leaves.
pub struct WithSide<U, S> {
    up: U,
    tag: SideOutput<S>,
    junction: Junction<S>,
}

/// A [`WithSide`] without what it is around.
pub(super) struct SideTaken<S> {
    tag: SideOutput<S>,
    junction: Junction<S>,
}

impl<S> SideTaken<S> {
    pub(super) fn around<U>(self, up: U) -> WithSide<U, S> {
        let SideTaken { tag, junction } = self;
        WithSide { up, tag, junction }
    }
}

impl<U, S> WithSide<U, S> {
    pub(super) fn take_apart(self) -> (U, SideTaken<S>) {
        let WithSide { up, tag, junction } = self;
        (up, SideTaken { tag, junction })
    }
}

impl<U: Upstream, S: 'static> Upstream for WithSide<U, S> {
    type Out = U::Out;

    fn attach<D>(self, graph: &GraphRef, make: impl Make<D>)
    where
        D: Collector<U::Out> + Stage + 'static,
    {
        let (tag, junction) = (self.tag.id(), self.junction);
        self.up.attach(graph, move |cx: &mut BuildContext| {
            let down = make(cx)?;
            let branch = BranchHead(junction.build(cx, never)?);
            let buffer = SideBuffer::<S>::connected();
            cx.register_side(tag, buffer.clone());
            Ok(SideStage::new(buffer, Box::new(branch), down))
        });
    }
}
