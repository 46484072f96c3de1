//! Events with NEXMark's texts, which make a record three to five allocations.

use super::{Auction, Bid, Event, JoinSide, Table, WholeBid};
use crate::digest::{Field, Mix, Row};
use crate::generator::Generator;
use crate::rows;
use crate::rules::Q3_CATEGORY;
use serde::{Deserialize, Serialize};

rows! {
    /// A person with texts.
    #[derive(Clone)]
    FullPerson {
        id: u64, name: String, email: String, credit_card: String, city: String, state: String, date_time: u64,
        extra: String,
    }

    /// An auction with texts.
    #[derive(Clone)]
    FullAuction {
        id: u64, item_name: String, description: String, initial_bid: u64, reserve: u64, date_time: u64, expires: u64,
        seller: u64, category: u64, extra: String,
    }

    /// A bid with texts.
    #[derive(Clone)]
    FullBid {
        auction: u64, bidder: u64, price: u64, channel: String, url: String, date_time: u64, extra: String,
    }

    /// What q3 tells of a person.
    #[derive(Clone)]
    Profile { name: String, city: String, state: String }
}

impl Field for Profile {
    #[inline(always)]
    fn mix(&self, mix: Mix) -> Mix {
        Row::mix(self, mix)
    }
    fn csv(&self, line: &mut String) {
        line.push_str(&Row::csv(self));
    }
    fn header(_: &str) -> String {
        <Profile as Row>::header()
    }
}

/// An event with NEXMark's texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FullEvent {
    /// 1 of 50 events.
    Person(FullPerson),
    /// 3 of 50 events.
    Auction(FullAuction),
    /// 46 of 50 events.
    Bid(FullBid),
}

event_row!(FullEvent);

impl Event for FullEvent {
    type Text = String;
    type Profile = Profile;
    alike!(FullPerson, FullAuction, FullBid);

    #[inline(always)]
    fn generate(generator: &Generator, n: u64) -> Self {
        generator.full(n)
    }
    #[inline(always)]
    fn auction(&self) -> Option<Auction> {
        let FullEvent::Auction(FullAuction {
            id,
            seller,
            category,
            reserve,
            date_time,
            expires,
            ..
        }) = *self
        else {
            return None;
        };
        Some(Auction {
            id,
            seller,
            category,
            reserve,
            date_time,
            expires,
        })
    }
    #[inline(always)]
    fn q3_side(self) -> Option<JoinSide<Profile>> {
        match self {
            FullEvent::Person(FullPerson {
                id,
                name,
                city,
                state,
                date_time,
                ..
            }) if matches!(state.as_str(), "OR" | "ID" | "CA") => Some(JoinSide::Person {
                id,
                profile: Profile { name, city, state },
                date_time,
            }),
            FullEvent::Auction(FullAuction {
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
    fn q8_side(self) -> Option<JoinSide<String>> {
        match self {
            FullEvent::Person(FullPerson {
                id,
                name,
                date_time,
                ..
            }) => Some(JoinSide::Person {
                id,
                profile: name,
                date_time,
            }),
            FullEvent::Auction(FullAuction {
                id,
                seller,
                date_time,
                ..
            }) => Some(JoinSide::Auction {
                seller,
                id,
                date_time,
            }),
            FullEvent::Bid(_) => None,
        }
    }
}

impl WholeBid for FullBid {
    type Text = String;

    #[inline(always)]
    fn numbers(&self) -> Bid {
        Bid {
            auction: self.auction,
            bidder: self.bidder,
            price: self.price,
            date_time: self.date_time,
        }
    }
    #[inline(always)]
    fn with_price(self, price: u64) -> Self {
        FullBid { price, ..self }
    }
    fn into_channel(self) -> String {
        self.channel
    }
    fn channel_id(&self) -> Option<String> {
        let known = ["apple", "google", "facebook", "baidu"];
        if let Some(id) = known
            .iter()
            .position(|name| self.channel.eq_ignore_ascii_case(name))
        {
            return Some(id.to_string());
        }
        let (_, id) = self.url.split_once("channel_id=")?;
        Some(id.split('&').next().unwrap_or(id).to_owned())
    }
    fn folders(&self) -> [String; 3] {
        let mut parts = self.url.split('/').skip(3).map(str::to_owned);
        std::array::from_fn(|_| parts.next().unwrap_or_default())
    }
    fn into_extra(self) -> String {
        self.extra
    }
    fn count_c(&self) -> u64 {
        self.extra.bytes().filter(|letter| *letter == b'c').count() as u64
    }
}
