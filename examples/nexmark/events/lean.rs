//! Events of numbers: what a query reads of a NEXMark event, and no more.

use super::{Auction, Bid, Event, JoinSide, Person, Table, WholeBid};
use crate::digest::{Mix, Row};
use crate::generator::Generator;
use crate::rules::{Q3_CATEGORY, Q3_STATES};
use serde::{Deserialize, Serialize};

/// An event of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeanEvent {
    /// 1 of 50 events.
    Person(Person),
    /// 3 of 50 events.
    Auction(Auction),
    /// 46 of 50 events.
    Bid(Bid),
}

event_row!(LeanEvent);

impl Event for LeanEvent {
    type Text = u64;
    type Profile = u64;
    alike!(Person, Auction, Bid);

    #[inline(always)]
    fn generate(generator: &Generator, n: u64) -> Self {
        generator.lean(n)
    }
    #[inline(always)]
    fn auction(&self) -> Option<Auction> {
        if let LeanEvent::Auction(auction) = self {
            Some(*auction)
        } else {
            None
        }
    }
    #[inline(always)]
    fn q3_side(self) -> Option<JoinSide<u64>> {
        match self {
            LeanEvent::Person(Person {
                id,
                city,
                state,
                date_time,
            }) if Q3_STATES.contains(&state) => Some(JoinSide::Person {
                id,
                profile: city,
                date_time,
            }),
            LeanEvent::Auction(Auction {
                id,
                seller,
                category: Q3_CATEGORY,
                date_time,
                ..
            }) => Some(JoinSide::Auction {
                seller,
                id,
                date_time,
            }),
            _ => None,
        }
    }
    #[inline(always)]
    fn q8_side(self) -> Option<JoinSide<u64>> {
        match self {
            LeanEvent::Person(Person {
                id,
                city,
                date_time,
                ..
            }) => Some(JoinSide::Person {
                id,
                profile: city,
                date_time,
            }),
            LeanEvent::Auction(Auction {
                id,
                seller,
                date_time,
                ..
            }) => Some(JoinSide::Auction {
                seller,
                id,
                date_time,
            }),
            LeanEvent::Bid(_) => None,
        }
    }
}

impl WholeBid for Bid {
    type Text = u64;

    #[inline(always)]
    fn numbers(&self) -> Bid {
        *self
    }
    #[inline(always)]
    fn with_price(self, price: u64) -> Self {
        Bid { price, ..self }
    }
    #[inline(always)]
    fn into_channel(self) -> u64 {
        self.auction % 4
    }
    #[inline(always)]
    fn channel_id(&self) -> Option<u64> {
        Some(if self.auction.is_multiple_of(2) {
            self.auction % 4
        } else {
            self.bidder % 8192
        })
    }
    #[inline(always)]
    fn folders(&self) -> [u64; 3] {
        [
            self.auction / 1_000_000,
            self.auction / 1_000 % 1_000,
            self.auction % 1_000,
        ]
    }
    #[inline(always)]
    fn into_extra(self) -> u64 {
        0
    }
    #[inline(always)]
    fn count_c(&self) -> u64 {
        0
    }
}
