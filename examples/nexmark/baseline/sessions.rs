//! q11: bids per bidder and session.

use super::panes::Panes;
use super::{BareQuery, FxMap};
use crate::answer_rows::BidderSession;
use crate::digest::RowSink;
use crate::events::Event;
use crate::rules::SESSION_GAP;

/// How often sessions are looked through. A session may so be emitted a second late; its row does not change by that.
const TICK: u64 = 1_000;

struct Session {
    start: u64,
    last: u64,
    bids: u64,
}

impl Session {
    fn emit(&self, bidder: u64, sink: &mut RowSink) {
        sink.emit(&BidderSession {
            bidder,
            start: self.start,
            end: self.last + SESSION_GAP,
            bids: self.bids,
        });
    }
}

/// Open sessions, and when to look at each again: a bid does not move its session's timer, the timer that comes too
/// early moves itself.
#[derive(Default)]
pub struct BidderSessions {
    open: FxMap<u64, Session>,
    timers: Panes<TICK, Vec<u64>>,
}

impl<E: Event> BareQuery<E> for BidderSessions {
    #[inline(always)]
    fn on(&mut self, event: E, sink: &mut RowSink) {
        let Some(bid) = event.bid() else { return };
        let time = bid.date_time;
        let mut opened = false;
        let session = self.open.entry(bid.bidder).or_insert_with(|| {
            opened = true;
            Session {
                start: time,
                last: time,
                bids: 0,
            }
        });
        if time > session.last + SESSION_GAP {
            session.emit(bid.bidder, sink);
            *session = Session {
                start: time,
                last: time,
                bids: 0,
            };
        }
        session.last = time;
        session.bids += 1;
        if opened {
            self.timers.at(time + SESSION_GAP).push(bid.bidder);
        }
    }

    #[inline(always)]
    fn next_firing(&self) -> u64 {
        self.timers.end()
    }

    fn fire(&mut self, watermark: u64, sink: &mut RowSink) {
        while watermark >= self.timers.end() {
            let mut due = self.timers.pop();
            for bidder in due.drain(..) {
                let Some(session) = self.open.get(&bidder) else {
                    continue;
                };
                let closes = session.last + SESSION_GAP;
                if closes < watermark {
                    session.emit(bidder, sink);
                    self.open.remove(&bidder);
                } else {
                    let again = closes.max(self.timers.start());
                    self.timers.at(again).push(bidder);
                }
            }
            self.timers.recycle(due);
        }
    }

    fn end(&mut self, sink: &mut RowSink) {
        for (bidder, session) in self.open.drain() {
            session.emit(bidder, sink);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{answer, bid};
    use super::*;

    #[test]
    fn a_session_lasts_while_bids_come_within_the_gap() {
        let events = [
            bid(1, 1, 1, 0),
            bid(1, 2, 1, 500),
            bid(1, 1, 1, 10_000), // exactly the gap: still the same session
            bid(1, 1, 1, 20_001), // one more: another
            bid(1, 3, 1, 60_000),
            bid(1, 2, 1, 60_000),
        ];
        let expected = [
            "1,0,20000,2",
            "1,20001,30001,1",
            "2,500,10500,1",
            "2,60000,70000,1",
            "3,60000,70000,1",
        ];
        assert_eq!(answer(BidderSessions::default(), &events), expected);
    }
}
