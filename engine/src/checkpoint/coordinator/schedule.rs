//! When what is triggered, and when what is under way needs a push.

use super::pending::{Pending, Purpose, Stage};
use super::{Coordinator, Life};
use crate::checkpoint::barrier::{BarrierKind, Passing};
use crate::checkpoint::protocol::{Action, Publication, RequestId, SavepointKind};
use crate::time::Timestamp;

impl<F: Clone> Coordinator<F> {
    /// Does all that can be done now.
    pub(super) fn advance(&mut self, now: Timestamp, out: &mut Vec<Action<F>>) {
        self.expire(now, out);
        self.turn_unaligned(now, out);
        self.look_up(now, out);
        self.publish_next(out);
        if matches!(self.life, Life::Running | Life::Draining(_)) {
            self.trigger_next(now, out);
        }
        let settled = Life::Failed { settled: true };
        if matches!(self.life, Life::Failed { settled: false }) && self.pending.is_empty() {
            self.life = settled;
            out.push(Action::Settled);
        }
    }

    /// When the clock alone triggers something.
    pub(super) fn next_trigger(&self) -> Timestamp {
        if self.may_finish() {
            self.retry_at
        } else if self.may_trigger_by_clock() {
            self.due.max(self.pause_until)
        } else {
            Timestamp::MAX
        }
    }

    fn expire(&mut self, now: Timestamp, out: &mut Vec<Action<F>>) {
        let over = |p: &Pending<F>| p.can_abort() && p.expires <= now;
        while let Some(at) = self.pending.iter().position(over) {
            let (there, all) = (self.pending[at].parts.len(), self.subtasks.len());
            let missing = self
                .subtasks
                .iter()
                .find(|s| !self.pending[at].parts.contains_key(s));
            let who = missing.map_or("the publication of an earlier one".into(), |s| {
                s.to_string()
            });
            let after = self.settings.timeout;
            let reason = format!(
                "not complete after {after:?}: {there} of {all} subtasks had answered, still waiting \
                 for {who}"
            );
            self.give_up(at, &reason, now, out);
        }
    }

    /// Sends barriers once more that are held up for too long: from now on they overtake.
    fn turn_unaligned(&mut self, now: Timestamp, out: &mut Vec<Action<F>>) {
        for pending in &mut self.pending {
            if pending.can_abort() && pending.turns <= now {
                pending.turns = Timestamp::MAX;
                pending.passing = Passing::Ahead;
                self.history.turned(pending.id);
                out.push(Action::Trigger(pending.barrier()));
            }
        }
    }

    fn look_up(&mut self, now: Timestamp, out: &mut Vec<Action<F>>) {
        for pending in &mut self.pending {
            if matches!(pending.stage, Stage::Unknown { again } if again <= now) {
                pending.stage = Stage::Resolving;
                out.push(Action::Resolve { id: pending.id });
            }
        }
    }

    /// Asks for the publication of the oldest checkpoint that is ready, one at a time.
    fn publish_next(&mut self, out: &mut Vec<Action<F>>) {
        if self.pending.iter().any(|p| !p.can_abort()) {
            return;
        }
        let all = self.subtasks.len();
        let Some(ready) = self.pending.iter_mut().find(|p| p.parts.len() == all) else {
            return;
        };
        ready.stage = Stage::Publishing;
        out.push(Action::Publish(Publication {
            id: ready.id,
            kind: ready.purpose.kind(),
            request: ready.purpose.request(),
            last: ready.purpose.is_last(),
            recovery_point: !matches!(ready.purpose, Purpose::Savepoint(_)),
            triggered: ready.triggered,
            files: ready.files(),
        }));
    }

    fn trigger_next(&mut self, now: Timestamp, out: &mut Vec<Action<F>>) {
        if let Some(&(request, kind)) = self.requests.front() {
            if self.pending.is_empty() {
                self.requests.pop_front();
                self.serve(request, kind, now, out);
            }
        } else if self.may_finish() {
            if !self.needs_last() {
                self.life = Life::Finished;
                out.push(Action::Finish);
            } else if self.retry_at <= now {
                let request = match self.life {
                    Life::Draining(request) => Some(request),
                    _ => None,
                };
                self.trigger(Purpose::Final(request), now, out);
            }
        } else if self.may_trigger_by_clock() && self.due.max(self.pause_until) <= now {
            self.trigger(Purpose::Periodic, now, out);
            let interval = self.settings.interval;
            self.due = interval.map_or(Timestamp::MAX, |i| now.plus(i));
        }
    }

    fn serve(
        &mut self,
        request: RequestId,
        kind: SavepointKind,
        now: Timestamp,
        out: &mut Vec<Action<F>>,
    ) {
        match kind {
            SavepointKind::Savepoint => self.trigger(Purpose::Savepoint(request), now, out),
            SavepointKind::Stop => self.trigger(Purpose::Stop(request), now, out),
            SavepointKind::Drain => {
                // From here on no checkpoint is taken before everything is drained: one in between
                // would remember an end of time that the input never reached.
                self.life = Life::Draining(request);
                out.push(Action::EndInput);
            }
        }
    }

    fn trigger(&mut self, purpose: Purpose, now: Timestamp, out: &mut Vec<Action<F>>) {
        let id = self.next_id;
        self.next_id = id.next();
        let mut pending = Pending::new(id, purpose, now, self.settings.timeout);
        // What a person owns stays aligned: it is to be read whatever becomes of the job's edges.
        if self.settings.unaligned && purpose.kind() == BarrierKind::Checkpoint {
            pending = pending.overtaking(self.settings.aligned_timeout);
        }
        let subtasks = self.subtasks.len();
        self.history.triggered(pending.barrier(), subtasks, now);
        out.push(Action::Trigger(pending.barrier()));
        self.pending.push_back(pending);
    }

    fn may_trigger_by_clock(&self) -> bool {
        self.life == Life::Running
            && !self.all_drained()
            && self.requests.is_empty()
            && self.pending.len() < self.settings.max_concurrent as usize
            && !self.pending.iter().any(|p| p.purpose.is_alone())
    }

    /// All that is left is to end.
    fn may_finish(&self) -> bool {
        matches!(self.life, Life::Running | Life::Draining(_))
            && self.all_drained()
            && self.requests.is_empty()
            && self.pending.is_empty()
    }

    fn needs_last(&self) -> bool {
        let wanted = matches!(self.life, Life::Draining(_));
        wanted || self.two_phase_sinks || self.settings.interval.is_some()
    }
}
