//! Windows over all records of a stream: aggregated per slice where the records are, merged in one
//! place.
//!
//! Each subtask keeps one accumulator per slice and ships it when the watermark passes the slice, so
//! the one subtask that merges sees a few records per slice instead of all.

use super::slices::Layout;
use super::{Aggregator, Aligned, SlicedWindows, TimeKind, Windowed};
use crate::build::OpenContext;
use crate::checkpoint::StateVisitor;
use crate::exchange::Keyed;
use crate::fault::Flow;
use crate::hash::key_hash;
use crate::observe::SubtaskStats;
use crate::operator::{Operator, Progress};
use crate::side::{SideBuffer, SideOutput};
use crate::stage::{Collector, Signal};
use crate::time::{Timestamp, millis};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
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

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        self.park();
        let mut slices: Vec<(i64, A::Acc)> = Vec::new();
        if !state.loads() {
            slices.extend(self.others.iter().map(|(n, acc)| (*n, acc.clone())));
        }
        state.list("slices", &mut slices)?;
        if state.loads() {
            for (number, acc) in slices {
                match self.others.entry(number) {
                    Entry::Vacant(entry) => {
                        entry.insert(acc);
                    }
                    Entry::Occupied(entry) => self.aggregator.merge(entry.into_mut(), &acc),
                }
            }
        }
        Ok(())
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
                    hash: key_hash(&()),
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

    fn emitting(&self) -> bool {
        self.windows.emitting()
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        self.windows.state(state)
    }
}

#[cfg(test)]
mod tests {
    use super::super::sliced_tests::{Model, Step, steps};
    use super::super::{Count, Sliding, Tumbling};
    use super::*;
    use crate::testing::OperatorHarness;
    use proptest::prelude::*;

    type Merge = OperatorHarness<Part<u64, u64>, Part<u64, u64>, AllWindows<u64, Count>>;

    const NONE: Duration = Duration::ZERO;

    fn local(spec: Aligned) -> OperatorHarness<u64, u64, LocalSlices<u64, Count>> {
        OperatorHarness::new(LocalSlices::new(spec, Count, NONE, true))
    }

    fn merge(spec: Aligned, late_output: Option<SideOutput<u64>>) -> AllWindows<u64, Count> {
        AllWindows::new(spec, Count, NONE, late_output)
    }

    fn tumbling() -> Aligned {
        Tumbling::event_time(Duration::from_millis(10))
    }

    #[test]
    fn a_slice_is_shipped_once_and_before_the_watermark_that_ends_it() {
        let mut local = local(tumbling());
        for at in [3, 12, 5] {
            local.push(at, 0).expect("counts");
        }
        local.watermark(8).expect("keeps the slice");
        assert_eq!(local.records(), []);
        local.watermark(9).expect("ships the slice");
        assert_eq!(local.records(), [(Timestamp(9), Part::Slice(2))]);
        local.end().expect("ships the rest");
        assert_eq!(local.records(), [(Timestamp(19), Part::Slice(1))]);
    }

    #[test]
    fn late_records_travel_to_the_side_output() {
        let mut local = local(tumbling());
        local.watermark(20).expect("passes");
        local.push(4, 44).expect("is late");
        assert_eq!(local.stats().late.load(Relaxed), 1);
        let tag = SideOutput::new("late");
        let (mut merge, late) =
            OperatorHarness::with_side(merge(tumbling(), Some(tag.clone())), &tag);
        for (at, part) in local.records() {
            merge.push(at.0, part).expect("passes it on");
        }
        let mut taken = Vec::new();
        late.take(&mut taken);
        assert_eq!(taken, [(Timestamp(4), 44)]);
    }

    #[test]
    fn many_slices_are_shipped_as_room_allows() {
        let mut local = local(Tumbling::event_time(Duration::from_millis(1)));
        for at in 0..1_000 {
            local.push(at, 0).expect("counts");
        }
        local.set_room(false);
        local.end().expect("suspends");
        assert_eq!(local.records().len(), 256);
        local.set_room(true);
        local.turn().expect("goes on");
        assert_eq!(local.records().len(), 744);
    }

    #[test]
    fn processing_time_is_that_of_the_merging_subtask() {
        let spec = Tumbling::processing_time(Duration::from_millis(10));
        let (mut local, mut merge) = (local(spec), Merge::new(merge(spec, None)));
        for at in [i64::MIN, 700] {
            local.push(at, 0).expect("passes on");
        }
        for (at, part) in local.records() {
            merge.push(at.0, part).expect("counts");
        }
        merge.advance(Duration::from_millis(10)).expect("fires");
        let window = super::super::TimeWindow::new(0, 10);
        assert_eq!(
            merge.values(),
            [Windowed {
                key: (),
                window,
                value: 2
            }]
        );
    }

    proptest! {
        #[test]
        fn two_subtasks_together_make_the_windows_of_the_model(
            size in 1i64..40, slide in 1i64..40, offset in -50i64..50, steps in steps(),
        ) {
            prop_assume!(slide <= size);
            let ms = |n: i64| Duration::from_millis(n as u64);
            let spec = Sliding::event_time(ms(size), ms(slide)).offset_ms(offset);
            let mut locals = [local(spec), local(spec)];
            let mut merge = Merge::new(merge(spec, None));
            for step in steps.iter().chain([&Step::Watermark(i64::MAX)]) {
                match *step {
                    Step::Record(at, key) => locals[key as usize % 2].push(at, key).expect("counts"),
                    Step::Watermark(at) => {
                        for local in &mut locals {
                            local.watermark(at).expect("ships");
                            for (at, part) in local.records() {
                                merge.push(at.0, part).expect("merges");
                            }
                        }
                        merge.watermark(at).expect("fires");
                    }
                }
            }
            let model = Model::run(size, slide, offset, &steps);
            let mut want = std::collections::BTreeMap::new();
            for (start, _, _, records) in model.fired {
                *want.entry(start).or_insert(0) += records.len() as u64;
            }
            let got: Vec<_> =
                merge.values().into_iter().map(|w| (w.window.start.0, w.value)).collect();
            prop_assert_eq!(got, want.into_iter().collect::<Vec<_>>());
            let late = locals.iter().map(|local| local.stats().late.load(Relaxed)).sum::<u64>();
            prop_assert_eq!(late, model.late);
        }
    }
}
