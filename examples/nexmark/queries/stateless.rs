//! q0, q1, q2, q14, q21, q22: each event by itself.

use super::Job;
use crate::answer_rows::{AuctionPrice, BidChannel, BidFolders, ClassifiedBid};
use crate::events::{Event, WholeBid};
use crate::rules::{self, TimeClass};

pub fn q0<E: Event>(job: &Job<E>) {
    job.events().sink("rows", job.rows.clone());
}

pub fn q1<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(E::into_bid)
        .map(|bid| {
            let euros = rules::in_euros(bid.numbers().price);
            bid.with_price(euros)
        })
        .sink("rows", job.rows.clone());
}

pub fn q2<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid())
        .filter(|bid| rules::q2_wants(bid.auction))
        .map(|bid| AuctionPrice {
            auction: bid.auction,
            price: bid.price,
        })
        .sink("rows", job.rows.clone());
}

pub fn q14<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(E::into_bid)
        .filter_map(|bid| {
            let numbers = bid.numbers();
            let euros = rules::in_euros(numbers.price);
            rules::q14_wants(euros).then(|| ClassifiedBid {
                auction: numbers.auction,
                bidder: numbers.bidder,
                euros,
                time_class: TimeClass::of(numbers.date_time),
                date_time: numbers.date_time,
                c_count: bid.count_c(),
                extra: bid.into_extra(),
            })
        })
        .sink("rows", job.rows.clone());
}

pub fn q21<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(E::into_bid)
        .filter_map(|bid| {
            let numbers = bid.numbers();
            let channel_id = bid.channel_id()?;
            Some(BidChannel {
                auction: numbers.auction,
                bidder: numbers.bidder,
                price: numbers.price,
                channel: bid.into_channel(),
                channel_id,
            })
        })
        .sink("rows", job.rows.clone());
}

pub fn q22<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(E::into_bid)
        .map(|bid| {
            let numbers = bid.numbers();
            let [folder1, folder2, folder3] = bid.folders();
            BidFolders {
                auction: numbers.auction,
                bidder: numbers.bidder,
                price: numbers.price,
                channel: bid.into_channel(),
                folder1,
                folder2,
                folder3,
            }
        })
        .sink("rows", job.rows.clone());
}
