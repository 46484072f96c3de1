//! What a running job shows of itself: one set of numbers per vertex and subtask.
//!
//! A subtask writes its numbers at the end of a turn, never once a record; anyone may read them at any
//! time. Reports, the progress line and the metrics endpoint all read the same [`SubtaskStats`].

use crate::alignment::AlignmentBoard;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The live numbers of one subtask of one vertex.
#[derive(Debug, Default)]
pub struct SubtaskStats {
    /// Records received (for a source: read).
    pub records_in: AtomicU64,
    /// Records handed to the next vertex or written by a sink.
    pub records_out: AtomicU64,
    /// Bytes received (for a source: read), as the records' size in memory without what they point to.
    pub bytes_in: AtomicU64,
    /// Bytes handed on, measured alike.
    pub bytes_out: AtomicU64,
    /// Records that came after their window was gone.
    pub late: AtomicU64,
    /// Records that did not parse and were skipped or put aside.
    pub dead_letters: AtomicU64,
    /// The event-time watermark, milliseconds; `i64::MIN` before the first.
    pub watermark: WatermarkCell,
    /// Batches that wait in the mailbox.
    pub queued: AtomicU64,
    /// Records of credit left towards the next vertex.
    pub credits: AtomicU64,
    /// Records that wait for credit or for their batch to fill.
    pub buffered: AtomicU64,
    /// Nanoseconds of work.
    pub busy_ns: AtomicU64,
    /// Nanoseconds without input.
    pub idle_ns: AtomicU64,
    /// Nanoseconds with input but without room downstream.
    pub backpressured_ns: AtomicU64,
    /// Nanoseconds since the job's start at which the turn in progress began; 0 between turns.
    pub turn_began: AtomicU64,
    /// Timers that are set.
    pub timers: AtomicU64,
    /// Milliseconds for which what it reads from or writes to has not answered; 0 while it does.
    pub silence_ms: AtomicU64,
    /// Nanoseconds since the job's start at which the rest in progress began; 0 while it works.
    /// Its length is in neither `idle_ns` nor `backpressured_ns` before it ends.
    pub rest_began: AtomicU64,
    /// Whether it rests for lack of room downstream, and not for lack of input.
    pub rest_blocked: AtomicBool,
}

/// A timestamp that is written by one thread and read by others.
#[derive(Debug)]
pub struct WatermarkCell(AtomicI64);

impl Default for WatermarkCell {
    fn default() -> Self {
        WatermarkCell(AtomicI64::new(i64::MIN))
    }
}

impl WatermarkCell {
    /// The newest value.
    pub fn get(&self) -> Timestamp {
        Timestamp(self.0.load(Relaxed))
    }

    /// Stores a newer value.
    pub fn set(&self, at: Timestamp) {
        self.0.store(at.0, Relaxed);
    }
}

/// A copy of [`SubtaskStats`] at one moment, as reports show it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the fields are those of SubtaskStats")]
pub struct SubtaskSnapshot {
    pub vertex: String,
    pub vertex_id: u32,
    pub subtask: u32,
    pub records_in: u64,
    pub records_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub late: u64,
    pub dead_letters: u64,
    pub watermark: Option<i64>,
    pub queued: u64,
    pub credits: u64,
    pub buffered: u64,
    pub busy_ns: u64,
    pub idle_ns: u64,
    pub backpressured_ns: u64,
    pub timers: u64,
    pub silence_ms: u64,
}

impl SubtaskStats {
    /// Nanoseconds of idleness and of back pressure up to now, with the rest in progress.
    pub fn rest(&self, since_start: Duration) -> (u64, u64) {
        let began = self.rest_began.load(Relaxed);
        let rest = match began {
            0 => 0,
            began => (since_start.as_nanos() as u64).saturating_sub(began),
        };
        let blocked = self.rest_blocked.load(Relaxed);
        let (idle, pressed) = if blocked { (0, rest) } else { (rest, 0) };
        (
            self.idle_ns.load(Relaxed) + idle,
            self.backpressured_ns.load(Relaxed) + pressed,
        )
    }

    /// Copies the numbers.
    pub fn snapshot(&self, vertex: &str, vertex_id: u32, subtask: u32) -> SubtaskSnapshot {
        let watermark = self.watermark.get();
        SubtaskSnapshot {
            vertex: vertex.to_owned(),
            vertex_id,
            subtask,
            records_in: self.records_in.load(Relaxed),
            records_out: self.records_out.load(Relaxed),
            bytes_in: self.bytes_in.load(Relaxed),
            bytes_out: self.bytes_out.load(Relaxed),
            late: self.late.load(Relaxed),
            dead_letters: self.dead_letters.load(Relaxed),
            watermark: (watermark != Timestamp::MIN).then_some(watermark.0),
            queued: self.queued.load(Relaxed),
            credits: self.credits.load(Relaxed),
            buffered: self.buffered.load(Relaxed),
            busy_ns: self.busy_ns.load(Relaxed),
            idle_ns: self.idle_ns.load(Relaxed),
            backpressured_ns: self.backpressured_ns.load(Relaxed),
            timers: self.timers.load(Relaxed),
            silence_ms: self.silence_ms.load(Relaxed),
        }
    }
}

/// Writes what a vertex receives.
#[derive(Clone, Debug)]
pub struct VertexMeter {
    stats: Arc<SubtaskStats>,
    record_bytes: u64,
}

impl VertexMeter {
    /// Writes to `stats`, for records of `record_bytes`.
    pub fn new(stats: Arc<SubtaskStats>, record_bytes: usize) -> Self {
        VertexMeter {
            stats,
            record_bytes: record_bytes as u64,
        }
    }

    /// Publishes totals so far.
    pub fn publish(&self, records: u64, watermark: Timestamp) {
        self.stats.records_in.store(records, Relaxed);
        self.stats
            .bytes_in
            .store(records * self.record_bytes, Relaxed);
        self.stats.watermark.set(watermark);
    }
}

/// Writes what a vertex hands on over an edge.
#[derive(Clone, Debug)]
pub struct EdgeMeter {
    stats: Arc<SubtaskStats>,
    record_bytes: u64,
    published: Cell<u64>,
    /// What of the vertex's credits and buffered records is this edge's.
    credits: Cell<u64>,
    buffered: Cell<u64>,
}

impl EdgeMeter {
    /// Writes to `stats`, for records of `record_bytes`.
    pub fn new(stats: Arc<SubtaskStats>, record_bytes: usize) -> Self {
        EdgeMeter {
            stats,
            record_bytes: record_bytes as u64,
            published: Cell::new(0),
            credits: Cell::new(0),
            buffered: Cell::new(0),
        }
    }

    /// Publishes the totals so far: records handed on, credit left, records buffered.
    /// Several edges of one vertex add up.
    pub fn publish(&self, records: u64, credits: u64, buffered: usize) {
        let more = records - self.published.replace(records);
        if more > 0 {
            self.stats.records_out.fetch_add(more, Relaxed);
            self.stats
                .bytes_out
                .fetch_add(more * self.record_bytes, Relaxed);
        }
        let change = |gauge: &AtomicU64, own: &Cell<u64>, now: u64| {
            let before = own.replace(now);
            if before != now {
                // Atomics wrap around, so less is more by a number that wraps.
                gauge.fetch_add(now.wrapping_sub(before), Relaxed);
            }
        };
        change(&self.stats.credits, &self.credits, credits);
        change(&self.stats.buffered, &self.buffered, buffered as u64);
    }
}

/// The numbers of a whole job.
#[derive(Debug, Default)]
pub struct JobStats {
    vertices: Vec<(String, Vec<Arc<SubtaskStats>>)>,
    /// Where sources that are aligned see each other's watermarks.
    pub alignment: AlignmentBoard,
}

impl JobStats {
    /// Numbers for vertices given by name and parallelism.
    pub fn new(vertices: impl IntoIterator<Item = (String, u32)>) -> Self {
        let subtasks = |n: u32| (0..n).map(|_| Arc::default()).collect();
        JobStats {
            vertices: vertices
                .into_iter()
                .map(|(v, n)| (v, subtasks(n)))
                .collect(),
            alignment: AlignmentBoard::default(),
        }
    }

    /// Begins again with a new attempt: nothing that an earlier one counted stays.
    pub fn reset(&self) {
        self.each(|_, _, stats| {
            let SubtaskStats {
                records_in,
                records_out,
                bytes_in,
                bytes_out,
                late,
                dead_letters,
                watermark,
                queued,
                credits,
                buffered,
                busy_ns,
                idle_ns,
                backpressured_ns,
                turn_began,
                timers,
                silence_ms,
                rest_began,
                rest_blocked,
            } = stats;
            let numbers = [
                records_in,
                records_out,
                bytes_in,
                bytes_out,
                late,
                dead_letters,
            ];
            let gauges = [
                queued, credits, buffered, turn_began, timers, rest_began, silence_ms,
            ];
            let times = [busy_ns, idle_ns, backpressured_ns];
            for number in numbers.into_iter().chain(gauges).chain(times) {
                number.store(0, Relaxed);
            }
            watermark.set(Timestamp::MIN);
            rest_blocked.store(false, Relaxed);
        });
    }

    /// The numbers of a subtask; detached ones where the vertex has no such subtask.
    pub fn subtask(&self, vertex: u32, subtask: u32) -> Arc<SubtaskStats> {
        let found = self
            .vertices
            .get(vertex as usize)
            .and_then(|(_, s)| s.get(subtask as usize));
        found.cloned().unwrap_or_default()
    }

    /// Shows the numbers of each subtask, by vertex and subtask.
    pub fn each(&self, mut visit: impl FnMut(usize, usize, &SubtaskStats)) {
        for (vertex, (_, subtasks)) in self.vertices.iter().enumerate() {
            for (subtask, stats) in subtasks.iter().enumerate() {
                visit(vertex, subtask, stats);
            }
        }
    }

    /// Like [`JobStats::snapshot`], so long after the job's start: rests in progress count.
    pub fn snapshot_at(&self, since_start: Duration) -> Vec<SubtaskSnapshot> {
        let mut all = self.snapshot();
        for (snapshot, stats) in all
            .iter_mut()
            .zip(self.vertices.iter().flat_map(|(_, s)| s))
        {
            (snapshot.idle_ns, snapshot.backpressured_ns) = stats.rest(since_start);
        }
        all
    }

    /// All numbers at this moment, by vertex and subtask.
    pub fn snapshot(&self) -> Vec<SubtaskSnapshot> {
        let mut all = Vec::new();
        for (id, (name, subtasks)) in self.vertices.iter().enumerate() {
            for (i, stats) in subtasks.iter().enumerate() {
                all.push(stats.snapshot(name, id as u32, i as u32));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_edges_of_a_vertex_add_up() {
        let stats = Arc::new(SubtaskStats::default());
        let [one, other] = [4, 16].map(|size| EdgeMeter::new(stats.clone(), size));
        one.publish(10, 1_000, 3);
        other.publish(20, 500, 70);
        let seen = stats.snapshot("two edges", 0, 0);
        assert_eq!((seen.records_out, seen.bytes_out), (30, 10 * 4 + 20 * 16));
        assert_eq!((seen.credits, seen.buffered), (1_500, 73));
        one.publish(12, 0, 0);
        other.publish(20, 501, 70);
        let seen = stats.snapshot("two edges", 0, 0);
        assert_eq!(
            (seen.records_out, seen.credits, seen.buffered),
            (32, 501, 70)
        );
    }
}
