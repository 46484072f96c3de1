//! Time in slices: which slice and which windows a moment belongs to, and what is kept per slice.
//!
//! Slices are numbered, and so are windows: window `k` consists of `per_window` slices from
//! `k * per_slide` on. A slice is as long as the greatest common divisor of size and slide, so no
//! window cuts one in two.

use super::TimeWindow;
use super::slices_state::{Saving, Settled};
use super::spilled::{Firing, SpilledSlices};
use crate::checkpoint::{Key, StateValue};
use crate::fault::Flow;
use crate::state::KeyTable;
use crate::time::Timestamp;
use std::collections::VecDeque;
use std::hash::Hash;
use std::ops::Range;

/// Aligned windows and their slices in numbers. Moments beyond what fits are taken as the last ones
/// that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    size: i64,
    slide: i64,
    /// In `0..slide`.
    offset: i64,
    /// The length of a slice.
    step: i64,
    per_window: i64,
    per_slide: i64,
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn clamped(millis: i128) -> i64 {
    millis.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

impl Layout {
    /// Windows of `size` ms every `slide` ms, both above 0, one of which begins at `offset`.
    pub(super) fn new(size: i64, slide: i64, offset: i64) -> Self {
        let (step, offset) = (gcd(size, slide), offset.rem_euclid(slide));
        Layout {
            size,
            slide,
            offset,
            step,
            per_window: size / step,
            per_slide: slide / step,
        }
    }

    /// The slice of a moment.
    pub fn slice_of(&self, at: Timestamp) -> i64 {
        // The last number stays free, so that there is always a next one.
        at.0.saturating_sub(self.offset)
            .div_euclid(self.step)
            .min(i64::MAX - 1)
    }

    /// The first and the last moment of a slice.
    pub fn span(&self, slice: i64) -> (Timestamp, Timestamp) {
        let first = i128::from(slice) * i128::from(self.step) + i128::from(self.offset);
        (
            Timestamp(clamped(first)),
            Timestamp(clamped(first + i128::from(self.step) - 1)),
        )
    }

    /// The first window that a slice belongs to.
    pub fn first_window(&self, slice: i64) -> i64 {
        let before = slice
            .saturating_sub(self.per_window)
            .div_euclid(self.per_slide);
        (before + 1).min(self.last_window(slice))
    }

    /// The last window that a slice belongs to.
    pub fn last_window(&self, slice: i64) -> i64 {
        slice.div_euclid(self.per_slide)
    }

    /// The slices of a window.
    pub fn slices_of(&self, window: i64) -> Range<i64> {
        let first = window.saturating_mul(self.per_slide);
        first..first.saturating_add(self.per_window)
    }

    /// A window as a stretch of time.
    pub fn window(&self, window: i64) -> TimeWindow {
        let start = i128::from(window) * i128::from(self.slide) + i128::from(self.offset);
        let end = start + i128::from(self.size);
        TimeWindow::new(clamped(start), clamped(end))
    }

    /// The moment at which a window is complete.
    pub fn completes(&self, window: i64) -> Timestamp {
        self.window(window).max_timestamp()
    }

    /// The moment at which a window is given up that is kept for `lateness` ms after its end.
    pub fn expires(&self, window: i64, lateness: i64) -> Timestamp {
        Timestamp(self.completes(window).0.saturating_add(lateness))
    }

    /// The first window that is not complete at `watermark`.
    pub fn first_open(&self, watermark: Timestamp) -> i64 {
        if watermark == Timestamp::MAX {
            return i64::MAX;
        }
        let beyond = i128::from(watermark.0) + 1 - i128::from(self.size) - i128::from(self.offset);
        clamped(beyond.div_euclid(i128::from(self.slide)) + 1)
    }

    /// The windows that a moment belongs to, in order.
    pub fn windows_of(self, at: Timestamp) -> impl Iterator<Item = TimeWindow> {
        let slice = self.slice_of(at);
        (self.first_window(slice)..=self.last_window(slice)).map(move |k| self.window(k))
    }
}

pub(super) struct Slice<K, V> {
    pub number: i64,
    pub table: KeyTable<K, V>,
}

/// How many emptied tables are kept for later slices.
const SPARE: usize = 4;

/// The slices that hold something, the oldest first.
pub(super) struct Slices<K, V> {
    pub(super) ring: VecDeque<Slice<K, V>>,
    /// The slice of the last record: its table, in exchange for an empty one, its place in the ring,
    /// its first moment, and its length, 0 where there is none.
    current: KeyTable<K, V>,
    place: usize,
    first: i64,
    length: u64,
    spare: Vec<KeyTable<K, V>>,
    /// How many keys the slice held that was emptied last.
    usual: usize,
    /// What a checkpoint has yet to save.
    pub(super) saving: Option<Saving>,
    /// Windows that fired in an earlier attempt.
    pub settled: Settled<K>,
    /// Where they are if they may be larger than memory; then there are none in the ring.
    pub(super) spilled: Option<Box<SpilledSlices<K, V>>>,
}

impl<K, V> Default for Slices<K, V> {
    fn default() -> Self {
        Slices {
            ring: VecDeque::new(),
            current: KeyTable::default(),
            place: 0,
            first: 0,
            length: 0,
            spare: Vec::new(),
            usual: 0,
            saving: None,
            settled: Settled::default(),
            spilled: None,
        }
    }
}

impl<K: Hash + Eq, V> Slices<K, V> {
    /// The current slice, if a moment lies in it.
    #[inline(always)]
    pub fn current(&mut self, at: Timestamp) -> Option<&mut KeyTable<K, V>> {
        let within = (at.0.wrapping_sub(self.first) as u64) < self.length;
        within.then_some(&mut self.current)
    }

    /// Makes the slice at a place of the ring the current one.
    pub fn set_current(&mut self, layout: &Layout, place: usize) {
        self.forget_current();
        let (first, last) = layout.span(self.ring[place].number);
        self.first = first.0;
        self.length = (last.0.wrapping_sub(first.0) as u64).saturating_add(1);
        self.place = place;
        std::mem::swap(&mut self.current, &mut self.ring[place].table);
    }

    /// From here on no slice is the current one. To be called before any but the current slice is
    /// asked for what it holds.
    pub fn forget_current(&mut self) {
        if self.length > 0 {
            self.length = 0;
            std::mem::swap(&mut self.current, &mut self.ring[self.place].table);
        }
    }

    pub(super) fn place(&self, number: i64) -> Result<usize, usize> {
        match self.ring.back() {
            None => Err(0),
            Some(last) if last.number < number => Err(self.ring.len()),
            Some(_) => self
                .ring
                .binary_search_by_key(&number, |slice| slice.number),
        }
    }

    /// The tables of those slices of a range that hold something, the oldest first.
    pub fn tables(&self, range: Range<i64>) -> impl Iterator<Item = &KeyTable<K, V>> {
        let from = self.place(range.start).unwrap_or_else(|place| place);
        let slices = self.ring.range(from..);
        slices
            .take_while(move |slice| slice.number < range.end)
            .map(|slice| &slice.table)
    }

    /// Takes back a table that held so many keys, to be used again with the memory it has.
    pub fn recycle(&mut self, mut table: KeyTable<K, V>, keys: usize) {
        self.usual = keys;
        // A table that is mostly empty is slow to walk through.
        if self.spare.len() < SPARE && table.capacity() <= 8 * keys.max(64) {
            table.clear();
            self.spare.push(table);
        }
    }
}

impl<K: Key, V: StateValue> Slices<K, V> {
    /// The number of the first slice from `from` on that holds something.
    pub fn first_from(&self, from: i64) -> Option<i64> {
        if let Some(spilled) = &self.spilled {
            return spilled.first_from(from);
        }
        let place = self.place(from).unwrap_or_else(|place| place);
        self.ring.get(place).map(|slice| slice.number)
    }

    /// The place of a slice, and whether it was made just now.
    pub fn enter(&mut self, number: i64) -> (usize, bool) {
        if let Some(spilled) = &mut self.spilled {
            return spilled.enter(number);
        }
        self.forget_current();
        match self.place(number) {
            Ok(place) => (place, false),
            Err(place) => {
                let table = self.spare.pop();
                let table = table.unwrap_or_else(|| KeyTable::with_capacity(self.usual));
                self.ring.insert(place, Slice { number, table });
                (place, true)
            }
        }
    }

    /// What a key has in the slice at a place that was entered just now, made first where there is
    /// nothing.
    #[inline]
    pub fn entry(
        &mut self,
        place: usize,
        hash: u64,
        key: K,
        make: impl FnOnce() -> V,
    ) -> Flow<&mut V> {
        match &mut self.spilled {
            None => Ok(self.ring[place].table.get_or_insert_with(hash, key, make)),
            Some(spilled) => spilled.entry(place, hash, key, make),
        }
    }

    /// Shows what a key has in the slices of a range, the oldest first.
    pub fn each_of_key(
        &mut self,
        range: Range<i64>,
        hash: u64,
        key: &K,
        visit: impl FnMut(&V),
    ) -> Flow {
        match &mut self.spilled {
            None => {
                let tables = self.tables(range);
                tables
                    .filter_map(|table| table.get(hash, key))
                    .for_each(visit);
                Ok(())
            }
            Some(spilled) => spilled.each_of_key(range, hash, key, visit),
        }
    }

    /// Where slices spill: begins to fire the window of these, of which those before `needed` are of no
    /// use behind it.
    pub fn fire(&mut self, range: Range<i64>, needed: i64) -> Flow<Option<Firing<K, V>>>
    where
        V: Clone,
    {
        let spilled = self.spilled.as_mut();
        spilled
            .map(|spilled| spilled.fire(range, needed))
            .transpose()
    }

    /// The next keys of a window that fires, with what they have; true once there are no more.
    pub fn next_piece(
        &mut self,
        firing: &mut Firing<K, V>,
        merge: impl Fn(&mut V, &V),
        into: &mut Vec<(K, V)>,
    ) -> Flow<bool>
    where
        V: Clone,
    {
        match &mut self.spilled {
            Some(spilled) => spilled.next_piece(firing, merge, into),
            None => Ok(true),
        }
    }

    /// Takes out the oldest slice if it is the only one of `range` and lies before `until`.
    pub fn take_sole(&mut self, range: Range<i64>, until: i64) -> Flow<Option<KeyTable<K, V>>> {
        let sole = self.ring.get(1).is_none_or(|next| next.number >= range.end);
        let fits = |slice: &Slice<K, V>| range.contains(&slice.number) && slice.number < until;
        if !sole || !self.ring.front().is_some_and(fits) {
            return Ok(None);
        }
        self.take_oldest()
    }

    /// Drops the slices before `until`.
    pub fn drop_before(&mut self, until: i64) -> Flow {
        if let Some(spilled) = &mut self.spilled {
            return spilled.drop_before(until);
        }
        while self
            .ring
            .front()
            .is_some_and(|oldest| oldest.number < until)
        {
            if let Some(table) = self.take_oldest()? {
                let keys = table.len();
                self.recycle(table, keys);
            }
        }
        Ok(())
    }

    fn take_oldest(&mut self) -> Flow<Option<KeyTable<K, V>>> {
        let Some(mut slice) = self.ring.pop_front() else {
            return Ok(None);
        };
        if let Some(saving) = &mut self.saving {
            saving.rescue(&mut slice)?;
        }
        Ok(Some(slice.table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_size_that_is_no_multiple_of_the_slide_is_cut_at_the_common_divisor() {
        let layout = Layout::new(10, 4, 0);
        assert_eq!(layout.span(3), (Timestamp(6), Timestamp(7)));
        let windows: Vec<_> = layout.windows_of(Timestamp(9)).collect();
        assert_eq!(
            windows,
            [
                TimeWindow::new(0, 10),
                TimeWindow::new(4, 14),
                TimeWindow::new(8, 18)
            ]
        );
    }

    #[test]
    fn the_ends_of_time_have_slices_and_windows() {
        for (size, slide, offset) in [
            (1, 1, 0),
            (10, 3, -7),
            (i64::MAX, 1, 5),
            (i64::MAX, i64::MAX, 9),
        ] {
            let layout = Layout::new(size, slide, offset);
            for at in [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX - 1, i64::MAX].map(Timestamp) {
                let slice = layout.slice_of(at);
                assert!(layout.first_window(slice) <= layout.last_window(slice));
                assert!(layout.completes(layout.last_window(slice)).0 >= at.0.saturating_sub(size));
                assert!(layout.first_open(at) <= layout.first_open(Timestamp::MAX));
            }
        }
    }

    proptest! {
        #[test]
        fn windows_are_those_that_contain_the_moment(
            size in 1i64..50, slide in 1i64..50, offset in -99i64..99, at in -200i64..200,
        ) {
            prop_assume!(slide <= size);
            let layout = Layout::new(size, slide, offset);
            let got: Vec<_> = layout.windows_of(Timestamp(at)).collect();
            let starts = (at - size + 1..=at).filter(|start| (start - offset).rem_euclid(slide) == 0);
            let want: Vec<_> = starts.map(|start| TimeWindow::new(start, start + size)).collect();
            prop_assert_eq!(&got, &want);
            let slice = layout.slice_of(Timestamp(at));
            let (first, last) = layout.span(slice);
            prop_assert!(first.0 <= at && at <= last.0);
            for k in layout.first_window(slice)..=layout.last_window(slice) {
                prop_assert!(layout.slices_of(k).contains(&slice));
            }
            let open = layout.first_open(Timestamp(at));
            prop_assert!(layout.completes(open).0 > at && layout.completes(open - 1).0 <= at);
        }
    }
}
