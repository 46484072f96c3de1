//! q3, q8, q20: events that meet by a key.

use super::panes::Panes;
use super::{BareQuery, FxMap};
use crate::answer_rows::{BidWithAuction, LocalAuction, NewSeller};
use crate::digest::RowSink;
use crate::events::{Auction, Event, JoinSide, Value, WholeBid};
use crate::rules::{Q20_CATEGORY, WINDOW};
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

/// q3: a person stays for ever; an auction waits only if its seller is not known yet. A person registers once, so no
/// pair can meet twice.
pub struct LocalSellers<P> {
    persons: FxMap<u64, P>,
    waiting: FxMap<u64, Vec<u64>>,
}

impl<P> Default for LocalSellers<P> {
    fn default() -> Self {
        LocalSellers {
            persons: FxMap::default(),
            waiting: FxMap::default(),
        }
    }
}

impl<P: Value> LocalSellers<P> {
    /// Takes in a person or an auction.
    #[inline(always)]
    pub fn add(&mut self, side: JoinSide<P>, sink: &mut RowSink) {
        match side {
            JoinSide::Person { id, profile, .. } => {
                for auction in self.waiting.remove(&id).unwrap_or_default() {
                    sink.emit(&LocalAuction {
                        profile: profile.clone(),
                        auction,
                    });
                }
                self.persons.insert(id, profile);
            }
            JoinSide::Auction { seller, id, .. } => match self.persons.get(&seller) {
                Some(profile) => sink.emit(&LocalAuction {
                    profile: profile.clone(),
                    auction: id,
                }),
                None => self.waiting.entry(seller).or_default().push(id),
            },
        }
    }
}

impl<E: Event> BareQuery<E> for LocalSellers<E::Profile> {
    #[inline(always)]
    fn on(&mut self, event: E, sink: &mut RowSink) {
        if let Some(side) = event.q3_side() {
            self.add(side, sink);
        }
    }
}

/// What a window of q8 knows.
struct Newcomers<T> {
    /// Who registered in the window, with the name until it is emitted.
    persons: FxMap<u64, Option<T>>,
    /// Who opened an auction in the window without having registered in it before.
    sellers: HashSet<u64, FxBuildHasher>,
}

impl<T> Default for Newcomers<T> {
    fn default() -> Self {
        Newcomers {
            persons: FxMap::default(),
            sellers: HashSet::default(),
        }
    }
}

/// q8: a row leaves as soon as both sides are there; the window's end only frees its memory.
pub struct NewSellers<T> {
    panes: Panes<WINDOW, Newcomers<T>>,
}

impl<T> Default for NewSellers<T> {
    fn default() -> Self {
        NewSellers {
            panes: Panes::default(),
        }
    }
}

impl<T: Value> NewSellers<T> {
    /// Takes in a person or an auction.
    #[inline(always)]
    pub fn add(&mut self, side: JoinSide<T>, sink: &mut RowSink) {
        let time = side.time();
        let window_start = time / WINDOW * WINDOW;
        let window = self.panes.at(time);
        match side {
            JoinSide::Person {
                id, profile: name, ..
            } => {
                if window.sellers.contains(&id) {
                    sink.emit(&NewSeller {
                        id,
                        name,
                        window_start,
                    });
                } else {
                    window.persons.insert(id, Some(name));
                }
            }
            JoinSide::Auction { seller: id, .. } => match window.persons.get_mut(&id) {
                Some(name) => {
                    if let Some(name) = name.take() {
                        sink.emit(&NewSeller {
                            id,
                            name,
                            window_start,
                        });
                    }
                }
                None => {
                    window.sellers.insert(id);
                }
            },
        }
    }
}

impl<E: Event> BareQuery<E> for NewSellers<E::Text> {
    #[inline(always)]
    fn on(&mut self, event: E, sink: &mut RowSink) {
        if let Some(side) = event.q8_side() {
            self.add(side, sink);
        }
    }
    #[inline(always)]
    fn next_firing(&self) -> u64 {
        self.panes.end()
    }
    fn fire(&mut self, watermark: u64, _: &mut RowSink) {
        while watermark >= self.panes.end() {
            let mut window = self.panes.pop();
            window.persons.clear();
            window.sellers.clear();
            self.panes.recycle(window);
        }
    }
}

/// q20: auctions of the category stay for ever, since NEXMark's join has no end.
#[derive(Default)]
pub struct BidsWithAuctions {
    auctions: FxMap<u64, Auction>,
}

impl<E: Event> BareQuery<E> for BidsWithAuctions {
    #[inline(always)]
    fn on(&mut self, event: E, sink: &mut RowSink) {
        if let Some(auction) = event.auction() {
            if auction.category == Q20_CATEGORY {
                self.auctions.insert(auction.id, auction);
            }
            return;
        }
        let Some(bid) = event.into_bid() else { return };
        let numbers = bid.numbers();
        let Some(auction) = self.auctions.get(&numbers.auction) else {
            return;
        };
        if numbers.date_time >= auction.date_time {
            sink.emit(&BidWithAuction {
                auction: numbers.auction,
                bidder: numbers.bidder,
                price: numbers.price,
                channel: bid.into_channel(),
                date_time: numbers.date_time,
                seller: auction.seller,
                category: auction.category,
                reserve: auction.reserve,
                expires: auction.expires,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, auction, bid, person};
    use super::*;

    #[test]
    fn q3_emits_a_pair_once_whichever_came_first() {
        let events = [
            auction(50, 1, 10, 0),
            person(1, 7, 3, 1),
            auction(51, 1, 10, 2),
            auction(52, 1, 11, 3),
            person(2, 8, 0, 4),
            auction(53, 2, 10, 5),
        ];
        assert_eq!(answer(LocalSellers::default(), &events), ["7,50", "7,51"]);
    }

    #[test]
    fn q8_emits_a_person_once_per_window_and_in_its_own_window_only() {
        let events = [
            auction(50, 2, 10, 0),
            person(1, 7, 3, 1),
            auction(51, 1, 10, 2),
            auction(52, 1, 11, 3),
            person(2, 8, 0, 4),
            person(3, 9, 0, 9_999),
            auction(53, 3, 10, 10_000),
            auction(54, 1, 10, 10_001),
        ];
        assert_eq!(answer(NewSellers::default(), &events), ["1,7,0", "2,8,0"]);
    }

    #[test]
    fn q20_joins_one_category() {
        let events = [
            auction(50, 2, 10, 5),
            auction(51, 2, 11, 5),
            bid(50, 1, 9, 6),
            bid(51, 1, 9, 6),
        ];
        assert_eq!(
            answer(BidsWithAuctions::default(), &events),
            ["50,1,9,2,6,2,10,1,10005"]
        );
    }
}
