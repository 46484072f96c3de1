//! What became of the latest checkpoints, for people: counts, the last ones, and their figures.
//!
//! Names and units are those of the `checkpoints` answer of Flink's REST API: times in milliseconds, sizes
//! in bytes.

use super::barrier::{Barrier, BarrierKind, CheckpointId};
use super::participant::Timing;
use super::protocol::SubtaskRef;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// How far a checkpoint came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointStatus {
    /// It is under way.
    InProgress,
    /// It is recorded.
    Completed,
    /// It was given up.
    Failed,
}

/// What a checkpoint was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CheckpointType {
    /// For recovery.
    Checkpoint,
    /// For recovery, with barriers that overtake what waits.
    UnalignedCheckpoint,
    /// For a person.
    Savepoint,
    /// For a person, and the job ends with it.
    SyncSavepoint,
}

impl From<Barrier> for CheckpointType {
    fn from(barrier: Barrier) -> Self {
        match barrier.kind {
            BarrierKind::Checkpoint if barrier.overtakes() => CheckpointType::UnalignedCheckpoint,
            BarrierKind::Checkpoint => CheckpointType::Checkpoint,
            BarrierKind::Savepoint => CheckpointType::Savepoint,
            BarrierKind::Stop => CheckpointType::SyncSavepoint,
        }
    }
}

/// One subtask's part in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SubtaskFigures {
    /// Whose.
    #[serde(flatten)]
    pub who: SubtaskRef,
    /// When its answer came.
    pub ack_timestamp: i64,
    /// From the trigger until then.
    pub end_to_end_duration: i64,
    /// What it wrote.
    pub state_size: u64,
    /// What it cost the stream.
    #[serde(flatten)]
    pub timing: Timing,
}

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointFigures {
    /// Its number.
    pub id: CheckpointId,
    /// How far it came.
    pub status: CheckpointStatus,
    /// A person owns it.
    pub is_savepoint: bool,
    /// What it was for.
    pub checkpoint_type: CheckpointType,
    /// When it was triggered.
    pub trigger_timestamp: i64,
    /// When the last answer came; -1 before the first.
    pub latest_ack_timestamp: i64,
    /// What was written for it.
    pub state_size: u64,
    /// How much of that are records that were in flight.
    #[serde(default)]
    pub persisted_data: u64,
    /// From its trigger to its end, or to the latest answer while it is under way.
    pub end_to_end_duration: i64,
    /// How many answers it takes.
    pub num_subtasks: usize,
    /// How many have come.
    pub num_acknowledged_subtasks: usize,
    /// Newer ones have made it superfluous, and it may be deleted.
    pub discarded: bool,
    /// When it was given up.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure_timestamp: Option<i64>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure_message: Option<String>,
    /// The answers, in the order in which they came.
    pub subtasks: Vec<SubtaskFigures>,
}

impl CheckpointFigures {
    /// Which one it is: after a failure, a later attempt may take another one of the same number.
    fn key(&self) -> (CheckpointId, i64) {
        (self.id, self.trigger_timestamp)
    }

    /// Becomes what `newer` is, of which it was an earlier state: answers are only ever added.
    fn catch_up(&mut self, newer: &Self) {
        let known = self.subtasks.len();
        if self.key() != newer.key() || known > newer.subtasks.len() {
            self.clone_from(newer);
            return;
        }
        self.subtasks.extend_from_slice(&newer.subtasks[known..]);
        if self.failure_message.is_none() {
            self.failure_message.clone_from(&newer.failure_message);
        }
        self.status = newer.status;
        self.latest_ack_timestamp = newer.latest_ack_timestamp;
        self.checkpoint_type = newer.checkpoint_type;
        self.state_size = newer.state_size;
        self.persisted_data = newer.persisted_data;
        self.end_to_end_duration = newer.end_to_end_duration;
        self.num_acknowledged_subtasks = newer.num_acknowledged_subtasks;
        self.discarded = newer.discarded;
        self.failure_timestamp = newer.failure_timestamp;
    }
}

/// How many checkpoints there were since the job was started, in all of its attempts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointCounts {
    /// Begun with.
    pub restored: u64,
    /// Triggered.
    pub total: u64,
    /// Under way.
    pub in_progress: u64,
    /// Complete.
    pub completed: u64,
    /// Given up, or overtaken by a later one.
    pub failed: u64,
}

/// The last one of each kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatestCheckpoints {
    /// That the job took for itself.
    pub completed: Option<CheckpointFigures>,
    /// That a person asked for.
    pub savepoint: Option<CheckpointFigures>,
    /// That was given up.
    pub failed: Option<CheckpointFigures>,
    /// That the present attempt began with.
    pub restored: Option<CheckpointId>,
}

/// The least, the greatest and the mean of a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spread {
    /// The least.
    pub min: u64,
    /// The greatest.
    pub max: u64,
    /// The mean.
    pub avg: u64,
}

impl Spread {
    fn of(values: impl Iterator<Item = u64> + Clone) -> Self {
        let count = values.clone().count().max(1) as u64;
        Spread {
            min: values.clone().min().unwrap_or(0),
            max: values.clone().max().unwrap_or(0),
            avg: values.sum::<u64>() / count,
        }
    }
}

/// Over the completed checkpoints that are remembered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointSummary {
    /// What was written.
    pub state_size: Spread,
    /// From trigger to completion.
    pub end_to_end_duration: Spread,
    /// Records that were in flight.
    pub persisted_data: Spread,
}

/// The last checkpoints of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckpointHistory {
    /// All there were.
    pub counts: CheckpointCounts,
    /// The last of each kind.
    pub latest: LatestCheckpoints,
    /// The newest first.
    pub history: VecDeque<CheckpointFigures>,
    keep: usize,
}

impl CheckpointHistory {
    /// Of an attempt that has taken none; the `keep` last ones will be remembered.
    pub fn new(keep: u32) -> Self {
        CheckpointHistory {
            counts: CheckpointCounts::default(),
            latest: LatestCheckpoints::default(),
            history: VecDeque::new(),
            keep: keep as usize,
        }
    }

    /// Goes on from that of an earlier attempt: what was under way then has failed with it.
    pub(super) fn follow(&mut self, earlier: CheckpointHistory, now: Timestamp) {
        *self = CheckpointHistory {
            keep: self.keep,
            ..earlier
        };
        let under_way = |f: &&mut CheckpointFigures| f.status == CheckpointStatus::InProgress;
        for figures in self.history.iter_mut().filter(under_way) {
            self.counts.failed += 1;
            figures.status = CheckpointStatus::Failed;
            figures.failure_timestamp = Some(now.0);
            figures.failure_message = Some("the attempt that took it failed".to_owned());
            self.latest.failed = Some(figures.clone());
        }
        self.counts.in_progress = 0;
    }

    /// Becomes what `newer` is, of which it was an earlier state. Copies what has been added or has changed since, and
    /// not what was there.
    pub fn catch_up(&mut self, newer: &Self) {
        (self.counts, self.keep) = (newer.counts, newer.keep);
        self.latest.restored = newer.latest.restored;
        for (shown, latest) in [
            (&mut self.latest.completed, &newer.latest.completed),
            (&mut self.latest.savepoint, &newer.latest.savepoint),
            (&mut self.latest.failed, &newer.latest.failed),
        ] {
            let key = |figures: &Option<CheckpointFigures>| figures.as_ref().map(|f| f.key());
            if key(shown) != key(latest) {
                shown.clone_from(latest);
            }
        }
        let newest = self.history.front().map(CheckpointFigures::key);
        let added = newer.history.iter();
        let added = added.take_while(|figures| Some(figures.key()) != newest);
        let added: Vec<_> = added.cloned().collect();
        for figures in added.into_iter().rev() {
            self.history.push_front(figures);
        }
        self.history.truncate(newer.history.len());
        for (shown, newer) in self.history.iter_mut().zip(&newer.history) {
            shown.catch_up(newer);
        }
    }

    /// The longest turn in which a barrier passed, among the checkpoints that are remembered.
    pub fn longest_pause(&self) -> Duration {
        let subtasks = self.history.iter().flat_map(|f| &f.subtasks);
        let longest = subtasks.map(|s| s.timing.sync_micros).max();
        Duration::from_micros(longest.unwrap_or(0))
    }

    /// The spread of the figures.
    pub fn summary(&self) -> CheckpointSummary {
        let completed = |f: &&CheckpointFigures| f.status == CheckpointStatus::Completed;
        let done = self.history.iter().filter(completed);
        let duration = |f: &CheckpointFigures| u64::try_from(f.end_to_end_duration).unwrap_or(0);
        CheckpointSummary {
            state_size: Spread::of(done.clone().map(|f| f.state_size)),
            end_to_end_duration: Spread::of(done.clone().map(duration)),
            persisted_data: Spread::of(done.map(|f| f.persisted_data)),
        }
    }

    pub(super) fn restored(&mut self, id: CheckpointId) {
        self.counts.restored += 1;
        self.latest.restored = Some(id);
    }

    pub(super) fn triggered(&mut self, barrier: Barrier, num_subtasks: usize, now: Timestamp) {
        self.counts.total += 1;
        self.counts.in_progress += 1;
        self.history.push_front(CheckpointFigures {
            id: barrier.id,
            status: CheckpointStatus::InProgress,
            is_savepoint: barrier.kind != BarrierKind::Checkpoint,
            checkpoint_type: barrier.into(),
            trigger_timestamp: now.0,
            latest_ack_timestamp: -1,
            state_size: 0,
            persisted_data: 0,
            end_to_end_duration: 0,
            num_subtasks,
            num_acknowledged_subtasks: 0,
            discarded: false,
            failure_timestamp: None,
            failure_message: None,
            subtasks: Vec::with_capacity(num_subtasks),
        });
        // What is still under way is newer than what can be forgotten, but for the oddest settings.
        let over = |f: &CheckpointFigures| f.status != CheckpointStatus::InProgress;
        while self.history.len() > self.keep && self.history.back().is_some_and(over) {
            self.history.pop_back();
        }
    }

    /// Its barriers overtake from now on.
    pub(super) fn turned(&mut self, id: CheckpointId) {
        if let Some(figures) = self.find(id) {
            figures.checkpoint_type = CheckpointType::UnalignedCheckpoint;
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        id: CheckpointId,
        who: SubtaskRef,
        (state_size, timing): (u64, Timing),
        now: Timestamp,
    ) {
        let Some(figures) = self.find(id) else {
            return;
        };
        let end_to_end_duration = now.0.saturating_sub(figures.trigger_timestamp);
        figures.latest_ack_timestamp = now.0;
        figures.end_to_end_duration = end_to_end_duration;
        figures.state_size += state_size;
        figures.persisted_data += timing.persisted;
        figures.num_acknowledged_subtasks += 1;
        figures.subtasks.push(SubtaskFigures {
            who,
            ack_timestamp: now.0,
            end_to_end_duration,
            state_size,
            timing,
        });
    }

    pub(super) fn completed(&mut self, id: CheckpointId, now: Timestamp) {
        self.counts.completed += 1;
        let Some(figures) = self.end(id, CheckpointStatus::Completed, now) else {
            return;
        };
        if figures.is_savepoint {
            self.latest.savepoint = Some(figures);
        } else {
            self.latest.completed = Some(figures);
        }
    }

    pub(super) fn failed(&mut self, id: CheckpointId, reason: &str, now: Timestamp) {
        self.counts.failed += 1;
        if let Some(figures) = self.find(id) {
            figures.failure_timestamp = Some(now.0);
            figures.failure_message = Some(reason.to_owned());
        }
        self.latest.failed = self.end(id, CheckpointStatus::Failed, now);
    }

    pub(super) fn discarded(&mut self, ids: &[CheckpointId]) {
        let superfluous = self.history.iter_mut().filter(|f| ids.contains(&f.id));
        superfluous.for_each(|figures| figures.discarded = true);
    }

    fn find(&mut self, id: CheckpointId) -> Option<&mut CheckpointFigures> {
        self.history.iter_mut().find(|figures| figures.id == id)
    }

    fn end(
        &mut self,
        id: CheckpointId,
        status: CheckpointStatus,
        now: Timestamp,
    ) -> Option<CheckpointFigures> {
        self.counts.in_progress -= 1;
        let figures = self.find(id)?;
        figures.status = status;
        figures.end_to_end_duration = now.0.saturating_sub(figures.trigger_timestamp);
        Some(figures.clone())
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
