//! Windows of a number of records per key.
//!
//! Overlapping windows share slices: with slices as long as the greatest common divisor of size and
//! slide, a record is added once, and a window is the merge of whole slices.

use super::{Aggregator, CountEvictor, CountTrigger, GlobalWindows, TimeKind, TimeWindow};
use super::{WindowAssigner, Windowed};
use crate::checkpoint::stored_name;
use crate::checkpoint::{Key, Named, StateVisitor};
use crate::exchange::Keyed;
use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::Collector;
use crate::state::BackedTable;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::marker::PhantomData;

/// Windows of a number of records per key. Their results carry the time of the record that
/// completes them, and the window of all time; records that complete none yield nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountWindow {
    pub(crate) size: u64,
    pub(crate) slide: u64,
}

impl CountWindow {
    /// Every `n` records of a key are a window.
    pub fn tumbling(n: u64) -> Self {
        CountWindow { size: n, slide: n }
    }

    /// With every `slide` records of a key, a window of the last `size` of them, or of all where
    /// there are fewer yet.
    pub fn sliding(size: u64, slide: u64) -> Self {
        CountWindow { size, slide }
    }

    /// What is wrong with it, as a sentence for the plan's report.
    pub fn problem(&self) -> Option<String> {
        (self.size == 0 || self.slide == 0)
            .then(|| "a count window of 0 records never fires; give it at least 1".to_owned())
    }
}

/// For functions over all records: with every `slide` records, what an evictor leaves of all.
impl<T: 'static> WindowAssigner<T> for CountWindow {
    type DefaultTrigger = CountTrigger;
    type DefaultEvictor = CountEvictor;

    fn assign(&self, value: &T, at: Timestamp, windows: &mut Vec<TimeWindow>) -> Flow {
        GlobalWindows.assign(value, at, windows)
    }

    fn time(&self) -> Option<TimeKind> {
        None
    }

    fn default_trigger(&self) -> CountTrigger {
        CountTrigger::new(self.slide)
    }

    fn default_evictor(&self) -> CountEvictor {
        let records = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        // What the next window can't see any more goes at once.
        let needed_next = self.size.saturating_sub(self.slide);
        CountEvictor::new(records(self.size)).and_after(records(needed_next))
    }

    fn problem(&self) -> Option<String> {
        CountWindow::problem(self)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What is kept of a key.
#[derive(Serialize, Deserialize)]
struct Counted<Acc> {
    /// The slice that records are added to, and how many it has.
    current: Acc,
    filled: u64,
    /// Slices completed since the last window.
    since: u64,
    /// The complete slices that the next windows need, oldest first.
    slices: VecDeque<Acc>,
}

/// Computes an aggregate per key and window of a number of records.
pub struct CountWindows<K, T, A: Aggregator<T>> {
    aggregator: A,
    spec: CountWindow,
    slice: u64,
    counted: BackedTable<K, Counted<A::Acc>>,
    records: PhantomData<fn(T)>,
}

impl<K, T, A: Aggregator<T>> Clone for CountWindows<K, T, A> {
    fn clone(&self) -> Self {
        CountWindows::new(self.spec, self.aggregator.clone())
    }
}

impl<K, T, A: Aggregator<T>> CountWindows<K, T, A> {
    /// The aggregate of each window.
    pub fn new(spec: CountWindow, aggregator: A) -> Self {
        let slice = gcd(spec.size, spec.slide).max(1);
        let counted = BackedTable::default();
        CountWindows {
            aggregator,
            spec,
            slice,
            counted,
            records: PhantomData,
        }
    }
}

impl<K, T, A> Operator<Keyed<K, T>> for CountWindows<K, T, A>
where
    K: Key,
    T: 'static,
    A: Aggregator<T>,
{
    type Out = Windowed<K, A::Out>;

    #[inline(always)]
    fn process<C: Collector<Self::Out>>(
        &mut self,
        at: Timestamp,
        record: Keyed<K, T>,
        out: &mut C,
    ) -> Flow {
        let Keyed { hash, key, value } = record;
        let aggregator = &self.aggregator;
        let make = || Counted {
            current: aggregator.create(),
            filled: 0,
            since: 0,
            slices: VecDeque::new(),
        };
        let kept = match self.counted.get_mut(hash, &key)? {
            Some(kept) => kept,
            None => self.counted.insert_new(hash, key.clone(), make())?,
        };
        aggregator.add(&mut kept.current, value);
        kept.filled += 1;
        if kept.filled < self.slice {
            return Ok(());
        }
        kept.filled = 0;
        let slice = std::mem::replace(&mut kept.current, aggregator.create());
        if self.spec.size == self.slice && self.spec.slide == self.slice {
            return emit(aggregator, at, key, &slice, out);
        }
        kept.slices.push_back(slice);
        if kept.slices.len() as u64 > self.spec.size / self.slice {
            kept.slices.pop_front();
        }
        kept.since += 1;
        if kept.since < self.spec.slide / self.slice {
            return Ok(());
        }
        kept.since = 0;
        let mut total = kept.slices[0].clone();
        for slice in kept.slices.iter().skip(1) {
            aggregator.merge(&mut total, slice);
        }
        emit(aggregator, at, key, &total, out)
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        let types = (stored_name::<K>(), stored_name::<A::Acc>());
        state.keyed("counted", &mut Named(&mut self.counted, types))
    }
}

fn emit<K, T, A: Aggregator<T>, C: Collector<Windowed<K, A::Out>>>(
    aggregator: &A,
    at: Timestamp,
    key: K,
    acc: &A::Acc,
    out: &mut C,
) -> Flow {
    let value = aggregator.result(acc);
    out.collect(
        at,
        Windowed {
            key,
            window: GlobalWindows::WINDOW,
            value,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::OperatorHarness;
    use crate::window::sum;
    use proptest::prelude::*;

    fn sums(spec: CountWindow, records: &[(u32, i64)]) -> Vec<(u32, i64)> {
        let windows = CountWindows::new(spec, sum(|r: &(u32, i64)| r.1));
        let mut harness = OperatorHarness::keyed(windows, |r: &(u32, i64)| r.0);
        records
            .iter()
            .for_each(|r| harness.push(0, *r).expect("takes it"));
        harness.end().expect("ends");
        harness
            .values()
            .into_iter()
            .map(|w| (w.key, w.value))
            .collect()
    }

    #[test]
    fn every_n_records_of_a_key_are_a_window() {
        let records = [(1, 1), (1, 2), (2, 9), (1, 3), (1, 4), (1, 5)];
        assert_eq!(sums(CountWindow::tumbling(2), &records), [(1, 3), (1, 7)]);
        assert_eq!(
            sums(CountWindow::tumbling(1), &records[..2]),
            [(1, 1), (1, 2)]
        );
    }

    #[test]
    fn a_result_carries_the_time_of_the_record_that_completes_it() {
        let windows = CountWindows::new(CountWindow::tumbling(2), crate::window::Count);
        let mut harness = OperatorHarness::keyed(windows, |_: &u8| 0u8);
        harness.push(7, 0).expect("takes it");
        harness.push(5, 0).expect("takes it");
        assert_eq!(harness.records()[0].0, Timestamp(5));
    }

    proptest! {
        #[test]
        fn sliding_is_the_last_records_at_every_slide(
            size in 1u64..9, slide in 1u64..9, values in prop::collection::vec(0i64..100, 0..60),
        ) {
            let records: Vec<_> = values.iter().map(|v| (1, *v)).collect();
            let ends = (1..=values.len()).filter(|n| n.is_multiple_of(slide as usize));
            let want: Vec<_> = ends
                .map(|n| (1, values[n.saturating_sub(size as usize)..n].iter().sum::<i64>()))
                .collect();
            prop_assert_eq!(sums(CountWindow::sliding(size, slide), &records), want);
        }
    }
}
