//! Which of a window's records count when it is emitted: an evictor takes out the others.

use super::TimeWindow;
use crate::time::{Timestamp, millis};
use std::collections::VecDeque;
use std::time::Duration;

/// The records of a window with their event time, in the order in which they came.
pub type Elements<T> = VecDeque<(Timestamp, T)>;

/// Takes records out of a window that is about to be emitted, or was.
pub trait Evictor<T>: Clone + Send + 'static {
    /// Called before the window function sees the records.
    fn evict_before(&mut self, _elements: &mut Elements<T>, _window: TimeWindow) {}

    /// Called after the window function saw the records.
    fn evict_after(&mut self, _elements: &mut Elements<T>, _window: TimeWindow) {}
}

/// Takes nothing out.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoEvictor;

impl<T> Evictor<T> for NoEvictor {}

/// Keeps the newest records, by number.
#[derive(Clone, Copy, Debug)]
pub struct CountEvictor {
    before: usize,
    after: usize,
}

impl CountEvictor {
    /// Shows the window function at most the `n` records that came last.
    pub fn new(n: usize) -> Self {
        CountEvictor {
            before: n,
            after: usize::MAX,
        }
    }

    /// Keeps at most `n` records after the window function has seen them.
    pub fn after(n: usize) -> Self {
        CountEvictor {
            before: usize::MAX,
            after: n,
        }
    }

    /// Keeps at most `n` of them afterwards.
    pub fn and_after(self, n: usize) -> Self {
        CountEvictor { after: n, ..self }
    }
}

fn keep_last<T>(elements: &mut Elements<T>, n: usize) {
    elements.drain(..elements.len().saturating_sub(n));
}

impl<T> Evictor<T> for CountEvictor {
    fn evict_before(&mut self, elements: &mut Elements<T>, _window: TimeWindow) {
        keep_last(elements, self.before);
    }

    fn evict_after(&mut self, elements: &mut Elements<T>, _window: TimeWindow) {
        keep_last(elements, self.after);
    }
}

/// Keeps the records whose time is close to the latest.
#[derive(Clone, Copy, Debug)]
pub struct TimeEvictor {
    keep: Duration,
    after: bool,
}

impl TimeEvictor {
    /// Shows the window function the records of the last `keep`, counted from the latest timestamp.
    pub fn new(keep: Duration) -> Self {
        TimeEvictor { keep, after: false }
    }

    /// Keeps these after the window function has seen all.
    pub fn after(keep: Duration) -> Self {
        TimeEvictor { keep, after: true }
    }

    fn evict<T>(&self, elements: &mut Elements<T>) {
        let Some(latest) = elements.iter().map(|(at, _)| *at).max() else {
            return;
        };
        let keep = millis(self.keep);
        elements.retain(|(at, _)| latest.0.saturating_sub(at.0) < keep);
    }
}

impl<T> Evictor<T> for TimeEvictor {
    fn evict_before(&mut self, elements: &mut Elements<T>, _window: TimeWindow) {
        if !self.after {
            self.evict(elements);
        }
    }

    fn evict_after(&mut self, elements: &mut Elements<T>, _window: TimeWindow) {
        if self.after {
            self.evict(elements);
        }
    }
}

/// Keeps the records that differ little from the newest.
#[derive(Clone)]
pub struct DeltaEvictor<F> {
    threshold: f64,
    delta: F,
    after: bool,
}

impl<F> DeltaEvictor<F> {
    /// Shows the window function the records for which `delta(record, newest)` is below `threshold`.
    pub fn new(threshold: f64, delta: F) -> Self {
        DeltaEvictor {
            threshold,
            delta,
            after: false,
        }
    }

    /// Keeps these after the window function has seen all.
    pub fn after(threshold: f64, delta: F) -> Self {
        DeltaEvictor {
            threshold,
            delta,
            after: true,
        }
    }

    fn evict<T>(&self, elements: &mut Elements<T>)
    where
        F: Fn(&T, &T) -> f64,
    {
        let Some((at, newest)) = elements.pop_back() else {
            return;
        };
        elements.retain(|(_, value)| (self.delta)(value, &newest) < self.threshold);
        elements.push_back((at, newest));
    }
}

impl<T, F: Fn(&T, &T) -> f64 + Clone + Send + 'static> Evictor<T> for DeltaEvictor<F> {
    fn evict_before(&mut self, elements: &mut Elements<T>, _window: TimeWindow) {
        if !self.after {
            self.evict(elements);
        }
    }

    fn evict_after(&mut self, elements: &mut Elements<T>, _window: TimeWindow) {
        if self.after {
            self.evict(elements);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(evict: impl FnOnce(&mut Elements<i64>, TimeWindow)) -> Vec<i64> {
        let mut elements: Elements<i64> = [3, 9, 5, 7].map(|t| (Timestamp(t), t)).into();
        evict(&mut elements, TimeWindow::new(0, 10));
        elements.into_iter().map(|(_, value)| value).collect()
    }

    #[test]
    fn count_keeps_the_newest_before_or_after() {
        assert_eq!(kept(|e, w| CountEvictor::new(2).evict_before(e, w)), [5, 7]);
        assert_eq!(
            kept(|e, w| CountEvictor::new(2).evict_after(e, w)),
            [3, 9, 5, 7]
        );
        assert_eq!(
            kept(|e, w| CountEvictor::new(9).and_after(1).evict_after(e, w)),
            [7]
        );
        assert_eq!(
            kept(|e, w| CountEvictor::after(0).evict_after(e, w)),
            [0; 0]
        );
    }

    #[test]
    fn time_keeps_what_is_close_to_the_latest() {
        let keep = Duration::from_millis(4);
        assert_eq!(
            kept(|e, w| TimeEvictor::new(keep).evict_before(e, w)),
            [9, 7]
        );
        assert_eq!(
            kept(|e, w| TimeEvictor::new(keep).evict_after(e, w)),
            [3, 9, 5, 7]
        );
        assert_eq!(
            kept(|e, w| TimeEvictor::after(keep).evict_after(e, w)),
            [9, 7]
        );
    }

    #[test]
    fn delta_keeps_what_differs_little_from_the_newest() {
        let delta = |a: &i64, b: &i64| (a - b).abs() as f64;
        assert_eq!(
            kept(|e, w| DeltaEvictor::new(3.0, delta).evict_before(e, w)),
            [9, 5, 7]
        );
        assert_eq!(
            kept(|e, w| DeltaEvictor::after(2.0, delta).evict_after(e, w)),
            [7]
        );
    }
}
