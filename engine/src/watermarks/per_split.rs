//! The event time of each split that a source reads, and what follows for all of them.

use super::WatermarkGenerator;
use crate::splits::SplitTrack;
use crate::time::Timestamp;
use std::marker::PhantomData;
use std::time::Duration;

/// How far all splits together are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Combined {
    /// None has anything to wait for.
    Idle,
    /// One that counts has no watermark yet.
    Waiting,
    /// The least watermark of those that count.
    At(Timestamp),
}

/// A generator for each split.
#[derive(Clone)]
pub(super) struct PerSplit<T, G> {
    track: SplitTrack,
    version: u64,
    complete: bool,
    splits: Vec<Split<G>>,
    record: PhantomData<fn(T)>,
}

#[derive(Clone)]
struct Split<G> {
    generator: G,
    watermark: Timestamp,
    /// It had records since the end of the last turn.
    fresh: bool,
    active_since: Timestamp,
    idle: bool,
    ended: bool,
    /// It is too far ahead, so that nothing comes of it.
    held: bool,
}

impl<G> Split<G> {
    fn counts(&self) -> bool {
        !self.idle && !self.ended
    }
}

impl<T, G: WatermarkGenerator<T>> PerSplit<T, G> {
    /// The splits that a track tells of.
    pub(super) fn new(track: SplitTrack) -> Self {
        PerSplit {
            track,
            version: 0,
            complete: false,
            splits: Vec::new(),
            record: PhantomData,
        }
    }

    /// Whether the source tells its splits.
    #[inline(always)]
    pub(super) fn told(&self) -> bool {
        self.track.is_declared()
    }

    /// A record of the split that is being read. Returns the watermark that leaves behind it.
    #[inline(always)]
    pub(super) fn on_record(&mut self, fresh: &G, value: &T, at: Timestamp) -> Option<Timestamp> {
        let current = self.track.current();
        if current >= self.splits.len() {
            self.look(fresh, Timestamp::MIN);
        }
        let split = self.splits.get_mut(current)?;
        split.fresh = true;
        let watermark = split.generator.on_record(value, at)?;
        split.watermark = split.watermark.max(watermark);
        (split.idle, split.ended) = (false, false);
        match self.combined() {
            Combined::At(at) => Some(at),
            Combined::Idle | Combined::Waiting => None,
        }
    }

    /// Takes over what the source has told since.
    #[cold]
    fn look(&mut self, fresh: &G, now: Timestamp) {
        self.version = self.track.version();
        let known = self.track.known();
        self.complete = known.complete;
        for _ in self.splits.len()..known.ended.len() {
            self.splits.push(Split {
                generator: fresh.clone(),
                watermark: Timestamp::MIN,
                fresh: false,
                active_since: now,
                idle: false,
                ended: false,
                held: false,
            });
        }
        for (split, ended) in self.splits.iter_mut().zip(known.ended) {
            split.ended = ended;
        }
    }

    /// The end of a turn.
    pub(super) fn advance(
        &mut self,
        fresh: &G,
        now: Timestamp,
        idle_after: Option<Duration>,
    ) -> Combined {
        if self.version != self.track.version() {
            self.look(fresh, now);
        }
        for split in &mut self.splits {
            if std::mem::take(&mut split.fresh) {
                (split.active_since, split.idle) = (now, false);
                let watermark = split.generator.periodic();
                split.watermark = split.watermark.max(watermark.unwrap_or(Timestamp::MIN));
            } else if split.held {
                split.active_since = now;
            }
        }
        if let Some(timeout) = idle_after {
            self.find_idle(now, timeout);
        }
        self.combined()
    }

    /// Those without a record for so long are idle. Where the last of them are due at once, as behind a pause of the
    /// whole process, they still follow each other: those that had a record last are idle when this is asked again,
    /// so that what they have said is event time first. Else it would stay where it was for as long as all are silent.
    fn find_idle(&mut self, now: Timestamp, timeout: Duration) {
        let since = |split: &Split<G>| split.counts().then_some(split.active_since);
        let Some(first) = self.splits.iter().filter_map(since).min() else {
            return;
        };
        let last = self.splits.iter().filter_map(since).max();
        let last = last.filter(|last| first < *last && last.plus(timeout) <= now && *last < now);
        for split in &mut self.splits {
            // One that had a record in this very turn is not idle, however short the timeout.
            let due = split.active_since < now && split.active_since.plus(timeout) <= now;
            split.idle |= due && Some(split.active_since) != last;
        }
    }

    fn combined(&self) -> Combined {
        let counting = self.splits.iter().filter(|split| split.counts());
        match counting.map(|split| split.watermark).min() {
            None if self.complete => Combined::Idle,
            None | Some(Timestamp::MIN) => Combined::Waiting,
            Some(least) => Combined::At(least),
        }
    }

    /// Has the source read no split that is beyond the limit.
    pub(super) fn hold(&mut self, limit: Timestamp) {
        for split in &mut self.splits {
            split.held = !split.ended && split.watermark > limit;
        }
        self.track.hold(self.splits.iter().map(|split| split.held));
    }

    /// No time has passed for those without records.
    pub(super) fn held_back(&mut self, now: Timestamp) {
        self.splits
            .iter_mut()
            .for_each(|split| split.active_since = now);
    }

    /// When the next one is to be looked at, whether it is idle.
    pub(super) fn next_idle(&self, timeout: Duration) -> Option<Timestamp> {
        let counting = self.splits.iter().filter(|split| split.counts());
        let since = counting.map(|split| split.active_since).min()?;
        Some(since.plus(timeout).plus(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::WatermarkStrategy;
    use super::*;

    type Bounded = super::super::BoundedOutOfOrderness;

    fn read(splits: &mut PerSplit<i64, Bounded>, fresh: &Bounded, split: usize, at: i64) {
        splits.track.enter(split);
        splits.on_record(fresh, &at, Timestamp(at));
    }

    #[test]
    fn the_least_of_those_that_count_is_the_time_of_all() {
        let fresh = WatermarkStrategy::<i64, _>::monotonous().generator;
        let track = SplitTrack::default();
        let mut splits = PerSplit::new(track.clone());
        assert!(!splits.told());
        track.declare();
        let idle = Some(Duration::from_millis(100));
        let advance =
            |splits: &mut PerSplit<i64, Bounded>, now| splits.advance(&fresh, Timestamp(now), idle);
        assert_eq!(
            advance(&mut splits, 0),
            Combined::Waiting,
            "none is known yet"
        );
        let (a, b) = (track.add(), track.add());
        track.complete();
        assert_eq!(advance(&mut splits, 0), Combined::Waiting);
        read(&mut splits, &fresh, a, 5000);
        assert_eq!(
            advance(&mut splits, 10),
            Combined::Waiting,
            "b may bring older ones"
        );
        read(&mut splits, &fresh, b, 3000);
        assert_eq!(advance(&mut splits, 20), Combined::At(Timestamp(2999)));
        read(&mut splits, &fresh, a, 6000);
        assert_eq!(advance(&mut splits, 100), Combined::At(Timestamp(2999)));
        assert_eq!(
            advance(&mut splits, 120),
            Combined::At(Timestamp(5999)),
            "b is idle"
        );
        track.end(a);
        assert_eq!(advance(&mut splits, 121), Combined::Idle);
        read(&mut splits, &fresh, b, 3500);
        assert_eq!(advance(&mut splits, 130), Combined::At(Timestamp(3499)));
    }

    #[test]
    fn splits_that_are_idle_at_once_follow_each_other() {
        let fresh = WatermarkStrategy::<i64, _>::monotonous().generator;
        let track = SplitTrack::default();
        let mut splits = PerSplit::new(track.clone());
        track.declare();
        let (a, b, _silent) = (track.add(), track.add(), track.add());
        track.complete();
        let advance = |splits: &mut PerSplit<i64, Bounded>, now| {
            splits.advance(&fresh, Timestamp(now), Some(Duration::from_millis(100)))
        };
        assert_eq!(advance(&mut splits, 0), Combined::Waiting);
        for (split, at) in [(a, 5000), (b, 3000)] {
            read(&mut splits, &fresh, split, at);
        }
        assert_eq!(advance(&mut splits, 1), Combined::Waiting);
        // Nothing happened for a second.
        assert_eq!(
            advance(&mut splits, 1001),
            Combined::At(Timestamp(2999)),
            "the silent one was idle first"
        );
        assert_eq!(advance(&mut splits, 1001), Combined::Idle);
        read(&mut splits, &fresh, b, 4000);
        assert_eq!(advance(&mut splits, 1002), Combined::At(Timestamp(3999)));
    }

    #[test]
    fn a_split_beyond_the_limit_is_held_and_not_idle_meanwhile() {
        let fresh = WatermarkStrategy::<i64, _>::monotonous().generator;
        let track = SplitTrack::default();
        let mut splits = PerSplit::new(track.clone());
        track.declare();
        let (a, b) = (track.add(), track.add());
        track.complete();
        let idle = Some(Duration::from_millis(100));
        let advance = |splits: &mut PerSplit<i64, Bounded>, now, limit| {
            let combined = splits.advance(&fresh, Timestamp(now), idle);
            splits.hold(Timestamp(limit));
            (combined, track.is_held(a), track.is_held(b))
        };
        read(&mut splits, &fresh, a, 5001);
        read(&mut splits, &fresh, b, 3001);
        let at = |at| Combined::At(Timestamp(at));
        assert_eq!(advance(&mut splits, 0, 5000), (at(3000), false, false));
        assert_eq!(advance(&mut splits, 10, 4000), (at(3000), true, false));
        read(&mut splits, &fresh, b, 3501);
        assert_eq!(advance(&mut splits, 200, 4500), (at(3500), true, false));
        read(&mut splits, &fresh, b, 6001);
        let together = advance(&mut splits, 300, 5000);
        assert_eq!(together, (at(5000), false, true), "it was held, not idle");
        assert_eq!(advance(&mut splits, 301, 9000), (at(5000), false, false));
        assert!(!track.holds());
    }

    #[test]
    fn a_source_without_splits_is_idle_at_once() {
        let fresh = WatermarkStrategy::<i64, _>::monotonous().generator;
        let track = SplitTrack::default();
        let mut splits = PerSplit::<i64, _>::new(track.clone());
        track.declare();
        track.complete();
        assert_eq!(splits.advance(&fresh, Timestamp(0), None), Combined::Idle);
    }

    #[test]
    fn punctuated_watermarks_wait_for_the_other_splits() {
        let strategy = WatermarkStrategy::<i64, _>::punctuated(|_: &i64, at| Some(at));
        let track = SplitTrack::default();
        let mut splits = PerSplit::new(track.clone());
        track.declare();
        track.add();
        track.add();
        let mut read = |split, at: i64| {
            track.enter(split);
            splits.on_record(&strategy.generator, &at, Timestamp(at))
        };
        assert_eq!(read(0, 9), None);
        assert_eq!(read(1, 4), Some(Timestamp(4)));
        assert_eq!(read(1, 12), Some(Timestamp(9)));
    }
}
