//! The queries that are written for two threads: what each ships, and what is merged in the end.

use super::Half;
use crate::answer_rows::HotAuction;
use crate::baseline::BareQuery;
use crate::baseline::joins::{LocalSellers, NewSellers};
use crate::baseline::totals::RunningCounts;
use crate::baseline::windows::{BidderWindows, HighestBids, HotAuctions};
use crate::digest::RowSink;
use crate::events::{Bid, Event, JoinSide, LeanEvent};
use crate::rules;
use std::collections::BTreeMap;

impl Half for RunningCounts {
    type Item = u64;

    #[inline(always)]
    fn item(event: LeanEvent) -> Option<u64> {
        event.bid().map(|bid| bid.bidder)
    }
    #[inline(always)]
    fn key(bidder: &u64) -> Option<u64> {
        Some(*bidder)
    }
    #[inline(always)]
    fn take(&mut self, bidder: u64, sink: &mut RowSink) {
        self.add(bidder, sink);
    }
}

impl Half for BidderWindows {
    type Item = (u64, u64);

    #[inline(always)]
    fn item(event: LeanEvent) -> Option<(u64, u64)> {
        event.bid().map(|bid| (bid.date_time, bid.bidder))
    }
    #[inline(always)]
    fn key((_, bidder): &(u64, u64)) -> Option<u64> {
        Some(*bidder)
    }
    #[inline(always)]
    fn take(&mut self, (time, bidder): (u64, u64), _: &mut RowSink) {
        self.add(time, bidder);
    }
    #[inline(always)]
    fn next_firing(&self) -> u64 {
        BareQuery::<LeanEvent>::next_firing(self)
    }
    fn fire(&mut self, watermark: u64, sink: &mut RowSink) {
        BareQuery::<LeanEvent>::fire(self, watermark, sink);
    }
    fn end(&mut self, sink: &mut RowSink) {
        BareQuery::<LeanEvent>::end(self, sink);
    }
}

/// q5: the hottest auction of the own half, per window.
#[derive(Default)]
pub struct HotHalf {
    counts: HotAuctions,
    found: Vec<HotAuction>,
}

impl Half for HotHalf {
    type Item = (u64, u64);

    #[inline(always)]
    fn item(event: LeanEvent) -> Option<(u64, u64)> {
        event.bid().map(|bid| (bid.date_time, bid.auction))
    }
    #[inline(always)]
    fn key((_, auction): &(u64, u64)) -> Option<u64> {
        Some(*auction)
    }
    #[inline(always)]
    fn take(&mut self, (time, auction): (u64, u64), _: &mut RowSink) {
        self.counts.add(time, auction);
    }
    #[inline(always)]
    fn next_firing(&self) -> u64 {
        self.counts.next_end()
    }
    fn fire(&mut self, watermark: u64, _: &mut RowSink) {
        self.counts
            .end_until(watermark, |hottest| self.found.push(hottest));
    }
    fn end(&mut self, _: &mut RowSink) {
        self.counts.end_all(|hottest| self.found.push(hottest));
    }
    fn merge(self, other: Self, sink: &mut RowSink) {
        let mut windows: BTreeMap<u64, HotAuction> = BTreeMap::new();
        for item in self.found.into_iter().chain(other.found) {
            match windows.get_mut(&item.window_end) {
                Some(best) => {
                    if rules::q5_is_hotter((item.auction, item.bids), (best.auction, best.bids)) {
                        *best = item;
                    }
                }
                None => {
                    windows.insert(item.window_end, item);
                }
            }
        }
        windows.values().for_each(|hottest| sink.emit(hottest));
    }
}

/// q7: the highest bid of those that this thread made, per window.
#[derive(Default)]
pub struct HighestHalf {
    bids: HighestBids,
    found: Vec<(u64, Bid)>,
}

impl Half for HighestHalf {
    type Item = Bid;

    #[inline(always)]
    fn item(event: LeanEvent) -> Option<Bid> {
        event.bid()
    }
    #[inline(always)]
    fn key(_: &Bid) -> Option<u64> {
        None
    }
    #[inline(always)]
    fn take(&mut self, bid: Bid, _: &mut RowSink) {
        self.bids.add(bid);
    }
    #[inline(always)]
    fn next_firing(&self) -> u64 {
        self.bids.next_end()
    }
    fn fire(&mut self, watermark: u64, _: &mut RowSink) {
        self.bids
            .end_until(watermark, |end, bid| self.found.push((end, bid)));
    }
    fn end(&mut self, _: &mut RowSink) {
        self.bids.end_all(|end, bid| self.found.push((end, bid)));
    }
    fn merge(self, other: Self, sink: &mut RowSink) {
        let mut windows: BTreeMap<u64, Bid> = BTreeMap::new();
        for (end, bid) in self.found.into_iter().chain(other.found) {
            let best = windows.entry(end).or_insert(bid);
            if rules::q7_is_higher(&bid, best) {
                *best = bid;
            }
        }
        for (end, bid) in windows {
            sink.emit(&HighestBids::row(end, bid));
        }
    }
}

/// The two joins differ in nothing but the events that they ask for.
macro_rules! join_half {
    ($query:ty, $side:ident) => {
        impl Half for $query {
            type Item = JoinSide<u64>;

            #[inline(always)]
            fn item(event: LeanEvent) -> Option<JoinSide<u64>> {
                event.$side()
            }
            #[inline(always)]
            fn key(side: &JoinSide<u64>) -> Option<u64> {
                Some(side.key())
            }
            #[inline(always)]
            fn take(&mut self, side: JoinSide<u64>, sink: &mut RowSink) {
                self.add(side, sink);
            }
            #[inline(always)]
            fn next_firing(&self) -> u64 {
                BareQuery::<LeanEvent>::next_firing(self)
            }
            fn fire(&mut self, watermark: u64, sink: &mut RowSink) {
                BareQuery::<LeanEvent>::fire(self, watermark, sink);
            }
        }
    };
}

join_half!(LocalSellers<u64>, q3_side);
join_half!(NewSellers<u64>, q8_side);
