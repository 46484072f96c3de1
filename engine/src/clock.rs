//! The one clock of the engine: handed in, so that a test can move it by hand.

use crate::time::{Timestamp, millis};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

/// Where processing time comes from. Clones share one hand.
#[derive(Clone, Debug)]
pub enum Clock {
    /// The machine's wall clock.
    System,
    /// Stands still until [`Clock::advance`] moves it.
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands at `start` until it is moved.
    pub fn manual(start: Timestamp) -> Self {
        Clock::Manual(Arc::new(AtomicI64::new(start.0)))
    }

    /// The present, in milliseconds since the epoch.
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::System => Timestamp(millis(
                SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO),
            )),
            Clock::Manual(at) => Timestamp(at.load(Ordering::Acquire)),
        }
    }

    /// Moves a manual clock forward. The system clock moves by itself and ignores this.
    pub fn advance(&self, by: Duration) {
        if let Clock::Manual(at) = self {
            at.fetch_add(millis(by), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand_and_for_all_clones() {
        let clock = Clock::manual(Timestamp(100));
        let other = clock.clone();
        assert_eq!(other.now(), Timestamp(100));
        clock.advance(Duration::from_millis(20));
        assert_eq!(other.now(), Timestamp(120));
    }
}
