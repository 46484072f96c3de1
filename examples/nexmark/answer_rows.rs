//! The rows that the queries answer with. q0 and q1 answer with events and bids as they are.

use crate::rows;
use crate::rules::TimeClass;

rows! {
    /// q2
    #[derive(Clone, Copy)]
    AuctionPrice { auction: u64, price: u64 }

    /// q3
    #[derive(Clone)]
    LocalAuction<P> { profile: P, auction: u64 }

    /// q4
    #[derive(Clone, Copy)]
    CategoryAverage { category: u64, average: u64 }

    /// q5
    #[derive(Clone, Copy)]
    HotAuction { window_end: u64, auction: u64, bids: u64 }

    /// q6
    #[derive(Clone, Copy)]
    SellerAverage { seller: u64, auction: u64, average: u64 }

    /// q7
    #[derive(Clone, Copy)]
    HighestBid { window_end: u64, auction: u64, bidder: u64, price: u64, date_time: u64 }

    /// q8
    #[derive(Clone)]
    NewSeller<T> { id: u64, name: T, window_start: u64 }

    /// q9
    #[derive(Clone, Copy)]
    WinningBid {
        auction: u64, seller: u64, category: u64, expires: u64, bidder: u64, price: u64, date_time: u64,
    }

    /// q11
    #[derive(Clone, Copy)]
    BidderSession { bidder: u64, start: u64, end: u64, bids: u64 }

    /// q12
    #[derive(Clone, Copy)]
    BidderWindow { bidder: u64, bids: u64, window_start: u64 }

    /// q14
    #[derive(Clone)]
    ClassifiedBid<T> {
        auction: u64, bidder: u64, euros: u64, time_class: TimeClass, date_time: u64, extra: T, c_count: u64,
    }

    /// q15; `rank1` is the lowest of the three price ranks
    #[derive(Clone, Copy)]
    DayTotals {
        day: u64,
        bids: u64, rank1_bids: u64, rank2_bids: u64, rank3_bids: u64,
        bidders: u64, rank1_bidders: u64, rank2_bidders: u64, rank3_bidders: u64,
        auctions: u64, rank1_auctions: u64, rank2_auctions: u64, rank3_auctions: u64,
    }

    /// q16
    #[derive(Clone)]
    ChannelDayTotals<T> {
        channel: T, day: u64,
        bids: u64, rank1_bids: u64, rank2_bids: u64, rank3_bids: u64,
        bidders: u64, rank1_bidders: u64, rank2_bidders: u64, rank3_bidders: u64,
        auctions: u64, rank1_auctions: u64, rank2_auctions: u64, rank3_auctions: u64,
    }

    /// q17
    #[derive(Clone, Copy)]
    AuctionDayTotals {
        auction: u64, day: u64,
        bids: u64, rank1_bids: u64, rank2_bids: u64, rank3_bids: u64,
        min_price: u64, max_price: u64, average_price: u64, sum_price: u64,
    }

    /// q18
    #[derive(Clone, Copy)]
    LastBid { bidder: u64, auction: u64, price: u64, date_time: u64 }

    /// q19; `place` counts from 1
    #[derive(Clone, Copy)]
    TopBid { auction: u64, place: u64, bidder: u64, price: u64, date_time: u64 }

    /// q20
    #[derive(Clone)]
    BidWithAuction<T> {
        auction: u64, bidder: u64, price: u64, channel: T, date_time: u64,
        seller: u64, category: u64, reserve: u64, expires: u64,
    }

    /// q21
    #[derive(Clone)]
    BidChannel<T> { auction: u64, bidder: u64, price: u64, channel: T, channel_id: T }

    /// q22
    #[derive(Clone)]
    BidFolders<T> { auction: u64, bidder: u64, price: u64, channel: T, folder1: T, folder2: T, folder3: T }

    /// count
    #[derive(Clone, Copy)]
    RunningCount { bidder: u64, bids: u64 }
}

impl<T> ChannelDayTotals<T> {
    /// The totals of a channel's day.
    pub fn of(channel: T, totals: DayTotals) -> Self {
        ChannelDayTotals {
            channel,
            day: totals.day,
            bids: totals.bids,
            rank1_bids: totals.rank1_bids,
            rank2_bids: totals.rank2_bids,
            rank3_bids: totals.rank3_bids,
            bidders: totals.bidders,
            rank1_bidders: totals.rank1_bidders,
            rank2_bidders: totals.rank2_bidders,
            rank3_bidders: totals.rank3_bidders,
            auctions: totals.auctions,
            rank1_auctions: totals.rank1_auctions,
            rank2_auctions: totals.rank2_auctions,
            rank3_auctions: totals.rank3_auctions,
        }
    }
}
