//! One subtask at work: what it does with a message, when it reads, when it rests.
//!
//! The pure core of the subtask actor. It keeps arrived batches in order per edge, hands one to the
//! chain when the chain has room behind that edge, reads a slice of its source when nothing is
//! waiting any more, and tells what it wants next. A simulation can drive it as well as an actor.
//!
//! A checkpoint whose barriers overtake begins in all stages at once (`overtaking.rs`).

mod overtaking;
mod queues;

use queues::{Queued, Queues};

use crate::checkpoint::{Barrier, CheckpointId, Notice, Participant, SubtaskImage};
use crate::exchange::{EdgeId, Message, Outbox};
use crate::fault::Flow;
use crate::source::Poll;
use crate::stage::{Delivery, Head, Turn};
use crate::time::Timestamp;
use std::time::Duration;

/// What a subtask wants after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another step at once.
    Again,
    /// A step at this processing time, or when a message arrives; `Timestamp::MAX` for only then.
    Wait {
        /// When at the latest.
        until: Timestamp,
        /// It has input but no room downstream.
        blocked: bool,
    },
    /// Nothing: all input has ended and all output has left. With checkpoints it still takes part in
    /// them, and what it saves and commits may need a step at this processing time, or when a message
    /// arrives.
    Done {
        /// When at the latest.
        until: Timestamp,
    },
}

/// Batches of one step at most, before anything is known of what they cost: small batches of many channels share
/// the cost of a step.
const FIRST_BATCHES: usize = 8;

/// Batches of one step at most where they are cheap. Between two steps other subtasks of the core have theirs, and
/// push this one's state out of the core's caches.
const MOST_BATCHES: usize = 128;

/// The shortest rest.
const MOMENT: Duration = Duration::from_millis(1);

/// What a step did as much of as it may.
#[derive(Clone, Copy, Debug)]
enum Full {
    Slice,
    Batches,
}

/// Records of the first slice, before anything is known of what a record costs.
const FIRST_SLICE: usize = 512;

/// A subtask without its actor.
pub struct Subtask {
    head: Box<dyn Head>,
    participant: Participant,
    queues: Queues,
    /// The newest checkpoint whose barriers overtake here.
    overtakes: CheckpointId,
    /// A batch waited for room since the last one was taken: the sign that channels hold too much.
    pressed: bool,
    reading: bool,
    not_before: Timestamp,
    slice: usize,
    longest_slice: usize,
    /// Batches of the next step at most.
    batches: usize,
    /// By what the last step was full.
    full: Option<Full>,
    /// Records that the source may read in the next step at most, while it is held back.
    allowance: Option<usize>,
    /// At the end of the last step it could not take input.
    held_back: bool,
}

impl Subtask {
    /// A subtask with its chain; `slice` bounds the records of one read.
    pub fn new(head: Box<dyn Head>, slice: usize, participant: Participant) -> Self {
        let not_before = Timestamp::MIN;
        let (queues, pressed) = (Queues::default(), false);
        Subtask {
            head,
            participant,
            queues,
            overtakes: CheckpointId::default(),
            pressed,
            reading: true,
            not_before,
            slice,
            longest_slice: slice,
            batches: FIRST_BATCHES,
            full: None,
            allowance: None,
            held_back: false,
        }
    }

    /// Opens the chain.
    pub fn open(&mut self) -> Flow {
        self.head.open()
    }

    /// Takes a message of an edge. Credit counts at once; a batch waits for a step.
    pub fn receive(&mut self, edge: EdgeId, message: Message) -> Flow {
        match message {
            Message::Batch {
                from,
                batch,
                barrier,
            } => {
                self.queues.push(edge, Queued::new(from, batch, barrier));
                if let Some(barrier) = barrier {
                    self.arrived_in_order(edge, from, barrier)?;
                }
            }
            Message::Barrier { from, barrier } => {
                self.overtake(barrier)?;
                self.arrived_ahead(edge, from, barrier)?;
            }
            Message::Credit {
                from,
                records,
                mut buffers,
            } => {
                let buffers = &mut buffers;
                self.head.deliver(
                    edge,
                    &mut Delivery::Credit {
                        from,
                        records,
                        buffers,
                    },
                )?;
            }
        }
        Ok(())
    }

    /// A source has something again.
    pub fn wake(&mut self) {
        self.not_before = Timestamp::MIN;
    }

    /// Bounds what the next step reads, below the slice; `None` lifts the bound.
    pub fn allow(&mut self, records: Option<usize>) {
        self.allowance = records;
    }

    /// Begins with short slices, which [`Subtask::fit_step`] lengthens where records are cheap.
    pub fn begin_short(&mut self) {
        self.slice = self.longest_slice.min(FIRST_SLICE);
    }

    /// Fits the steps to come to how long a full one took: half as much after one that took longer than `limit`,
    /// twice as much, up to the most, after one well below it.
    pub fn fit_step(&mut self, took: Duration, limit: Duration) {
        let (much, most) = match self.full.take() {
            Some(Full::Slice) => (&mut self.slice, self.longest_slice),
            Some(Full::Batches) => (&mut self.batches, MOST_BATCHES),
            None => return,
        };
        if limit.is_zero() {
            return;
        }
        if took > limit {
            *much = (*much / 2).max(1);
        } else if took < limit / 4 {
            *much = (*much * 2).min(most);
        }
    }

    /// Takes the batches that are there, though not too many, reads one slice where none is left, and gives the chain a
    /// turn. Both in one step: where a core has many subtasks, each works off what all the others have sent since its last
    /// one, and its state comes into the core's caches once for all of it.
    pub fn step(&mut self, now: Timestamp, outbox: &mut dyn Outbox) -> Flow<Next> {
        let mut taken = 0;
        while taken < self.batches && self.take_one_batch()? {
            taken += 1;
        }
        let full = taken == self.batches;
        self.full = full.then_some(Full::Batches);
        let mut progress = taken > 0;
        let held = self.allowance == Some(0);
        let reads = !full && !held && self.reading && self.not_before <= now;
        if reads && self.head.room() {
            let slice = self.slice.min(self.allowance.unwrap_or(usize::MAX));
            match self.head.poll(slice)? {
                Poll::Read(_) => {
                    self.full = Some(Full::Slice);
                    progress = true;
                }
                Poll::Wait(pause) => {
                    self.not_before = now.plus(pause.max(Duration::from_micros(1)));
                    if pause < Duration::from_millis(1) {
                        self.not_before = now;
                        progress = true;
                    }
                }
                Poll::End => {
                    self.reading = false;
                    progress = true;
                }
            }
        }
        let held_back = held || !self.queues.is_empty() || !self.head.room();
        let records = self.record_some()?;
        let mut turn = Turn::new(now, outbox);
        turn.held_back = std::mem::replace(&mut self.held_back, held_back) || held_back;
        self.head.turn(&mut turn)?;
        let Turn { again, wake_at, .. } = turn;
        if self.queues.is_empty() && !self.reading && self.head.finished() {
            // What waits for others, rather than for a step, waits for a moment at least.
            let until = if again {
                now
            } else {
                wake_at.max(now.plus(MOMENT))
            };
            return Ok(Next::Done { until });
        }
        // The turn may have sent what was in the way of a batch that waits.
        if progress || again || records || self.can_take() {
            return Ok(Next::Again);
        }
        let reading = self.reading && !held && self.head.room();
        let until = if reading {
            wake_at.min(self.not_before)
        } else {
            wake_at
        };
        Ok(Next::Wait {
            until,
            blocked: !reading && (self.reading || !self.queues.is_empty()),
        })
    }

    fn take_one_batch(&mut self) -> Flow<bool> {
        if self.queues.is_empty() {
            return Ok(false);
        }
        let head = &self.head;
        let accepts = |edge, from| head.accepts(edge, from);
        let Some((edge, queued)) = self.queues.take(accepts, &mut self.pressed) else {
            return Ok(false);
        };
        let behind = if std::mem::take(&mut self.pressed) {
            self.queues.waiting(edge)
        } else {
            0
        };
        self.record(edge, &queued)?;
        let mut batch = Some(queued.batch);
        let mut delivery = Delivery::Batch {
            from: queued.from,
            batch: &mut batch,
            queued: behind,
        };
        self.head.deliver(edge, &mut delivery)?;
        Ok(true)
    }

    /// Whether a batch waits that the chain has room for.
    fn can_take(&self) -> bool {
        let accepts = |edge, from| self.head.accepts(edge, from);
        self.queues.can_take(accepts)
    }

    /// A checkpoint begins, or its barriers are to overtake from now on.
    pub fn trigger(&mut self, barrier: Barrier) -> Flow {
        if barrier.overtakes() {
            return self.overtake(barrier);
        }
        self.tell_head(barrier)
    }

    fn tell_head(&mut self, barrier: Barrier) -> Flow {
        if !self.participant.is_news(barrier) {
            return Ok(());
        }
        self.head.trigger(barrier)?;
        self.participant.triggered(barrier);
        Ok(())
    }

    /// What became of a checkpoint.
    pub fn notify(&mut self, notice: Notice) -> Flow {
        if let Some(spill) = self.participant.spill() {
            spill.settled(notice);
        }
        if let Notice::Aborted { id } = notice {
            self.participant.abort(id);
            // A source that was stopped for it goes on.
            self.wake();
        }
        self.head.notify(notice)
    }

    /// Ends the input of its source where it is.
    pub fn drain(&mut self) {
        self.head.drain();
        self.wake();
    }

    /// What this subtask has to say to a checkpoint, once it is whole.
    pub fn take_image(&mut self, task: u32) -> Option<SubtaskImage> {
        self.participant.take_image(task)
    }

    /// Whether a barrier passed a stage since this was last asked.
    pub fn take_barrier_passed(&mut self) -> bool {
        self.participant.take_barrier_passed()
    }

    /// Whether everything that the job's last checkpoint covers can be seen outside.
    pub fn committed(&mut self) -> Flow<bool> {
        self.head.committed()
    }

    /// Batches that wait.
    pub fn queued(&self) -> usize {
        self.queues.len()
    }

    /// Where the record came from that was read last.
    pub fn position(&self) -> Option<String> {
        self.head.position()
    }
}
