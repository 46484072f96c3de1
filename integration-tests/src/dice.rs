//! Moments that a seed tells.

use std::time::SystemTime;

/// Moments: xorshift (Marsaglia), so that a seed tells them all.
pub struct Dice {
    /// What they began with.
    pub seed: u64,
    last: u64,
}

impl Dice {
    /// Begins with the seed in `TIDEGATE_CHAOS_SEED`, or else with the time, and prints it behind `what`.
    pub fn new(what: &str) -> Self {
        let now = SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(1, |now| now.as_nanos() as u64);
        let seed = number("TIDEGATE_CHAOS_SEED")
            .filter(|seed| *seed > 0)
            .unwrap_or(now);
        println!("{what}: seed {seed}");
        Dice { seed, last: seed }
    }

    /// The next number, below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.last ^= self.last << 13;
        self.last ^= self.last >> 7;
        self.last ^= self.last << 17;
        self.last % n
    }
}

/// The number in a variable of the environment.
pub fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
