//! A distribution in fixed memory, with quantiles that are off by less than two percent.
//!
//! Values below 64 have a bucket each. Above, every power of two is cut into 32 equal buckets, so
//! a bucket is at most 1/32 of its values wide, and its middle is within 1/64 (1.6 %) of each.
//! That covers all of `u64` with 1920 counters (15 KiB), and recording is a shift and an add.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets per power of two, as a power of two itself.
const BITS: u32 = 5;
/// Values below this have a bucket each.
const LINEAR: u64 = 2 << BITS;
const BUCKETS: usize = LINEAR as usize + ((63 - BITS as usize) << BITS);

struct Inner {
    buckets: [AtomicU64; BUCKETS],
    count: AtomicU64,
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

/// The figures of a [`Histogram`] at one moment, in the unit of the recorded values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramSnapshot {
    /// Values recorded.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// The smallest; 0 without values.
    pub min: u64,
    /// The largest; 0 without values.
    pub max: u64,
    /// The median.
    pub p50: u64,
    /// What 95 % of the values do not exceed.
    pub p95: u64,
    /// What 99 % of the values do not exceed.
    pub p99: u64,
}

/// Records values and tells their quantiles; clones record together. The unit is the caller's,
/// and belongs into the metric's documentation.
#[derive(Clone)]
pub struct Histogram(Arc<Inner>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Arc::new(Inner {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            count: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
        }))
    }
}

impl Histogram {
    /// Records one value.
    pub fn record(&self, value: u64) {
        let inner = &*self.0;
        inner.buckets[bucket_of(value)].fetch_add(1, Ordering::Relaxed);
        inner.count.fetch_add(1, Ordering::Relaxed);
        inner.sum.fetch_add(value, Ordering::Relaxed);
        // Extremes settle soon; the plain loads spare the common case two contended writes.
        if value < inner.min.load(Ordering::Relaxed) {
            inner.min.fetch_min(value, Ordering::Relaxed);
        }
        if value > inner.max.load(Ordering::Relaxed) {
            inner.max.fetch_max(value, Ordering::Relaxed);
        }
    }

    /// Values recorded so far.
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// The sum of all values; wraps beyond 2^64.
    pub fn sum(&self) -> u64 {
        self.0.sum.load(Ordering::Relaxed)
    }

    /// The smallest value, if there is one.
    pub fn min(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.0.min.load(Ordering::Relaxed))
    }

    /// The largest value, if there is one.
    pub fn max(&self) -> Option<u64> {
        (self.count() > 0).then(|| self.0.max.load(Ordering::Relaxed))
    }

    /// The value that a share `q` (0 to 1) of all values does not exceed, within 2 %.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        self.quantiles([q])[0]
    }

    /// All figures at once, from one pass over the buckets.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let [p50, p95, p99] = self.quantiles([0.5, 0.95, 0.99]);
        HistogramSnapshot {
            count: self.count(),
            sum: self.sum(),
            min: self.min().unwrap_or(0),
            max: self.max().unwrap_or(0),
            p50: p50.unwrap_or(0),
            p95: p95.unwrap_or(0),
            p99: p99.unwrap_or(0),
        }
    }

    /// Quantiles of ascending shares. The buckets are read once, so the shares agree with each
    /// other even while values arrive.
    fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [Option<u64>; N] {
        let counts: Vec<u64> = self
            .0
            .buckets
            .iter()
            .map(|b| b.load(Ordering::Relaxed))
            .collect();
        let total: u64 = counts.iter().sum();
        let (Some(min), Some(max), true) = (self.min(), self.max(), total > 0) else {
            return [None; N];
        };
        let (mut bucket, mut seen) = (0, counts[0]);
        shares.map(|share| {
            let rank = ((share.clamp(0.0, 1.0) * total as f64).ceil() as u64).clamp(1, total);
            while seen < rank {
                bucket += 1;
                seen += counts[bucket];
            }
            // Not `clamp`: a racing first value may have set only one of the two extremes.
            Some(middle_of(bucket).max(min).min(max))
        })
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Histogram").field(&self.snapshot()).finish()
    }
}

fn bucket_of(value: u64) -> usize {
    if value < LINEAR {
        return value as usize;
    }
    let shift = value.ilog2() - BITS;
    // `value >> shift` lies in 32..64; each shift from 1 on has a row of 32 buckets.
    ((shift as usize) << BITS) + (value >> shift) as usize
}

fn middle_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < LINEAR {
        return bucket;
    }
    let shift = (bucket >> BITS) - 1;
    let lowest = (bucket - (shift << BITS)) << shift;
    lowest + ((1u64 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_cover_everything_without_gaps() {
        assert_eq!(bucket_of(0), 0);
        assert_eq!(bucket_of(63), 63);
        assert_eq!(bucket_of(64), 64);
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
        for bucket in 0..BUCKETS {
            assert_eq!(bucket_of(middle_of(bucket)), bucket);
        }
    }

    #[test]
    fn empty_has_no_quantiles() {
        let h = Histogram::default();
        assert_eq!((h.quantile(0.5), h.min(), h.max()), (None, None, None));
        assert_eq!(h.snapshot(), HistogramSnapshot::default());
    }

    #[test]
    fn a_thousand_values() {
        let h = Histogram::default();
        (1..=1000).for_each(|v| h.clone().record(v));
        let s = h.snapshot();
        assert_eq!((s.count, s.sum, s.min, s.max), (1000, 500_500, 1, 1000));
        assert!((490..=510).contains(&s.p50), "{}", s.p50);
        assert!((970..=1000).contains(&s.p99), "{}", s.p99);
        assert_eq!(h.quantile(0.0), Some(1));
        assert_eq!(h.quantile(f64::NAN), Some(1));
    }

    proptest! {
        #[test]
        fn quantiles_are_within_two_percent(
            raw in prop::collection::vec((any::<u64>(), 0u32..64), 1..200),
            q in 0.0..=1.0f64,
        ) {
            let h = Histogram::default();
            let mut values: Vec<u64> = raw.into_iter().map(|(v, shift)| v >> shift).collect();
            values.iter().for_each(|v| h.record(*v));
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let found = h.quantile(q).expect("not empty");
            prop_assert!(found.abs_diff(exact) as f64 <= exact as f64 * 0.02, "{found} {exact}");
            prop_assert_eq!((h.min(), h.max()), (values.first().copied(), values.last().copied()));
        }
    }
}
