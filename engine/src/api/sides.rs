//! Side outputs of vertices that are written by hand.

use super::split::{Junction, watch_side};
use crate::build::BuildContext;
use crate::fault::Flow;
use crate::graph::{GraphRef, OperatorId};
use crate::side::{BranchHead, Nowhere, SideBuffer, SideOutput, SideStage, WithSides};
use crate::stage::Stage;
use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type SideFactory = Box<dyn Fn(&mut BuildContext) -> Flow<Box<dyn Stage>> + Send + Sync>;

/// A side output that was taken.
struct Side {
    tag: u64,
    /// The junction of its branches.
    junction: Box<dyn Any + Send>,
    make: SideFactory,
}

/// The side outputs of a vertex, gathered while the job is defined.
#[derive(Clone, Default)]
pub(super) struct Sides(Arc<Mutex<Vec<Side>>>);

impl Sides {
    fn all(&self) -> MutexGuard<'_, Vec<Side>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where branches of a side output are gathered; the same place each time it is asked for.
    pub(super) fn take<S: Clone + 'static>(
        &self,
        graph: &GraphRef,
        operator: OperatorId,
        tag: &SideOutput<S>,
    ) -> Junction<S> {
        let mut sides = self.all();
        let known = sides.iter().find(|side| side.tag == tag.id());
        if let Some(known) = known.and_then(|side| side.junction.downcast_ref::<Junction<S>>()) {
            return known.clone();
        }
        let junction = Junction::default();
        watch_side(graph, operator, tag, &junction);
        let (tag, branches) = (tag.id(), junction.clone());
        sides.push(Side {
            tag,
            junction: Box::new(junction.clone()),
            make: Box::new(move |cx| {
                let branch = BranchHead(branches.build(cx, S::clone)?);
                let buffer = SideBuffer::<S>::connected();
                cx.register_side(tag, buffer.clone());
                let stage = SideStage::new(buffer, Box::new(branch), Nowhere);
                Ok(Box::new(stage) as Box<dyn Stage>)
            }),
        });
        junction
    }

    /// Their stages in one subtask; what is opened after that finds them.
    pub(super) fn stages(&self, cx: &mut BuildContext) -> Flow<Vec<Box<dyn Stage>>> {
        self.all().iter().map(|side| (side.make)(cx)).collect()
    }

    /// Their stages beside `down`.
    pub(super) fn build<D>(&self, cx: &mut BuildContext, down: D) -> Flow<WithSides<D>> {
        Ok(WithSides::new(self.stages(cx)?, down))
    }
}
