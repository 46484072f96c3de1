//! Windows that end: what they hold is merged from their slices, emitted as room allows, and dropped.

use super::SlicedWindows;
use crate::checkpoint::Key;
use crate::fault::Flow;
use crate::hash::key_hash;
use crate::stage::Collector;
use crate::state::KeyTable;
use crate::time::Timestamp;
use crate::window::{Aggregator, Windowed};

/// Results of slices that spill that are emitted before other work gets its turn.
const AT_ONCE: usize = 16384;

impl<K, T, A> SlicedWindows<K, T, A>
where
    K: Key,
    T: 'static,
    A: Aggregator<T>,
{
    /// The next window that has something to fire.
    pub(super) fn next_to_fire(&self) -> Option<i64> {
        let unfired = self.layout.slices_of(self.next_window).start;
        let slice = self.slices.first_from(unfired)?;
        Some(self.next_window.max(self.layout.first_window(slice)))
    }

    /// The first slice that is still needed: by a window to be fired or to be refined.
    fn first_needed(&self) -> i64 {
        let mut window = self.next_window;
        if self.lateness > 0 && self.watermark != Timestamp::MAX {
            let kept = self
                .layout
                .first_open(Timestamp(self.watermark.0.saturating_sub(self.lateness)));
            window = window.min(kept);
        }
        self.layout.slices_of(window).start
    }

    pub(super) fn schedule(&mut self) {
        let fires = self.next_to_fire().map(|k| self.layout.completes(k));
        let oldest = self.slices.first_from(i64::MIN);
        let drops = oldest.map(|slice| self.expires(self.layout.last_window(slice)));
        self.due = [fires, drops]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(Timestamp::MAX);
    }

    /// Emits the results of a key again for those windows that have fired and aren't gone.
    #[cold]
    pub(super) fn refine<C>(
        &mut self,
        windows: std::ops::RangeInclusive<i64>,
        hash: u64,
        key: &K,
        out: &mut C,
    ) -> Flow
    where
        C: Collector<Windowed<K, A::Out>>,
    {
        for k in windows {
            let fired = k < self.next_window || self.slices.settled.has(k, hash, key);
            if !fired || self.expires(k) <= self.watermark {
                continue;
            }
            let mut total = self.aggregator.create();
            let aggregator = &self.aggregator;
            let slices = self.layout.slices_of(k);
            let merge = |acc: &A::Acc| aggregator.merge(&mut total, acc);
            self.slices.each_of_key(slices, hash, key, merge)?;
            let (window, value) = (self.layout.window(k), self.aggregator.result(&total));
            out.collect(
                window.max_timestamp(),
                Windowed {
                    key: key.clone(),
                    window,
                    value,
                },
            )?;
        }
        Ok(())
    }

    /// Moves time on and fires what is due. True once all of it is out.
    pub(super) fn advance<C>(&mut self, to: Timestamp, out: &mut C) -> Flow<bool>
    where
        C: Collector<Windowed<K, A::Out>>,
    {
        self.watermark = self.watermark.max(to);
        if self.watermark < self.due {
            return Ok(true);
        }
        self.slices.forget_current();
        self.fire_due(out)
    }

    fn fire_due<C>(&mut self, out: &mut C) -> Flow<bool>
    where
        C: Collector<Windowed<K, A::Out>>,
    {
        if self.slices.spilled.is_some() {
            return self.fire_spilled(out);
        }
        while let Some(k) = self.next_to_fire() {
            if self.layout.completes(k) > self.watermark {
                break;
            }
            self.next_window = k.saturating_add(1);
            self.window = self.layout.window(k);
            let (table, merged) = self.table_of(k)?;
            if !self.emit(table, merged, out)? {
                self.suspended = true;
                return Ok(false);
            }
        }
        self.all_fired()?;
        Ok(true)
    }

    /// All that was due has fired: what nobody needs any more goes.
    fn all_fired(&mut self) -> Flow {
        self.next_window = self.next_window.max(self.layout.first_open(self.watermark));
        self.slices.drop_before(self.first_needed())?;
        self.slices.settle(self.next_window);
        self.schedule();
        Ok(())
    }

    /// Fires what is due where slices spill: piece by piece, and so much in one turn.
    #[cold]
    fn fire_spilled<C>(&mut self, out: &mut C) -> Flow<bool>
    where
        C: Collector<Windowed<K, A::Out>>,
    {
        let mut emitted = 0;
        loop {
            emitted += self.unsent.len();
            if !self.emit_unsent(out)? || emitted > AT_ONCE {
                self.suspended = true;
                return Ok(false);
            }
            if let Some(firing) = &mut self.firing {
                let (aggregator, unsent) = (&self.aggregator, &mut self.unsent);
                let merge = |into: &mut A::Acc, acc: &A::Acc| aggregator.merge(into, acc);
                if self.slices.next_piece(firing, merge, unsent)? {
                    self.firing = None;
                    self.slices.drop_before(self.first_needed())?;
                }
                let (k, settled) = (self.next_window - 1, &self.slices.settled);
                if !settled.over(k) {
                    self.unsent
                        .retain(|(key, _)| !settled.has(k, key_hash(key), key));
                }
                continue;
            }
            match self.next_to_fire() {
                Some(k) if self.layout.completes(k) <= self.watermark => {
                    self.next_window = k.saturating_add(1);
                    self.window = self.layout.window(k);
                    let slices = self.layout.slices_of(k);
                    self.firing = self.slices.fire(slices, self.first_needed())?;
                }
                _ => break,
            }
        }
        self.all_fired()?;
        Ok(true)
    }

    /// All keys of a window, and whether they were merged; drops the slices that have served.
    fn table_of(&mut self, k: i64) -> Flow<(KeyTable<K, A::Acc>, bool)> {
        let (slices, needed) = (self.layout.slices_of(k), self.first_needed());
        if let Some(mut table) = self.slices.take_sole(slices.clone(), needed)? {
            self.keep_unsettled(k, &mut table);
            return Ok((table, false));
        }
        let (aggregator, mut total) = (&self.aggregator, std::mem::take(&mut self.total));
        for table in self.slices.tables(slices) {
            // The keys of a slice are often those of the one before.
            total.reserve(table.len().saturating_sub(total.len()));
            for (key, acc) in table.iter() {
                let add = |into: &mut A::Acc| aggregator.merge(into, acc);
                total.upsert(key_hash(key), key, add, || acc.clone());
            }
        }
        self.slices.drop_before(needed)?;
        self.keep_unsettled(k, &mut total);
        Ok((total, true))
    }

    /// Removes the keys for which a window has fired in an earlier attempt.
    fn keep_unsettled(&self, k: i64, table: &mut KeyTable<K, A::Acc>) {
        let settled = &self.slices.settled;
        if !settled.over(k) {
            table.retain(|key, _| !settled.has(k, key_hash(key), key));
        }
    }

    /// Emits a window's results. False if the rest has to wait for room.
    fn emit<C>(&mut self, mut table: KeyTable<K, A::Acc>, merged: bool, out: &mut C) -> Flow<bool>
    where
        C: Collector<Windowed<K, A::Out>>,
    {
        let (window, at, keys) = (self.window, self.window.max_timestamp(), table.len());
        let mut results = table.drain();
        let mut done = true;
        loop {
            if self.since_asking >= self.between_asking {
                if !out.has_room() {
                    self.unsent.extend(results.by_ref());
                    done = false;
                    break;
                }
                self.since_asking = 0;
            }
            let Some((key, acc)) = results.next() else {
                break;
            };
            self.since_asking += 1;
            out.collect(
                at,
                Windowed {
                    key,
                    window,
                    value: self.aggregator.result(&acc),
                },
            )?;
        }
        drop(results);
        if merged {
            self.total = table;
        } else {
            self.slices.recycle(table, keys);
        }
        Ok(done)
    }

    /// Emits what waits for room. True once all of it is out.
    fn emit_unsent<C>(&mut self, out: &mut C) -> Flow<bool>
    where
        C: Collector<Windowed<K, A::Out>>,
    {
        let (window, at) = (self.window, self.window.max_timestamp());
        while let Some((key, acc)) = self.unsent.pop() {
            out.collect(
                at,
                Windowed {
                    key,
                    window,
                    value: self.aggregator.result(&acc),
                },
            )?;
            self.since_asking += 1;
            if self.since_asking >= self.between_asking {
                if !out.has_room() {
                    return Ok(false);
                }
                self.since_asking = 0;
            }
        }
        Ok(true)
    }

    /// Goes on with what waited for room. True once all that is due is out.
    pub(super) fn go_on<C>(&mut self, out: &mut C) -> Flow<bool>
    where
        C: Collector<Windowed<K, A::Out>>,
    {
        self.since_asking = 0;
        if !self.emit_unsent(out)? {
            return Ok(false);
        }
        if !self.fire_due(out)? {
            return Ok(false);
        }
        self.suspended = false;
        for (at, record) in std::mem::take(&mut self.waiting) {
            self.elsewhere(at, record, out)?;
        }
        self.advance(self.upcoming, out)
    }
}
