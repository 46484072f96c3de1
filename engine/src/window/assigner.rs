//! Which windows a record belongs to, where a job needs more than an aggregate per aligned window.

use super::{Aligned, Session, SessionGap, TimeKind, TimeTrigger, TimeWindow};
use super::{Evictor, NeverTrigger, NoEvictor, Trigger};
use crate::fault::{Fault, Flow};
use crate::time::Timestamp;

/// Assigns records to windows.
pub trait WindowAssigner<T>: Clone + Send + 'static {
    /// What emits its windows unless the user gives another trigger.
    type DefaultTrigger: Trigger<T>;
    /// What takes records out of them unless the user gives another evictor or trigger.
    type DefaultEvictor: Evictor<T>;

    /// Adds the windows of a record to `windows`. `at` is its time by the clock that the windows go
    /// by.
    fn assign(&self, value: &T, at: Timestamp, windows: &mut Vec<TimeWindow>) -> Flow;

    /// Which clock windows go by; `None` where they never end.
    fn time(&self) -> Option<TimeKind>;

    /// Whether windows of a key that overlap or touch are one.
    fn merges(&self) -> bool {
        false
    }

    /// A trigger as it is used by default.
    fn default_trigger(&self) -> Self::DefaultTrigger;

    /// An evictor as it is used by default.
    fn default_evictor(&self) -> Self::DefaultEvictor;

    /// What is wrong with it, as a sentence.
    fn problem(&self) -> Option<String> {
        None
    }
}

impl<T: 'static> WindowAssigner<T> for Aligned {
    type DefaultTrigger = TimeTrigger;
    type DefaultEvictor = NoEvictor;

    fn assign(&self, _value: &T, at: Timestamp, windows: &mut Vec<TimeWindow>) -> Flow {
        let (size, slide) = (self.size, self.slide);
        let into_slide = (i128::from(at.0) - i128::from(self.offset)).rem_euclid(slide.into());
        let mut start = at.0.saturating_sub(into_slide as i64);
        while at.0.saturating_sub(start) < size {
            let end = Timestamp(start.saturating_add(size));
            windows.push(TimeWindow {
                start: Timestamp(start),
                end,
            });
            let Some(before) = start.checked_sub(slide) else {
                break;
            };
            start = before;
        }
        Ok(())
    }

    fn time(&self) -> Option<TimeKind> {
        Some(Aligned::time(self))
    }

    fn default_trigger(&self) -> TimeTrigger {
        TimeTrigger::new(Aligned::time(self))
    }

    fn default_evictor(&self) -> NoEvictor {
        NoEvictor
    }

    fn problem(&self) -> Option<String> {
        Aligned::problem(self)
    }
}

impl<T: 'static, G: SessionGap<T>> WindowAssigner<T> for Session<G> {
    type DefaultTrigger = TimeTrigger;
    type DefaultEvictor = NoEvictor;

    fn assign(&self, value: &T, at: Timestamp, windows: &mut Vec<TimeWindow>) -> Flow {
        let gap = self.gap.gap(value);
        if gap < 1 {
            return Err(short_gap());
        }
        windows.push(TimeWindow {
            start: at,
            end: Timestamp(at.0.saturating_add(gap)),
        });
        Ok(())
    }

    fn time(&self) -> Option<TimeKind> {
        Some(self.time)
    }

    fn merges(&self) -> bool {
        true
    }

    fn default_trigger(&self) -> TimeTrigger {
        TimeTrigger::new(self.time)
    }

    fn default_evictor(&self) -> NoEvictor {
        NoEvictor
    }

    fn problem(&self) -> Option<String> {
        let short = self.gap.fixed().is_some_and(|gap| gap < 1);
        short.then(|| "a session with a gap of 0 ms never grows; give it at least 1 ms".to_owned())
    }
}

#[cold]
pub(super) fn short_gap() -> Fault {
    Fault::user("a session gap of less than 1 ms; give every record a gap of at least 1 ms")
}

/// One window per key that holds all records and never ends; a trigger says when it is emitted. Its
/// results carry the time of the newest record in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct GlobalWindows;

impl GlobalWindows {
    /// The window of all time.
    pub const WINDOW: TimeWindow = TimeWindow {
        start: Timestamp::MIN,
        end: Timestamp::MAX,
    };
}

impl<T: 'static> WindowAssigner<T> for GlobalWindows {
    type DefaultTrigger = NeverTrigger;
    type DefaultEvictor = NoEvictor;

    fn assign(&self, _value: &T, _at: Timestamp, windows: &mut Vec<TimeWindow>) -> Flow {
        windows.push(GlobalWindows::WINDOW);
        Ok(())
    }

    fn time(&self) -> Option<TimeKind> {
        None
    }

    fn default_trigger(&self) -> NeverTrigger {
        NeverTrigger
    }

    fn default_evictor(&self) -> NoEvictor {
        NoEvictor
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Sliding, Tumbling};
    use std::time::Duration;

    fn windows(spec: Aligned, at: i64) -> Vec<(i64, i64)> {
        let mut windows = Vec::new();
        spec.assign(&(), Timestamp(at), &mut windows)
            .expect("assigns");
        windows.iter().map(|w| (w.start.0, w.end.0)).collect()
    }

    #[test]
    fn aligned_windows_begin_at_multiples_of_the_slide_behind_the_offset() {
        let ms = Duration::from_millis;
        assert_eq!(windows(Tumbling::event_time(ms(10)), 10), [(10, 20)]);
        assert_eq!(windows(Tumbling::event_time(ms(10)), -1), [(-10, 0)]);
        assert_eq!(
            windows(Tumbling::event_time(ms(10)).offset(ms(3)), 12),
            [(3, 13)]
        );
        let sliding = Sliding::event_time(ms(10), ms(4));
        assert_eq!(windows(sliding, 9), [(8, 18), (4, 14), (0, 10)]);
        assert_eq!(windows(sliding, 11), [(8, 18), (4, 14)]);
    }
}
