//! Barriers at the sending ends: in order, or ahead of what has not left.
//!
//! Of each channel the oldest sealed batches, `before` of them, belong before the barrier that was put in last.
//! Where it goes in order at first, the subtask's image waits until these have left or are overtaken after
//! all. Where it overtakes, they are encoded one after the other, each at the latest when it leaves.

use super::{Channel, Outputs};
use crate::checkpoint::{Barrier, CheckpointId, Passing};
use crate::exchange::Rec;
use crate::exchange::in_flight::Recorder;
use crate::fault::Flow;
use crate::stage::Signal;

impl<T: Send + 'static> Outputs<T> {
    /// Puts a barrier behind what was pushed so far, or lets it overtake that.
    #[cold]
    pub(super) fn barrier(&mut self, barrier: Barrier) {
        let recorder = self.recorder.as_mut();
        let recorder = recorder.filter(|_| barrier.passing != Passing::InOrder);
        let recorded = recorder.is_some();
        if let Some(recorder) = recorder {
            recorder.begin(barrier);
        }
        self.turned = recorded && barrier.overtakes();
        self.behind_end = self.ended;
        for channel in &mut self.channels {
            let filling = &mut self.filling[channel.to as usize];
            if self.turned {
                if !filling.records.is_empty() {
                    channel.seal(filling, None, 0, &mut self.spare);
                }
                channel.overtaking = Some(barrier);
            } else if !self.ended {
                // Behind the end of input nobody waits for a barrier that comes in order.
                let last = Some(Signal::Barrier(barrier));
                channel.seal(filling, last, 0, &mut self.spare);
            }
            channel.before = if recorded { channel.sealed.len() } else { 0 };
            channel.encoded = 0;
        }
    }

    /// A checkpoint's barrier is to overtake: where it was put in and has not left, it leaves next.
    pub fn overtake(&mut self, barrier: Barrier) {
        let recorded = self.recorder.as_ref().and_then(Recorder::records_for);
        if self.turned || recorded.is_none_or(|recorded| recorded.id != barrier.id) {
            return;
        }
        self.turned = true;
        for channel in &mut self.channels {
            // Behind the end it was not put in, and whoever has not come to that end waits for it.
            let mut stood = self.behind_end;
            if let Some(last) = channel.before.checked_sub(1) {
                let batch = &mut channel.sealed[last];
                if batch.barrier().is_some_and(|there| there.id == barrier.id) {
                    batch.signals.pop();
                    stood = true;
                }
            }
            channel.overtaking = stood.then_some(barrier);
        }
    }

    /// A checkpoint, and all before it, were given up.
    pub fn abort(&mut self, id: CheckpointId) {
        if let Some(recorder) = &mut self.recorder {
            recorder.abort(id);
        }
        for channel in &mut self.channels {
            channel.overtaking.take_if(|barrier| barrier.id <= id);
        }
    }

    /// Encodes some of what a barrier has overtaken, and hands it over once that is all. True if there is more.
    #[cold]
    pub(super) fn encode_some(&mut self) -> Flow<bool> {
        let Some(recorder) = &mut self.recorder else {
            return Ok(false);
        };
        if recorder.records_for().is_none() {
            return Ok(false);
        }
        if !self.turned {
            // It leaves in order; what belongs before it leaves first.
            if self.channels.iter().all(|c| c.before == 0) {
                recorder.finish();
            }
            return Ok(false);
        }
        let mut budget = recorder.budget();
        for channel in &mut self.channels {
            while channel.encoded < channel.before {
                if budget == 0 {
                    return Ok(true);
                }
                let records = &channel.sealed[channel.encoded].records;
                recorder.record(records)?;
                budget = budget.saturating_sub(records.len());
                channel.encoded += 1;
            }
        }
        recorder.finish();
        Ok(false)
    }
}

impl<T: 'static> Channel<T> {
    /// The oldest sealed batch, which belongs before a barrier, leaves: in order with it, or overtaken by it
    /// and with that a part of its checkpoint.
    #[cold]
    pub(super) fn leaves(
        &mut self,
        records: &[Rec<T>],
        overtaken: bool,
        recorder: &mut Option<Recorder<T>>,
    ) -> Flow {
        self.before -= 1;
        if self.encoded > 0 {
            self.encoded -= 1;
        } else if let (true, Some(recorder)) = (overtaken, recorder) {
            recorder.record(records)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Participant, StateData, SubtaskImage};
    use crate::exchange::in_flight::{Codecs, Dealing, Flight, SENT};
    use crate::exchange::{AnyBatch, Batch, ChannelSettings, EdgeId, Message, Outbox};
    use crate::node::Identity;
    use crate::stage::Turn;
    use crate::time::Timestamp;

    /// What left, in its order.
    #[derive(Debug, PartialEq)]
    enum Left {
        Records(Vec<u32>, Vec<Signal>),
        Barrier(u64),
    }

    #[derive(Default)]
    struct Sent(Vec<Left>);

    impl Outbox for Sent {
        fn send(&mut self, _edge: EdgeId, _to: u32, message: Message) {
            self.0.push(match message {
                Message::Batch { batch, .. } => {
                    let batch: AnyBatch = batch;
                    let batch = batch.downcast::<Batch<u32>>().expect("of this type");
                    let records = batch.records.iter().map(|record| record.value);
                    Left::Records(records.collect(), batch.signals)
                }
                Message::Barrier { barrier, .. } => Left::Barrier(barrier.id.0),
                Message::Credit { .. } => unreachable!("a sender gives no credit"),
            });
        }
    }

    struct Sender {
        outputs: Outputs<u32>,
        participant: Participant,
    }

    impl Sender {
        /// With credit for two records of four, and batches of two.
        fn new(encoded_in_a_turn: usize) -> Self {
            Sender::with_batches(encoded_in_a_turn, 2)
        }

        /// The same with batches of up to so many.
        fn with_batches(encoded_in_a_turn: usize, batch_records: u32) -> Self {
            let participant = Participant::default().saving_at_most(encoded_in_a_turn);
            let flight = Flight {
                identity: Identity {
                    uid: "in flight: a -> b".to_owned(),
                    me: 0,
                    parallelism: 2,
                    max_parallelism: 16,
                },
                dealing: Dealing::InTurn,
                codec: Codecs::default().of::<u32>().expect("a number"),
                overtakes: true,
                participant: participant.clone(),
            };
            let settings = ChannelSettings {
                initial_credits: 4,
                batch_records,
                flush_interval_ms: 0,
                ..ChannelSettings::default()
            };
            let outputs = Outputs::new(EdgeId(0), 0, 1..2, 2, settings);
            let outputs = outputs.record_with(Some(Recorder::new(flight, SENT)));
            let mut sender = Sender {
                outputs,
                participant,
            };
            sender.push(100..102);
            assert_eq!(sender.turn(), [records(100..102)]);
            sender
        }

        fn push(&mut self, values: std::ops::Range<u32>) {
            for value in values {
                let (at, hash) = (Timestamp(0), 0);
                self.outputs.push(1, Rec { at, hash, value });
            }
        }

        fn barrier(&mut self, passing: Passing) {
            let barrier = Barrier {
                passing,
                ..Barrier::checkpoint(1)
            };
            self.outputs.signal(Signal::Barrier(barrier));
            self.participant.triggered(barrier);
        }

        fn turn(&mut self) -> Vec<Left> {
            let mut sent = Sent::default();
            let mut turn = Turn::new(Timestamp(0), &mut sent);
            self.outputs.turn(&mut turn).expect("numbers are encoded");
            sent.0
        }

        fn credit(&mut self, records: u32) {
            self.outputs.credit(1, records, &mut Vec::new());
        }

        /// The records of the image, if it is whole.
        fn image(&self) -> Option<Vec<u32>> {
            let SubtaskImage { operators, .. } = self.participant.take_image(0)?;
            let states = operators.into_iter().flat_map(|operator| operator.states);
            let elements = states.flat_map(|state| match state.data {
                StateData::Elements(elements) => elements,
                _ => unreachable!("they are dealt out in turns"),
            });
            // Behind a time and a hash, small numbers take one byte.
            let values = |element: Vec<u8>| -> Vec<u32> {
                element.chunks(17).map(|record| record[16].into()).collect()
            };
            Some(elements.flat_map(values).collect())
        }
    }

    fn records(values: std::ops::Range<u32>) -> Left {
        Left::Records(values.collect(), Vec::new())
    }

    #[test]
    fn a_barrier_leaves_ahead_of_all_and_what_it_overtakes_is_kept() {
        let mut sender = Sender::new(usize::MAX);
        sender.push(0..5);
        assert_eq!(sender.turn(), [records(0..2)]);
        sender.barrier(Passing::Ahead);
        sender.push(5..6);
        assert_eq!(sender.turn(), [Left::Barrier(1)], "there is no credit");
        assert_eq!(sender.image(), Some(vec![2, 3, 4]), "with what was filling");
    }

    #[test]
    fn it_is_encoded_some_in_a_turn_or_when_it_leaves_and_once() {
        let mut sender = Sender::new(1);
        sender.push(0..9);
        sender.barrier(Passing::Ahead);
        let first = [Left::Barrier(1), records(0..2)];
        assert_eq!(sender.turn(), first, "with the credit that there was");
        assert_eq!(sender.image(), None, "two are encoded, and two that left");
        sender.credit(3);
        // The first batch is encoded already, and of the next one a part.
        assert_eq!(sender.turn(), [records(2..4)]);
        sender.turn();
        sender.turn();
        assert_eq!(sender.image(), Some((0..9).collect()));
    }

    #[test]
    fn a_batch_that_leaves_in_two_parts_is_kept_whole() {
        let mut sender = Sender::with_batches(1, 4);
        sender.credit(14);
        // Batches of four, filled while more was granted than is left.
        sender.push(0..8);
        sender.outputs.channels[0].credit = 3;
        sender.barrier(Passing::Ahead);
        assert_eq!(sender.turn(), [Left::Barrier(1), records(0..3)]);
        for _ in 0..4 {
            sender.turn();
        }
        assert_eq!(sender.image(), Some((0..8).collect()));
    }

    #[test]
    fn in_order_at_first_it_is_taken_from_behind_what_waits() {
        let mut sender = Sender::new(usize::MAX);
        sender.push(0..5);
        sender.barrier(Passing::InOrderAtFirst);
        sender.push(5..7);
        assert_eq!(sender.turn(), [records(0..2)]);
        assert_eq!(sender.image(), None, "it has not left");
        sender.outputs.overtake(Barrier::checkpoint(1).ahead());
        assert_eq!(sender.turn(), [Left::Barrier(1)]);
        assert_eq!(sender.image(), Some(vec![2, 3, 4]));
        sender.credit(9);
        assert_eq!(sender.turn(), [records(2..4), records(4..5), records(5..7)]);
    }

    #[test]
    fn in_order_at_first_with_room_it_stays_in_order_and_nothing_is_kept() {
        let mut sender = Sender::new(usize::MAX);
        sender.push(0..1);
        sender.barrier(Passing::InOrderAtFirst);
        let left = sender.turn();
        assert!(
            matches!(&left[..], [Left::Records(_, signals)] if signals.len() == 1),
            "{left:?}"
        );
        assert_eq!(sender.image(), Some(vec![]));
        sender.outputs.overtake(Barrier::checkpoint(1).ahead());
        assert_eq!(sender.turn(), [], "it has left");
    }

    #[test]
    fn the_end_of_input_is_overtaken_like_a_record() {
        let mut sender = Sender::new(usize::MAX);
        sender.push(0..3);
        sender.outputs.signal(Signal::EndOfInput);
        sender.turn();
        sender.barrier(Passing::InOrderAtFirst);
        assert_eq!(sender.turn(), [], "nobody waits for it behind the end");
        assert_eq!(sender.image(), None, "the end has not left");
        sender.outputs.overtake(Barrier::checkpoint(1).ahead());
        assert_eq!(sender.turn(), [Left::Barrier(1)]);
        assert_eq!(sender.image(), Some(vec![2]));
        sender.credit(1);
        let end = Left::Records(vec![2], vec![Signal::EndOfInput]);
        assert_eq!(sender.turn(), [end]);
    }

    #[test]
    fn what_was_given_up_leaves_nothing_behind() {
        let mut sender = Sender::new(usize::MAX);
        sender.push(0..4);
        sender.barrier(Passing::Ahead);
        sender.outputs.abort(CheckpointId(1));
        assert_eq!(sender.turn(), [records(0..2)], "and no barrier");
        assert_eq!(sender.image(), None);
    }
}
