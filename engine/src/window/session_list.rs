//! The sessions of one key: disjoint stretches of time, in order.
//!
//! Nearly always a record extends the key's newest session, and most keys have no other. So that one
//! stands inline and is tried first; the others wait in a queue that takes no memory while empty.

use super::{TimeWindow, Windowed};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ops::Range;

/// A session with its accumulator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LiveSession<A> {
    pub start: i64,
    /// The first moment at which it no longer grows by a record: the last record's time plus gap.
    pub end: i64,
    /// Where its entry in the due queue stands.
    pub due: i64,
    /// Whether its result was emitted, so that it only lingers for late records.
    pub fired: bool,
    pub acc: A,
}

/// What is to be done with a session that was given a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// Nothing: its entry comes in time.
    Waits,
    /// Time has passed it already: its result is to be emitted now.
    Emit,
    /// It lives again and its entry comes too late: it needs one at this time.
    Enter(i64),
}

impl<A> LiveSession<A> {
    /// A new session, due when it ends.
    pub fn new(window: TimeWindow, acc: A) -> Self {
        let (start, end) = (window.start.0, window.end.0);
        LiveSession {
            start,
            end,
            due: end - 1,
            fired: false,
            acc,
        }
    }

    /// Takes in a session that comes next in time.
    fn absorb(&mut self, next: &LiveSession<A>, merge: impl Fn(&mut A, &A)) {
        merge(&mut self.acc, &next.acc);
        self.cover(next.window());
        self.due = self.due.min(next.due);
        self.fired |= next.fired;
    }

    pub fn window(&self) -> TimeWindow {
        TimeWindow {
            start: Timestamp(self.start),
            end: Timestamp(self.end),
        }
    }

    pub fn windowed<K, V>(&self, key: K, value: V) -> Windowed<K, V> {
        Windowed {
            key,
            window: self.window(),
            value,
        }
    }

    #[inline(always)]
    pub fn cover(&mut self, window: TimeWindow) {
        self.start = self.start.min(window.start.0);
        self.end = self.end.max(window.end.0);
    }

    /// Its entry has come due: when it is due next, not later than now where it is over; and whether it is
    /// to be emitted.
    #[inline]
    pub fn comes_due(&mut self, now: i64, lateness: i64) -> (i64, bool) {
        let last = self.end - 1;
        let fires = !self.fired && last <= now;
        self.fired |= fires;
        let next = match self.fired {
            true => last.saturating_add(lateness),
            false => last,
        };
        if next > now {
            self.due = next;
        }
        (next, fires)
    }

    /// `passed` is the greatest end that time has passed.
    pub fn settle(&mut self, passed: i64) -> Settled {
        if self.end <= passed {
            self.fired = true;
            return Settled::Emit;
        }
        self.fired = false;
        if self.due < self.end {
            return Settled::Waits;
        }
        self.due = self.end - 1;
        Settled::Enter(self.due)
    }
}

/// The sessions of one key; at least one. Their ends ascend, and so do their starts, except that
/// those which end at or before `gone` count as removed and may overlap with living ones.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeySessions<A> {
    pub last: LiveSession<A>,
    earlier: VecDeque<LiveSession<A>>,
}

impl<A> KeySessions<A> {
    pub fn new(session: LiveSession<A>) -> Self {
        KeySessions {
            last: session,
            earlier: VecDeque::new(),
        }
    }

    /// The newest session, if `window` touches it and no other.
    #[inline(always)]
    pub fn only_last(&mut self, window: TimeWindow, gone: i64) -> Option<&mut LiveSession<A>> {
        let (start, end) = (window.start.0, window.end.0);
        let last = &mut self.last;
        let touches = start <= last.end && last.start <= end && last.end > gone;
        let before = self.earlier.back().map_or(i64::MIN, |session| session.end);
        (touches && (before < start || before <= gone)).then_some(last)
    }

    /// Adds a stretch of time and merges all sessions that it touches. Says where the session stands
    /// by then; `make` makes its accumulator where it is a new one.
    pub fn insert(
        self,
        window: TimeWindow,
        gone: i64,
        make: impl FnOnce() -> A,
        merge: impl Fn(&mut A, &A),
    ) -> (Self, Inserted) {
        let mut list = self.earlier;
        list.push_back(self.last);
        let touched = touching(&list, window, gone);
        let inserted = if touched.is_empty() {
            // Among removed ones it stands by its end.
            let at = list.partition_point(|session| session.end <= window.end.0);
            list.insert(at, LiveSession::new(window, make()));
            Inserted {
                at,
                swallowed: None,
            }
        } else {
            let (at, first) = (touched.start, &mut list[touched.start]);
            first.cover(window);
            for _ in 1..touched.len() {
                let next = list.remove(at + 1).expect("what is touched is in the list");
                list[at].absorb(&next, &merge);
            }
            Inserted {
                at,
                swallowed: Some(touched.len() - 1),
            }
        };
        let last = list.pop_back().expect("one was inserted");
        (
            KeySessions {
                last,
                earlier: list,
            },
            inserted,
        )
    }

    /// Whether a stretch of time touches no session, so that it would be one of its own.
    pub fn stands_alone(&self, window: TimeWindow, gone: i64) -> bool {
        let last = &self.last;
        let apart = last.end <= gone || window.start.0 > last.end || last.start > window.end.0;
        apart && touching(&self.earlier, window, gone).is_empty()
    }

    /// The session at a place.
    pub fn at(&mut self, at: usize) -> &mut LiveSession<A> {
        self.earlier.get_mut(at).unwrap_or(&mut self.last)
    }

    /// The place of a session whose entry stands at `due`.
    pub fn find_due(&self, due: i64) -> Option<usize> {
        self.iter().position(|session| session.due == due)
    }

    /// All sessions, in order.
    pub fn iter(&self) -> impl Iterator<Item = &LiveSession<A>> {
        self.earlier.iter().chain(std::iter::once(&self.last))
    }

    /// Removes a session; false where it was the only one, which stays for the caller to drop.
    pub fn remove(&mut self, at: usize) -> bool {
        if at < self.earlier.len() {
            self.earlier.remove(at);
            return true;
        }
        match self.earlier.pop_back() {
            Some(before) => {
                self.last = before;
                true
            }
            None => false,
        }
    }
}

/// Where a stretch of time went.
#[derive(Debug)]
pub(super) struct Inserted {
    pub at: usize,
    /// How many other sessions that one took in; `None` where it is a new one.
    pub swallowed: Option<usize>,
}

/// The sessions that a stretch of time touches, without those that are gone.
fn touching<A>(list: &VecDeque<LiveSession<A>>, window: TimeWindow, gone: i64) -> Range<usize> {
    let first = list.partition_point(|s| s.end < window.start.0 || s.end <= gone);
    let touched = list
        .range(first..)
        .take_while(|s| s.start <= window.end.0)
        .count();
    first..first + touched
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: i64, end: i64) -> TimeWindow {
        TimeWindow::new(start, end)
    }

    fn list(windows: &[(i64, i64)], gone: i64) -> Vec<(i64, i64)> {
        let session = |(start, end)| LiveSession::new(window(start, end), 1u32);
        let mut sessions = KeySessions::new(session(windows[0]));
        for (start, end) in &windows[1..] {
            let merge = |into: &mut u32, other: &u32| *into += other;
            sessions = sessions.insert(window(*start, *end), gone, || 1, merge).0;
        }
        sessions.iter().map(|s| (s.start, s.end)).collect()
    }

    #[test]
    fn touching_sessions_merge_and_others_stay_in_order() {
        assert_eq!(
            list(&[(50, 60), (10, 20), (30, 40)], 0),
            [(10, 20), (30, 40), (50, 60)]
        );
        assert_eq!(
            list(&[(10, 20), (20, 30)], 0),
            [(10, 30)],
            "touching at the end"
        );
        assert_eq!(list(&[(10, 20), (21, 30)], 0), [(10, 20), (21, 30)]);
        assert_eq!(
            list(&[(10, 20), (30, 40), (50, 60), (15, 55)], 0),
            [(10, 60)]
        );
    }

    #[test]
    fn what_is_gone_takes_no_part() {
        assert_eq!(list(&[(10, 20), (15, 30)], 20), [(10, 20), (15, 30)]);
    }

    #[test]
    fn removal_leaves_the_rest_and_the_last_one_to_the_caller() {
        let mut sessions = KeySessions::new(LiveSession::new(window(0, 5), ()));
        sessions = sessions.insert(window(10, 15), 0, || (), |_, _| ()).0;
        assert!(sessions.remove(1));
        assert_eq!(sessions.last.start, 0);
        assert!(!sessions.remove(0));
    }
}
