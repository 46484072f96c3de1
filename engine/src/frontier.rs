//! Combines the watermarks of many channels into one that never goes back.
//!
//! A subtask may act on event time only as far as its slowest channel has come. The frontier keeps
//! the least watermark of the channels that are neither idle nor ended. It remembers how many
//! channels stand at that least value, so an update elsewhere costs O(1), and a scan happens only
//! when the last channel leaves it.

use crate::time::Timestamp;

/// What a single event changed for the whole frontier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrontierChange {
    /// The combined watermark rose to this value. If the frontier was idle, it no longer is.
    Advanced(Timestamp),
    /// Every channel that has not ended is idle: downstream should stop waiting for this subtask.
    Idle,
    /// A channel woke an idle frontier, and the combined watermark stays where it was.
    Active,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Active,
    Idle,
    Ended,
}

#[derive(Debug, Clone, Copy)]
struct Channel {
    watermark: Timestamp,
    phase: Phase,
}

/// The combined watermark of channels numbered from zero.
///
/// ```
/// use tidegate_engine::frontier::{FrontierChange, WatermarkFrontier};
/// use tidegate_engine::time::Timestamp;
///
/// let mut frontier = WatermarkFrontier::new(2);
/// assert_eq!(frontier.update(0, Timestamp(50)), None);
/// assert_eq!(frontier.update(1, Timestamp(30)), Some(FrontierChange::Advanced(Timestamp(30))));
/// assert_eq!(frontier.idle(1), Some(FrontierChange::Advanced(Timestamp(50))));
/// ```
#[derive(Debug, Clone)]
pub struct WatermarkFrontier {
    channels: Vec<Channel>,
    /// What was announced last; never goes back.
    current: Timestamp,
    /// The least watermark of the active channels; meaningless while there are none.
    least: Timestamp,
    at_least: usize,
    active: usize,
    ended: usize,
}

impl WatermarkFrontier {
    /// A frontier over `channels` active channels that have said nothing yet.
    pub fn new(channels: usize) -> Self {
        let silent = Channel {
            watermark: Timestamp::MIN,
            phase: Phase::Active,
        };
        Self {
            channels: vec![silent; channels],
            current: Timestamp::MIN,
            least: Timestamp::MIN,
            at_least: channels,
            active: channels,
            ended: 0,
        }
    }

    /// Adds an active channel that has said nothing yet, and returns its number. It holds the
    /// combined watermark where it is until it has caught up.
    pub fn add_channel(&mut self) -> usize {
        self.channels.push(Channel {
            watermark: Timestamp::MIN,
            phase: Phase::Active,
        });
        self.join(Timestamp::MIN);
        self.channels.len() - 1
    }

    /// Channel `ch` promises that no record at or before `watermark` follows. An idle channel
    /// becomes active by it; an ended channel, a value that goes back, and an unknown channel
    /// change nothing. [`Timestamp::MAX`] promises that no record follows at all, and is the channel's
    /// end: the combined watermark comes there only when every channel has, so that an idle one may
    /// still bring records.
    pub fn update(&mut self, ch: usize, watermark: Timestamp) -> Option<FrontierChange> {
        if watermark == Timestamp::MAX {
            return self.end(ch);
        }
        let was_idle = self.is_idle();
        let channel = self.channels.get_mut(ch)?;
        let before = channel.watermark;
        channel.watermark = before.max(watermark);
        let now = channel.watermark;
        match channel.phase {
            Phase::Ended => return None,
            Phase::Idle => {
                channel.phase = Phase::Active;
                self.join(now);
            }
            Phase::Active if now == before || before != self.least => return None,
            Phase::Active => self.leave_least(),
        }
        self.settle(was_idle)
    }

    /// Channel `ch` has nothing to say for now, and must not hold the others back.
    pub fn idle(&mut self, ch: usize) -> Option<FrontierChange> {
        self.retire(ch, Phase::Idle)
    }

    /// Channel `ch` speaks again, at the watermark it had. It may hold the combined watermark
    /// where it is, but never pulls it back.
    pub fn active(&mut self, ch: usize) -> Option<FrontierChange> {
        let was_idle = self.is_idle();
        let channel = self.channels.get_mut(ch)?;
        if channel.phase != Phase::Idle {
            return None;
        }
        channel.phase = Phase::Active;
        let watermark = channel.watermark;
        self.join(watermark);
        self.settle(was_idle)
    }

    /// Channel `ch` is complete. After the last one the combined watermark is [`Timestamp::MAX`].
    pub fn end(&mut self, ch: usize) -> Option<FrontierChange> {
        self.retire(ch, Phase::Ended)
    }

    /// The combined watermark announced last; [`Timestamp::MIN`] at first.
    pub fn current(&self) -> Timestamp {
        self.current
    }

    /// Whether every channel that has not ended is idle.
    pub fn is_idle(&self) -> bool {
        self.active == 0 && self.ended < self.channels.len()
    }

    /// Whether all channels have ended.
    pub fn is_ended(&self) -> bool {
        !self.channels.is_empty() && self.ended == self.channels.len()
    }

    /// The number of channels, ended ones included.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    fn retire(&mut self, ch: usize, phase: Phase) -> Option<FrontierChange> {
        let was_idle = self.is_idle();
        let channel = self.channels.get_mut(ch)?;
        let before = channel.phase;
        if before == phase || before == Phase::Ended {
            return None;
        }
        channel.phase = phase;
        let watermark = channel.watermark;
        self.ended += usize::from(phase == Phase::Ended);
        if before == Phase::Active {
            self.active -= 1;
            if watermark == self.least {
                self.leave_least();
            }
        }
        self.settle(was_idle)
    }

    /// Counts in a channel that has just become active at `watermark`.
    fn join(&mut self, watermark: Timestamp) {
        self.active += 1;
        if self.active == 1 || watermark < self.least {
            self.least = watermark;
            self.at_least = 1;
        } else if watermark == self.least {
            self.at_least += 1;
        }
    }

    /// Counts out a channel that stood at the least value; the last one to leave pays for a scan.
    fn leave_least(&mut self) {
        self.at_least -= 1;
        if self.at_least > 0 {
            return;
        }
        self.least = Timestamp::MAX;
        for channel in self.channels.iter().filter(|c| c.phase == Phase::Active) {
            if channel.watermark < self.least {
                self.least = channel.watermark;
                self.at_least = 1;
            } else if channel.watermark == self.least {
                self.at_least += 1;
            }
        }
    }

    fn settle(&mut self, was_idle: bool) -> Option<FrontierChange> {
        if self.is_idle() {
            return (!was_idle).then_some(FrontierChange::Idle);
        }
        let target = if self.is_ended() {
            Timestamp::MAX
        } else {
            self.least
        };
        if target > self.current {
            self.current = target;
            return Some(FrontierChange::Advanced(target));
        }
        (was_idle && !self.is_ended()).then_some(FrontierChange::Active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(ms: i64) -> Option<FrontierChange> {
        Some(FrontierChange::Advanced(Timestamp(ms)))
    }

    #[test]
    fn the_last_watermark_waits_for_idle_channels() {
        let mut f = WatermarkFrontier::new(2);
        f.update(0, Timestamp(5));
        assert_eq!(f.idle(1), at(5));
        assert_eq!(f.update(0, Timestamp::MAX), Some(FrontierChange::Idle));
        assert_eq!(f.end(0), None, "it has ended already");
        assert_eq!(
            f.update(1, Timestamp(7)),
            at(7),
            "it still had something to say"
        );
        assert_eq!(f.update(1, Timestamp::MAX), at(i64::MAX));
        assert!(f.is_ended());
    }

    #[test]
    fn the_slowest_channel_decides() {
        let mut f = WatermarkFrontier::new(3);
        assert_eq!(f.update(0, Timestamp(10)), None);
        assert_eq!(f.update(1, Timestamp(20)), None);
        assert_eq!(f.update(2, Timestamp(15)), at(10));
        assert_eq!(f.update(1, Timestamp(40)), None);
        assert_eq!(f.update(0, Timestamp(30)), at(15));
        assert_eq!(f.update(0, Timestamp(5)), None, "a channel cannot go back");
        assert_eq!(f.current(), Timestamp(15));
    }

    #[test]
    fn an_idle_channel_that_returns_holds_but_never_pulls_back() {
        let mut f = WatermarkFrontier::new(2);
        f.update(0, Timestamp(10));
        assert_eq!(f.update(1, Timestamp(100)), at(10));
        assert_eq!(f.idle(0), at(100));
        assert_eq!(f.active(0), None);
        assert_eq!(f.current(), Timestamp(100));
        assert_eq!(f.update(1, Timestamp(200)), None, "channel 0 still at 10");
        assert_eq!(f.update(0, Timestamp(150)), at(150));
    }

    #[test]
    fn all_idle_is_idle_and_wakes() {
        let mut f = WatermarkFrontier::new(2);
        assert_eq!(f.idle(0), None);
        assert_eq!(f.idle(1), Some(FrontierChange::Idle));
        assert_eq!(f.idle(1), None);
        assert_eq!(f.active(0), Some(FrontierChange::Active));
        assert_eq!(f.idle(0), Some(FrontierChange::Idle));
        assert_eq!(f.update(1, Timestamp(7)), at(7), "an advance wakes as well");
        assert!(!f.is_idle());
    }

    #[test]
    fn all_ended_is_the_end_of_time() {
        let mut f = WatermarkFrontier::new(3);
        assert_eq!(f.end(0), None);
        f.update(1, Timestamp(5));
        assert_eq!(f.idle(2), at(5));
        assert_eq!(
            f.end(1),
            Some(FrontierChange::Idle),
            "an idle one may return"
        );
        assert_eq!(f.end(2), at(i64::MAX));
        assert_eq!(f.end(2), None);
        assert_eq!(f.update(1, Timestamp(9)), None);
        assert_eq!(f.update(77, Timestamp(9)), None);
    }

    #[derive(Debug, Clone)]
    enum Op {
        Update(usize, i64),
        Idle(usize),
        Active(usize),
        End(usize),
        Add,
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let op = prop_oneof![
            8 => (0..6usize, -20..60i64).prop_map(|(c, t)| Op::Update(c, t)),
            2 => (0..6usize).prop_map(Op::Idle),
            2 => (0..6usize).prop_map(Op::Active),
            1 => (0..6usize).prop_map(Op::End),
            1 => Just(Op::Add),
        ];
        prop::collection::vec(op, 0..120)
    }

    /// The same rules without any counting: scan everything after every event.
    #[derive(Default)]
    struct Naive {
        channels: Vec<(Timestamp, Phase)>,
        current: Option<Timestamp>,
    }

    impl Naive {
        fn apply(&mut self, op: &Op) {
            match *op {
                Op::Add => self.channels.push((Timestamp::MIN, Phase::Active)),
                Op::Update(c, _) | Op::Idle(c) | Op::Active(c) | Op::End(c)
                    if self.channels.get(c).is_none_or(|x| x.1 == Phase::Ended) => {}
                Op::Update(c, t) => {
                    let floor = self.channels[c].0;
                    self.channels[c] = (floor.max(Timestamp(t)), Phase::Active);
                }
                Op::Idle(c) => self.channels[c].1 = Phase::Idle,
                Op::Active(c) => self.channels[c].1 = Phase::Active,
                Op::End(c) => self.channels[c].1 = Phase::Ended,
            }
            let active = self.channels.iter().filter(|c| c.1 == Phase::Active);
            let mut combined = active.map(|c| c.0).min();
            if !self.channels.is_empty() && self.channels.iter().all(|c| c.1 == Phase::Ended) {
                combined = Some(Timestamp::MAX);
            }
            self.current = self.current.max(combined);
        }
    }

    proptest! {
        #[test]
        fn counting_agrees_with_scanning(start in 0..4usize, ops in ops()) {
            let mut naive = Naive::default();
            naive.channels.resize(start, (Timestamp::MIN, Phase::Active));
            let mut frontier = WatermarkFrontier::new(start);
            for op in &ops {
                let (before, was_idle) = (frontier.current(), frontier.is_idle());
                let change = match *op {
                    Op::Update(c, t) => frontier.update(c, Timestamp(t)),
                    Op::Idle(c) => frontier.idle(c),
                    Op::Active(c) => frontier.active(c),
                    Op::End(c) => frontier.end(c),
                    Op::Add => { frontier.add_channel(); None }
                };
                naive.apply(op);
                prop_assert_eq!(frontier.current(), naive.current.unwrap_or(Timestamp::MIN));
                prop_assert!(frontier.current() >= before);
                let advanced = frontier.current() > before;
                prop_assert_eq!(matches!(change, Some(FrontierChange::Advanced(_))), advanced);
                if !advanced && !matches!(op, Op::Add) {
                    let expected = match (was_idle, frontier.is_idle()) {
                        (false, true) => Some(FrontierChange::Idle),
                        (true, false) if !frontier.is_ended() => Some(FrontierChange::Active),
                        _ => None,
                    };
                    prop_assert_eq!(change, expected);
                }
            }
        }
    }
}
