//! Quantiles of figures that were all kept, so that they are exact also far out.

/// Of the latencies of one run, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// What 99 % do not exceed.
    pub p99: f64,
    /// What 99.9 % do not exceed.
    pub p999: f64,
    /// The longest.
    pub max: f64,
}

impl Quantiles {
    /// Of latencies in nanoseconds, in any order.
    pub fn of(mut latencies: Vec<u64>) -> Option<Self> {
        latencies.sort_unstable();
        let last = latencies.len().checked_sub(1)?;
        // What this share of all does not exceed.
        let at = |share: f64| {
            let rank = (latencies.len() as f64 * share).ceil() as usize;
            latencies[rank.saturating_sub(1).min(last)] as f64 / 1e6
        };
        Some(Quantiles {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: at(1.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact() {
        let quantiles = Quantiles::of((1..=1_000).rev().map(|ms| ms * 1_000_000).collect());
        let quantiles = quantiles.expect("there are latencies");
        assert_eq!(
            [quantiles.p50, quantiles.p99, quantiles.p999, quantiles.max],
            [500.0, 990.0, 999.0, 1000.0]
        );
        assert!(Quantiles::of(Vec::new()).is_none());
    }
}
