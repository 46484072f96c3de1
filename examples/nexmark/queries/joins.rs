//! q3, q20: events that meet by a key, whichever comes first.

use super::Job;
use super::auctions::{Lot, LotEvent};
use crate::answer_rows::{BidWithAuction, LocalAuction};
use crate::events::{Auction, Event, JoinSide, WholeBid};
use crate::rules::Q20_CATEGORY;
use std::marker::PhantomData;
use tidegate::engine::checkpoint::StateValue;
use tidegate::engine::state::{KeyedStates, ValueState};
use tidegate::prelude::*;

pub fn q3<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(E::q3_side)
        .key_by(JoinSide::key)
        .process(LocalSellers(PhantomData))
        .sink("rows", job.rows.clone());
}

/// A person stays for ever; an auction waits only while its seller is unknown.
pub struct LocalSellers<P>(PhantomData<fn() -> P>);

/// What is known of sellers.
pub struct Sellers<P: StateValue> {
    persons: ValueState<u64, P>,
    /// Auctions that came before their seller.
    waiting: ValueState<u64, Vec<u64>>,
}

impl<P> Clone for LocalSellers<P> {
    fn clone(&self) -> Self {
        LocalSellers(PhantomData)
    }
}

impl<P: StateValue + Clone> KeyedProcessFunction<u64, JoinSide<P>> for LocalSellers<P> {
    type Out = LocalAuction<P>;
    type State = Sellers<P>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        let (persons, waiting) = (states.value("persons")?, states.value("waiting")?);
        Ok(Sellers { persons, waiting })
    }

    #[inline(always)]
    fn process<C: Collector<Self::Out>>(
        &mut self,
        sellers: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        side: JoinSide<P>,
        out: &mut C,
    ) -> Flow {
        match side {
            JoinSide::Person { profile, .. } => {
                for auction in sellers.waiting.take(cx).unwrap_or_default() {
                    let profile = profile.clone();
                    out.collect(cx.timestamp(), LocalAuction { profile, auction })?;
                }
                sellers.persons.set(cx, profile);
                Ok(())
            }
            JoinSide::Auction { id: auction, .. } => match sellers.persons.get(cx) {
                Some(profile) => out.collect(cx.timestamp(), LocalAuction { profile, auction }),
                None => {
                    sellers
                        .waiting
                        .update(cx, |auctions| auctions.push(auction));
                    Ok(())
                }
            },
        }
    }
}

pub fn q20<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| match event.auction() {
            Some(auction) => Some(LotEvent::Auction(auction)),
            None => event.into_bid().map(LotEvent::Bid),
        })
        .key_by(LotEvent::key)
        .process(BidsWithAuctions(PhantomData))
        .sink("rows", job.rows.clone());
}

/// Auctions stay for ever, since NEXMark's join has no end; a bid waits for its auction until event
/// time says that none will come.
pub struct BidsWithAuctions<B>(PhantomData<fn() -> B>);

impl<B> Clone for BidsWithAuctions<B> {
    fn clone(&self) -> Self {
        BidsWithAuctions(PhantomData)
    }
}

fn joined<B: WholeBid>(bid: B, auction: &Auction) -> Option<BidWithAuction<B::Text>> {
    let numbers = bid.numbers();
    (auction.category == Q20_CATEGORY && numbers.date_time >= auction.date_time).then(|| {
        BidWithAuction {
            auction: numbers.auction,
            bidder: numbers.bidder,
            price: numbers.price,
            channel: bid.into_channel(),
            date_time: numbers.date_time,
            seller: auction.seller,
            category: auction.category,
            reserve: auction.reserve,
            expires: auction.expires,
        }
    })
}

impl<B: WholeBid> KeyedProcessFunction<u64, LotEvent<B>> for BidsWithAuctions<B> {
    type Out = BidWithAuction<B::Text>;
    type State = Lot<Auction, B>;

    fn open(
        &mut self,
        states: &mut KeyedStates<u64>,
        _: &mut OpenContext<'_>,
    ) -> Flow<Self::State> {
        Lot::declare(states)
    }

    #[inline(always)]
    fn process<C: Collector<Self::Out>>(
        &mut self,
        lot: &mut Self::State,
        cx: &ProcessContext<'_, u64>,
        event: LotEvent<B>,
        out: &mut C,
    ) -> Flow {
        match event {
            LotEvent::Auction(auction) => {
                lot.known.set(cx, auction);
                for bid in lot.awaiting.take(cx).unwrap_or_default() {
                    if let Some(row) = joined(bid, &auction) {
                        out.collect(cx.timestamp(), row)?;
                    }
                }
                Ok(())
            }
            LotEvent::Bid(bid) => match lot.known.get(cx) {
                Some(auction) => match joined(bid, &auction) {
                    Some(row) => out.collect(cx.timestamp(), row),
                    None => Ok(()),
                },
                None => {
                    lot.wait(cx, bid);
                    Ok(())
                }
            },
        }
    }

    fn on_timer<C: Collector<Self::Out>>(
        &mut self,
        lot: &mut Self::State,
        cx: &TimerContext<'_, u64>,
        _at: Timestamp,
        _out: &mut C,
    ) -> Flow {
        lot.awaiting.clear(cx);
        Ok(())
    }
}
