//! Windows over all records of a stream: aggregated per slice where the records are, merged in one
//! place.
//!
//! Each subtask keeps one accumulator per slice and ships it when the watermark passes the slice, so
//! the one subtask that merges sees a few records per slice instead of all.

use super::slices::Layout;
use super::{Aggregator, Aligned, SlicedWindows, TimeKind, Windowed};
use crate::build::OpenContext;
use crate::exchange::Keyed;
use crate::fault::Flow;
use crate::observe::SubtaskStats;
use crate::operator::{Operator, Progress};
use crate::side::{SideBuffer, SideOutput};
use crate::stage::{Collector, Signal};
use crate::time::{Timestamp, millis};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How many slices are shipped before the operator asks for room again.
const BETWEEN_ASKING: u32 = 256;

/// What a subtask ships to the one that merges.
#[derive(Clone, Debug, PartialEq)]
pub enum Part<T, A> {
    /// A slice's accumulator, at the last moment of the slice.
    Slice(A),
    /// A record that came too late, on its way to the side output.
    Late(T),
}

/// Aggregates a subtask's records per slice. Goes before [`AllWindows`].
///
/// Windows by the clock go by that of the merging subtask; here each record becomes a part at once.
pub struct LocalSlices<T, A: Aggregator<T>> {
    aggregator: A,
    time: TimeKind,
    layout: Layout,
    /// In milliseconds.
    lateness: i64,
    keeps_late: bool,
    /// The slice of the last record: its first moment, its length (0 where there is none), number
    /// and accumulator.
    first: i64,
    length: u64,
    number: i64,
    current: A::Acc,
    others: BTreeMap<i64, A::Acc>,
    watermark: Timestamp,
    stats: Arc<SubtaskStats>,
}

impl<T, A: Aggregator<T>> Clone for LocalSlices<T, A> {
    fn clone(&self) -> Self {
        let (aggregator, current) = (self.aggregator.clone(), self.aggregator.create());
        LocalSlices {
            aggregator,
            current,
            time: self.time,
            layout: self.layout,
            lateness: self.lateness,
            keeps_late: self.keeps_late,
            first: 0,
            length: 0,
            number: 0,
            others: BTreeMap::new(),
            watermark: Timestamp::MIN,
            stats: Arc::default(),
        }
    }
}

impl<T: 'static, A: Aggregator<T>> LocalSlices<T, A> {
    /// For windows as `spec` says. Late records are shipped if `keeps_late`.
    pub fn new(spec: Aligned, aggregator: A, lateness: Duration, keeps_late: bool) -> Self {
        LocalSlices {
            current: aggregator.create(),
            aggregator,
            time: spec.time(),
            layout: spec.layout(),
            lateness: millis(lateness),
            keeps_late,
            first: 0,
            length: 0,
            number: 0,
            others: BTreeMap::new(),
            watermark: Timestamp::MIN,
            stats: Arc::default(),
        }
    }

    /// Puts the current slice to the others.
    fn park(&mut self) {
        if self.length > 0 {
            self.length = 0;
            let acc = std::mem::replace(&mut self.current, self.aggregator.create());
            self.others.insert(self.number, acc);
        }
    }

    #[inline(never)]
    fn elsewhere<C>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow
    where
        C: Collector<Part<T, A::Acc>>,
    {
        if self.time == TimeKind::Processing {
            return self.ship_one(at, value, out);
        }
        if at == Timestamp::MIN {
            return Err(super::no_event_time());
        }
        let number = self.layout.slice_of(at);
        if self
            .layout
            .expires(self.layout.last_window(number), self.lateness)
            <= self.watermark
        {
            self.stats.late.fetch_add(1, Relaxed);
            return if self.keeps_late {
                out.collect(at, Part::Late(value))
            } else {
                Ok(())
            };
        }
        let (first, last) = self.layout.span(number);
        if last <= self.watermark {
            return self.ship_one(last, value, out);
        }
        self.park();
        if let Some(acc) = self.others.remove(&number) {
            self.current = acc;
        }
        self.aggregator.add(&mut self.current, value);
        (self.number, self.first) = (number, first.0);
        self.length = (last.0.wrapping_sub(first.0) as u64).saturating_add(1);
        Ok(())
    }

    fn ship_one<C>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow
    where
        C: Collector<Part<T, A::Acc>>,
    {
        let mut acc = self.aggregator.create();
        self.aggregator.add(&mut acc, value);
        out.collect(at, Part::Slice(acc))
    }
}

impl<T: 'static, A: Aggregator<T>> Operator<T> for LocalSlices<T, A> {
    type Out = Part<T, A::Acc>;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        self.stats = context.stats();
        Ok(())
    }

    #[inline(always)]
    fn process<C: Collector<Self::Out>>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow {
        if (at.0.wrapping_sub(self.first) as u64) < self.length {
            self.aggregator.add(&mut self.current, value);
            return Ok(());
        }
        self.elsewhere(at, value, out)
    }

    fn watermark<C: Collector<Self::Out>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        self.watermark = at;
        self.resume(out)
    }

    fn resume<C: Collector<Self::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        if self.length > 0 && self.layout.span(self.number).1 <= self.watermark {
            self.park();
        }
        let mut shipped = 0;
        while let Some(oldest) = self.others.first_entry() {
            let (_, last) = self.layout.span(*oldest.key());
            if last > self.watermark {
                break;
            }
            if shipped == BETWEEN_ASKING {
                if !out.has_room() {
                    return Ok(Progress::Suspended);
                }
                shipped = 0;
            }
            out.collect(last, Part::Slice(oldest.remove()))?;
            shipped += 1;
        }
        Ok(Progress::Forward)
    }
}

/// Adds up accumulators instead of records.
pub struct Merging<T, A> {
    inner: A,
    record: PhantomData<fn(T)>,
}

impl<T, A: Clone> Clone for Merging<T, A> {
    fn clone(&self) -> Self {
        Merging {
            inner: self.inner.clone(),
            record: PhantomData,
        }
    }
}

impl<T: 'static, A: Aggregator<T>> Aggregator<A::Acc> for Merging<T, A> {
    type Acc = A::Acc;
    type Out = A::Out;

    fn create(&self) -> A::Acc {
        self.inner.create()
    }

    fn add(&self, acc: &mut A::Acc, part: A::Acc) {
        self.inner.merge(acc, &part);
    }

    fn merge(&self, into: &mut A::Acc, other: &A::Acc) {
        self.inner.merge(into, other);
    }

    fn result(&self, acc: &A::Acc) -> A::Out {
        self.inner.result(acc)
    }
}

/// Merges the slices of all subtasks into windows. Goes behind [`LocalSlices`], in one subtask.
pub struct AllWindows<T, A: Aggregator<T>>
where
    T: 'static,
{
    windows: SlicedWindows<(), A::Acc, Merging<T, A>>,
    late_output: Option<SideOutput<T>>,
    late: SideBuffer<T>,
}

impl<T: 'static, A: Aggregator<T>> Clone for AllWindows<T, A> {
    fn clone(&self) -> Self {
        let (windows, late_output) = (self.windows.clone(), self.late_output.clone());
        AllWindows {
            windows,
            late_output,
            late: SideBuffer::default(),
        }
    }
}

impl<T: 'static, A: Aggregator<T>> AllWindows<T, A> {
    /// Windows as `spec` says.
    pub fn new(
        spec: Aligned,
        aggregator: A,
        lateness: Duration,
        late_output: Option<SideOutput<T>>,
    ) -> Self {
        let merging = Merging {
            inner: aggregator,
            record: PhantomData,
        };
        let windows = SlicedWindows::new(spec, merging).allowed_lateness(lateness);
        AllWindows {
            windows,
            late_output,
            late: SideBuffer::default(),
        }
    }
}

impl<T: 'static, A: Aggregator<T>> Operator<Part<T, A::Acc>> for AllWindows<T, A> {
    type Out = Windowed<(), A::Out>;

    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow {
        if let Some(tag) = &self.late_output {
            self.late = context.side_output(tag);
        }
        self.windows.open(context)
    }

    fn process<C: Collector<Self::Out>>(
        &mut self,
        at: Timestamp,
        part: Part<T, A::Acc>,
        out: &mut C,
    ) -> Flow {
        match part {
            Part::Slice(value) => self.windows.process(
                at,
                Keyed {
                    hash: 0,
                    key: (),
                    value,
                },
                out,
            ),
            Part::Late(value) => {
                self.late.collect(at, value);
                Ok(())
            }
        }
    }

    fn watermark<C: Collector<Self::Out>>(&mut self, at: Timestamp, out: &mut C) -> Flow<Progress> {
        self.windows.watermark(at, out)
    }

    fn resume<C: Collector<Self::Out>>(&mut self, out: &mut C) -> Flow<Progress> {
        self.windows.resume(out)
    }

    fn turn(&mut self, now: Timestamp) -> Option<Signal> {
        self.windows.turn(now)
    }

    fn next_timer(&self) -> Option<Timestamp> {
        self.windows.next_timer()
    }

    fn timer<C: Collector<Self::Out>>(&mut self, now: Timestamp, out: &mut C) -> Flow {
        self.windows.timer(now, out)
    }
}
