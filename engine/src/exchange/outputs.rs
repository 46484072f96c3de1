//! The sending ends of a subtask's channels: buffers, credits, and when a batch leaves.
//!
//! A batch leaves when it is full, when its oldest record has waited for the flush interval, or when
//! the input ends; watermarks wait for the next batch, no longer than the interval. It leaves only
//! against credit for each of its records. While full batches wait for credit there is no room, and the chain takes
//! no further input; what a turn in progress still emits is kept, never dropped. Of many channels a few may wait: a
//! burst of one key does not stop what goes to the others.
//!
//! A barrier that overtakes leaves at the next turn, ahead of all that is kept here. What it has overtaken is
//! encoded for the checkpoint some turns later, or when it leaves.

mod overtaking;

use super::in_flight::Recorder;
use super::{AnyBatch, Batch, ChannelSettings, EdgeId, KEPT_BUFFERS, Message, Rec};
use crate::checkpoint::Barrier;
use crate::fault::Flow;
use crate::stage::{Signal, Turn};
use crate::time::Timestamp;
use std::collections::VecDeque;

/// What may wait for credit while the chain goes on: of each channel but one this part of a batch.
const ALLOWED: usize = 4;

/// Emptied buffers that a sender keeps for each of its channels. They come back in bursts: with one a channel, four of
/// ten batches of 64 subtasks were allocated, while as many were dropped elsewhere.
const SPARE_BUFFERS: usize = 2;

/// Records of this subtask that are taken in together: as much as stays in the nearest cache.
const RUN: usize = 256;

/// What is gathered for a subtask: apart from all else, as each record comes by here.
struct Filling<T> {
    records: Vec<Rec<T>>,
    /// Records that make a batch full: more where the consumer grants more.
    full: usize,
}

struct Channel<T> {
    to: u32,
    /// Sealed batches that wait for credit, oldest first.
    sealed: VecDeque<Box<Batch<T>>>,
    credit: u32,
    starved: bool,
    /// The newest watermark not yet put into a batch.
    watermark: Option<Timestamp>,
    idle: bool,
    /// Processing time at which the oldest unsent item must leave.
    due: Timestamp,
    /// The oldest sealed batches, as many as belong before the barrier that was put in last.
    before: usize,
    /// So many of these are part of its checkpoint already.
    encoded: usize,
    /// A barrier that leaves next, ahead of everything.
    overtaking: Option<Barrier>,
}

/// Emptied buffers, boxed as they travel.
#[allow(
    clippy::vec_box,
    reason = "a batch crosses as a `Box<dyn Any>`: to unbox it here is to allocate it again"
)]
type Spare<T> = Vec<Box<Batch<T>>>;

/// The sending ends of all channels from one subtask over one edge, except the one to itself.
pub struct Outputs<T> {
    edge: EdgeId,
    me: u32,
    /// By consumer subtask.
    filling: Vec<Filling<T>>,
    channels: Vec<Channel<T>>,
    /// Index into `channels` by consumer subtask.
    index: Vec<u32>,
    settings: ChannelSettings,
    /// Records that may wait for credit, on all channels together, while there is room for more.
    allowance: usize,
    /// Emptied buffers that came back, the last one on top: the next batch takes the warmest.
    spare: Spare<T>,
    /// Records handed over so far.
    pub records: u64,
    ended: bool,
    /// Where barriers may overtake.
    recorder: Option<Recorder<T>>,
    /// The barrier that was put in last has overtaken: what belongs before it has to be encoded.
    turned: bool,
    /// It came when the input had ended.
    behind_end: bool,
}

/// A batch is at most a quarter of the credit at hand, so that several can be on their way, but no
/// smaller than half of what is always granted.
fn full_batch(settings: ChannelSettings, credit: u32) -> usize {
    let least = (settings.initial_credits / 2).clamp(1, settings.batch_records.max(1));
    (credit / 4).clamp(least, settings.batch_records.max(least)) as usize
}

/// What a sender has at least once the consumer has processed all that was sent: less than half of the
/// least window is held back. A larger batch, filled while more was granted, may have to be split.
fn always_granted(settings: ChannelSettings) -> u32 {
    settings.initial_credits.max(1) / 2 + 1
}

const NOWHERE: u32 = u32::MAX;

impl<T: Send + 'static> Outputs<T> {
    /// Channels from subtask `me` to the subtasks `to` of a consumer with `parallelism`.
    pub fn new(
        edge: EdgeId,
        me: u32,
        to: impl Iterator<Item = u32>,
        parallelism: u32,
        settings: ChannelSettings,
    ) -> Self {
        let mut index = vec![NOWHERE; parallelism as usize];
        let mut channels = Vec::new();
        let full = full_batch(settings, settings.initial_credits);
        let filling = || Filling {
            records: Vec::new(),
            full,
        };
        for to in to {
            index[to as usize] = channels.len() as u32;
            channels.push(Channel {
                to,
                sealed: VecDeque::new(),
                credit: settings.initial_credits,
                starved: false,
                watermark: None,
                idle: false,
                due: Timestamp::MAX,
                before: 0,
                encoded: 0,
                overtaking: None,
            });
        }
        let others = channels.len().saturating_sub(1);
        Outputs {
            edge,
            me,
            allowance: others * settings.batch_records as usize / ALLOWED,
            filling: std::iter::repeat_with(filling)
                .take(parallelism as usize)
                .collect(),
            channels,
            index,
            settings,
            spare: Vec::new(),
            records: 0,
            ended: false,
            recorder: None,
            turned: false,
            behind_end: false,
        }
    }

    /// Keeps for checkpoints what their barriers overtake.
    pub(super) fn record_with(mut self, recorder: Option<Recorder<T>>) -> Self {
        self.recorder = recorder.filter(|r| r.overtakes() && !self.channels.is_empty());
        self
    }

    /// Gathers what is pushed for this subtask too, for [`Outputs::swap_own`].
    pub fn gather_own(&mut self) {
        self.filling[self.me as usize] = Filling {
            records: Vec::with_capacity(RUN),
            full: RUN,
        };
    }

    /// Exchanges what was gathered for this subtask for other records, of which there are none.
    pub fn swap_own(&mut self, records: &mut Vec<Rec<T>>) {
        std::mem::swap(&mut self.filling[self.me as usize].records, records);
    }

    /// Buffers a record for subtask `to`. True if that is this subtask, and it is time to take in its own.
    #[inline(always)]
    pub fn push(&mut self, to: u32, record: Rec<T>) -> bool {
        let filling = &mut self.filling[to as usize];
        filling.records.push(record);
        filling.records.len() >= filling.full && self.is_full(to)
    }

    #[inline(never)]
    fn is_full(&mut self, to: u32) -> bool {
        let filling = &mut self.filling[to as usize];
        let channel = self.index[to as usize] as usize;
        let Some(channel) = self.channels.get_mut(channel) else {
            return true;
        };
        channel.seal(filling, None, filling.full, &mut self.spare);
        false
    }

    /// Puts a signal behind what was pushed so far, on every channel.
    pub fn signal(&mut self, signal: Signal) {
        if let Signal::Barrier(barrier) = signal {
            return self.barrier(barrier);
        }
        for channel in &mut self.channels {
            match signal {
                Signal::Watermark(at) => {
                    channel.watermark = Some(at);
                    channel.idle = false;
                }
                Signal::Idle => channel.idle = true,
                Signal::Barrier(_) => {}
                Signal::EndOfInput => {
                    let filling = &mut self.filling[channel.to as usize];
                    channel.seal(filling, Some(signal), 0, &mut self.spare);
                }
            }
        }
        self.ended |= signal == Signal::EndOfInput;
    }

    /// Hands to the outbox whatever is full or due and has credit.
    pub fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        let interval = self.settings.flush_interval_ms as i64;
        let always = always_granted(self.settings);
        let had_room = self.room();
        for channel in &mut self.channels {
            if let Some(barrier) = channel.overtaking {
                channel.overtaking = None;
                let from = self.me;
                let message = Message::Barrier { from, barrier };
                turn.outbox.send(self.edge, channel.to, message);
            }
            let filling = &mut self.filling[channel.to as usize];
            let waited = !channel.sealed.is_empty();
            if channel.holds_something(filling) && channel.sealed.is_empty() {
                if channel.due == Timestamp::MAX {
                    channel.due = Timestamp(turn.now.0.saturating_add(interval));
                }
                if channel.due <= turn.now {
                    channel.seal(filling, None, 0, &mut self.spare);
                } else {
                    turn.wake_at(channel.due);
                }
            }
            while let Some(batch) = channel.sealed.front() {
                if batch.credits() > channel.credit {
                    channel.starved = true;
                    if channel.credit < always {
                        break;
                    }
                    channel.split();
                }
                let Some(mut batch) = channel.sealed.pop_front() else {
                    break;
                };
                if channel.before > 0 {
                    channel.leaves(&batch.records, self.turned, &mut self.recorder)?;
                }
                channel.credit -= batch.credits();
                self.records += batch.records.len() as u64;
                batch.starved = std::mem::take(&mut channel.starved);
                let barrier = batch.barrier();
                let message = Message::Batch {
                    from: self.me,
                    batch: batch as AnyBatch,
                    barrier,
                };
                turn.outbox.send(self.edge, channel.to, message);
            }
            // What stands before this stage has had its turn without the room that there is now, and
            // what has not filled a batch has no due time yet: nobody else would wake this subtask.
            turn.again |= waited && channel.sealed.is_empty();
        }
        turn.again |= !had_room && self.room();
        if self.recorder.is_some() {
            turn.again |= self.encode_some()?;
        }
        Ok(())
    }

    /// Consumer subtask `from` welcomes `records` more and gives back emptied buffers.
    pub fn credit(&mut self, from: u32, records: u32, buffers: &mut Vec<AnyBatch>) {
        let Some(channel) = self
            .index
            .get(from as usize)
            .copied()
            .filter(|i| *i != NOWHERE)
        else {
            return;
        };
        let channel = &mut self.channels[channel as usize];
        channel.credit += records;
        self.filling[from as usize].full = full_batch(self.settings, channel.credit);
        for buffer in buffers.drain(..) {
            if let Ok(buffer) = buffer.downcast::<Batch<T>>() {
                drop(self.reuse(buffer));
            }
        }
    }

    /// Keeps an emptied batch for one to come, or returns it where enough are kept or none is ever sent. What this
    /// subtask has just read is in its core's caches, where what comes back from another core has to be fetched.
    pub fn reuse(&mut self, batch: Box<Batch<T>>) -> Option<Box<Batch<T>>> {
        let most = self.channels.len() * SPARE_BUFFERS + KEPT_BUFFERS;
        let enough = self.is_empty() || self.spare.len() >= most;
        if enough || batch.records.capacity() == 0 {
            return Some(batch);
        }
        self.spare.push(batch);
        None
    }

    /// Not much waits for credit; with a single channel, nothing.
    pub fn room(&self) -> bool {
        let sealed = self.channels.iter().flat_map(|c| &c.sealed);
        sealed
            .map(|batch| batch.records.len().max(1))
            .sum::<usize>()
            <= self.allowance
    }

    /// Whether the end of input has been passed in.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The input has ended and everything has left.
    pub fn finished(&self) -> bool {
        self.ended
            && self
                .channels
                .iter()
                .all(|c| c.sealed.is_empty() && !c.holds_something(&self.filling[c.to as usize]))
    }

    /// The consumer subtasks that channels lead to.
    pub fn targets(&self) -> impl Iterator<Item = u32> + '_ {
        self.channels.iter().map(|c| c.to)
    }

    /// How many channels there are.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether there are no channels.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Records of credit left over all channels.
    pub fn credits(&self) -> u64 {
        self.channels.iter().map(|c| u64::from(c.credit)).sum()
    }

    /// Records that are buffered or wait for credit.
    pub fn buffered(&self) -> usize {
        self.channels
            .iter()
            .map(|c| {
                let sealed = c.sealed.iter().map(|b| b.records.len());
                self.filling[c.to as usize].records.len() + sealed.sum::<usize>()
            })
            .sum()
    }
}

impl<T> Channel<T> {
    fn holds_something(&self, filling: &Filling<T>) -> bool {
        !filling.records.is_empty() || self.watermark.is_some() || self.idle
    }

    /// Cuts the oldest sealed batch in two, the first of which the credit at hand covers.
    #[cold]
    fn split(&mut self) {
        let Some(whole) = self.sealed.front_mut() else {
            return;
        };
        let rest = whole.records.split_off(self.credit as usize);
        let records = std::mem::replace(&mut whole.records, rest);
        self.sealed.push_front(Box::new(Batch {
            records,
            ..Batch::with_capacity(0)
        }));
        self.before += usize::from(self.before > 0);
        self.encoded += usize::from(self.encoded > 0);
    }

    /// Makes a batch of what was gathered and what is to follow it, `last` at its end. The next one begins with room
    /// for `capacity` records.
    fn seal(
        &mut self,
        filling: &mut Filling<T>,
        last: Option<Signal>,
        capacity: usize,
        spare: &mut Spare<T>,
    ) {
        let mut batch = spare
            .pop()
            .unwrap_or_else(|| Box::new(Batch::with_capacity(capacity)));
        std::mem::swap(&mut batch.records, &mut filling.records);
        let watermark = self.watermark.take().map(Signal::Watermark);
        let idle = std::mem::take(&mut self.idle).then_some(Signal::Idle);
        let signals = [watermark, idle, last];
        batch.signals.extend(signals.into_iter().flatten());
        self.sealed.push_back(batch);
        self.due = Timestamp::MAX;
    }
}

#[cfg(test)]
mod tests;
