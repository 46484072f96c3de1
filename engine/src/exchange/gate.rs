//! The receiving ends of a subtask's channels: merged watermarks, aligned barriers, and credits handed
//! back in bulk.

use super::aligner::Aligner;
use super::grammar::Grammar;
use super::{AnyBatch, Batch, ChannelSettings, EdgeId, KEPT_BUFFERS, Message};
use crate::checkpoint::{Barrier, CheckpointId, CheckpointMode, Participant};
use crate::fault::Flow;
use crate::flow::CreditWindow;
use crate::frontier::{FrontierChange, WatermarkFrontier};
use crate::stage::{Signal, Turn};
use crate::time::Timestamp;

struct Input {
    window: CreditWindow,
    emptied: Vec<AnyBatch>,
    /// Credits that the next turn returns.
    due: u32,
}

/// The receiving ends of the channels from all `producers` subtasks of one or more edges.
///
/// Channel `base(edge) + from` of the frontier belongs to producer `from` of that edge.
pub struct Gate {
    frontier: WatermarkFrontier,
    aligner: Aligner,
    /// Is told how long channels waited for each other.
    participant: Participant,
    /// The time of the last turn.
    now: Timestamp,
    /// Since when some channels wait for others, or are recorded.
    aligns_since: Option<Timestamp>,
    open: usize,
    edges: Vec<EdgeInputs>,
    ended: bool,
    /// Where the job asks for it.
    grammar: Option<Box<Grammar>>,
    /// Records received so far.
    pub records: u64,
}

struct EdgeInputs {
    edge: EdgeId,
    base: usize,
    /// Credit ledgers by producer; `None` for the channel that is a direct call.
    inputs: Vec<Option<Input>>,
    settings: ChannelSettings,
}

impl Gate {
    /// Channels from each edge's producers; the one whose number is `local` needs no credit.
    pub fn new(edges: &[(EdgeId, u32, ChannelSettings)], local: Option<u32>) -> Self {
        let mut base = 0;
        let mut list = Vec::new();
        let mode = edges
            .first()
            .map_or(CheckpointMode::default(), |(_, _, s)| s.mode);
        for &(edge, producers, settings) in edges {
            let inputs = (0..producers)
                .map(|from| {
                    (Some(from) != local).then(|| Input {
                        window: CreditWindow::new(settings.initial_credits, settings.max_credits),
                        emptied: Vec::new(),
                        due: 0,
                    })
                })
                .collect();
            list.push(EdgeInputs {
                edge,
                base,
                inputs,
                settings,
            });
            base += producers as usize;
        }
        Gate {
            frontier: WatermarkFrontier::new(base),
            aligner: Aligner::new(base, mode),
            participant: Participant::default(),
            now: Timestamp::MIN,
            aligns_since: None,
            open: base,
            edges: list,
            ended: false,
            grammar: edges
                .iter()
                .any(|(_, _, settings)| settings.check_grammar)
                .then(|| Box::new(Grammar::new(base))),
            records: 0,
        }
    }

    /// Takes part in checkpoints as this subtask.
    pub fn participate(&mut self, participant: Participant) {
        self.participant = participant;
    }

    /// Barriers may overtake what waits.
    pub(super) fn lets_overtake(&mut self) {
        self.aligner.let_overtake();
    }

    /// Whether barriers may overtake what waits.
    pub fn overtakes(&self) -> bool {
        self.aligner.overtakes()
    }

    /// Takes a signal of one channel; returns what follows from it for all together.
    pub fn signal(&mut self, edge: usize, from: u32, signal: Signal) -> Flow<[Option<Signal>; 3]> {
        let channel = self.edges[edge].base + from as usize;
        if let Signal::Barrier(barrier) = signal
            && self.aligner.overtakes()
            && self.aligner.has_brought(channel, barrier.id)
        {
            // It was taken from the batch that it waited in.
            return Ok([None; 3]);
        }
        if let Some(grammar) = &mut self.grammar {
            grammar.signal(channel, signal)?;
        }
        let change = match signal {
            Signal::Watermark(at) => self.frontier.update(channel, at),
            Signal::Idle => self.frontier.idle(channel),
            Signal::Barrier(barrier) => {
                self.aligner.barrier(channel, barrier);
                return Ok([self.pass(), None, None]);
            }
            Signal::EndOfInput => {
                self.open -= 1;
                self.frontier.end(channel)
            }
        };
        // What the channel brought before its end belongs to the checkpoint that it held up.
        let passes = if signal == Signal::EndOfInput {
            self.aligner.end(channel);
            self.pass()
        } else {
            None
        };
        let first = match change {
            Some(FrontierChange::Advanced(at)) => Some(Signal::Watermark(at)),
            Some(FrontierChange::Idle) => Some(Signal::Idle),
            // Those behind wait for this subtask again, at the watermark that they know.
            Some(FrontierChange::Active) => Some(Signal::Watermark(self.frontier.current())),
            None => None,
        };
        let end = self.open == 0 && !self.ended;
        self.ended |= end;
        let end = end.then_some(Signal::EndOfInput);
        let all = [first, passes, end];
        if let Some(grammar) = &mut self.grammar {
            for signal in all.into_iter().flatten() {
                grammar.passes(signal)?;
            }
        }
        Ok(all)
    }

    /// So many records come in a batch of one channel.
    pub fn begins(&self, edge: usize, from: u32, records: usize) -> Flow {
        match &self.grammar {
            Some(grammar) => grammar.records(self.edges[edge].base + from as usize, records),
            None => Ok(()),
        }
    }

    /// So many records in all have come by a direct call.
    pub fn crossed(&mut self, from: u32, records: u64) -> Flow {
        match &mut self.grammar {
            Some(grammar) => grammar.counted(self.edges[0].base + from as usize, records),
            None => Ok(()),
        }
    }

    /// The place of an edge in this gate.
    pub fn edge_index(&self, edge: EdgeId) -> Option<usize> {
        self.edges.iter().position(|e| e.edge == edge)
    }

    /// Books the records of a batch: its `credits` go back to the producer in bulk. That may have `starved` for credit
    /// before it; `queued` others wait.
    pub fn processed(
        &mut self,
        edge: usize,
        from: u32,
        records: u32,
        credits: u32,
        starved: bool,
        queued: usize,
    ) {
        self.records += u64::from(records);
        let entry = &mut self.edges[edge];
        let queued = queued * entry.settings.batch_records as usize;
        if let Some(input) = entry.inputs[from as usize].as_mut() {
            input.window.on_processed(credits);
            if let Some(credits) = input.window.take_return(starved, queued) {
                input.due += credits;
            }
        }
    }

    /// Keeps an emptied batch for the producer, who gets it back with the next credits. These may be far off, where
    /// batches have few records or none.
    pub fn give_back<T: Send + 'static>(&mut self, edge: usize, from: u32, batch: Box<Batch<T>>) {
        if let Some(input) = &mut self.edges[edge].inputs[from as usize]
            && input.emptied.len() < KEPT_BUFFERS
            && batch.records.capacity() > 0
        {
            input.emptied.push(batch);
        }
    }

    /// Hands due credits and emptied buffers to the outbox.
    pub fn turn(&mut self, me: u32, turn: &mut Turn<'_>) {
        self.now = turn.now;
        for entry in &mut self.edges {
            for (from, input) in entry.inputs.iter_mut().enumerate() {
                let Some(input) = input else { continue };
                if input.due > 0 {
                    let message = Message::Credit {
                        from: me,
                        records: std::mem::take(&mut input.due),
                        buffers: std::mem::take(&mut input.emptied),
                    };
                    turn.outbox.send(entry.edge, from as u32, message);
                }
            }
        }
    }

    /// A barrier of one channel came ahead of what the channel has brought. [`Gate::pass`] tells what follows.
    pub fn overtaken(&mut self, edge: usize, from: u32, barrier: Barrier) {
        let channel = self.edges[edge].base + from as usize;
        if !self.aligner.has_brought(channel, barrier.id) {
            if let Some(grammar) = &mut self.grammar {
                grammar.overtaken(channel, barrier.id);
            }
            self.aligner.barrier(channel, barrier);
        }
    }

    /// Whether a channel has brought a checkpoint's barrier.
    pub fn has_brought(&self, edge: usize, from: u32, id: CheckpointId) -> bool {
        let channel = self.edges[edge].base + from as usize;
        self.aligner.has_brought(channel, id)
    }

    /// Whether what a channel brings belongs before a barrier that has passed.
    pub fn records(&self, edge: usize, from: u32) -> bool {
        self.aligner.records(self.edges[edge].base + from as usize)
    }

    /// Whether that is so of any channel.
    pub fn records_some(&self) -> bool {
        self.aligner.records_some()
    }

    /// A barrier that passed before all channels had brought it has come on the last of them.
    pub(super) fn all_there(&mut self, barrier: Barrier) {
        let since = self.aligns_since.take();
        let took = since.map_or(0, |since| (self.now.0 - since.0).max(0));
        self.participant.aligned(barrier, took);
    }

    /// A checkpoint began and this subtask's own producer has no open channel here.
    pub fn nudge(&mut self, barrier: Barrier) {
        self.aligner.nudge(barrier);
    }

    /// Takes out a barrier that all channels have brought. To be asked for until there is none, after
    /// whatever may have brought one.
    pub fn pass(&mut self) -> Option<Signal> {
        let Some(barrier) = self.aligner.pass() else {
            if self.aligner.aligns() {
                self.aligns_since.get_or_insert(self.now);
            }
            return None;
        };
        if self.aligner.records_some() {
            self.aligns_since.get_or_insert(self.now);
            return Some(Signal::Barrier(barrier));
        }
        self.all_there(barrier);
        Some(Signal::Barrier(barrier))
    }

    /// A checkpoint, and all before it, were given up.
    pub fn abort(&mut self, id: CheckpointId) {
        self.aligner.abort(id);
        self.aligns_since = None;
    }

    /// Whether a channel waits for the barriers of others.
    pub fn blocks(&self, edge: usize, from: u32) -> bool {
        self.aligner.blocks(self.edges[edge].base + from as usize)
    }

    /// All channels have ended.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The combined watermark.
    pub fn watermark(&self) -> Timestamp {
        self.frontier.current()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_that_was_idle_tells_those_behind_to_wait_again() {
        let edge = (EdgeId(0), 2, ChannelSettings::default());
        let mut gate = Gate::new(&[edge], None);
        let mut says = |from, signal| gate.signal(0, from, signal).expect("checks nothing")[0];
        let at = |ms| Signal::Watermark(Timestamp(ms));
        assert_eq!(says(0, at(5)), None, "the other has said nothing");
        assert_eq!(says(1, Signal::Idle), Some(at(5)));
        assert_eq!(says(0, Signal::Idle), Some(Signal::Idle));
        assert_eq!(says(1, at(3)), Some(at(5)), "no news but that it is back");
    }

    #[test]
    fn batches_without_records_are_not_kept_without_end() {
        let edge = (EdgeId(0), 1, ChannelSettings::default());
        let mut gate = Gate::new(&[edge], None);
        for _ in 0..1_000 {
            gate.processed(0, 0, 0, 0, false, 0);
            gate.give_back(0, 0, Box::new(Batch::<u32>::with_capacity(8)));
        }
        let kept = gate.edges[0].inputs[0].as_ref().map(|i| i.emptied.len());
        assert_eq!(kept, Some(KEPT_BUFFERS));
    }
}
