//! NEXMark's queries as bare loops: what one thread can do without an engine, and what the engine must answer.
//!
//! The answer of every query is a set of rows that depends on the set of events alone, never on the order in which
//! they arrive. Times are event times in milliseconds. A tumbling window is 10 s long, a sliding one begins every 2 s;
//! it fires when the watermark (here the highest time seen) reaches its end, and at the end of the input everything
//! fires. Averages are rounded down. Ties are broken as `rules.rs` says.
//!
//! | query | asks | rows |
//! |---|---|---|
//! | q0 | pass everything through | every event |
//! | q1 | bids in euros | every bid, its price times 0.908, rounded down |
//! | q2 | some auctions' bids | auction and price of each bid with auction % 123 = 0 |
//! | q3 | who sells locally? | one per pair of a person in CA, ID or OR and an auction of category 10 that it sells |
//! | q4 | what does a category sell for? | per category, at the end: average price of its auctions' winning bids (q9) |
//! | q5 | hot items | per sliding window with bids: the auction with most bids, the smallest id of several |
//! | q6 | how does a seller do? | per auction with a winning bid: average winning price of its seller's last 10, in the order of (expires, auction), this one included |
//! | q7 | highest bid | per tumbling window with bids: the bid of the highest price, of several the smallest (auction, bidder, date_time) |
//! | q8 | new sellers | per tumbling window: each person that registered and opened an auction in it, once |
//! | q9 | winning bids | per auction that got a bid while open (date_time <= bid <= expires): the highest, of several the earliest, then the smallest bidder; when it expires |
//! | q11 | bidder's sessions | per bidder and session (a bid at most 10 s after the last belongs to it): first bid, last bid + 10 s, bids |
//! | q12 | bidder's windows | per bidder and tumbling window: bids |
//! | q14 | dear bids, classified | each bid above 1,000,000 and below 50,000,000 euros, with part of the day and how often `c` stands in its extra (lean: 0) |
//! | q15 | days | per day: bids, different bidders and different auctions, in all and per price rank (below 10,000, below 1,000,000, else) |
//! | q16 | channels | the same per channel (lean: auction % 4) and day |
//! | q17 | auctions | per auction and day: bids in all and per price rank, least, greatest, average and sum of prices |
//! | q18 | last bids | per bidder and auction, at the end: the last bid, of several of that time the highest |
//! | q19 | top ten | per auction, at the end: its ten highest bids with their places, ties by date_time, then bidder |
//! | q20 | bids with auctions | each bid on an auction of category 10, not before it opened, with the auction |
//! | q21 | channel ids | each bid with its channel's id: a number for a known channel, else from the url (lean: see `WholeBid`) |
//! | q22 | folders | each bid with the three folders of its url (lean: see `WholeBid`) |
//! | count | running count | per bid: its bidder and how many bids of it there have been: 1, 2, 3 and so on |
//!
//! Loops that join rely on one promise of the generator: persons and auctions come before what names them. Maps use the
//! fast hash that the engine's state uses; windows are rings of panes, so the cost of an event does not grow with the
//! number of windows it lies in.

mod auctions;
mod joins;
mod panes;
mod ranking;
mod sessions;
mod stateless;
mod totals;
pub mod two_threads;
mod windows;

use crate::digest::RowSink;
use crate::events::Event;
use crate::generator::Generator;
use crate::options::{Options, Query};

/// A hash map with a fast hash for keys that nobody chose with evil in mind.
type FxMap<K, V> = hashbrown::HashMap<K, V, rustc_hash::FxBuildHasher>;

/// A query that keeps something from event to event.
trait BareQuery<E> {
    /// Takes in an event.
    fn on(&mut self, event: E, sink: &mut RowSink);
    /// The event time at which something is to fire next.
    #[inline(always)]
    fn next_firing(&self) -> u64 {
        u64::MAX
    }
    /// Fires what is due at this watermark.
    fn fire(&mut self, _watermark: u64, _sink: &mut RowSink) {}
    /// Fires everything that is left.
    fn end(&mut self, _sink: &mut RowSink) {}
}

/// Where the events come from. A loop asks for one number after the other; the compiler then makes of an event only
/// what the query reads, which it does not manage through an iterator of events.
trait Source<E> {
    /// The event number `n`.
    fn event(&self, n: u64) -> E;
}

impl<E: Event> Source<E> for Generator {
    #[inline(always)]
    fn event(&self, n: u64) -> E {
        E::generate(self, n)
    }
}

/// The loop.
#[inline(always)]
fn drive<E: Event>(
    source: impl Source<E>,
    events: u64,
    mut query: impl BareQuery<E>,
    sink: &mut RowSink,
) {
    for n in 0..events {
        let event = source.event(n);
        let time = event.time();
        if time >= query.next_firing() {
            query.fire(time, sink);
        }
        query.on(event, sink);
    }
    query.end(sink);
}

/// Runs a query over the first events of the generator, on this thread.
pub fn run<E: Event>(query: Query, options: &Options, sink: &mut RowSink) {
    let Options {
        generator: source,
        events,
        ..
    } = *options;
    match query {
        Query::Q0 => stateless::q0::<E>(source, events, sink),
        Query::Q1 => stateless::q1::<E>(source, events, sink),
        Query::Q2 => stateless::q2::<E>(source, events, sink),
        Query::Q3 => drive::<E>(source, events, joins::LocalSellers::default(), sink),
        Query::Q4 => drive::<E>(
            source,
            events,
            auctions::Winners::new(auctions::CategoryPrices::default()),
            sink,
        ),
        Query::Q5 => drive::<E>(source, events, windows::HotAuctions::default(), sink),
        Query::Q6 => drive::<E>(
            source,
            events,
            auctions::Winners::new(auctions::SellerPrices::default()),
            sink,
        ),
        Query::Q7 => drive::<E>(source, events, windows::HighestBids::default(), sink),
        Query::Q8 => drive::<E>(source, events, joins::NewSellers::default(), sink),
        Query::Q9 => drive::<E>(
            source,
            events,
            auctions::Winners::new(auctions::EachWinner),
            sink,
        ),
        Query::Q11 => drive::<E>(source, events, sessions::BidderSessions::default(), sink),
        Query::Q12 => drive::<E>(source, events, windows::BidderWindows::default(), sink),
        Query::Q14 => stateless::q14::<E>(source, events, sink),
        Query::Q15 => drive::<E>(source, events, totals::Days::default(), sink),
        Query::Q16 => drive::<E>(source, events, totals::ChannelDays::default(), sink),
        Query::Q17 => drive::<E>(source, events, totals::AuctionDays::default(), sink),
        Query::Q18 => drive::<E>(source, events, ranking::LastBids::default(), sink),
        Query::Q19 => drive::<E>(source, events, ranking::TopBids::default(), sink),
        Query::Q20 => drive::<E>(source, events, joins::BidsWithAuctions::default(), sink),
        Query::Q21 => stateless::q21::<E>(source, events, sink),
        Query::Q22 => stateless::q22::<E>(source, events, sink),
        Query::Count => drive::<E>(source, events, totals::RunningCounts::default(), sink),
    }
}

/// What the tests of the queries share.
#[cfg(test)]
mod testing {
    use super::*;
    use crate::csv_out::RowFile;
    use crate::events::{Auction, Bid, LeanEvent, Person};
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panicked").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Source<LeanEvent> for &[LeanEvent] {
        fn event(&self, n: u64) -> LeanEvent {
            self[n as usize]
        }
    }

    /// The sorted CSV rows with which a query answers these events.
    pub fn answer(query: impl BareQuery<LeanEvent>, events: &[LeanEvent]) -> Vec<String> {
        let memory = Memory::default();
        let mut sink = RowSink::new(Some(RowFile::new(memory.clone())));
        drive(events, events.len() as u64, query, &mut sink);
        let bytes = memory.0.lock().expect("no test panicked").clone();
        let text = String::from_utf8(bytes).expect("CSV is text");
        let mut rows: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
        rows.sort();
        rows
    }

    pub fn person(id: u64, city: u64, state: u64, date_time: u64) -> LeanEvent {
        LeanEvent::Person(Person {
            id,
            city,
            state,
            date_time,
        })
    }

    pub fn auction(id: u64, seller: u64, category: u64, date_time: u64) -> LeanEvent {
        let expires = date_time + crate::rules::AUCTION_DURATION;
        LeanEvent::Auction(Auction {
            id,
            seller,
            category,
            reserve: 1,
            date_time,
            expires,
        })
    }

    pub fn bid(auction: u64, bidder: u64, price: u64, date_time: u64) -> LeanEvent {
        LeanEvent::Bid(Bid {
            auction,
            bidder,
            price,
            date_time,
        })
    }

    #[test]
    fn every_query_answers_in_both_sizes_and_the_same_twice() {
        let options = Options {
            events: 30_000,
            parallelism: 1,
            generator: Generator::new(1),
        };
        for query in Query::ALL {
            let outcome = |full: bool| {
                let mut sink = RowSink::default();
                match full {
                    true => run::<crate::events::FullEvent>(*query, &options, &mut sink),
                    false => run::<LeanEvent>(*query, &options, &mut sink),
                }
                sink.outcome()
            };
            assert_eq!(outcome(true), outcome(true), "{query:?}");
            let results = [outcome(true), outcome(false)].map(|outcome| outcome.results);
            assert!(results[0] > 0, "{query:?}");
            assert!(
                results[0] == results[1] || *query == Query::Q16,
                "{query:?} {results:?}"
            );
        }
    }
}
