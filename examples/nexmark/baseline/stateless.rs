//! q0, q1, q2, q14, q21, q22: each event by itself.

use super::Source;
use crate::answer_rows::{AuctionPrice, BidChannel, BidFolders, ClassifiedBid};
use crate::digest::RowSink;
use crate::events::{Event, WholeBid};
use crate::rules::{self, TimeClass};

#[inline(always)]
pub fn q0<E: Event>(source: impl Source<E>, events: u64, sink: &mut RowSink) {
    for n in 0..events {
        sink.emit(&source.event(n));
    }
}

#[inline(always)]
pub fn q1<E: Event>(source: impl Source<E>, events: u64, sink: &mut RowSink) {
    for n in 0..events {
        let Some(bid) = source.event(n).into_bid() else {
            continue;
        };
        let euros = rules::in_euros(bid.numbers().price);
        sink.emit(&bid.with_price(euros));
    }
}

#[inline(always)]
pub fn q2<E: Event>(source: impl Source<E>, events: u64, sink: &mut RowSink) {
    for n in 0..events {
        let Some(bid) = source.event(n).bid() else {
            continue;
        };
        if rules::q2_wants(bid.auction) {
            sink.emit(&AuctionPrice {
                auction: bid.auction,
                price: bid.price,
            });
        }
    }
}

#[inline(always)]
pub fn q14<E: Event>(source: impl Source<E>, events: u64, sink: &mut RowSink) {
    for n in 0..events {
        let Some(bid) = source.event(n).into_bid() else {
            continue;
        };
        let numbers = bid.numbers();
        let euros = rules::in_euros(numbers.price);
        if rules::q14_wants(euros) {
            let time_class = TimeClass::of(numbers.date_time);
            sink.emit(&ClassifiedBid {
                auction: numbers.auction,
                bidder: numbers.bidder,
                euros,
                time_class,
                date_time: numbers.date_time,
                c_count: bid.count_c(),
                extra: bid.into_extra(),
            });
        }
    }
}

#[inline(always)]
pub fn q21<E: Event>(source: impl Source<E>, events: u64, sink: &mut RowSink) {
    for n in 0..events {
        let Some(bid) = source.event(n).into_bid() else {
            continue;
        };
        let numbers = bid.numbers();
        if let Some(channel_id) = bid.channel_id() {
            sink.emit(&BidChannel {
                auction: numbers.auction,
                bidder: numbers.bidder,
                price: numbers.price,
                channel: bid.into_channel(),
                channel_id,
            });
        }
    }
}

#[inline(always)]
pub fn q22<E: Event>(source: impl Source<E>, events: u64, sink: &mut RowSink) {
    for n in 0..events {
        let Some(bid) = source.event(n).into_bid() else {
            continue;
        };
        let numbers = bid.numbers();
        let [folder1, folder2, folder3] = bid.folders();
        sink.emit(&BidFolders {
            auction: numbers.auction,
            bidder: numbers.bidder,
            price: numbers.price,
            channel: bid.into_channel(),
            folder1,
            folder2,
            folder3,
        });
    }
}
