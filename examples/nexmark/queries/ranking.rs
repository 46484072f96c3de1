//! q18, q19: which bids of a key stay until the end.

use super::Job;
use crate::answer_rows::{LastBid, TopBid};
use crate::events::{Bid, Event};
use crate::rules::{self, Q19_BIDS};
use tidegate::engine::state::{KeyedStates, ValueState};
use tidegate::prelude::*;

pub fn q18<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid())
        .key_by(|bid| (bid.bidder, bid.auction))
        .process(LastBids)
        .sink("rows", job.rows.clone());
}

/// (time, price) of the last bid per bidder and auction.
#[derive(Clone)]
struct LastBids;

impl KeyedProcessFunction<(u64, u64), Bid> for LastBids {
    type Out = LastBid;
    type State = ValueState<(u64, u64), (u64, u64)>;

    fn open(
        &mut self,
        states: &mut KeyedStates<(u64, u64)>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        states.value("last")
    }

    fn process<C: Collector<LastBid>>(
        &mut self,
        last: &mut Self::State,
        cx: &ProcessContext<'_, (u64, u64)>,
        bid: Bid,
        _out: &mut C,
    ) -> Flow {
        let new = (bid.date_time, bid.price);
        let mut first = false;
        let begin = || {
            first = true;
            new
        };
        last.update_or(cx, begin, |last| {
            if rules::q18_is_later(new, *last) {
                *last = new;
            }
        });
        if first {
            cx.register_event_timer(Timestamp::MAX);
        }
        Ok(())
    }

    fn on_timer<C: Collector<LastBid>>(
        &mut self,
        last: &mut Self::State,
        cx: &TimerContext<'_, (u64, u64)>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        let Some((date_time, price)) = last.take(cx) else {
            return Ok(());
        };
        let (bidder, auction) = *cx.key();
        out.collect(
            at,
            LastBid {
                bidder,
                auction,
                price,
                date_time,
            },
        )
    }
}

pub fn q19<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid())
        .key_by(|bid| bid.auction)
        .process(TopBids)
        .sink("rows", job.rows.clone());
}

/// Up to ten bids per auction, the best first.
#[derive(Clone)]
struct TopBids;

impl KeyedProcessFunction<u64, Bid> for TopBids {
    type Out = TopBid;
    type State = ValueState<u64, Vec<Bid>>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        states.value("top")
    }

    fn process<C: Collector<TopBid>>(
        &mut self,
        top: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        bid: Bid,
        _out: &mut C,
    ) -> Flow {
        let first = top.update(cx, |top| {
            insert(top, bid);
            top.len() == 1
        });
        if first {
            cx.register_event_timer(Timestamp::MAX);
        }
        Ok(())
    }

    fn on_timer<C: Collector<TopBid>>(
        &mut self,
        top: &mut Self::State,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        for (place, bid) in (1..).zip(top.take(cx).unwrap_or_default()) {
            let Bid {
                auction,
                bidder,
                price,
                date_time,
            } = bid;
            out.collect(
                at,
                TopBid {
                    auction,
                    place,
                    bidder,
                    price,
                    date_time,
                },
            )?;
        }
        Ok(())
    }
}

/// Puts a bid in its place, if it is among the first ten.
fn insert(top: &mut Vec<Bid>, bid: Bid) {
    let order = rules::q19_order(&bid);
    if top.len() == Q19_BIDS {
        if top
            .last()
            .is_some_and(|last| rules::q19_order(last) <= order)
        {
            return;
        }
        top.pop();
    }
    let place = top.partition_point(|other| rules::q19_order(other) <= order);
    top.insert(place, bid);
}
