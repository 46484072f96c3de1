//! q18, q19: which bids of a key stay until the end.

use super::{BareQuery, FxMap};
use crate::answer_rows::{LastBid, TopBid};
use crate::digest::RowSink;
use crate::events::{Bid, Event};
use crate::rules::{self, Q19_BIDS};

/// q18: (time, price) of the last bid per bidder and auction.
#[derive(Default)]
pub struct LastBids(FxMap<(u64, u64), (u64, u64)>);

impl<E: Event> BareQuery<E> for LastBids {
    #[inline(always)]
    fn on(&mut self, event: E, _: &mut RowSink) {
        if let Some(bid) = event.bid() {
            let new = (bid.date_time, bid.price);
            let last = self.0.entry((bid.bidder, bid.auction)).or_insert(new);
            if rules::q18_is_later(new, *last) {
                *last = new;
            }
        }
    }
    fn end(&mut self, sink: &mut RowSink) {
        for ((bidder, auction), (date_time, price)) in self.0.drain() {
            sink.emit(&LastBid {
                bidder,
                auction,
                price,
                date_time,
            });
        }
    }
}

/// q19: up to ten bids per auction, the best first.
#[derive(Default)]
pub struct TopBids(FxMap<u64, Vec<Bid>>);

impl<E: Event> BareQuery<E> for TopBids {
    #[inline(always)]
    fn on(&mut self, event: E, _: &mut RowSink) {
        if let Some(bid) = event.bid() {
            insert(self.0.entry(bid.auction).or_default(), bid);
        }
    }
    fn end(&mut self, sink: &mut RowSink) {
        for (auction, top) in self.0.drain() {
            for (
                place,
                Bid {
                    bidder,
                    price,
                    date_time,
                    ..
                },
            ) in (1..).zip(top)
            {
                sink.emit(&TopBid {
                    auction,
                    place,
                    bidder,
                    price,
                    date_time,
                });
            }
        }
    }
}

/// Puts a bid in its place, if it is among the first ten.
#[inline(always)]
fn insert(top: &mut Vec<Bid>, bid: Bid) {
    if top.len() == Q19_BIDS {
        if top
            .last()
            .is_some_and(|last| rules::q19_order(last) <= rules::q19_order(&bid))
        {
            return;
        }
        top.pop();
    }
    let place = top.partition_point(|other| rules::q19_order(other) <= rules::q19_order(&bid));
    top.insert(place, bid);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, bid};
    use super::*;

    #[test]
    fn q18_keeps_the_last_and_of_equal_times_the_higher() {
        let events = [
            bid(4, 7, 9, 1),
            bid(4, 7, 3, 2),
            bid(4, 7, 5, 2),
            bid(4, 7, 4, 2),
            bid(4, 8, 1, 1),
        ];
        assert_eq!(answer(LastBids::default(), &events), ["7,4,5,2", "8,4,1,1"]);
    }

    #[test]
    fn q19_keeps_ten_and_breaks_ties_by_time_then_bidder() {
        let mut events: Vec<_> = (0..10).map(|i| bid(4, i, 100 + i, 50)).collect();
        events.extend([bid(4, 20, 109, 49), bid(4, 2, 109, 50), bid(4, 30, 1, 1)]);
        let rows = answer(TopBids::default(), &events);
        assert_eq!(rows.len(), 10);
        assert!(
            ["4,1,20,109,49", "4,2,2,109,50", "4,3,9,109,50"]
                .iter()
                .all(|row| rows.contains(&row.to_string()))
        );
        assert!(rows.contains(&"4,10,2,102,50".to_owned()), "{rows:?}");
    }
}
