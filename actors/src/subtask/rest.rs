//! How a subtask's actor accounts for its time, and waits: turns, in which user code may run, and rests between.

use super::SubtaskActor;
use actix::prelude::*;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use tidegate_engine::time::Timestamp;

impl SubtaskActor {
    /// Tells the supervisor's watch that user code may run from now on.
    pub(super) fn begin_turn(&self, now: Instant) {
        let at = now.duration_since(self.shared.began).as_nanos().max(1) as u64;
        for stats in &self.stats {
            stats.turn_began.store(at, Relaxed);
        }
    }

    pub(super) fn end_turn(&self) {
        for stats in &self.stats {
            stats.turn_began.store(0, Relaxed);
        }
    }

    pub(super) fn rest_until(&mut self, until: Timestamp, now: Timestamp, ctx: &mut Context<Self>) {
        if let Some((at, handle)) = self.timer {
            if at <= until {
                return;
            }
            ctx.cancel_future(handle);
        }
        let pause = until.0.saturating_sub(now.0).clamp(0, 3_600_000) as u64;
        let handle = ctx.run_later(Duration::from_millis(pause), |actor, ctx| {
            actor.timer = None;
            actor.schedule(ctx);
        });
        self.timer = Some((until, handle));
    }

    pub(super) fn begin_rest(&mut self, blocked: bool) {
        let now = Instant::now();
        self.resting = Some((now, blocked));
        let at = now.duration_since(self.shared.began).as_nanos().max(1) as u64;
        for stats in &self.stats {
            stats.rest_blocked.store(blocked, Relaxed);
            stats.rest_began.store(at, Relaxed);
        }
    }

    pub(super) fn account_rest(&mut self, now: Instant) {
        let Some((since, blocked)) = self.resting.take() else {
            return;
        };
        let rest = now.duration_since(since).as_nanos() as u64;
        for stats in &self.stats {
            let counter = if blocked {
                &stats.backpressured_ns
            } else {
                &stats.idle_ns
            };
            stats.rest_began.store(0, Relaxed);
            counter.fetch_add(rest, Relaxed);
        }
    }
}
