//! The events of the auction site: a person registers, an auction opens, a bid is made.
//!
//! They come in two sizes. Lean events are numbers alone: with them a run measures the engine. Full events carry
//! NEXMark's texts as well: with them it measures what moving and freeing real records costs. Queries are written once,
//! over the trait [`Event`]; where NEXMark reads a text, a lean event offers a number in its place.

use crate::digest::{Field, Row};
use crate::generator::Generator;
use crate::rows;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt::Debug;
use std::hash::Hash;

rows! {
    /// Someone who sells and bids. City and state are indexes into the generator's lists.
    #[derive(Clone, Copy)]
    Person { id: u64, city: u64, state: u64, date_time: u64 }

    /// Something for sale until `expires`.
    #[derive(Clone, Copy)]
    Auction { id: u64, seller: u64, category: u64, reserve: u64, date_time: u64, expires: u64 }

    /// An offer, as a lean event and as the numbers of a full one.
    #[derive(Clone, Copy)]
    Bid { auction: u64, bidder: u64, price: u64, date_time: u64 }
}

/// One side of a join of persons (by id) with auctions (by seller).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinSide<P> {
    /// A person, with what the answer tells of it.
    Person {
        /// Its id, the key.
        id: u64,
        /// What the answer tells of it.
        profile: P,
        /// When it registered.
        date_time: u64,
    },
    /// An auction.
    Auction {
        /// Its seller, the key.
        seller: u64,
        /// Its id.
        id: u64,
        /// When it opened.
        date_time: u64,
    },
}

impl<P> JoinSide<P> {
    /// The person on which the sides meet.
    #[allow(
        dead_code,
        reason = "the bare loops match on the sides; jobs key by this"
    )]
    #[inline(always)]
    pub fn key(&self) -> u64 {
        match self {
            JoinSide::Person { id, .. } => *id,
            JoinSide::Auction { seller, .. } => *seller,
        }
    }

    /// The event time.
    #[inline(always)]
    pub fn time(&self) -> u64 {
        match self {
            JoinSide::Person { date_time, .. } | JoinSide::Auction { date_time, .. } => *date_time,
        }
    }
}

/// What may stand in a row and in state: the bounds that the engine asks of a value.
pub trait Value:
    Field + Clone + Debug + Eq + Hash + Ord + Serialize + DeserializeOwned + Send + Sync + 'static
{
}

impl<
    T: Field + Clone + Debug + Eq + Hash + Ord + Serialize + DeserializeOwned + Send + Sync + 'static,
> Value for T
{
}

/// An event in either size. All times are milliseconds since the start of the stream.
pub trait Event:
    Row + Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// What NEXMark holds in a text: `String`, or the number that stands for it in a lean event.
    type Text: Value;
    /// What q3 tells of a person.
    type Profile: Value;
    /// A whole bid.
    type Bid: WholeBid<Text = Self::Text>;

    /// The event number `n`: a pure function of the generator's seed and `n`.
    fn generate(generator: &Generator, n: u64) -> Self;
    /// The event time.
    fn time(&self) -> u64;
    /// The numbers of a bid.
    fn bid(&self) -> Option<Bid>;
    /// The numbers of an auction.
    fn auction(&self) -> Option<Auction>;
    /// The whole of a bid.
    fn into_bid(self) -> Option<Self::Bid>;
    /// For q3: persons of Oregon, Idaho and California, and auctions of category 10.
    fn q3_side(self) -> Option<JoinSide<Self::Profile>>;
    /// For q8: persons with their names, and auctions. A lean person's city stands for the name.
    fn q8_side(self) -> Option<JoinSide<Self::Text>>;
    /// The event as a line of `persons.csv`, `auctions.csv` or `bids.csv`.
    fn table(&self) -> (Table, String);
    /// The headers of these files, in the order of [`Table`].
    fn table_headers() -> [String; 3];
}

/// Which kind of event, and so which file of the CSV output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// `persons.csv`
    Persons,
    /// `auctions.csv`
    Auctions,
    /// `bids.csv`
    Bids,
}

/// A whole bid, with what NEXMark reads from its texts.
pub trait WholeBid:
    Row + Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static
{
    /// As in [`Event`].
    type Text: Value;

    /// The numbers.
    fn numbers(&self) -> Bid;
    /// The same bid at another price.
    fn with_price(self, price: u64) -> Self;
    /// The channel through which the bid came; lean: `auction % 4`.
    fn into_channel(self) -> Self::Text;
    /// q21: the number of a well-known channel, else what the url says after `channel_id=`. Lean: the channel if the
    /// auction is even, else `bidder % 8192`.
    fn channel_id(&self) -> Option<Self::Text>;
    /// q22: the three folders of the url; lean: the decimal digits of the auction in groups of three.
    fn folders(&self) -> [Self::Text; 3];
    /// q14: what else the bid says; lean: 0.
    fn into_extra(self) -> Self::Text;
    /// q14: how often the letter `c` stands in it; lean: 0.
    fn count_c(&self) -> u64;
}

/// The methods of [`Event`] that read alike in both sizes; stands inside the `impl`.
macro_rules! alike {
    ($person:ty, $auction:ty, $bid:ty) => {
        type Bid = $bid;

        #[inline(always)]
        fn time(&self) -> u64 {
            match self {
                Self::Person(person) => person.date_time,
                Self::Auction(auction) => auction.date_time,
                Self::Bid(bid) => bid.date_time,
            }
        }
        #[inline(always)]
        fn bid(&self) -> Option<Bid> {
            if let Self::Bid(bid) = self {
                Some(bid.numbers())
            } else {
                None
            }
        }
        #[inline(always)]
        fn into_bid(self) -> Option<$bid> {
            if let Self::Bid(bid) = self {
                Some(bid)
            } else {
                None
            }
        }
        fn table(&self) -> (Table, String) {
            match self {
                Self::Person(person) => (Table::Persons, person.csv()),
                Self::Auction(auction) => (Table::Auctions, auction.csv()),
                Self::Bid(bid) => (Table::Bids, bid.csv()),
            }
        }
        fn table_headers() -> [String; 3] {
            [<$person>::header(), <$auction>::header(), <$bid>::header()]
        }
    };
}

/// The row that an event is in the answer of q0.
macro_rules! event_row {
    ($name:ty) => {
        impl Row for $name {
            #[inline(always)]
            fn mix(&self, mix: Mix) -> Mix {
                match self {
                    Self::Person(person) => person.mix(mix.word(1)),
                    Self::Auction(auction) => auction.mix(mix.word(2)),
                    Self::Bid(bid) => bid.mix(mix.word(3)),
                }
            }
            fn csv(&self) -> String {
                match self {
                    Self::Person(person) => format!("person,{}", person.csv()),
                    Self::Auction(auction) => format!("auction,{}", auction.csv()),
                    Self::Bid(bid) => format!("bid,{}", bid.csv()),
                }
            }
            fn header() -> String {
                "kind,fields as in persons.csv auctions.csv bids.csv".to_owned()
            }
        }
    };
}

mod full;
mod lean;

pub use full::{FullAuction, FullBid, FullEvent, FullPerson};
pub use lean::LeanEvent;
