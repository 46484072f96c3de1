//! Decides when a checkpoint is taken and what becomes of it: no clock, no message, no file in sight.
//!
//! A checkpoint is *triggered*, then *published* once every subtask has written its part, and *complete*
//! once it is recorded; only then may anybody act on it. It can be given up only before its
//! publication was asked for: after that only the registry knows. One publication is under way at a
//! time, so ids are recorded in rising order. "Complete n" says that everything up to n is complete.
//!
//! Savepoints and the checkpoint at the end of all input are taken when nothing else is under way, and
//! nothing is triggered beside them. A savepoint that the job goes on after commits nothing, makes
//! no checkpoint superfluous and is nobody's to delete but its owner's.

mod pending;
mod schedule;
mod settle;
#[cfg(test)]
mod tests;

use super::barrier::{BarrierKind, CheckpointId};
use super::history::CheckpointHistory;
use super::protocol::{Action, Event, RequestId, SavepointKind, SubtaskRef};
use super::settings::CheckpointSettings;
use crate::time::Timestamp;
use pending::Pending;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, VecDeque};

/// How many given-up checkpoints are remembered, to know what late parts were written for.
const REMEMBERED: usize = 64;

/// Messages that came too late, twice, or from nobody: harmless, but many of them tell of trouble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// Parts of checkpoints that were no longer, or never, waited for.
    pub late: u64,
    /// Parts that were there already.
    pub duplicate: u64,
    /// Messages from subtasks that the job doesn't have.
    pub stranger: u64,
    /// Outcomes that nobody asked for.
    pub outcome: u64,
}

/// What the job is doing, as far as checkpoints are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// Records flow.
    Running,
    /// The sources were told to end.
    Draining(RequestId),
    /// The last checkpoint is complete.
    Finished,
    /// A subtask is gone, or the job has to fail.
    Failed {
        /// No publication is under way.
        settled: bool,
    },
}

/// The coordinator of one attempt of a job.
#[derive(Debug)]
pub struct Coordinator<F> {
    settings: CheckpointSettings,
    subtasks: BTreeSet<SubtaskRef>,
    two_phase_sinks: bool,
    next_id: CheckpointId,
    life: Life,
    drained: BTreeSet<SubtaskRef>,
    /// In the order of their ids.
    pending: VecDeque<Pending<F>>,
    requests: VecDeque<(RequestId, SavepointKind)>,
    /// Complete checkpoints that are kept, oldest first.
    retained: VecDeque<CheckpointId>,
    /// Given up lately.
    aborted: VecDeque<CheckpointId>,
    /// When the clock asks for the next one.
    due: Timestamp,
    /// Nothing is triggered by the clock before this, so that the job gets its pause.
    pause_until: Timestamp,
    /// Nor is the last one tried again before this.
    retry_at: Timestamp,
    /// Failed in a row.
    failures: u32,
    ignored: Ignored,
    history: CheckpointHistory,
}

impl<F: Clone> Coordinator<F> {
    /// For an attempt that begins `now` with these subtasks. `next_id` has to be greater than that of
    /// any checkpoint that the job ever recorded.
    pub fn new(
        settings: CheckpointSettings,
        subtasks: Vec<SubtaskRef>,
        next_id: CheckpointId,
        now: Timestamp,
    ) -> Self {
        let due = settings.interval.map_or(Timestamp::MAX, |i| now.plus(i));
        Coordinator {
            history: CheckpointHistory::new(settings.history),
            settings,
            subtasks: subtasks.into_iter().collect(),
            two_phase_sinks: false,
            next_id,
            life: Life::Running,
            drained: BTreeSet::new(),
            pending: VecDeque::new(),
            requests: VecDeque::new(),
            retained: VecDeque::new(),
            aborted: VecDeque::new(),
            due,
            pause_until: Timestamp::MIN,
            retry_at: Timestamp::MIN,
            failures: 0,
            ignored: Ignored::default(),
        }
    }

    /// Whether there are sinks that only a checkpoint lets commit: then one is taken at the end of all
    /// input even where there is no interval.
    pub fn two_phase_sinks(mut self, any: bool) -> Self {
        self.two_phase_sinks = any;
        self
    }

    /// The checkpoints of earlier attempts that are still kept, without savepoints.
    pub fn retaining(mut self, ids: impl IntoIterator<Item = CheckpointId>) -> Self {
        self.retained.extend(ids);
        self.retained.make_contiguous().sort_unstable();
        self
    }

    /// What became of the checkpoints of the attempts before this one.
    pub fn following(mut self, earlier: CheckpointHistory, now: Timestamp) -> Self {
        self.history.follow(earlier, now);
        self
    }

    /// The checkpoint or savepoint that this attempt begins with.
    pub fn restored(mut self, id: CheckpointId) -> Self {
        self.history.restored(id);
        self
    }

    /// Takes in what happened and tells what to do about it.
    pub fn handle(&mut self, event: Event<F>, now: Timestamp) -> Vec<Action<F>> {
        let mut actions = Vec::new();
        let out = &mut actions;
        match event {
            Event::Tick => {}
            Event::SnapshotDone {
                id,
                subtask,
                file,
                bytes,
                timing,
            } => self.snapshot_done(id, subtask, (file, (bytes, timing)), now, out),
            Event::SnapshotDeclined {
                id,
                subtask,
                reason,
                phase,
            } => self.declined(id, subtask, (reason, phase), now, out),
            Event::MetadataPublished { id, outcome } => self.published(id, outcome, now, out),
            Event::Drained { subtask } => self.drained(subtask),
            Event::SavepointRequested { request, kind } => self.requested(request, kind, out),
            Event::AbortRequested { request } => self.request_aborted(request, now, out),
            Event::SubtaskGone { subtask } => {
                let reason = format!("{subtask} is gone");
                self.stop(&reason, now, out);
            }
        }
        self.advance(now, out);
        actions
    }

    /// When [`Event::Tick`] has something to do, if nothing else happens before; `Timestamp::MAX` for
    /// never.
    pub fn next_wakeup(&self) -> Timestamp {
        let pending = self.pending.iter().map(Pending::deadline).min();
        let pending = pending.unwrap_or(Timestamp::MAX);
        pending.min(self.next_trigger())
    }

    /// The id that the next checkpoint gets. A later attempt in the same process begins with it.
    pub fn next_id(&self) -> CheckpointId {
        self.next_id
    }

    /// The complete checkpoints that are kept, oldest first.
    pub fn retained(&self) -> impl Iterator<Item = CheckpointId> + '_ {
        self.retained.iter().copied()
    }

    /// The checkpoints under way, oldest first.
    pub fn under_way(&self) -> impl Iterator<Item = (CheckpointId, BarrierKind)> + '_ {
        self.pending.iter().map(|p| (p.id, p.purpose.kind()))
    }

    /// How many checkpoints have failed since the last one that was completed.
    pub fn consecutive_failures(&self) -> u32 {
        self.failures
    }

    /// What became of the latest checkpoints.
    pub fn history(&self) -> &CheckpointHistory {
        &self.history
    }

    /// What was ignored.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    /// The settings.
    pub fn settings(&self) -> &CheckpointSettings {
        &self.settings
    }

    fn drained(&mut self, subtask: SubtaskRef) {
        if self.subtasks.contains(&subtask) {
            self.drained.insert(subtask);
        } else {
            self.ignored.stranger += 1;
        }
    }

    /// Everything has left every subtask.
    fn all_drained(&self) -> bool {
        self.drained.len() == self.subtasks.len()
    }
}
