//! q4, q6, q9: auctions that end, and what their winning bids say.

use super::{BareQuery, FxMap};
use crate::answer_rows::{CategoryAverage, SellerAverage, WinningBid};
use crate::digest::RowSink;
use crate::events::{Auction, Bid, Event};
use crate::rules::{self, Q6_AUCTIONS};
use std::collections::VecDeque;

/// What is done with the winners, which come in the order of (expires, auction).
pub trait WinnerSink {
    /// Takes a closed auction and its winning bid.
    fn winner(&mut self, auction: &Auction, bid: &Bid, sink: &mut RowSink);
    /// There are no more.
    fn end(&mut self, _sink: &mut RowSink) {}
}

/// The open auctions with the best bid so far, and the order in which they expire: that in which they opened, since all
/// are open equally long.
pub struct Winners<S> {
    open: FxMap<u64, (Auction, Option<Bid>)>,
    expiring: VecDeque<(u64, u64)>,
    next_firing: u64,
    then: S,
}

impl<S: WinnerSink> Winners<S> {
    /// No auction yet.
    pub fn new(then: S) -> Self {
        Winners {
            open: FxMap::default(),
            expiring: VecDeque::new(),
            next_firing: u64::MAX,
            then,
        }
    }

    /// Closes what expired before `watermark`: a bid at the very time of expiry still counts.
    fn close(&mut self, watermark: u64, sink: &mut RowSink) {
        self.next_firing = u64::MAX;
        while let Some(&(expires, id)) = self.expiring.front() {
            if expires >= watermark {
                self.next_firing = expires + 1;
                return;
            }
            self.expiring.pop_front();
            if let Some((auction, Some(bid))) = self.open.remove(&id) {
                self.then.winner(&auction, &bid, sink);
            }
        }
    }
}

impl<E: Event, S: WinnerSink> BareQuery<E> for Winners<S> {
    #[inline(always)]
    fn on(&mut self, event: E, _: &mut RowSink) {
        if let Some(bid) = event.bid() {
            let Some((auction, best)) = self.open.get_mut(&bid.auction) else {
                return;
            };
            let in_time = auction.date_time <= bid.date_time && bid.date_time <= auction.expires;
            if in_time && best.is_none_or(|best| rules::q9_wins(&bid, &best)) {
                *best = Some(bid);
            }
        } else if let Some(auction) = event.auction() {
            self.open.insert(auction.id, (auction, None));
            self.expiring.push_back((auction.expires, auction.id));
            self.next_firing = self.next_firing.min(auction.expires + 1);
        }
    }
    #[inline(always)]
    fn next_firing(&self) -> u64 {
        self.next_firing
    }
    fn fire(&mut self, watermark: u64, sink: &mut RowSink) {
        self.close(watermark, sink);
    }
    fn end(&mut self, sink: &mut RowSink) {
        self.close(u64::MAX, sink);
        self.then.end(sink);
    }
}

/// q9: each is a row.
pub struct EachWinner;

impl WinnerSink for EachWinner {
    fn winner(&mut self, auction: &Auction, bid: &Bid, sink: &mut RowSink) {
        sink.emit(&WinningBid {
            auction: auction.id,
            seller: auction.seller,
            category: auction.category,
            expires: auction.expires,
            bidder: bid.bidder,
            price: bid.price,
            date_time: bid.date_time,
        });
    }
}

/// q4: sum and number per category.
#[derive(Default)]
pub struct CategoryPrices(FxMap<u64, (u64, u64)>);

impl WinnerSink for CategoryPrices {
    fn winner(&mut self, auction: &Auction, bid: &Bid, _: &mut RowSink) {
        let (sum, number) = self.0.entry(auction.category).or_insert((0, 0));
        *sum += bid.price;
        *number += 1;
    }
    fn end(&mut self, sink: &mut RowSink) {
        for (category, (sum, number)) in self.0.drain() {
            sink.emit(&CategoryAverage {
                category,
                average: sum / number,
            });
        }
    }
}

/// q6: the last prices per seller.
#[derive(Default)]
pub struct SellerPrices(FxMap<u64, VecDeque<u64>>);

impl WinnerSink for SellerPrices {
    fn winner(&mut self, auction: &Auction, bid: &Bid, sink: &mut RowSink) {
        let prices = self.0.entry(auction.seller).or_default();
        if prices.len() == Q6_AUCTIONS {
            prices.pop_front();
        }
        prices.push_back(bid.price);
        let average = prices.iter().sum::<u64>() / prices.len() as u64;
        sink.emit(&SellerAverage {
            seller: auction.seller,
            auction: auction.id,
            average,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, auction, bid};
    use super::*;
    use crate::events::LeanEvent;

    fn events() -> Vec<LeanEvent> {
        vec![
            auction(50, 1, 10, 0),
            auction(51, 1, 10, 0),
            auction(52, 2, 11, 0),
            bid(50, 4, 100, 5),
            bid(50, 3, 100, 5),
            bid(50, 2, 100, 6),
            bid(51, 9, 31, 10_000),
            bid(51, 9, 99, 10_001),
        ]
    }

    #[test]
    fn q9_takes_the_highest_in_time_then_the_earliest_then_the_smallest_bidder() {
        let expected = ["50,1,10,10000,3,100,5", "51,1,10,10000,9,31,10000"];
        assert_eq!(answer(Winners::new(EachWinner), &events()), expected);
    }

    #[test]
    fn q4_and_q6_average_the_winners() {
        assert_eq!(
            answer(Winners::new(CategoryPrices::default()), &events()),
            ["10,65"]
        );
        assert_eq!(
            answer(Winners::new(SellerPrices::default()), &events()),
            ["1,50,100", "1,51,65"]
        );
    }

    #[test]
    fn q6_forgets_all_but_ten() {
        let auctions = (0..11).map(|i| auction(i, 1, 10, i));
        let bids = (0..11).map(|i| bid(i, 2, if i == 0 { 1_000 } else { 10 }, 20));
        let rows = answer(
            Winners::new(SellerPrices::default()),
            &auctions.chain(bids).collect::<Vec<_>>(),
        );
        assert!(
            rows.contains(&"1,9,109".to_owned()) && rows.contains(&"1,10,10".to_owned()),
            "{rows:?}"
        );
    }
}
