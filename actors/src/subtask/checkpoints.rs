//! What a subtask's actor does for checkpoints: it passes the coordinator's orders on, and ends only after the last.

use super::SubtaskActor;
use crate::failpoints::failpoint;
use crate::protocol::{CheckpointSettled, EndInput, ExitStatus, Release, TriggerCheckpoint};
use crate::snapshots::{Figures, Snapshots};
use actix::prelude::*;
use std::time::{Duration, Instant};
use tidegate_engine::checkpoint::SubtaskRef;
use tidegate_engine::fault::{Flow, catch};
use tidegate_engine::graph::TaskId;
use tidegate_engine::task::Subtask;

impl SubtaskActor {
    /// Begins to owe images to the coordinator, where there is one.
    pub(super) fn owe_checkpoints(&mut self) {
        self.snapshots = self.shared.coordinator.clone().map(|coordinator| {
            let me = SubtaskRef {
                task: self.exit.task,
                subtask: self.exit.subtask,
            };
            let job = &self.shared.job;
            let group = self.shared.metrics.root().add_group("checkpoint");
            let group = group.add_label("job", &job.name);
            let group = group.add_label("task", job.task_name(TaskId(me.task)));
            let group = group.add_label("subtask", me.subtask);
            let figures = Figures {
                pauses: group.histogram("barrier_turn_micros"),
                persisted: group.counter("persisted_bytes"),
            };
            Snapshots::new(coordinator, me, self.shared.clock.clone(), figures)
        });
    }

    /// A step is behind: takes care of checkpoints, and may end the subtask. True if it did.
    pub(super) fn look_after_checkpoints(
        &mut self,
        took: Duration,
        done: bool,
        ctx: &mut Context<Self>,
    ) -> bool {
        let (Some(snapshots), Some(subtask)) = (&mut self.snapshots, &mut self.subtask) else {
            return false;
        };
        snapshots.after_turn(subtask, took);
        if done {
            snapshots.drained();
        }
        match catch(|| snapshots.may_end(subtask)) {
            Ok(false) => return false,
            Ok(true) => self.end(ExitStatus::Finished, ctx),
            Err(fault) => self.fail(fault, ctx),
        }
        true
    }

    /// Does something with the subtask outside of a step, and plans one.
    pub(super) fn tell(
        &mut self,
        ctx: &mut Context<Self>,
        tell: impl FnOnce(&mut Subtask) -> Flow,
    ) {
        let Some(subtask) = &mut self.subtask else {
            return;
        };
        let began = Instant::now();
        let told = catch(|| tell(subtask));
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.after_turn(subtask, began.elapsed());
        }
        match told {
            Ok(()) => self.schedule(ctx),
            Err(fault) => self.fail(fault, ctx),
        }
    }
}

impl Handler<TriggerCheckpoint> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, order: TriggerCheckpoint, ctx: &mut Self::Context) {
        let barrier = order.barrier;
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.trigger(order);
            failpoint!("subtask::before_barrier");
            self.tell(ctx, |subtask| subtask.trigger(barrier));
            failpoint!("subtask::after_barrier");
        }
    }
}

impl Handler<CheckpointSettled> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, CheckpointSettled(notice): CheckpointSettled, ctx: &mut Self::Context) {
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.settled(notice);
            failpoint!("subtask::before_commit");
            self.tell(ctx, |subtask| subtask.notify(notice));
            failpoint!("subtask::after_commit");
        }
    }
}

impl Handler<EndInput> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, _: EndInput, ctx: &mut Self::Context) {
        self.tell(ctx, |subtask| {
            subtask.drain();
            Ok(())
        });
    }
}

impl Handler<Release> for SubtaskActor {
    type Result = ();

    fn handle(&mut self, _: Release, ctx: &mut Self::Context) {
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.release();
            self.schedule(ctx);
        }
    }
}
