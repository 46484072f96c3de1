//! What the tests of whole processes share; the tests themselves are in `tests/`.

pub mod dice;
pub mod failpoints;
pub mod kafka;
pub mod processes;
pub mod tables;

use std::time::{Duration, Instant};

/// Longer than anything that a test waits for, on a machine that is busy with much else.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until something holds.
///
/// # Panics
///
/// Where it does not within [`PATIENCE`].
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
