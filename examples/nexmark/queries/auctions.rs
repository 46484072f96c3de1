//! q4, q6, q9: auctions that end, and what their winning bids say.

use super::Job;
use crate::answer_rows::{CategoryAverage, SellerAverage, WinningBid};
use crate::events::{Auction, Bid, Event, WholeBid};
use crate::rules::{self, Q6_AUCTIONS};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use tidegate::engine::api::Upstream;
use tidegate::engine::checkpoint::StateValue;
use tidegate::engine::state::{KeyedStates, ValueState};
use tidegate::prelude::*;

/// What happens to an auction.
#[derive(Clone, Debug)]
pub enum LotEvent<B> {
    /// It opens.
    Auction(Auction),
    /// Somebody bids.
    Bid(B),
}

impl<B: WholeBid> LotEvent<B> {
    /// The auction.
    #[inline(always)]
    pub fn key(&self) -> u64 {
        match self {
            LotEvent::Auction(auction) => auction.id,
            LotEvent::Bid(bid) => bid.numbers().auction,
        }
    }
}

/// State of an auction whose bids may overtake it on their way.
pub struct Lot<A: StateValue, B: StateValue> {
    /// What is known of it.
    pub known: ValueState<u64, A>,
    /// Bids that came first.
    pub awaiting: ValueState<u64, Vec<B>>,
}

impl<A: StateValue, B: WholeBid> Lot<A, B> {
    /// Declares the states.
    pub fn declare(states: &mut KeyedStates<u64>) -> Flow<Self> {
        Ok(Lot {
            known: states.value("known")?,
            awaiting: states.value("awaiting")?,
        })
    }

    /// Lets a bid wait for its auction. An auction opens before its bids are made, so once event time has
    /// come to the bid's, none will come.
    #[cold]
    pub fn wait(&self, cx: &ProcessContext<'_, u64>, bid: B) {
        cx.register_event_timer(cx.timestamp());
        self.awaiting.update(cx, |bids| bids.push(bid));
    }
}

/// An open auction with its best bid so far.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Open {
    auction: Auction,
    best: Option<Bid>,
}

impl Open {
    #[inline(always)]
    fn bid(&mut self, bid: Bid) {
        let Auction {
            date_time, expires, ..
        } = self.auction;
        let in_time = date_time <= bid.date_time && bid.date_time <= expires;
        if in_time && self.best.is_none_or(|best| rules::q9_wins(&bid, &best)) {
            self.best = Some(bid);
        }
    }
}

/// Emits the winning bid of each auction when event time comes to its end.
#[derive(Clone)]
struct Winners;

impl KeyedProcessFunction<u64, LotEvent<Bid>> for Winners {
    type Out = WinningBid;
    type State = Lot<Open, Bid>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        Lot::declare(states)
    }

    #[inline(always)]
    fn process<C: Collector<WinningBid>>(
        &mut self,
        lot: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        event: LotEvent<Bid>,
        _out: &mut C,
    ) -> Flow {
        match event {
            LotEvent::Auction(auction) => {
                let mut open = Open {
                    auction,
                    best: None,
                };
                for bid in lot.awaiting.take(cx).unwrap_or_default() {
                    open.bid(bid);
                }
                lot.known.set(cx, open);
                cx.register_event_timer(Timestamp(auction.expires as i64));
            }
            LotEvent::Bid(bid) => {
                if !lot.known.change(cx, |open| open.bid(bid)) {
                    lot.wait(cx, bid);
                }
            }
        }
        Ok(())
    }

    fn on_timer<C: Collector<WinningBid>>(
        &mut self,
        lot: &mut Self::State,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        lot.awaiting.clear(cx);
        let due = |open: Option<&Open>| open.is_some_and(|o| o.auction.expires as i64 == at.0);
        if !lot.known.with(cx, due) {
            return Ok(());
        }
        let Some(Open {
            auction,
            best: Some(bid),
        }) = lot.known.take(cx)
        else {
            return Ok(());
        };
        let winner = WinningBid {
            auction: auction.id,
            seller: auction.seller,
            category: auction.category,
            expires: auction.expires,
            bidder: bid.bidder,
            price: bid.price,
            date_time: bid.date_time,
        };
        out.collect(at, winner)
    }
}

fn winners<E: Event>(
    job: &Job<E>,
) -> DataStream<WinningBid, impl Upstream<Out = WinningBid> + use<E>> {
    job.events()
        .filter_map(|event: E| match event.auction() {
            Some(auction) => Some(LotEvent::Auction(auction)),
            None => event.bid().map(LotEvent::Bid),
        })
        .key_by(LotEvent::key)
        .process(Winners)
        .name("winners")
}

pub fn q9<E: Event>(job: &Job<E>) {
    winners(job).sink("rows", job.rows.clone());
}

/// Sum and number per category, emitted at the end of time.
#[derive(Clone)]
struct CategoryPrices;

impl KeyedProcessFunction<u64, WinningBid> for CategoryPrices {
    type Out = CategoryAverage;
    type State = ValueState<u64, (u64, u64)>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        states.value("prices")
    }

    fn process<C: Collector<CategoryAverage>>(
        &mut self,
        prices: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        winner: WinningBid,
        _out: &mut C,
    ) -> Flow {
        cx.register_event_timer(Timestamp::MAX);
        prices.update(cx, |(sum, number)| {
            *sum += winner.price;
            *number += 1;
        });
        Ok(())
    }

    fn on_timer<C: Collector<CategoryAverage>>(
        &mut self,
        prices: &mut Self::State,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        let (sum, number) = prices.take(cx).unwrap_or((0, 1));
        out.collect(
            at,
            CategoryAverage {
                category: *cx.key(),
                average: sum / number,
            },
        )
    }
}

pub fn q4<E: Event>(job: &Job<E>) {
    winners(job)
        .key_by(|winner| winner.category)
        .process(CategoryPrices)
        .sink("rows", job.rows.clone());
}

/// The last prices of a seller, and winners that event time has not come to yet.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Sales {
    pending: BTreeMap<(u64, u64), u64>,
    prices: VecDeque<u64>,
}

/// Averages the last prices per seller in the order of (expires, auction), however they arrive.
#[derive(Clone)]
struct SellerPrices;

impl KeyedProcessFunction<u64, WinningBid> for SellerPrices {
    type Out = SellerAverage;
    type State = ValueState<u64, Sales>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        states.value("sales")
    }

    fn process<C: Collector<SellerAverage>>(
        &mut self,
        sales: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        winner: WinningBid,
        _out: &mut C,
    ) -> Flow {
        cx.register_event_timer(cx.timestamp());
        let key = (winner.expires, winner.auction);
        sales.update(cx, |sales| sales.pending.insert(key, winner.price));
        Ok(())
    }

    fn on_timer<C: Collector<SellerAverage>>(
        &mut self,
        sales: &mut Self::State,
        cx: &TimerContext<'_, u64>,
        at: Timestamp,
        out: &mut C,
    ) -> Flow {
        let seller = *cx.key();
        sales.update(cx, |sales| {
            while let Some(next) = sales.pending.first_entry() {
                if next.key().0 as i64 > at.0 {
                    break;
                }
                let ((_, auction), price) = next.remove_entry();
                if sales.prices.len() == Q6_AUCTIONS {
                    sales.prices.pop_front();
                }
                sales.prices.push_back(price);
                let average = sales.prices.iter().sum::<u64>() / sales.prices.len() as u64;
                out.collect(
                    at,
                    SellerAverage {
                        seller,
                        auction,
                        average,
                    },
                )?;
            }
            Ok(())
        })
    }
}

pub fn q6<E: Event>(job: &Job<E>) {
    winners(job)
        .key_by(|winner| winner.seller)
        .process(SellerPrices)
        .sink("rows", job.rows.clone());
}
