//! What the queries decide about single values: constants, filters, classes, and which of two bids comes first.
//!
//! The bare loops and the jobs on the engine both call these, so that they differ in how they run and not in what
//! they mean. All are pure, and every tie is broken by ids, so that no answer depends on the order of arrival.

use crate::digest::{Field, Mix};
use crate::events::Bid;
use serde::{Deserialize, Serialize};

/// Length of a window of q5, q7, q8 and q12, in milliseconds of event time.
pub const WINDOW: u64 = 10_000;
/// How far apart the windows of q5 begin.
pub const SLIDE: u64 = 2_000;
/// q11: a session ends when its bidder has been silent for longer than this.
pub const SESSION_GAP: u64 = 10_000;
/// A day of event time, for q15 to q17.
pub const DAY: u64 = 86_400_000;
/// How long an auction is open.
pub const AUCTION_DURATION: u64 = 10_000;
/// Categories count from here.
pub const FIRST_CATEGORY: u64 = 10;
/// The category that q3 joins.
pub const Q3_CATEGORY: u64 = 10;
/// The states that q3 joins, as a lean person holds them: CA, ID, OR.
pub const Q3_STATES: [u64; 3] = [1, 2, 3];
/// The category that q20 joins.
pub const Q20_CATEGORY: u64 = 10;
/// q6 averages over this many auctions of a seller.
pub const Q6_AUCTIONS: usize = 10;
/// q19 keeps this many bids of an auction.
pub const Q19_BIDS: usize = 10;

/// q1 and q14: dollars to euros, in whole units, rounded down.
#[inline(always)]
pub fn in_euros(price: u64) -> u64 {
    price * 908 / 1000
}

/// q2: whether the query asks for this auction.
#[inline(always)]
pub fn q2_wants(auction: u64) -> bool {
    auction.is_multiple_of(123)
}

/// q14: whether the query asks for a bid of so many euros.
#[inline(always)]
pub fn q14_wants(euros: u64) -> bool {
    euros > 1_000_000 && euros < 50_000_000
}

/// q14: the part of the day in which a bid was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum TimeClass {
    /// From 8 to 18 o'clock.
    Day,
    /// Before 6 or from 20 o'clock on.
    Night,
    /// The hours between.
    Other,
}

impl TimeClass {
    /// The class of a time.
    #[inline(always)]
    pub fn of(date_time: u64) -> Self {
        match date_time % DAY / 3_600_000 {
            8..18 => TimeClass::Day,
            6..20 => TimeClass::Other,
            _ => TimeClass::Night,
        }
    }
}

impl Field for TimeClass {
    #[inline(always)]
    fn mix(&self, mix: Mix) -> Mix {
        mix.word(*self as u64)
    }
    fn csv(&self, line: &mut String) {
        line.push_str(match self {
            TimeClass::Day => "dayTime",
            TimeClass::Night => "nightTime",
            TimeClass::Other => "otherTime",
        });
    }
}

/// q15 to q17: the rank of a price: 0 below 10,000, 1 below 1,000,000, else 2.
#[inline(always)]
pub fn price_rank(price: u64) -> usize {
    usize::from(price >= 10_000) + usize::from(price >= 1_000_000)
}

/// q7: whether `bid` takes the place of `best` as the highest of a window.
#[inline(always)]
pub fn q7_is_higher(bid: &Bid, best: &Bid) -> bool {
    bid.price > best.price
        || (bid.price == best.price
            && (bid.auction, bid.bidder, bid.date_time)
                < (best.auction, best.bidder, best.date_time))
}

/// q4, q6, q9: whether `bid` takes the place of `best` as the winner of their auction.
#[inline(always)]
pub fn q9_wins(bid: &Bid, best: &Bid) -> bool {
    bid.price > best.price
        || (bid.price == best.price && (bid.date_time, bid.bidder) < (best.date_time, best.bidder))
}

/// q18: whether (`date_time`, `price`) takes the place of `last` as a bidder's last bid in an auction.
#[inline(always)]
pub fn q18_is_later(bid: (u64, u64), last: (u64, u64)) -> bool {
    bid > last
}

/// q19: the place of a bid in its auction's list; the least comes first.
#[inline(always)]
pub fn q19_order(bid: &Bid) -> (std::cmp::Reverse<u64>, u64, u64) {
    (std::cmp::Reverse(bid.price), bid.date_time, bid.bidder)
}

/// q5: whether (`auction`, `bids`) takes the place of `best` as the hottest.
#[inline(always)]
pub fn q5_is_hotter(item: (u64, u64), best: (u64, u64)) -> bool {
    item.1 > best.1 || (item.1 == best.1 && item.0 < best.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_ranks_change_where_they_say() {
        let class = |hour: u64| TimeClass::of(hour * 3_600_000);
        assert_eq!(
            [5, 6, 7, 8].map(class),
            [
                TimeClass::Night,
                TimeClass::Other,
                TimeClass::Other,
                TimeClass::Day
            ]
        );
        assert_eq!(
            [17, 18, 19, 20].map(class),
            [
                TimeClass::Day,
                TimeClass::Other,
                TimeClass::Other,
                TimeClass::Night
            ]
        );
        assert_eq!(
            [0, 9_999, 10_000, 999_999, 1_000_000].map(price_rank),
            [0, 0, 1, 1, 2]
        );
        assert_eq!(in_euros(1_000), 908);
    }

    #[test]
    fn ties_are_broken_by_ids() {
        let bid = |auction, bidder, date_time| Bid {
            auction,
            bidder,
            price: 5,
            date_time,
        };
        assert!(q7_is_higher(&bid(1, 9, 9), &bid(2, 1, 1)));
        assert!(!q7_is_higher(&bid(2, 1, 1), &bid(2, 1, 1)));
        assert!(q9_wins(&bid(1, 9, 1), &bid(1, 1, 2)) && q9_wins(&bid(1, 1, 2), &bid(1, 2, 2)));
        assert!(q5_is_hotter((1, 7), (2, 7)) && !q5_is_hotter((2, 7), (1, 7)));
        assert!(q18_is_later((3, 2), (3, 1)));
    }
}
