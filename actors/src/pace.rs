//! Holds a source to a rate, exactly and without bursts.
//!
//! A token bucket without a clock of its own: records are earned by time and spent by reading. What
//! was not spent is kept for a moment only, so a source that could not read for a while does not
//! catch up with a flood.

use std::time::{Duration, Instant};

/// What may be saved up, in time. Also how much is read at once at least, so that a held source is
/// not asked for single records.
const SAVED: Duration = Duration::from_millis(10);

/// The rate of one source subtask.
#[derive(Clone, Debug)]
pub struct Pace {
    rate: f64,
    earned: f64,
    at: Instant,
    read: u64,
}

impl Pace {
    /// At most `rate` records per second (at least one), from `now` on, when `read` were read.
    pub fn new(rate: f64, now: Instant, read: u64) -> Self {
        let rate = if rate.is_finite() {
            rate.max(1.0)
        } else {
            f64::MAX
        };
        Pace {
            rate,
            earned: 0.0,
            at: now,
            read,
        }
    }

    fn portion(&self) -> f64 {
        (self.rate * SAVED.as_secs_f64()).max(1.0)
    }

    /// How many records may be read now, of which `read` were read in all so far.
    pub fn allowance(&mut self, now: Instant, read: u64) -> usize {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        let spent = read.saturating_sub(self.read) as f64;
        self.earned = (self.earned - spent + elapsed * self.rate).min(2.0 * self.portion());
        (self.at, self.read) = (now, read);
        if self.earned < self.portion() {
            0
        } else {
            self.earned as usize
        }
    }

    /// How long until there is an allowance, at the latest call's time.
    pub fn pause(&self) -> Duration {
        let missing = (self.portion() - self.earned).max(0.0);
        Duration::from_secs_f64((missing / self.rate).clamp(0.001, 3600.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads whatever is allowed for so many milliseconds, looking once a millisecond.
    fn read_for(pace: &mut Pace, began: Instant, from_ms: u64, to_ms: u64, mut read: u64) -> u64 {
        for ms in from_ms..=to_ms {
            read += pace.allowance(began + Duration::from_millis(ms), read) as u64;
        }
        read
    }

    #[test]
    fn a_rate_is_kept_and_reached() {
        for rate in [3.0, 1_000.0, 123_456.0] {
            let began = Instant::now();
            let mut pace = Pace::new(rate, began, 0);
            let read = read_for(&mut pace, began, 0, 10_000, 0);
            let ideal = 10.0 * rate;
            assert!(read as f64 <= ideal, "{read} of {ideal}");
            assert!(
                read as f64 >= ideal - 2.0 * pace.portion(),
                "{read} of {ideal}"
            );
        }
    }

    #[test]
    fn a_source_that_stood_still_does_not_catch_up() {
        let began = Instant::now();
        let mut pace = Pace::new(1_000.0, began, 500);
        let later = began + Duration::from_secs(3600);
        assert_eq!(pace.allowance(later, 500), 20);
        assert_eq!(pace.allowance(later, 520), 0);
        assert_eq!(pace.pause(), Duration::from_millis(10));
    }

    #[test]
    fn senseless_rates_neither_stop_nor_break_anything() {
        let began = Instant::now();
        for rate in [0.0, -5.0, f64::NAN, f64::INFINITY] {
            let mut pace = Pace::new(rate, began, 0);
            assert!(
                pace.allowance(began + Duration::from_secs(2), 0) > 0,
                "{rate}"
            );
        }
    }
}
