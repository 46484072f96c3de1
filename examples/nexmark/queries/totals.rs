//! count, q15, q16, q17: totals per key.

use super::Job;
use crate::answer_rows::{AuctionDayTotals, ChannelDayTotals, DayTotals, RunningCount};
use crate::events::{Bid, Event, WholeBid};
use crate::rules::{self, DAY};
use serde::{Deserialize, Serialize};
use tidegate::engine::hash::key_hash;
use tidegate::engine::state::KeyTable;
use tidegate::prelude::*;

const ONE_DAY: Duration = Duration::from_millis(DAY);

pub fn count<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid().map(|bid| bid.bidder))
        .key_by(|bidder| *bidder)
        .fold(0u64, |bids, bidder, _| {
            *bids += 1;
            RunningCount {
                bidder: *bidder,
                bids: *bids,
            }
        })
        .sink("rows", job.rows.clone());
}

/// How many different ids there are, in all and per price rank.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Distinct {
    /// Bit r: the id was seen with a price of rank r.
    #[serde(with = "as_list")]
    seen: KeyTable<u64, u8>,
    per_rank: [u64; 3],
}

/// A table in a checkpoint.
mod as_list {
    use serde::{Deserialize, Deserializer, Serializer};
    use tidegate::engine::hash::key_hash;
    use tidegate::engine::state::KeyTable;

    pub fn serialize<S: Serializer>(table: &KeyTable<u64, u8>, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(table.iter().collect::<Vec<_>>())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<KeyTable<u64, u8>, D::Error> {
        let mut table = KeyTable::default();
        for (id, bits) in Vec::<(u64, u8)>::deserialize(from)? {
            table.insert(key_hash(&id), id, bits);
        }
        Ok(table)
    }
}

impl Distinct {
    #[inline(always)]
    fn add(&mut self, id: u64, bits: u8) {
        let seen = self.seen.get_or_insert_with(key_hash(&id), id, || 0);
        let new = bits & !*seen;
        *seen |= bits;
        for (rank, count) in self.per_rank.iter_mut().enumerate() {
            *count += u64::from(new >> rank & 1);
        }
    }

    fn merge(&mut self, other: &Distinct) {
        for (id, bits) in other.seen.iter() {
            self.add(*id, *bits);
        }
    }
}

/// What q15 and q16 know of a day.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Totals {
    bids: [u64; 3],
    bidders: Distinct,
    auctions: Distinct,
}

/// Adds up the bids of a day; the day itself is filled in from the window.
#[derive(Clone)]
struct DayOfBids;

impl Aggregator<Bid> for DayOfBids {
    type Acc = Totals;
    type Out = DayTotals;

    fn create(&self) -> Totals {
        Totals::default()
    }

    fn add(&self, day: &mut Totals, bid: Bid) {
        let rank = rules::price_rank(bid.price);
        day.bids[rank] += 1;
        day.bidders.add(bid.bidder, 1 << rank);
        day.auctions.add(bid.auction, 1 << rank);
    }

    fn merge(&self, into: &mut Totals, other: &Totals) {
        for (into, other) in into.bids.iter_mut().zip(other.bids) {
            *into += other;
        }
        into.bidders.merge(&other.bidders);
        into.auctions.merge(&other.auctions);
    }

    fn result(&self, day: &Totals) -> DayTotals {
        let [rank1_bids, rank2_bids, rank3_bids] = day.bids;
        let [rank1_bidders, rank2_bidders, rank3_bidders] = day.bidders.per_rank;
        let [rank1_auctions, rank2_auctions, rank3_auctions] = day.auctions.per_rank;
        DayTotals {
            day: 0,
            bids: day.bids.iter().sum(),
            rank1_bids,
            rank2_bids,
            rank3_bids,
            bidders: day.bidders.seen.len() as u64,
            rank1_bidders,
            rank2_bidders,
            rank3_bidders,
            auctions: day.auctions.seen.len() as u64,
            rank1_auctions,
            rank2_auctions,
            rank3_auctions,
        }
    }
}

fn day_of<K>(windowed: &Windowed<K, DayTotals>) -> DayTotals {
    DayTotals {
        day: windowed.window.start.0 as u64 / DAY,
        ..windowed.value
    }
}

pub fn q15<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid())
        .window_all(Tumbling::event_time(ONE_DAY))
        .aggregate(DayOfBids)
        .map(|day| day_of(&day))
        .sink("rows", job.rows.clone());
}

/// The same totals, of bids that still carry their channel.
#[derive(Clone)]
struct DayOfChannel;

impl<T: 'static> Aggregator<(T, Bid)> for DayOfChannel {
    type Acc = Totals;
    type Out = DayTotals;

    fn create(&self) -> Totals {
        DayOfBids.create()
    }

    fn add(&self, day: &mut Totals, (_, bid): (T, Bid)) {
        DayOfBids.add(day, bid);
    }

    fn merge(&self, into: &mut Totals, other: &Totals) {
        DayOfBids.merge(into, other);
    }

    fn result(&self, day: &Totals) -> DayTotals {
        DayOfBids.result(day)
    }
}

pub fn q16<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(E::into_bid)
        .map(|bid| {
            let numbers = bid.numbers();
            (bid.into_channel(), numbers)
        })
        .key_by(|(channel, _)| channel.clone())
        .window(Tumbling::event_time(ONE_DAY))
        .aggregate(DayOfChannel)
        .map(|day| {
            let totals = day_of(&day);
            ChannelDayTotals::of(day.key, totals)
        })
        .sink("rows", job.rows.clone());
}

/// What q17 knows of an auction's day.
#[derive(Clone, Serialize, Deserialize)]
pub struct Prices {
    bids: [u64; 3],
    min: u64,
    max: u64,
    sum: u64,
}

/// Adds up the prices of an auction's day.
#[derive(Clone)]
struct PricesOfDay;

impl Aggregator<(u64, u64)> for PricesOfDay {
    type Acc = Prices;
    type Out = Prices;

    fn create(&self) -> Prices {
        Prices {
            bids: [0; 3],
            min: u64::MAX,
            max: 0,
            sum: 0,
        }
    }

    #[inline(always)]
    fn add(&self, prices: &mut Prices, (_, price): (u64, u64)) {
        prices.bids[rules::price_rank(price)] += 1;
        prices.min = prices.min.min(price);
        prices.max = prices.max.max(price);
        prices.sum += price;
    }

    fn merge(&self, into: &mut Prices, other: &Prices) {
        for (into, other) in into.bids.iter_mut().zip(other.bids) {
            *into += other;
        }
        into.min = into.min.min(other.min);
        into.max = into.max.max(other.max);
        into.sum += other.sum;
    }

    fn result(&self, prices: &Prices) -> Prices {
        prices.clone()
    }
}

pub fn q17<E: Event>(job: &Job<E>) {
    job.events()
        .filter_map(|event: E| event.bid().map(|bid| (bid.auction, bid.price)))
        .key_by(|(auction, _)| *auction)
        .window(Tumbling::event_time(ONE_DAY))
        .aggregate(PricesOfDay)
        .map(|day| {
            let [rank1_bids, rank2_bids, rank3_bids] = day.value.bids;
            let bids = rank1_bids + rank2_bids + rank3_bids;
            AuctionDayTotals {
                auction: day.key,
                day: day.window.start.0 as u64 / DAY,
                bids,
                rank1_bids,
                rank2_bids,
                rank3_bids,
                min_price: day.value.min,
                max_price: day.value.max,
                average_price: day.value.sum / bids,
                sum_price: day.value.sum,
            }
        })
        .sink("rows", job.rows.clone());
}
