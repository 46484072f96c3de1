//! How sessions are declared: which clock they go by, and after how long a silence they end.

use super::TimeKind;
use crate::time::millis;
use std::time::Duration;

/// After how long without records a session ends.
pub trait SessionGap<T>: Clone + Send + 'static {
    /// The gap behind a record, in milliseconds; at least 1.
    fn gap(&self, value: &T) -> i64;

    /// The gap, where it is the same behind all records.
    fn fixed(&self) -> Option<i64> {
        None
    }
}

/// The same gap for all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedGap(i64);

impl<T> SessionGap<T> for FixedGap {
    #[inline(always)]
    fn gap(&self, _value: &T) -> i64 {
        self.0
    }

    fn fixed(&self) -> Option<i64> {
        Some(self.0)
    }
}

/// A gap that is read from each record.
#[derive(Clone, Copy)]
pub struct DynamicGap<F>(F);

impl<T, F: Fn(&T) -> Duration + Clone + Send + 'static> SessionGap<T> for DynamicGap<F> {
    #[inline(always)]
    fn gap(&self, value: &T) -> i64 {
        millis((self.0)(value))
    }
}

/// Windows that end when a key was silent for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session<G = FixedGap> {
    pub(super) time: TimeKind,
    pub(super) gap: G,
}

impl Session<FixedGap> {
    /// By the records' timestamps: a session ends when `gap` passes without a record.
    pub fn event_time(gap: Duration) -> Self {
        Session {
            time: TimeKind::Event,
            gap: FixedGap(millis(gap)),
        }
    }

    /// By the clock: a session ends when `gap` passes without a record.
    pub fn processing_time(gap: Duration) -> Self {
        Session {
            time: TimeKind::Processing,
            gap: FixedGap(millis(gap)),
        }
    }
}

impl<F> Session<DynamicGap<F>> {
    /// By the records' timestamps, with a gap that is read from each record.
    pub fn dynamic<T>(gap: F) -> Self
    where
        F: Fn(&T) -> Duration + Clone + Send + 'static,
    {
        Session {
            time: TimeKind::Event,
            gap: DynamicGap(gap),
        }
    }

    /// The same by the clock.
    pub fn in_processing_time(self) -> Self {
        Session {
            time: TimeKind::Processing,
            ..self
        }
    }
}
