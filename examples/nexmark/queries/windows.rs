//! q5, q7, q8, q11, q12: what happens in windows of event time.

use super::Job;
use crate::answer_rows::{BidderSession, BidderWindow, HighestBid, HotAuction, NewSeller};
use crate::events::{Bid, Event, JoinSide};
use crate::rules::{self, SESSION_GAP, SLIDE, WINDOW};
use tidegate::engine::window::aggregate_with;
use tidegate::prelude::*;

const WINDOW_SIZE: Duration = Duration::from_millis(WINDOW);
const SLIDE_SIZE: Duration = Duration::from_millis(SLIDE);

/// The result of a sliding window is stamped with its last millisecond, so the hottest of each is that
/// of a tumbling window as long as the slide.
pub fn q5<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid().map(|bid| bid.auction))
        .key_by(|auction| *auction)
        .window(Sliding::event_time(WINDOW_SIZE, SLIDE_SIZE))
        .count()
        .map(|hot| (hot.key, hot.value))
        .window_all(Tumbling::event_time(SLIDE_SIZE))
        .reduce(|best: &(u64, u64), item| {
            if rules::q5_is_hotter(item, *best) {
                item
            } else {
                *best
            }
        })
        .map(|hottest| HotAuction {
            window_end: hottest.window.end.0 as u64,
            auction: hottest.value.0,
            bids: hottest.value.1,
        })
        .sink("rows", job.rows.clone());
}

pub fn q7<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid())
        .window_all(Tumbling::event_time(WINDOW_SIZE))
        .reduce(|best: &Bid, bid| {
            if rules::q7_is_higher(&bid, best) {
                bid
            } else {
                *best
            }
        })
        .map(|highest| HighestBid {
            window_end: highest.window.end.0 as u64,
            auction: highest.value.auction,
            bidder: highest.value.bidder,
            price: highest.value.price,
            date_time: highest.value.date_time,
        })
        .sink("rows", job.rows.clone());
}

pub fn q8<E: Event>(job: &Job<E>) {
    let both = aggregate_with(
        (None, false),
        |(name, sells): &mut (Option<E::Text>, bool), side| match side {
            JoinSide::Person { profile, .. } => *name = Some(profile),
            JoinSide::Auction { .. } => *sells = true,
        },
        |into: &mut (Option<E::Text>, bool), other: &(Option<E::Text>, bool)| {
            into.0 = into.0.take().or_else(|| other.0.clone());
            into.1 |= other.1;
        },
        |(name, sells): &(Option<E::Text>, bool)| if *sells { name.clone() } else { None },
    );
    job.events()
        .filter_map(E::q8_side)
        .key_by(JoinSide::key)
        .window(Tumbling::event_time(WINDOW_SIZE))
        .aggregate(both)
        .filter_map(|seller| {
            Some(NewSeller {
                id: seller.key,
                name: seller.value?,
                window_start: seller.window.start.0 as u64,
            })
        })
        .sink("rows", job.rows.clone());
}

pub fn q11<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid().map(|bid| bid.bidder))
        .key_by(|bidder| *bidder)
        .window(Session::event_time(Duration::from_millis(SESSION_GAP)))
        .count()
        .map(|session| BidderSession {
            bidder: session.key,
            start: session.window.start.0 as u64,
            end: session.window.end.0 as u64,
            bids: session.value,
        })
        .sink("rows", job.rows.clone());
}

pub fn q12<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid().map(|bid| bid.bidder))
        .key_by(|bidder| *bidder)
        .window(Tumbling::event_time(WINDOW_SIZE))
        .count()
        .map(|window| BidderWindow {
            bidder: window.key,
            bids: window.value,
            window_start: window.window.start.0 as u64,
        })
        .sink("rows", job.rows.clone());
}
