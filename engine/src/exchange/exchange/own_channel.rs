//! The channel from a subtask to itself: a direct call, unless it has to wait or is recorded.
//!
//! Where records are gathered ([`Distribution::GATHERS`]), the calls for a few hundred of them come one after the
//! other: when so many are there, before any signal, and at the end of a turn.
//!
//! It waits while its barrier has come and those of others have not, while a barrier that has passed is held up
//! further on, and while what an earlier attempt had in flight is handed on. It is recorded between the passage
//! of a barrier that overtakes and its own barrier.

use super::{Exchange, Waiting, receive};
use crate::checkpoint::Barrier;
use crate::exchange::{Distribution, Rec};
use crate::fault::Flow;
use crate::stage::{Collector, Signal, Stage};
use crate::time::Timestamp;

impl<T, P, D> Exchange<T, P, D>
where
    T: Send + 'static,
    P: Distribution<T>,
    D: Collector<P::Local> + Stage,
{
    /// The gate lets a barrier by. If it overtakes, what waits of this subtask's own channel belongs before
    /// it, unless the channel has brought it.
    pub(super) fn passed(&mut self, barrier: Barrier) -> Flow {
        self.arrivals.passed(&self.gate, barrier);
        let me = self.placement.me;
        let recorded = self.arrivals.records_for() == Some(barrier.id);
        if !recorded || !self.own_channel() || self.gate.has_brought(0, me, barrier.id) {
            return Ok(());
        }
        let its =
            |w: &Waiting<_>| matches!(w, Waiting::Signal(Signal::Barrier(b)) if b.id == barrier.id);
        let waiting = std::mem::take(&mut self.waiting);
        let stands = waiting.iter().position(its);
        for (place, waits) in waiting.into_iter().enumerate() {
            match waits {
                _ if stands == Some(place) => self.gate.overtaken(0, me, barrier),
                Waiting::Record(at, hash, local) if stands.is_none_or(|stands| place < stands) => {
                    let local = self.record_own(at, hash, local)?;
                    self.waiting.push_back(Waiting::Record(at, hash, local));
                }
                waits => self.waiting.push_back(waits),
            }
        }
        Ok(())
    }

    /// Whether this subtask's own channel waits for the barriers of others.
    pub(super) fn own_waits(&self) -> bool {
        self.own_channel() && self.gate.blocks(0, self.placement.me)
    }

    /// Whether what this subtask's own channel brings belongs before a barrier that has passed.
    pub(super) fn records_own(&self) -> bool {
        self.own_channel() && self.gate.records(0, self.placement.me)
    }

    /// Whether this subtask has an open channel to itself.
    fn own_channel(&self) -> bool {
        self.produces() && self.consumes() && !self.local_ended
    }

    /// Takes a signal across to this subtask's own gate.
    pub(super) fn cross(&mut self, signal: Signal) -> Flow {
        if self.own_channel() {
            self.gate.crossed(self.placement.me, self.local)?;
            self.local_ended |= signal == Signal::EndOfInput;
            return self.apply(self.placement.me, signal);
        }
        match signal {
            Signal::Barrier(barrier) => {
                self.gate.nudge(barrier);
                self.pass()
            }
            _ => Ok(()),
        }
    }

    /// This subtask's own channel brings a barrier ahead of what waits of it.
    #[cold]
    pub(super) fn cross_ahead(&mut self, barrier: Barrier) -> Flow {
        self.gate.nudge(barrier);
        while let Some(signal) = self.gate.pass() {
            self.forward(signal)?;
        }
        if self.own_channel() {
            self.gate.overtaken(0, self.placement.me, barrier);
        }
        self.pass()
    }

    /// Takes in what was gathered of this subtask's own records, where they are gathered.
    #[inline]
    pub(super) fn take_gathered(&mut self) -> Flow {
        if self.gathers {
            self.take_own()
        } else {
            Ok(())
        }
    }

    /// The same, where it is known that they are.
    #[inline(never)]
    pub(super) fn take_own(&mut self) -> Flow {
        let me = self.placement.me;
        let mut records = std::mem::take(&mut self.gathered);
        self.outputs.swap_own(&mut records);
        if self.here == me {
            let (partition, down) = (&self.partition, &mut self.down);
            let taken = receive(&mut records, me, |record| {
                down.collect(record.at, partition.lift(record.hash, record.value))
            })?;
            self.local += u64::from(taken);
        } else {
            receive(&mut records, me, |record| {
                let Rec { at, hash, value } = record;
                let local = self.partition.lift(hash, value);
                self.own(at, hash, local)
            })?;
        }
        self.gathered = records;
        Ok(())
    }

    #[cold]
    pub(super) fn own(&mut self, at: Timestamp, hash: u64, mut local: P::Local) -> Flow {
        if self.records_own() {
            local = self.record_own(at, hash, local)?;
        }
        if self.waits {
            self.waiting.push_back(Waiting::Record(at, hash, local));
            return Ok(());
        }
        self.local += 1;
        self.down.collect(at, local)
    }

    fn record_own(&mut self, at: Timestamp, hash: u64, local: P::Local) -> Flow<P::Local> {
        let value = P::strip(local);
        let record = Rec { at, hash, value };
        self.arrivals.record(0, std::slice::from_ref(&record))?;
        Ok(self.partition.lift(hash, record.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{
        CheckpointId, CheckpointMode, Notice, Participant, RestoredJob, StateData, SubtaskImage,
    };
    use crate::exchange::in_flight::{Codecs, Dealing, Flight};
    use crate::exchange::{
        ByKey, ChannelSettings, EdgeId, Global, Message, Outbox, Placement, Target,
    };
    use crate::fault::catch;
    use crate::node::Identity;
    use crate::observe::{EdgeMeter, SubtaskStats, VertexMeter};
    use crate::stage::{Delivery, Turn};
    use crate::testing::Collected;
    use std::cell::Cell;
    use std::sync::Arc;

    const EDGE: EdgeId = EdgeId(0);

    /// Where messages go to other subtasks, of which there are none here.
    struct Others;

    impl Outbox for Others {
        fn send(&mut self, _edge: EdgeId, _to: u32, _message: Message) {}
    }

    /// Subtask 0 of an exchange.
    struct Subtask<P: Distribution<u32> = Global> {
        exchange: Exchange<u32, P, Collected<P::Local>>,
        down: Collected<P::Local>,
        participant: Participant,
    }

    impl Subtask {
        /// All records go to subtask 0: what it is given crosses to itself.
        fn new(producers: u32, restored: Option<RestoredJob>) -> Self {
            Subtask::of(Global, producers, 1, restored)
        }

        fn seen(&self) -> (Vec<u32>, Vec<Signal>) {
            let records = self.down.records.borrow();
            let records = records.iter().map(|(_, value)| *value).collect();
            (records, self.down.signals.borrow().clone())
        }
    }

    impl<P: Distribution<u32>> Subtask<P> {
        fn of(partition: P, producers: u32, consumers: u32, restored: Option<RestoredJob>) -> Self {
            let mode = CheckpointMode::ExactlyOnce;
            let participant = Participant::new(0, mode, restored.map(Arc::new));
            let down = Collected::leaf(participant.clone());
            let placement = Placement {
                me: 0,
                producers,
                consumers,
                max_parallelism: 16,
            };
            let flight = Flight {
                identity: Identity {
                    uid: "in flight: a -> b".to_owned(),
                    me: 0,
                    parallelism: 1,
                    max_parallelism: 16,
                },
                dealing: Dealing::ByHash,
                codec: Codecs::default().of::<u32>().expect("a number"),
                overtakes: true,
                participant: participant.clone(),
            };
            let stats = || Arc::new(SubtaskStats::default());
            let meters = (EdgeMeter::new(stats(), 4), VertexMeter::new(stats(), 4));
            let settings = ChannelSettings::default();
            let down_of_it = down.clone();
            let exchange = Exchange::new(EDGE, placement, partition, settings, meters, down_of_it);
            Subtask {
                exchange: exchange
                    .participate(participant.clone(), Some(flight))
                    .expect("it is restored"),
                down,
                participant,
            }
        }

        fn collect(&mut self, value: u32) {
            let collected = self.exchange.collect(Timestamp(1), value);
            collected.expect("it is taken");
        }

        fn signal(&mut self, signal: Signal) {
            Stage::signal(&mut self.exchange, signal).expect("it passes");
        }

        /// Of the other subtask, ahead of `ahead_of` batches. Whether they are to be recorded.
        fn barrier_of_other(&mut self, barrier: Barrier, ahead_of: usize) -> bool {
            let mut record = false;
            let mut delivery = Delivery::Barrier {
                from: 1,
                barrier,
                ahead_of,
                record: &mut record,
            };
            let delivered = self.exchange.deliver(EDGE, &mut delivery);
            assert!(delivered.expect("it passes"));
            record
        }

        fn turn(&mut self) {
            let mut outbox = Others;
            let mut turn = Turn::new(Timestamp(1), &mut outbox);
            Stage::turn(&mut self.exchange, &mut turn).expect("a turn");
        }

        fn image(&mut self, id: u64) -> Option<SubtaskImage> {
            self.participant.triggered(Barrier::checkpoint(id));
            self.participant.take_image(0)
        }
    }

    /// The records that an image holds: small numbers take one byte, behind a time and a hash.
    fn kept(image: &SubtaskImage) -> Vec<u8> {
        let states = image.operators.iter().flat_map(|o| &o.states);
        let groups = states.flat_map(|state| match &state.data {
            StateData::Groups(groups) => groups.as_slice(),
            _ => unreachable!("they are dealt out by hash"),
        });
        let pieces = groups.flat_map(|group| group.bytes.iter());
        let records = pieces.flat_map(|bytes| bytes.chunks(17));
        records.map(|record| record[16]).collect()
    }

    fn ahead(id: u64) -> Barrier {
        Barrier::checkpoint(id).ahead()
    }

    /// The image of a checkpoint for which 7 waited, and 8 came before this subtask's own barrier.
    fn taken() -> (Subtask, SubtaskImage) {
        let mut subtask = Subtask::new(2, None);
        subtask.signal(Signal::Barrier(Barrier::checkpoint(1)));
        subtask.collect(7);
        assert!(subtask.seen().0.is_empty(), "it waits for the other");
        assert!(
            subtask.barrier_of_other(ahead(2), 0),
            "the first was given up"
        );
        let barrier = Signal::Barrier(ahead(2));
        assert_eq!(subtask.seen(), (vec![7], vec![barrier]));
        subtask.collect(8);
        assert!(subtask.image(2).is_none(), "its own barrier has not come");
        subtask.signal(barrier);
        subtask.collect(9);
        subtask.turn();
        assert_eq!(subtask.seen(), (vec![7, 8, 9], vec![barrier]));
        let image = subtask.image(2).expect("it is whole");
        (subtask, image)
    }

    #[test]
    fn what_waited_and_what_comes_before_its_own_barrier_is_kept() {
        let (_, image) = taken();
        assert_eq!(kept(&image), [7, 8]);
        assert!(image.timing.unaligned_checkpoint);
        assert_eq!(image.timing.persisted, 2 * 17);
    }

    #[test]
    fn a_signal_that_waits_stays_where_it_is() {
        let mut subtask = Subtask::new(2, None);
        subtask.signal(Signal::Barrier(Barrier::checkpoint(1)));
        subtask.collect(7);
        subtask.signal(Signal::Watermark(Timestamp::MAX));
        subtask.signal(Signal::EndOfInput);
        subtask.barrier_of_other(ahead(2), 0);
        assert!(subtask.exchange.local_ended, "the end has crossed");
        subtask.signal(Signal::Barrier(ahead(2)));
        subtask.turn();
        assert_eq!(kept(&subtask.image(2).expect("it is whole")), [7]);
    }

    #[test]
    fn its_own_barrier_may_wait_in_order_among_records() {
        let mut subtask = Subtask::new(2, None);
        subtask.signal(Signal::Barrier(Barrier::checkpoint(1)));
        subtask.collect(7);
        subtask.signal(Signal::Barrier(Barrier::checkpoint(2)));
        subtask.collect(8);
        subtask.barrier_of_other(ahead(2), 0);
        assert_eq!(subtask.seen().0, [7, 8]);
        subtask.turn();
        assert_eq!(kept(&subtask.image(2).expect("it is whole")), [7]);
    }

    #[test]
    fn batches_that_a_barrier_has_overtaken_are_waited_for() {
        let mut subtask = Subtask::new(2, None);
        subtask.signal(Signal::Barrier(ahead(1)));
        assert!(subtask.barrier_of_other(ahead(1), 1));
        subtask.turn();
        assert!(subtask.image(1).is_none(), "a batch of the other waits");
        let mut batch = crate::exchange::Batch::with_capacity(1);
        batch.records.push(Rec {
            at: Timestamp(1),
            hash: 0,
            value: 5u32,
        });
        let batch: crate::exchange::AnyBatch = Box::new(batch);
        let mut records = 0;
        let mut delivery = Delivery::Record {
            id: CheckpointId(1),
            batch: &batch,
            records: &mut records,
        };
        assert_eq!(subtask.exchange.deliver(EDGE, &mut delivery), Ok(true));
        assert_eq!(records, 1);
        assert_eq!(kept(&subtask.image(1).expect("it is whole")), [5]);
        assert!(subtask.seen().0.is_empty(), "it still waits");
    }

    #[test]
    fn what_was_in_flight_comes_first_and_stays_in_flight_until_it_has() {
        let (_, image) = taken();
        let images = image.operators.into_iter().map(|operator| (0, operator));
        let mut later = Subtask::new(1, Some(RestoredJob::new(CheckpointId(2), images)));
        assert!(!later.exchange.room(), "nothing else comes in between");
        later.down.room.set(false);
        later.signal(Signal::Watermark(Timestamp(5)));
        later.turn();
        assert_eq!(later.seen(), (vec![], vec![]), "there is no room");
        later.signal(Signal::Barrier(ahead(3)));
        let image = later.image(3).expect("it is whole");
        assert_eq!(kept(&image), [7, 8], "as before");
        later.down.room.set(true);
        later.turn();
        let signals = [Signal::Barrier(ahead(3)), Signal::Watermark(Timestamp(5))];
        assert_eq!(later.seen(), (vec![7, 8], signals.to_vec()));
        assert!(later.exchange.room());
        later.collect(9);
        assert_eq!(later.seen().0, [7, 8, 9]);
    }

    #[test]
    fn a_barrier_in_order_waits_until_it_has() {
        let (_, image) = taken();
        let images = image.operators.into_iter().map(|operator| (0, operator));
        let mut later = Subtask::new(1, Some(RestoredJob::new(CheckpointId(2), images)));
        let barrier = Signal::Barrier(Barrier::checkpoint(3));
        later.signal(barrier);
        assert_eq!(later.seen(), (vec![], vec![]));
        later.turn();
        assert_eq!(later.seen(), (vec![7, 8], vec![barrier]));
        assert!(kept(&later.image(3).expect("it is whole")).is_empty());
    }

    type Key = fn(&u32) -> u32;

    thread_local! {
        /// Of this value the key can't be read.
        static BROKEN: Cell<Option<u32>> = const { Cell::new(None) };
    }

    impl Subtask<ByKey<Key, u32>> {
        /// One of two subtasks among which keys are shared out.
        fn keyed() -> Self {
            let key: Key = |value| {
                assert!(BROKEN.get() != Some(*value), "no key");
                *value
            };
            Subtask::of(ByKey::new(key), 2, 2, None)
        }

        fn values(&self) -> Vec<u32> {
            let records = self.down.records.borrow();
            records.iter().map(|(_, local)| local.value).collect()
        }

        /// Keys of its own.
        fn own_keys(&self, count: usize) -> Vec<u32> {
            let mut partition = self.exchange.partition.clone();
            let mine = |key: &u32| partition.prepare(*key).0 == Target::One(0);
            (0..).filter(mine).take(count).collect()
        }

        fn collect_all(&mut self, keys: &[u32]) {
            keys.iter().for_each(|key| self.collect(*key));
        }
    }

    #[test]
    fn what_is_gathered_is_taken_in_when_it_is_much_and_at_the_end_of_a_turn() {
        let mut subtask = Subtask::keyed();
        let keys = subtask.own_keys(600);
        subtask.collect_all(&keys);
        let at_once = subtask.values().len();
        assert!((1..600).contains(&at_once), "{at_once}");
        subtask.turn();
        assert_eq!(subtask.values(), keys);
    }

    #[test]
    fn no_signal_overtakes_what_is_gathered() {
        let mut subtask = Subtask::keyed();
        let keys = subtask.own_keys(4);
        subtask.collect_all(&keys[..2]);
        subtask.signal(Signal::Watermark(Timestamp(5)));
        assert_eq!(subtask.values(), keys[..2]);
        subtask.collect_all(&keys[2..3]);
        subtask.signal(Signal::Barrier(Barrier::checkpoint(1)));
        subtask.collect_all(&keys[3..]);
        subtask.turn();
        assert_eq!(subtask.values(), keys[..3], "the last waits behind it");
        let given_up = Notice::Aborted {
            id: CheckpointId(1),
        };
        let told = Stage::notify(&mut subtask.exchange, given_up);
        told.expect("it goes on");
        assert_eq!(subtask.values(), keys);
    }

    #[test]
    fn what_is_gathered_before_its_own_barrier_belongs_to_an_image_that_was_begun_by_others() {
        let mut subtask = Subtask::keyed();
        let keys = subtask.own_keys(3);
        subtask.barrier_of_other(ahead(1), 0);
        subtask.collect_all(&keys[..2]);
        subtask.signal(Signal::Barrier(ahead(1)));
        subtask.collect_all(&keys[2..]);
        subtask.turn();
        assert_eq!(subtask.values(), keys);
        let small = |key: &u32| u8::try_from(*key).expect("they begin with the least");
        let image = subtask.image(1).expect("it is whole");
        let mut kept = kept(&image);
        kept.sort();
        assert_eq!(kept, keys[..2].iter().map(small).collect::<Vec<_>>());
    }

    #[test]
    fn a_fault_tells_which_of_the_gathered_it_was_on() {
        let mut subtask = Subtask::keyed();
        let keys = subtask.own_keys(3);
        subtask.collect_all(&keys);
        BROKEN.set(Some(keys[1]));
        let taken = catch(|| subtask.exchange.take_own());
        BROKEN.set(None);
        let text = taken.expect_err("it panics").to_string();
        assert!(
            text.contains("record 2 of a batch from subtask 0"),
            "{text}"
        );
    }
}
