//! Keyed queries on two threads without an engine: what two cores can do when records must change threads.
//!
//! Each thread makes every second stripe of the events, keeps the items whose key is its own and ships the others in
//! batches over a bounded channel. With a batch goes the event time that its sender has reached, so both know up to
//! when windows may fire. Where a query asks for one answer over all keys, the answers of the halves are merged last.

mod halves;

use super::joins::{LocalSellers, NewSellers};
use super::totals::RunningCounts;
use super::windows::BidderWindows;
use crate::digest::{Outcome, RowSink};
use crate::events::LeanEvent;
use crate::generator::Generator;
use crate::options::{Options, Query};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use halves::{HighestHalf, HotHalf};
use std::thread;

/// Events that one thread makes before it skips those of the other.
const STRIPE: u64 = 1_000;
/// Items in a batch at most.
const BATCH: usize = 1_024;
/// Batches on their way in one direction at most.
const CHANNEL: usize = 16;
/// Stripes after which a batch leaves even if it is not full, so that event time gets across.
const FLUSH_STRIPES: u64 = 64;

/// What one thread knows of a query: the state of its own keys.
trait Half: Default + Send {
    /// What a query needs of an event, and no more: this is what changes threads.
    type Item: Send;

    /// The item of an event, if the query asks for it.
    fn item(event: LeanEvent) -> Option<Self::Item>;
    /// By what items are dealt to the threads; `None` for those that stay where they were made.
    fn key(item: &Self::Item) -> Option<u64>;
    /// Takes in an item.
    fn take(&mut self, item: Self::Item, sink: &mut RowSink);
    /// The event time at which something is to fire next.
    #[inline(always)]
    fn next_firing(&self) -> u64 {
        u64::MAX
    }
    /// Fires what is due at this watermark.
    fn fire(&mut self, _watermark: u64, _sink: &mut RowSink) {}
    /// Fires everything that is left.
    fn end(&mut self, _sink: &mut RowSink) {}
    /// Answers from both halves what one alone can't.
    fn merge(self, _other: Self, _sink: &mut RowSink) {}
}

/// Runs a query over lean events on two threads; `None` for a query that is not written for two.
pub fn run(query: Query, options: &Options) -> Option<Outcome> {
    Some(match query {
        Query::Q3 => halves::<LocalSellers<u64>>(options),
        Query::Q5 => halves::<HotHalf>(options),
        Query::Q7 => halves::<HighestHalf>(options),
        Query::Q8 => halves::<NewSellers<u64>>(options),
        Query::Q12 => halves::<BidderWindows>(options),
        Query::Count => halves::<RunningCounts>(options),
        _ => return None,
    })
}

fn halves<H: Half>(options: &Options) -> Outcome {
    let (to_second, from_first) = bounded(CHANNEL);
    let (to_first, from_second) = bounded(CHANNEL);
    let workers = [
        Worker::<H>::new(0, to_second, from_second),
        Worker::<H>::new(1, to_first, from_first),
    ];
    let [first, second] = thread::scope(|scope| {
        workers
            .map(|worker| scope.spawn(|| worker.run(options.generator, options.events)))
            .map(|thread| thread.join().expect("a bare loop does not panic"))
    });
    let mut sink = RowSink::default();
    first.0.merge(second.0, &mut sink);
    sink.outcome().plus(first.1).plus(second.1)
}

/// Items for the other thread, and the event time up to which the sender has sent everything.
struct Parcel<T> {
    items: Vec<T>,
    watermark: u64,
}

/// One of the two threads.
struct Worker<H: Half> {
    half: H,
    sink: RowSink,
    me: u64,
    filling: Vec<H::Item>,
    /// Emptied buffers that came from the other thread.
    spare: Vec<Vec<H::Item>>,
    to: Sender<Parcel<H::Item>>,
    from: Receiver<Parcel<H::Item>>,
    /// No item that this thread makes from now on is before this time; `MAX` once it has made all.
    mine: u64,
    theirs: u64,
}

impl<H: Half> Worker<H> {
    fn new(me: u64, to: Sender<Parcel<H::Item>>, from: Receiver<Parcel<H::Item>>) -> Self {
        Worker {
            half: H::default(),
            sink: RowSink::default(),
            me,
            filling: Vec::with_capacity(BATCH),
            spare: Vec::new(),
            to,
            from,
            mine: 0,
            theirs: 0,
        }
    }

    fn run(mut self, generator: Generator, events: u64) -> (H, Outcome) {
        for stripe in (self.me..events.div_ceil(STRIPE)).step_by(2) {
            let begin = stripe * STRIPE;
            for n in begin..(begin + STRIPE).min(events) {
                if let Some(item) = H::item(generator.lean(n)) {
                    self.deal(item);
                }
            }
            // The stripe in between is the other thread's.
            self.mine = Generator::time(begin + 2 * STRIPE);
            if (stripe / 2).is_multiple_of(FLUSH_STRIPES) {
                self.ship();
            }
            while let Ok(parcel) = self.from.try_recv() {
                self.unpack(parcel);
            }
        }
        self.mine = u64::MAX;
        self.ship();
        while self.theirs != u64::MAX
            && let Ok(parcel) = self.from.recv()
        {
            self.unpack(parcel);
        }
        self.half.end(&mut self.sink);
        (self.half, self.sink.outcome())
    }

    #[inline(always)]
    fn deal(&mut self, item: H::Item) {
        let owner =
            H::key(&item).map_or(self.me, |key| key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63);
        if owner == self.me {
            self.half.take(item, &mut self.sink);
            return;
        }
        self.filling.push(item);
        if self.filling.len() >= BATCH {
            self.ship();
        }
    }

    /// Sends what is there. While the other thread has no room, this one takes in what came: two that wait for each
    /// other would wait for ever.
    #[inline(never)]
    fn ship(&mut self) {
        let next = self
            .spare
            .pop()
            .unwrap_or_else(|| Vec::with_capacity(BATCH));
        let mut parcel = Parcel {
            items: std::mem::replace(&mut self.filling, next),
            watermark: self.mine,
        };
        while let Err(TrySendError::Full(back)) = self.to.try_send(parcel) {
            parcel = back;
            match self.from.try_recv() {
                Ok(came) => self.unpack(came),
                Err(_) => thread::yield_now(),
            }
        }
    }

    fn unpack(&mut self, mut parcel: Parcel<H::Item>) {
        for item in parcel.items.drain(..) {
            self.half.take(item, &mut self.sink);
        }
        if self.spare.len() < CHANNEL {
            self.spare.push(parcel.items);
        }
        self.theirs = parcel.watermark;
        let watermark = self.mine.min(self.theirs);
        if watermark != u64::MAX && watermark >= self.half.next_firing() {
            self.half.fire(watermark, &mut self.sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_answer_as_one() {
        // More than one window, and a last stripe that is not whole.
        let options = Options {
            events: 12_500_321,
            parallelism: 2,
            generator: Generator::new(4),
        };
        for query in Query::ALL {
            let Some(both) = run(*query, &options) else {
                continue;
            };
            let mut sink = RowSink::default();
            super::super::run::<LeanEvent>(*query, &options, &mut sink);
            assert_eq!(both, sink.outcome(), "{query:?}");
        }
    }

    #[test]
    fn nothing_to_do_ends() {
        let options = Options {
            events: 0,
            parallelism: 2,
            generator: Generator::new(4),
        };
        let outcome = run(Query::Count, &options).expect("it is written for two");
        assert_eq!(outcome, Outcome::default());
    }
}
