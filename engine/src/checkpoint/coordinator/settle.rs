//! How a checkpoint comes to its end: complete, given up, or overtaken by a later one.

use super::pending::{Pending, Purpose, Stage};
use super::{Coordinator, Life, REMEMBERED};
use crate::checkpoint::Timing;
use crate::checkpoint::barrier::{BarrierKind, CheckpointId, Notice};
use crate::checkpoint::protocol::{Action, Outcome, Phase, RequestId, SavepointKind, SubtaskRef};
use crate::time::Timestamp;
use std::time::Duration;

/// The pause before the last checkpoint is tried again; twice as long after each further failure.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_RETRY_PAUSE: Duration = Duration::from_secs(5);

impl<F: Clone> Coordinator<F> {
    pub(super) fn snapshot_done(
        &mut self,
        id: CheckpointId,
        subtask: SubtaskRef,
        (file, figures): (F, (u64, Timing)),
        now: Timestamp,
        out: &mut Vec<Action<F>>,
    ) {
        if !self.subtasks.contains(&subtask) {
            self.ignored.stranger += 1;
            return;
        }
        let Some(pending) = self.pending.iter_mut().find(|p| p.id == id) else {
            self.ignored.late += 1;
            // Of one that was complete or overtaken this could be a second message about files in use.
            if self.aborted.contains(&id) {
                let files = vec![(subtask, file)];
                out.push(Action::Discard { id, files });
            }
            return;
        };
        if pending.parts.contains_key(&subtask) {
            self.ignored.duplicate += 1;
            return;
        }
        pending.parts.insert(subtask, file);
        self.history.acknowledged(id, subtask, figures, now);
    }

    pub(super) fn declined(
        &mut self,
        id: CheckpointId,
        subtask: SubtaskRef,
        (reason, phase): (String, Phase),
        now: Timestamp,
        out: &mut Vec<Action<F>>,
    ) {
        if !self.subtasks.contains(&subtask) {
            self.ignored.stranger += 1;
            return;
        }
        let reason = format!("{subtask}: {reason}");
        if phase == Phase::Sync {
            self.fail(&format!("checkpoint {id}: {reason}"), now, out);
            return;
        }
        let given_up = |p: &Pending<F>| p.id == id && p.can_abort();
        match self.pending.iter().position(given_up) {
            Some(at) => self.give_up(at, &reason, now, out),
            None => self.ignored.late += 1,
        }
    }

    pub(super) fn published(
        &mut self,
        id: CheckpointId,
        outcome: Outcome,
        now: Timestamp,
        out: &mut Vec<Action<F>>,
    ) {
        let asked = |p: &Pending<F>| p.id == id && !p.can_abort();
        let Some(at) = self.pending.iter().position(asked) else {
            self.ignored.outcome += 1;
            return;
        };
        match outcome {
            Outcome::Published => self.complete(at, now, out),
            Outcome::Failed(reason) => self.give_up(at, &reason, now, out),
            Outcome::Unknown => {
                let pending = &mut self.pending[at];
                if pending.stage == Stage::Publishing {
                    pending.stage = Stage::Resolving;
                    out.push(Action::Resolve { id });
                } else {
                    pending.look_again(now);
                }
            }
        }
    }

    /// It is recorded.
    fn complete(&mut self, at: usize, now: Timestamp, out: &mut Vec<Action<F>>) {
        let Some(done) = self.pending.remove(at) else {
            return;
        };
        let (id, purpose) = (done.id, done.purpose);
        self.history.completed(id, now);
        let goes_on = !self.has_failed();
        if goes_on && !matches!(purpose, Purpose::Savepoint(_)) {
            let last = purpose.is_last();
            out.push(Action::Notify(Notice::Completed { id, last }));
            self.overtake(id, now, out);
        }
        if let Some(request) = purpose.request() {
            let result = Ok(id);
            out.push(Action::ReplySavepoint { request, result });
        }
        if purpose.is_own() {
            self.failures = 0;
        }
        if purpose.kind() == BarrierKind::Checkpoint {
            self.pause_until = now.plus(self.settings.pause());
            self.retain(id, out);
        }
        if goes_on && purpose.is_last() {
            self.life = Life::Finished;
            self.refuse_requests("the job has ended", out);
            out.push(Action::Finish);
        }
    }

    /// What is under way and older than a complete checkpoint is of no use any more.
    fn overtake(&mut self, than: CheckpointId, now: Timestamp, out: &mut Vec<Action<F>>) {
        while let Some(older) = self.pending.pop_front_if(|p| p.id < than) {
            let (id, files) = (older.id, older.files());
            let reason = format!("checkpoint {than} was complete before it");
            self.history.failed(id, &reason, now);
            self.remember_aborted(id);
            if !files.is_empty() {
                out.push(Action::Discard { id, files });
            }
        }
    }

    fn retain(&mut self, id: CheckpointId, out: &mut Vec<Action<F>>) {
        self.retained.push_back(id);
        let keep = self.settings.retained.max(1) as usize;
        let superfluous = self.retained.len().saturating_sub(keep);
        if superfluous > 0 {
            let ids: Vec<_> = self.retained.drain(..superfluous).collect();
            self.history.discarded(&ids);
            out.push(Action::Subsumed(ids));
        }
    }

    /// A checkpoint that is not, and never will be, recorded.
    pub(super) fn give_up(
        &mut self,
        at: usize,
        reason: &str,
        now: Timestamp,
        out: &mut Vec<Action<F>>,
    ) {
        let Some(purpose) = self.drop_pending(at, reason, now, out) else {
            return;
        };
        if self.has_failed() {
            return;
        }
        self.pause_until = match purpose {
            Purpose::Periodic => now.plus(self.settings.pause()),
            _ => self.pause_until,
        };
        if !purpose.is_own() {
            return;
        }
        self.failures += 1;
        if self.failures > self.settings.tolerable_failures {
            let (count, allowed) = (self.failures, self.settings.tolerable_failures);
            let text = format!(
                "{count} checkpoints failed in a row and {allowed} are tolerated; the last one: \
                 {reason}"
            );
            self.fail(&text, now, out);
        } else if purpose.is_last() {
            let doubled = RETRY_PAUSE * (1 << (self.failures - 1).min(10));
            self.retry_at = now.plus(doubled.min(LONGEST_RETRY_PAUSE));
        }
    }

    fn drop_pending(
        &mut self,
        at: usize,
        reason: &str,
        now: Timestamp,
        out: &mut Vec<Action<F>>,
    ) -> Option<Purpose> {
        let dropped = self.pending.remove(at)?;
        let (id, purpose, files) = (dropped.id, dropped.purpose, dropped.files());
        self.remember_aborted(id);
        self.history.failed(id, reason, now);
        if !self.has_failed() {
            out.push(Action::Notify(Notice::Aborted { id }));
        }
        if !files.is_empty() {
            out.push(Action::Discard { id, files });
        }
        // The last checkpoint of a drained job is tried again: its request waits for that.
        let retried = matches!(purpose, Purpose::Final(_)) && !self.has_failed();
        if let Some(request) = purpose.request().filter(|_| !retried) {
            let result = Err(reason.to_owned());
            out.push(Action::ReplySavepoint { request, result });
        }
        Some(purpose)
    }

    fn has_failed(&self) -> bool {
        matches!(self.life, Life::Failed { .. })
    }

    fn remember_aborted(&mut self, id: CheckpointId) {
        self.aborted.push_back(id);
        if self.aborted.len() > REMEMBERED {
            self.aborted.pop_front();
        }
    }

    /// The job has to fail.
    fn fail(&mut self, reason: &str, now: Timestamp, out: &mut Vec<Action<F>>) {
        if matches!(self.life, Life::Running | Life::Draining(_)) {
            out.push(Action::FailJob(reason.to_owned()));
            self.stop(reason, now, out);
        }
    }

    /// This attempt takes no further checkpoint. What is being published is waited for.
    pub(super) fn stop(&mut self, reason: &str, now: Timestamp, out: &mut Vec<Action<F>>) {
        let draining = match self.life {
            // A sink may be lost between the end and its last commit: then another attempt does that.
            Life::Running | Life::Finished => None,
            Life::Draining(request) => Some(request),
            Life::Failed { .. } => return,
        };
        self.life = Life::Failed { settled: false };
        let answers = |p: &Pending<F>| p.purpose.request() == draining;
        let answered = self.pending.iter().any(answers);
        while let Some(at) = self.pending.iter().position(Pending::can_abort) {
            self.drop_pending(at, reason, now, out);
        }
        self.refuse_requests(reason, out);
        if draining.is_some() && !answered {
            self.refuse(draining, reason, out);
        }
    }

    fn refuse_requests(&mut self, reason: &str, out: &mut Vec<Action<F>>) {
        for (request, _) in std::mem::take(&mut self.requests) {
            self.refuse(Some(request), reason, out);
        }
    }

    fn refuse(&self, request: Option<RequestId>, reason: &str, out: &mut Vec<Action<F>>) {
        out.extend(request.map(|request| Action::ReplySavepoint {
            request,
            result: Err(reason.to_owned()),
        }));
    }

    pub(super) fn requested(
        &mut self,
        request: RequestId,
        kind: SavepointKind,
        out: &mut Vec<Action<F>>,
    ) {
        let under_way = |p: &Pending<F>| p.purpose.request() == Some(request);
        let queued = self.requests.iter().any(|(queued, _)| *queued == request);
        if queued || self.pending.iter().any(under_way) || self.life == Life::Draining(request) {
            return; // the message came twice
        }
        let ends = |kind: &SavepointKind| *kind != SavepointKind::Savepoint;
        let ending = self.requests.iter().any(|(_, kind)| ends(kind))
            || self.pending.iter().any(|p| p.purpose.is_last());
        let refusal = match self.life {
            Life::Failed { .. } => "the job has failed and is not running now",
            Life::Finished => "the job has ended",
            Life::Draining(_) => "the job is being drained",
            Life::Running if ending => "the job is being stopped already",
            Life::Running => {
                self.requests.push_back((request, kind));
                return;
            }
        };
        self.refuse(Some(request), refusal, out);
    }

    pub(super) fn request_aborted(
        &mut self,
        request: RequestId,
        now: Timestamp,
        out: &mut Vec<Action<F>>,
    ) {
        let reason = "the request was withdrawn";
        let before = self.requests.len();
        self.requests.retain(|(queued, _)| *queued != request);
        if self.requests.len() < before {
            self.refuse(Some(request), reason, out);
            return;
        }
        let can = |p: &Pending<F>| {
            let drained = matches!(p.purpose, Purpose::Final(_));
            p.purpose.request() == Some(request) && p.can_abort() && !drained
        };
        if let Some(at) = self.pending.iter().position(can) {
            self.give_up(at, reason, now, out);
        }
    }
}
