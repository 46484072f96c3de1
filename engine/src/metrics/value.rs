//! The two plainest metrics: a number that only grows, and one that goes up and down.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts events; clones count together. Wraps after 2^64 events.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Counts one event.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts `n` events.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Events counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Shows the value set last, 0 at first; clones show the same.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    /// The value set last.
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_share_their_value_across_threads() {
        let (counter, gauge) = (Counter::default(), Gauge::default());
        assert_eq!(gauge.get(), 0.0);
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (counter, gauge) = (counter.clone(), gauge.clone());
                std::thread::spawn(move || {
                    (0..1000).for_each(|_| counter.inc());
                    gauge.set(-2.5);
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("no thread panicked");
        }
        counter.add(5);
        assert_eq!(counter.get(), 4005);
        assert_eq!(gauge.get(), -2.5);
    }
}
