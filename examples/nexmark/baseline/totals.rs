//! count, q15, q16, q17: what adds up per key.

use super::{BareQuery, FxMap};
use crate::answer_rows::{AuctionDayTotals, ChannelDayTotals, DayTotals, RunningCount};
use crate::digest::RowSink;
use crate::events::{Bid, Event, WholeBid};
use crate::rules::{self, DAY};

/// count: a row per bid.
#[derive(Default)]
pub struct RunningCounts(FxMap<u64, u64>);

impl RunningCounts {
    /// Takes in a bid.
    #[inline(always)]
    pub fn add(&mut self, bidder: u64, sink: &mut RowSink) {
        let bids = self.0.entry(bidder).or_insert(0);
        *bids += 1;
        sink.emit(&RunningCount {
            bidder,
            bids: *bids,
        });
    }
}

impl<E: Event> BareQuery<E> for RunningCounts {
    #[inline(always)]
    fn on(&mut self, event: E, sink: &mut RowSink) {
        if let Some(bid) = event.bid() {
            self.add(bid.bidder, sink);
        }
    }
}

/// How many different ids there are, in all and per price rank: one look-up per bid.
#[derive(Default)]
struct Distinct {
    /// Bit r: the id was seen with a price of rank r.
    seen: FxMap<u64, u8>,
    per_rank: [u64; 3],
}

impl Distinct {
    #[inline(always)]
    fn add(&mut self, id: u64, rank: usize) {
        let seen = self.seen.entry(id).or_insert(0);
        let bit = 1 << rank;
        if *seen & bit == 0 {
            *seen |= bit;
            self.per_rank[rank] += 1;
        }
    }

    fn total(&self) -> u64 {
        self.seen.len() as u64
    }
}

/// What q15 and q16 know of a day.
#[derive(Default)]
struct Totals {
    bids: [u64; 3],
    bidders: Distinct,
    auctions: Distinct,
}

impl Totals {
    #[inline(always)]
    fn add(&mut self, bid: &Bid) {
        let rank = rules::price_rank(bid.price);
        self.bids[rank] += 1;
        self.bidders.add(bid.bidder, rank);
        self.auctions.add(bid.auction, rank);
    }

    fn row(&self, day: u64) -> DayTotals {
        let [rank1_bids, rank2_bids, rank3_bids] = self.bids;
        let [rank1_bidders, rank2_bidders, rank3_bidders] = self.bidders.per_rank;
        let [rank1_auctions, rank2_auctions, rank3_auctions] = self.auctions.per_rank;
        DayTotals {
            day,
            bids: self.bids.iter().sum(),
            rank1_bids,
            rank2_bids,
            rank3_bids,
            bidders: self.bidders.total(),
            rank1_bidders,
            rank2_bidders,
            rank3_bidders,
            auctions: self.auctions.total(),
            rank1_auctions,
            rank2_auctions,
            rank3_auctions,
        }
    }
}

/// q15: the days, which are few, so they stay until the end.
#[derive(Default)]
pub struct Days(FxMap<u64, Totals>);

impl<E: Event> BareQuery<E> for Days {
    #[inline(always)]
    fn on(&mut self, event: E, _: &mut RowSink) {
        if let Some(bid) = event.bid() {
            self.0.entry(bid.date_time / DAY).or_default().add(&bid);
        }
    }
    fn end(&mut self, sink: &mut RowSink) {
        for (day, totals) in self.0.drain() {
            sink.emit(&totals.row(day));
        }
    }
}

/// q16: the days of each channel.
pub struct ChannelDays<T>(FxMap<(T, u64), Totals>);

impl<T> Default for ChannelDays<T> {
    fn default() -> Self {
        ChannelDays(FxMap::default())
    }
}

impl<E: Event> BareQuery<E> for ChannelDays<E::Text> {
    #[inline(always)]
    fn on(&mut self, event: E, _: &mut RowSink) {
        if let Some(bid) = event.into_bid() {
            let numbers = bid.numbers();
            self.0
                .entry((bid.into_channel(), numbers.date_time / DAY))
                .or_default()
                .add(&numbers);
        }
    }
    fn end(&mut self, sink: &mut RowSink) {
        for ((channel, day), totals) in self.0.drain() {
            sink.emit(&ChannelDayTotals::of(channel, totals.row(day)));
        }
    }
}

/// What q17 knows of an auction's day.
struct Prices {
    bids: [u64; 3],
    min: u64,
    max: u64,
    sum: u64,
}

/// q17: the days of each auction.
#[derive(Default)]
pub struct AuctionDays(FxMap<(u64, u64), Prices>);

impl<E: Event> BareQuery<E> for AuctionDays {
    #[inline(always)]
    fn on(&mut self, event: E, _: &mut RowSink) {
        let Some(Bid {
            auction,
            price,
            date_time,
            ..
        }) = event.bid()
        else {
            return;
        };
        let prices = self.0.entry((auction, date_time / DAY)).or_insert(Prices {
            bids: [0; 3],
            min: price,
            max: price,
            sum: 0,
        });
        prices.bids[rules::price_rank(price)] += 1;
        prices.min = prices.min.min(price);
        prices.max = prices.max.max(price);
        prices.sum += price;
    }
    fn end(&mut self, sink: &mut RowSink) {
        for ((auction, day), prices) in self.0.drain() {
            let [rank1_bids, rank2_bids, rank3_bids] = prices.bids;
            let bids = rank1_bids + rank2_bids + rank3_bids;
            sink.emit(&AuctionDayTotals {
                auction,
                day,
                bids,
                rank1_bids,
                rank2_bids,
                rank3_bids,
                min_price: prices.min,
                max_price: prices.max,
                average_price: prices.sum / bids,
                sum_price: prices.sum,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, bid};
    use super::*;

    #[test]
    fn count_counts_from_one() {
        let events = [bid(1, 7, 1, 0), bid(2, 7, 1, 0), bid(3, 8, 1, 0)];
        assert_eq!(
            answer(RunningCounts::default(), &events),
            ["7,1", "7,2", "8,1"]
        );
    }

    #[test]
    fn days_count_bids_and_what_differs() {
        let events = [
            bid(4, 7, 1, 0),
            bid(4, 7, 10_000, 1),
            bid(4, 8, 1, 2),
            bid(4, 7, 1_000_000, DAY),
        ];
        let expected = ["0,3,2,1,0,2,2,1,0,1,1,1,0", "1,1,0,0,1,1,0,0,1,1,0,0,1"];
        assert_eq!(answer(Days::default(), &events), expected);
        assert_eq!(
            answer(ChannelDays::default(), &events),
            expected.map(|row| format!("0,{row}"))
        );
    }

    #[test]
    fn q17_sums_prices_up() {
        let events = [bid(4, 7, 1, 0), bid(4, 7, 10_000, 1), bid(4, 8, 2, DAY)];
        assert_eq!(
            answer(AuctionDays::default(), &events),
            ["4,0,2,1,1,0,1,10000,5000,10001", "4,1,1,1,0,0,2,2,2,2"]
        );
    }
}
