//! Windows: which stretch of time a record belongs to, and what is computed for it.
//!
//! Aligned windows (tumbling, sliding) begin at the same moments for all keys. They are kept by
//! *slice*: a window is a run of slices, neighbouring windows share theirs, and a record is added to
//! exactly one. What ends first is found first; keys come second.

mod aggregator;
mod all;
mod assigner;
mod co_group;
#[cfg(test)]
mod co_group_tests;
mod count;
#[cfg(test)]
mod cut_tests;
mod due;
mod evictor;
mod general;
mod group_function;
mod pane_function;
mod panes;
mod session;
mod session_list;
mod session_spec;
mod sliced;
#[cfg(test)]
mod sliced_tests;
mod slices;
mod slices_state;
mod spilled;
mod trigger;
mod triggers;

pub use aggregator::{Aggregator, Count, Folded, Reduced, aggregate_with, avg, max, min, sum};
pub use all::{AllWindows, LocalSlices, Merging, Part};
pub use assigner::{GlobalWindows, WindowAssigner};
pub use co_group::CoGroupWindows;
pub use count::{CountWindow, CountWindows};
pub use evictor::{CountEvictor, DeltaEvictor, Elements, Evictor, NoEvictor, TimeEvictor};
pub use general::GeneralWindows;
pub(crate) use general::can_not_merge;
pub use group_function::{Group, GroupFunction, Groups, Pace, Pairs};
pub use pane_function::{
    AggregateElements, Aggregated, Buffered, PaneContext, PaneFunction, ProcessFn,
    ProcessWindowFunction, WindowContext, WindowOutput,
};
pub use session::SessionWindows;
pub use session_spec::{DynamicGap, FixedGap, Session, SessionGap};
pub use sliced::SlicedWindows;
pub use slices::Layout;
pub use trigger::{Trigger, TriggerContext, TriggerResult};
pub use triggers::{
    ContinuousEventTimeTrigger, ContinuousProcessingTimeTrigger, ContinuousTrigger, CountTrigger,
    DeltaTrigger, EventTimeTrigger, NeverTrigger, ProcessingTimeTrigger, PurgingTrigger,
    TimeTrigger,
};

use crate::fault::Fault;
use crate::time::{Timestamp, millis};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

/// A half-open stretch of time: `start` belongs to it, `end` does not. Ordered by end, then start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TimeWindow {
    /// The first moment in it.
    pub start: Timestamp,
    /// The first moment behind it.
    pub end: Timestamp,
}

impl TimeWindow {
    /// The window from `start` up to `end`.
    pub fn new(start: impl Into<Timestamp>, end: impl Into<Timestamp>) -> Self {
        TimeWindow {
            start: start.into(),
            end: end.into(),
        }
    }

    /// The last moment in it: a watermark that has come here ends the window.
    pub fn max_timestamp(self) -> Timestamp {
        Timestamp(self.end.0.saturating_sub(1))
    }
}

impl Ord for TimeWindow {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.end, self.start).cmp(&(other.end, other.start))
    }
}

impl PartialOrd for TimeWindow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for TimeWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// What a window yields for a key. Its timestamp is the window's [`TimeWindow::max_timestamp`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Windowed<K, V> {
    /// The key.
    pub key: K,
    /// The window.
    pub window: TimeWindow,
    /// The result.
    pub value: V,
}

/// Which clock windows go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimeKind {
    /// The records' timestamps; watermarks say how far time has come.
    Event,
    /// The clock of the machine that processes the record.
    Processing,
}

/// Windows that begin at the same moments for all keys; made by [`Tumbling`] and [`Sliding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aligned {
    time: TimeKind,
    size: i64,
    slide: i64,
    offset: i64,
}

/// Windows that follow each other without gap or overlap.
#[derive(Clone, Copy, Debug)]
pub enum Tumbling {}

impl Tumbling {
    /// By the records' timestamps.
    pub fn event_time(size: Duration) -> Aligned {
        Sliding::event_time(size, size)
    }

    /// By the clock.
    pub fn processing_time(size: Duration) -> Aligned {
        Sliding::processing_time(size, size)
    }
}

/// Windows of one size that begin at regular intervals and overlap where these are shorter.
#[derive(Clone, Copy, Debug)]
pub enum Sliding {}

impl Sliding {
    /// By the records' timestamps: a window of `size` every `slide`.
    pub fn event_time(size: Duration, slide: Duration) -> Aligned {
        let (size, slide) = (millis(size), millis(slide));
        Aligned {
            time: TimeKind::Event,
            size,
            slide,
            offset: 0,
        }
    }

    /// By the clock: a window of `size` every `slide`.
    pub fn processing_time(size: Duration, slide: Duration) -> Aligned {
        Aligned {
            time: TimeKind::Processing,
            ..Sliding::event_time(size, slide)
        }
    }
}

impl Aligned {
    /// Windows begin this much later than at multiples of the slide since the epoch.
    pub fn offset(self, by: Duration) -> Self {
        self.offset_ms(millis(by))
    }

    /// Windows begin so many milliseconds later (earlier where negative) than at multiples of the
    /// slide since the epoch; for time zones east and west of Greenwich.
    pub fn offset_ms(mut self, by: i64) -> Self {
        self.offset = by;
        self
    }

    /// Which clock they go by.
    pub fn time(&self) -> TimeKind {
        self.time
    }

    /// What is wrong with it, as a sentence for the plan's report.
    pub fn problem(&self) -> Option<String> {
        if self.size <= 0 {
            return Some("a window of size 0 ms holds nothing; give it at least 1 ms".to_owned());
        }
        if self.slide <= 0 {
            return Some("windows every 0 ms never end; give a slide of at least 1 ms".to_owned());
        }
        (self.slide > self.size).then(|| {
            format!(
                "a slide of {} ms is longer than the size of {} ms, so records would fall between \
                 the windows; give a slide of at most the size",
                self.slide, self.size
            )
        })
    }

    /// The windows and slices in numbers. Where there is a [`Aligned::problem`], some sound layout.
    pub fn layout(&self) -> Layout {
        let size = self.size.max(1);
        Layout::new(size, self.slide.clamp(1, size), self.offset)
    }
}

/// An event-time window was given a record that has no time.
#[cold]
fn no_event_time() -> Fault {
    Fault::user(
        "a record without event time came to an event-time window; \
         assign timestamps with .watermarks(...)",
    )
}
