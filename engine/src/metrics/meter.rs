//! How fast events come, over a sliding minute, with time handed in by the caller.
//!
//! Sixty slots hold the counts of the last sixty seconds. A slot packs its second and its count
//! into one atomic word, so marking is one compare-and-swap, and a slot of a minute ago is
//! recognized and overwritten by whoever comes next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seconds the rate looks back over.
const WINDOW_SECONDS: u64 = 60;
const SLOTS: usize = WINDOW_SECONDS as usize;

#[derive(Debug)]
struct Inner {
    count: AtomicU64,
    /// Milliseconds of the earliest mark; `u64::MAX` before any.
    first_ms: AtomicU64,
    /// Upper half: the second (plus one, so that zero is empty); lower half: its count.
    slots: [AtomicU64; SLOTS],
}

/// Counts events and tells how many come per second; clones count together.
///
/// `now_ms` is milliseconds of any clock that starts at zero or later, the same for all calls.
#[derive(Debug, Clone)]
pub struct Meter(Arc<Inner>);

impl Default for Meter {
    fn default() -> Self {
        Self(Arc::new(Inner {
            count: AtomicU64::new(0),
            first_ms: AtomicU64::new(u64::MAX),
            slots: [const { AtomicU64::new(0) }; SLOTS],
        }))
    }
}

impl Meter {
    /// Counts `n` events at `now_ms`. Events more than a minute old count into the total only.
    pub fn mark(&self, n: u64, now_ms: u64) {
        let inner = &*self.0;
        inner.count.fetch_add(n, Ordering::Relaxed);
        if now_ms < inner.first_ms.load(Ordering::Relaxed) {
            inner.first_ms.fetch_min(now_ms, Ordering::Relaxed);
        }
        let stamp = stamp_of(now_ms / 1000);
        let slot = &inner.slots[slot_of(now_ms / 1000)];
        let mut old = slot.load(Ordering::Relaxed);
        loop {
            let base = match (old >> 32).cmp(&stamp) {
                std::cmp::Ordering::Greater => return,
                std::cmp::Ordering::Equal => old & u64::from(u32::MAX),
                std::cmp::Ordering::Less => 0,
            };
            let new = stamp << 32 | base.saturating_add(n).min(u64::from(u32::MAX));
            match slot.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => old = seen,
            }
        }
    }

    /// Events counted so far.
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Events per second over the last minute, or since the first event if that is later, but
    /// over one second at least.
    pub fn rate(&self, now_ms: u64) -> f64 {
        let second = now_ms / 1000;
        let oldest = second.saturating_sub(WINDOW_SECONDS - 1);
        let recent: u64 = (oldest..=second).map(|s| self.count_in(s)).sum();
        if recent == 0 {
            return 0.0;
        }
        let first = self.0.first_ms.load(Ordering::Relaxed);
        let span_ms = now_ms.saturating_sub(first.max(oldest * 1000)).max(1000);
        recent as f64 * 1000.0 / span_ms as f64
    }

    fn count_in(&self, second: u64) -> u64 {
        let slot = self.0.slots[slot_of(second)].load(Ordering::Relaxed);
        if slot >> 32 == stamp_of(second) {
            slot & u64::from(u32::MAX)
        } else {
            0
        }
    }
}

fn slot_of(second: u64) -> usize {
    (second % WINDOW_SECONDS) as usize
}

/// The second as a slot stores it: 32 bits, enough beyond the year 2100.
fn stamp_of(second: u64) -> u64 {
    (second + 1).min(u64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_stream_shows_its_rate() {
        let meter = Meter::default();
        assert_eq!(meter.rate(5), 0.0);
        for ms in (0..120_000).step_by(100) {
            meter.mark(50, ms);
        }
        let rate = meter.rate(119_999);
        assert!((rate - 500.0).abs() < 1.0, "{rate}");
        assert_eq!(meter.count(), 60_000);
    }

    #[test]
    fn a_short_life_is_not_spread_over_a_minute() {
        let meter = Meter::default();
        meter.mark(300, 1_000_000);
        assert_eq!(meter.rate(1_000_000), 300.0, "over one second at least");
        assert_eq!(meter.rate(1_003_000), 100.0);
    }

    #[test]
    fn silence_brings_the_rate_back_to_zero() {
        let meter = Meter::default();
        meter.mark(60, 1_000);
        assert!(meter.rate(60_000) > 0.0);
        assert_eq!(meter.rate(61_000), 0.0);
        meter.mark(6, 121_500);
        assert_eq!(meter.rate(121_500), 6.0 * 1000.0 / 59_500.0);
        meter.mark(100, 1_000);
        assert_eq!(
            meter.count(),
            166,
            "too late for the rate, not for the total"
        );
        assert_eq!(meter.rate(121_500), 6.0 * 1000.0 / 59_500.0);
    }

    #[test]
    fn huge_counts_and_times_stay_finite() {
        let meter = Meter::default();
        meter.mark(u64::MAX, u64::MAX);
        assert!(meter.rate(u64::MAX).is_finite());
    }
}
