//! The stream of the auction site, as a pure function of a seed and an event's number.
//!
//! Of each 50 events the first is a person, the next three are auctions and 46 are bids; 1,000 events share each
//! millisecond of event time, which starts at 0. So any part of the stream can be made anywhere, in any order and as
//! often as needed: sources split it by numbers, a restored source goes on from one, a second program checks the first.
//!
//! Keys have NEXMark's skew. Every second bid goes to the hot auction (the last whose number ends in 00), the others to
//! one of the last 100; three of four bids and auctions come from the hot person (again the last round number), the
//! others from one of the last 1,000. A bid names an auction and a person that came before it.

use crate::events::{
    Auction, Bid, Event, FullAuction, FullBid, FullEvent, FullPerson, LeanEvent, Person,
};
use crate::rules::{AUCTION_DURATION, FIRST_CATEGORY};
use std::sync::LazyLock;

/// Events that share a millisecond of event time.
pub const EVENTS_PER_MS: u64 = 1_000;
/// A round of events: one person, three auctions, then bids.
pub const ROUND: u64 = 50;
const AUCTIONS_PER_ROUND: u64 = 3;
/// Ids start here.
pub const FIRST_ID: u64 = 1_000;
const CATEGORIES: u64 = 5;
const ACTIVE_PERSONS: u64 = 1_000;
const ACTIVE_AUCTIONS: u64 = 100;
const HOT_STEP: u64 = 100;

const STATES: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CITIES: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const FIRST_NAMES: [&str; 11] = [
    "Peter", "Paul", "Luke", "John", "Saul", "Vicky", "Kate", "Julie", "Sarah", "Deiter", "Walter",
];
const LAST_NAMES: [&str; 9] = [
    "Shultz", "Abrams", "Spencer", "White", "Bartels", "Walton", "Smith", "Jones", "Noris",
];
const CHANNELS: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];
const URL: &str = "https://www.nexmark.com/";
const PAGE: &str = "item.htm?query=1";

/// 100 to 100,000,000, evenly on a logarithmic scale. `powf` may differ in the last bit between machines: hence integers.
static PRICES: LazyLock<[u64; 4096]> =
    LazyLock::new(|| std::array::from_fn(|i| (10f64.powf(i as f64 / 4096.0 * 6.0) * 100.0) as u64));
/// Random letters, from which texts are cut.
static LETTERS: LazyLock<String> = LazyLock::new(|| {
    (0..8192)
        .map(|i| char::from(b'a' + (scramble(i) % 26) as u8))
        .collect()
});

/// A well-mixed function of a number (the output function of splitmix64).
#[inline(always)]
fn scramble(x: u64) -> u64 {
    let mut z = x.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A second random word from the first, for less than the first cost.
#[inline(always)]
fn second(random: u64) -> u64 {
    random.rotate_left(23).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Maps 32 random bits to `0..n` without a division.
#[inline(always)]
fn below(random: u32, n: u64) -> u64 {
    (u64::from(random) * n) >> 32
}

/// The number (not the id) of the last auction that has opened when event `n` happens.
#[inline(always)]
fn last_auction(n: u64) -> u64 {
    (n / ROUND * AUCTIONS_PER_ROUND + (n % ROUND).min(AUCTIONS_PER_ROUND)).saturating_sub(1)
}

#[inline(always)]
fn pick_auction(n: u64, random: u64) -> u64 {
    let last = last_auction(n);
    if random & 1 != 0 {
        return last / HOT_STEP * HOT_STEP + FIRST_ID;
    }
    let active = (last + 1).min(ACTIVE_AUCTIONS);
    last + 1 - active + below((random >> 32) as u32, active) + FIRST_ID
}

#[inline(always)]
fn pick_person(n: u64, random: u64) -> u64 {
    let last = n / ROUND;
    if random & 3 != 0 {
        return last / HOT_STEP * HOT_STEP + FIRST_ID;
    }
    let active = (last + 1).min(ACTIVE_PERSONS);
    last + 1 - active + below((random >> 32) as u32, active) + FIRST_ID
}

/// Makes the events of one seed. Cheap to copy: each subtask and each loop holds its own.
#[derive(Clone, Copy, Debug)]
pub struct Generator {
    offset: u64,
    prices: &'static [u64; 4096],
    letters: &'static str,
}

impl Generator {
    /// The stream of `seed`.
    pub fn new(seed: u64) -> Self {
        Generator {
            offset: scramble(seed),
            prices: &PRICES,
            letters: &LETTERS,
        }
    }

    /// Event number `n`.
    #[inline(always)]
    pub fn event<E: Event>(&self, n: u64) -> E {
        E::generate(self, n)
    }

    /// The event time of event number `n`.
    #[inline(always)]
    pub fn time(n: u64) -> u64 {
        n / EVENTS_PER_MS
    }

    #[inline(always)]
    fn random(&self, n: u64) -> u64 {
        scramble(n.wrapping_add(self.offset))
    }

    #[inline(always)]
    fn price(&self, random: u64) -> u64 {
        self.prices[(random >> 8) as usize & 4095]
    }

    #[inline(always)]
    fn person(&self, n: u64) -> Person {
        let random = self.random(n);
        Person {
            id: n / ROUND + FIRST_ID,
            city: below(random as u32, CITIES.len() as u64),
            state: below((random >> 32) as u32, STATES.len() as u64),
            date_time: Self::time(n),
        }
    }

    #[inline(always)]
    fn auction(&self, n: u64) -> Auction {
        let random = self.random(n);
        let other = second(random);
        Auction {
            id: last_auction(n) + FIRST_ID,
            seller: pick_person(n, other),
            category: FIRST_CATEGORY + (random >> 16) % CATEGORIES,
            reserve: self.price(other),
            date_time: Self::time(n),
            expires: Self::time(n) + AUCTION_DURATION,
        }
    }

    #[inline(always)]
    fn bid(&self, n: u64) -> Bid {
        let random = self.random(n);
        let other = second(random);
        Bid {
            auction: pick_auction(n, random),
            bidder: pick_person(n, other),
            price: self.price(other),
            date_time: Self::time(n),
        }
    }

    /// Event number `n` in numbers.
    #[inline(always)]
    pub fn lean(&self, n: u64) -> LeanEvent {
        match n % ROUND {
            0 => LeanEvent::Person(self.person(n)),
            1..=AUCTIONS_PER_ROUND => LeanEvent::Auction(self.auction(n)),
            _ => LeanEvent::Bid(self.bid(n)),
        }
    }

    /// Event number `n` with texts; its numbers are those of [`Generator::lean`].
    #[inline(always)]
    pub fn full(&self, n: u64) -> FullEvent {
        let random = scramble(self.random(n));
        match n % ROUND {
            0 => FullEvent::Person(self.full_person(self.person(n), random)),
            1..=AUCTIONS_PER_ROUND => {
                FullEvent::Auction(self.full_auction(self.auction(n), random))
            }
            _ => FullEvent::Bid(self.full_bid(self.bid(n), random)),
        }
    }

    /// A piece of the random letters: 4,096 places to begin, at most 4,096 long.
    #[inline(always)]
    fn letters(&self, random: u64, length: usize) -> &'static str {
        let from = random as usize & 4095;
        &self.letters[from..from + length]
    }

    fn full_person(&self, person: Person, random: u64) -> FullPerson {
        let first = FIRST_NAMES[(random % 11) as usize];
        let last = LAST_NAMES[((random >> 8) % 9) as usize];
        let mut credit_card = String::with_capacity(19);
        for group in 0..4 {
            if group > 0 {
                credit_card.push(' ');
            }
            push_decimal(&mut credit_card, 1000 + (random >> (group * 12)) % 9000);
        }
        FullPerson {
            id: person.id,
            name: [first, " ", last].concat(),
            email: [
                self.letters(random >> 4, 7),
                "@",
                self.letters(random >> 20, 5),
                ".com",
            ]
            .concat(),
            credit_card,
            city: CITIES[person.city as usize].to_owned(),
            state: STATES[person.state as usize].to_owned(),
            date_time: person.date_time,
            extra: self
                .letters(random >> 30, 100 + (random & 63) as usize)
                .to_owned(),
        }
    }

    fn full_auction(&self, auction: Auction, random: u64) -> FullAuction {
        FullAuction {
            id: auction.id,
            item_name: self
                .letters(random, 10 + (random >> 50 & 7) as usize)
                .to_owned(),
            description: self
                .letters(random >> 10, 40 + (random >> 40 & 63) as usize)
                .to_owned(),
            initial_bid: auction.reserve / 2,
            reserve: auction.reserve,
            date_time: auction.date_time,
            expires: auction.expires,
            seller: auction.seller,
            category: auction.category,
            extra: self
                .letters(random >> 24, 280 + (random & 127) as usize)
                .to_owned(),
        }
    }

    /// Half of the bids come through one of four well-known channels, half through one of 8,192 others, whose number
    /// stands in the url.
    #[inline(always)]
    fn full_bid(&self, bid: Bid, random: u64) -> FullBid {
        let known = random & 1 == 0;
        let id = if known {
            random >> 1 & 3
        } else {
            random >> 3 & 8191
        };
        let mut url = String::with_capacity(80);
        url.push_str(URL);
        for folder in 0..3 {
            url.push_str(self.letters(id + folder * 5, 5));
            url.push('/');
        }
        url.push_str(PAGE);
        let channel = if known {
            CHANNELS[id as usize].to_owned()
        } else {
            let mut channel = String::with_capacity(12);
            channel.push_str("channel-");
            push_decimal(&mut channel, id);
            url.push_str("&channel_id=");
            push_decimal(&mut url, id);
            channel
        };
        FullBid {
            auction: bid.auction,
            bidder: bid.bidder,
            price: bid.price,
            channel,
            url,
            date_time: bid.date_time,
            extra: self
                .letters(random >> 20, 8 + (random >> 56 & 15) as usize)
                .to_owned(),
        }
    }
}

/// Appends a number below 10,000.
#[inline(always)]
fn push_decimal(text: &mut String, number: u64) {
    let mut unit = 1000;
    while unit > 1 && number < unit {
        unit /= 10;
    }
    while unit > 0 {
        text.push(char::from(b'0' + (number / unit % 10) as u8));
        unit /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Row;

    #[test]
    fn an_event_depends_on_seed_and_number_alone() {
        let (one, again, other) = (Generator::new(1), Generator::new(1), Generator::new(2));
        for n in (0..100_000).rev().step_by(7) {
            assert_eq!(one.full(n), again.full(n));
        }
        assert!((4..50).any(|n| one.lean(n) != other.lean(n)));
    }

    #[test]
    fn proportions_and_time() {
        let generator = Generator::new(0);
        let mut counts = [0; 3];
        for n in 0..50_000 {
            let event: LeanEvent = generator.event(n);
            counts[event.table().0 as usize] += 1;
            assert_eq!(event.time(), n / 1000);
        }
        assert_eq!(counts, [1_000, 3_000, 46_000]);
    }

    #[test]
    fn ids_count_up_and_references_point_back() {
        let generator = Generator::new(3);
        let (mut persons, mut auctions) = (FIRST_ID, FIRST_ID);
        for n in 0..200_000 {
            match generator.lean(n) {
                LeanEvent::Person(person) => {
                    assert_eq!(person.id, persons);
                    persons += 1;
                }
                LeanEvent::Auction(auction) => {
                    assert_eq!(auction.id, auctions);
                    assert!(auction.seller < persons);
                    assert_eq!(auction.expires, auction.date_time + 10_000);
                    auctions += 1;
                }
                LeanEvent::Bid(bid) => assert!(bid.auction < auctions && bid.bidder < persons),
            }
        }
    }

    #[test]
    fn both_sizes_agree_in_numbers_and_texts_are_as_the_queries_read_them() {
        use crate::events::WholeBid;
        let generator = Generator::new(5);
        for n in 0..10_000 {
            let (lean, full) = (generator.lean(n), generator.full(n));
            assert_eq!(lean.bid(), full.bid());
            assert_eq!(lean.auction(), full.auction());
            assert_eq!(lean.time(), full.time());
            let Some(bid) = full.into_bid() else { continue };
            let id = bid.channel_id().expect("every channel has an id");
            assert!(
                CHANNELS.contains(&bid.channel.as_str()) || bid.channel == format!("channel-{id}")
            );
            assert!(bid.folders().iter().all(|folder| folder.len() == 5));
            assert_eq!(bid.csv().split(',').count(), 7);
        }
    }

    #[test]
    fn decimals() {
        for number in [0, 7, 10, 99, 100, 8191, 9999] {
            let mut text = String::new();
            push_decimal(&mut text, number);
            assert_eq!(text, number.to_string());
        }
    }
}
