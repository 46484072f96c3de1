//! q5, q7, q12: bids in windows.

use super::panes::Panes;
use super::{BareQuery, FxMap};
use crate::answer_rows::{BidderWindow, HighestBid, HotAuction};
use crate::digest::RowSink;
use crate::events::{Bid, Event};
use crate::rules::{self, SLIDE, WINDOW};
use std::collections::VecDeque;

const PANES_PER_WINDOW: usize = (WINDOW / SLIDE) as usize;

/// q5: bids are counted in panes of one slide; a window's counts are those of its five panes, merged when it ends.
#[derive(Default)]
pub struct HotAuctions {
    panes: Panes<SLIDE, FxMap<u64, u64>>,
    ended: VecDeque<FxMap<u64, u64>>,
    totals: FxMap<u64, u64>,
}

impl HotAuctions {
    /// Takes in a bid.
    #[inline(always)]
    pub fn add(&mut self, time: u64, auction: u64) {
        *self.panes.at(time).entry(auction).or_insert(0) += 1;
    }

    /// When the next window ends.
    #[inline(always)]
    pub fn next_end(&self) -> u64 {
        self.panes.end()
    }

    /// Ends the windows that end by `watermark`.
    pub fn end_until(&mut self, watermark: u64, mut found: impl FnMut(HotAuction)) {
        while watermark >= self.panes.end() {
            self.step().into_iter().for_each(&mut found);
        }
    }

    /// Ends all windows that hold a bid.
    pub fn end_all(&mut self, mut found: impl FnMut(HotAuction)) {
        for _ in 0..self.panes.len() + PANES_PER_WINDOW - 1 {
            self.step().into_iter().for_each(&mut found);
        }
    }

    /// Ends a pane, and with it a window.
    fn step(&mut self) -> Option<HotAuction> {
        let window_end = self.panes.end();
        self.ended.push_back(self.panes.pop());
        if self.ended.len() > PANES_PER_WINDOW
            && let Some(mut left) = self.ended.pop_front()
        {
            left.clear();
            self.panes.recycle(left);
        }
        for (auction, bids) in self.ended.iter().flatten() {
            *self.totals.entry(*auction).or_insert(0) += bids;
        }
        let items = self.totals.drain();
        let hottest = items.reduce(|best, item| {
            if rules::q5_is_hotter(item, best) {
                item
            } else {
                best
            }
        });
        hottest.map(|(auction, bids)| HotAuction {
            window_end,
            auction,
            bids,
        })
    }
}

impl<E: Event> BareQuery<E> for HotAuctions {
    #[inline(always)]
    fn on(&mut self, event: E, _: &mut RowSink) {
        if let Some(bid) = event.bid() {
            self.add(bid.date_time, bid.auction);
        }
    }
    #[inline(always)]
    fn next_firing(&self) -> u64 {
        self.next_end()
    }
    fn fire(&mut self, watermark: u64, sink: &mut RowSink) {
        self.end_until(watermark, |hottest| sink.emit(&hottest));
    }
    fn end(&mut self, sink: &mut RowSink) {
        self.end_all(|hottest| sink.emit(&hottest));
    }
}

/// q7: one bid per window.
#[derive(Default)]
pub struct HighestBids {
    panes: Panes<WINDOW, Option<Bid>>,
}

impl HighestBids {
    /// Takes in a bid.
    #[inline(always)]
    pub fn add(&mut self, bid: Bid) {
        let best = self.panes.at(bid.date_time);
        if best.is_none_or(|best| rules::q7_is_higher(&bid, &best)) {
            *best = Some(bid);
        }
    }

    /// When the next window ends.
    #[inline(always)]
    pub fn next_end(&self) -> u64 {
        self.panes.end()
    }

    /// Ends the windows that end by `watermark`: the end of each that holds a bid, and the highest of it.
    pub fn end_until(&mut self, watermark: u64, mut found: impl FnMut(u64, Bid)) {
        while watermark >= self.panes.end() {
            self.step(&mut found);
        }
    }

    /// Ends all windows that hold a bid.
    pub fn end_all(&mut self, mut found: impl FnMut(u64, Bid)) {
        for _ in 0..self.panes.len() {
            self.step(&mut found);
        }
    }

    fn step(&mut self, found: &mut impl FnMut(u64, Bid)) {
        let window_end = self.panes.end();
        if let Some(bid) = self.panes.pop() {
            found(window_end, bid);
        }
    }

    /// The row of a window's highest bid.
    pub fn row(window_end: u64, bid: Bid) -> HighestBid {
        let Bid {
            auction,
            bidder,
            price,
            date_time,
        } = bid;
        HighestBid {
            window_end,
            auction,
            bidder,
            price,
            date_time,
        }
    }
}

impl<E: Event> BareQuery<E> for HighestBids {
    #[inline(always)]
    fn on(&mut self, event: E, _: &mut RowSink) {
        if let Some(bid) = event.bid() {
            self.add(bid);
        }
    }
    #[inline(always)]
    fn next_firing(&self) -> u64 {
        self.next_end()
    }
    fn fire(&mut self, watermark: u64, sink: &mut RowSink) {
        self.end_until(watermark, |end, bid| sink.emit(&Self::row(end, bid)));
    }
    fn end(&mut self, sink: &mut RowSink) {
        self.end_all(|end, bid| sink.emit(&Self::row(end, bid)));
    }
}

/// q12: a count per bidder and window.
#[derive(Default)]
pub struct BidderWindows {
    panes: Panes<WINDOW, FxMap<u64, u64>>,
}

impl BidderWindows {
    /// Takes in a bid.
    #[inline(always)]
    pub fn add(&mut self, time: u64, bidder: u64) {
        *self.panes.at(time).entry(bidder).or_insert(0) += 1;
    }

    fn step(&mut self, sink: &mut RowSink) {
        let window_start = self.panes.start();
        let mut counts = self.panes.pop();
        for (bidder, bids) in counts.drain() {
            sink.emit(&BidderWindow {
                bidder,
                bids,
                window_start,
            });
        }
        self.panes.recycle(counts);
    }
}

impl<E: Event> BareQuery<E> for BidderWindows {
    #[inline(always)]
    fn on(&mut self, event: E, _: &mut RowSink) {
        if let Some(bid) = event.bid() {
            self.add(bid.date_time, bid.bidder);
        }
    }
    #[inline(always)]
    fn next_firing(&self) -> u64 {
        self.panes.end()
    }
    fn fire(&mut self, watermark: u64, sink: &mut RowSink) {
        while watermark >= self.panes.end() {
            self.step(sink);
        }
    }
    fn end(&mut self, sink: &mut RowSink) {
        for _ in 0..self.panes.len() {
            self.step(sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, bid};
    use super::*;

    #[test]
    fn q5_slides_and_prefers_the_smaller_of_equals() {
        let events = [
            bid(7, 1, 1, 0),
            bid(5, 1, 1, 1_999),
            bid(5, 1, 1, 4_000),
            bid(7, 1, 1, 11_000),
        ];
        // Pane 0 has left the window that ends at 12000: of its two bids, on 5 and on 7, the smaller auction counts.
        let expected = [
            "10000,5,2",
            "12000,5,1",
            "14000,5,1",
            "16000,7,1",
            "18000,7,1",
            "2000,5,1",
            "20000,7,1",
            "4000,5,1",
            "6000,5,2",
            "8000,5,2",
        ];
        assert_eq!(answer(HotAuctions::default(), &events), expected);
    }

    #[test]
    fn q7_takes_the_highest_and_skips_empty_windows() {
        let events = [
            bid(9, 3, 50, 10),
            bid(8, 4, 50, 20),
            bid(8, 2, 50, 30),
            bid(1, 1, 49, 9_999),
            bid(1, 1, 1, 30_000),
        ];
        assert_eq!(
            answer(HighestBids::default(), &events),
            ["10000,8,2,50,30", "40000,1,1,1,30000"]
        );
    }

    #[test]
    fn q12_counts_each_window_by_itself() {
        let events = [
            bid(1, 1, 1, 0),
            bid(2, 1, 1, 9_999),
            bid(1, 2, 1, 9_999),
            bid(1, 1, 1, 10_000),
        ];
        assert_eq!(
            answer(BidderWindows::default(), &events),
            ["1,1,10000", "1,2,0", "2,1,0"]
        );
    }
}
