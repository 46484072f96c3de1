//! Merges of the parts of a large state, one after the other, so that each checkpoint has about as much to store as any
//! other.
//!
//! Left alone, RocksDB merges runs of files whenever there are too many of them, which parts of one state
//! reach at about the same time: most checkpoints then store what has changed, and some of them many
//! times as much. Here each checkpoint pays for merges: what it flushed to files, times a factor, is what the merges
//! until the next may write. The part that RocksDB itself would merge next is first. Its own merges remain for what
//! is flushed between checkpoints, or without any.

use super::database::{Database, part_merged_at};
use super::layout::{PARTS, part_name, part_number};
use rocksdb::{CompactOptions, LiveFile};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that merges may write for each byte that was flushed. More merges are more to store; with fewer, RocksDB
/// comes first with its own, and some checkpoints are much larger than others.
const PAID: u64 = 2;

/// See the module.
#[derive(Default)]
pub(super) struct Merging {
    /// Whoever merges has it.
    ledger: Mutex<Option<Ledger>>,
    runs: AtomicBool,
    stopped: AtomicBool,
    /// Checkpoints that have their files since these were looked at, and bytes that merges wrote since the last of them.
    checkpoints: AtomicU64,
    written: AtomicU64,
}

/// What merges may write, and what was counted for it.
struct Ledger {
    credit: u64,
    flushed: BTreeSet<String>,
    /// Bytes before the last merge and after it: what was overwritten is gone, and what is left is packed more tightly.
    last: (u64, u64),
}

impl Ledger {
    /// What was there before is not paid for. Subtasks begin at different points, so that their merges do not all come
    /// at once.
    fn begin(parts: &BTreeMap<u32, Part>, flushed: BTreeMap<String, u64>) -> Option<Self> {
        let largest = parts.values().map(Part::bytes).max()?;
        let (first, _) = parts.first_key_value()?;
        Some(Ledger {
            credit: largest / u64::from(PARTS) * u64::from(first % PARTS),
            flushed: flushed.into_keys().collect(),
            last: (1, 1),
        })
    }

    /// Bytes that were flushed since the last time.
    fn fresh(&mut self, flushed: BTreeMap<String, u64>) -> u64 {
        let fresh = flushed
            .iter()
            .filter(|(name, _)| !self.flushed.contains(*name));
        let fresh = fresh.map(|(_, bytes)| bytes).sum();
        self.flushed = flushed.into_keys().collect();
        fresh
    }

    /// What a merge of so many bytes is likely to write.
    fn cost(&self, bytes: u64) -> u64 {
        let (before, after) = self.last;
        (u128::from(bytes) * u128::from(after) / u128::from(before.max(1))) as u64
    }
}

/// The files of one part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    /// Bytes of files that may have any keys, and how many there are.
    flushed: (u64, u32),
    /// Bytes of levels of files that share no keys.
    levels: BTreeMap<i32, u64>,
}

impl Part {
    fn add(&mut self, file: &LiveFile) {
        if file.level == 0 {
            self.flushed.0 += file.size as u64;
            self.flushed.1 += 1;
        } else {
            *self.levels.entry(file.level).or_default() += file.size as u64;
        }
    }

    fn runs(&self) -> u32 {
        self.flushed.1 + self.levels.len() as u32
    }

    fn bytes(&self) -> u64 {
        self.flushed.0 + self.levels.values().sum::<u64>()
    }

    /// Bytes that a merge of some runs, but not of all, may write.
    fn unmerged(&self) -> u64 {
        let merged = self.levels.last_key_value().map(|(_, bytes)| bytes);
        self.bytes() - merged.unwrap_or(&0)
    }
}

impl Merging {
    /// Bytes that merges wrote since the last checkpoint.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// A checkpoint has its files, and has them with so many bytes that merges wrote.
    pub fn has_files(&self, written: u64) {
        self.checkpoints.fetch_add(1, Ordering::SeqCst);
        self.written.fetch_sub(written, Ordering::SeqCst);
    }

    /// Merges what checkpoints pay for that have their files, unless somebody else is at it, who will see to it.
    pub fn after_checkpoint(&self, database: &Database) {
        if let Ok(mut ledger) = self.ledger.try_lock() {
            self.runs.store(true, Ordering::SeqCst);
            loop {
                let checkpoints = self.checkpoints.swap(0, Ordering::SeqCst);
                if checkpoints == 0 {
                    break;
                }
                self.merge(checkpoints, &mut ledger, database);
            }
            self.runs.store(false, Ordering::SeqCst);
        }
    }

    /// Whether all was merged that checkpoints paid for.
    #[cfg(test)]
    pub fn is_done(&self) -> bool {
        self.ledger.try_lock().is_ok() && self.checkpoints.load(Ordering::SeqCst) == 0
    }

    /// Nothing is merged from now on: a merge that is under way is given up.
    pub fn stop(&self, database: &Database) {
        self.stopped.store(true, Ordering::SeqCst);
        if self.runs.load(Ordering::SeqCst) {
            database.db.cancel_all_background_work(false);
        }
    }

    /// Merges until there is one more checkpoint.
    fn merge(&self, checkpoints: u64, ledger: &mut Option<Ledger>, database: &Database) {
        // Merges are no must: whatever stands in their way will be told when something is written or read.
        let Ok(files) = database.db.live_files() else {
            return;
        };
        let mut parts = parts(&files, database.state());
        let flushed = flushed(&files, database.state());
        let Some(ledger) = ledger else {
            *ledger = Ledger::begin(&parts, flushed);
            return;
        };
        let paid = PAID * ledger.fresh(flushed);
        // No more is saved up than a merge takes: what could not be spent in time would come all at once.
        let most = parts.values().map(Part::bytes).max().unwrap_or(0);
        ledger.credit = ledger.credit.min(most) + paid;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        // RocksDB itself is about to merge these.
        let begun = parts.extract_if(.., |number, part| left(*number, part) == 0);
        let begun: u64 = begun.map(|(_, part)| part.unmerged()).sum();
        while let Some((number, before)) = next(&parts) {
            // Whatever was saved up: no checkpoint is to store much more than others.
            let written = self.written() + begun;
            let ends =
                self.stopped.load(Ordering::SeqCst) || self.checkpoints.load(Ordering::SeqCst) > 0;
            if ledger.cost(before) > ledger.credit || written > paid / checkpoints || ends {
                return;
            }
            let name = part_name(database.state(), number);
            if let Some(family) = database.family_to_read(&name) {
                let (db, all) = (&database.db, None::<&[u8]>);
                db.compact_range_cf_opt(&family, all, all, &options);
            }
            let after = database.property_of(&name, "rocksdb.live-sst-files-size");
            self.written.fetch_add(after, Ordering::SeqCst);
            ledger.credit = ledger.credit.saturating_sub(after);
            ledger.last = (before, after);
            parts.remove(&number);
        }
        // Nothing is saved up where there is nothing to merge.
        ledger.credit = 0;
    }
}

/// The parts that there are files of.
fn parts(files: &[LiveFile], state: &str) -> BTreeMap<u32, Part> {
    let mut parts = BTreeMap::<u32, Part>::new();
    for file in files {
        if let Some(number) = part_number(&file.column_family_name, state) {
            parts.entry(number).or_default().add(file);
        }
    }
    parts
}

/// The files of parts that were flushed.
fn flushed(files: &[LiveFile], state: &str) -> BTreeMap<String, u64> {
    let of_part = |file: &&LiveFile| part_number(&file.column_family_name, state).is_some();
    let flushed = files.iter().filter(of_part).filter(|file| file.level == 0);
    flushed
        .map(|file| (file.name.clone(), file.size as u64))
        .collect()
}

/// Runs that a part may still get before RocksDB merges some of them.
fn left(number: u32, part: &Part) -> u32 {
    part_merged_at(number).saturating_sub(part.runs())
}

/// The part to be merged next, and its bytes.
fn next(parts: &BTreeMap<u32, Part>) -> Option<(u32, u64)> {
    let unmerged = parts.iter().filter(|(_, part)| part.runs() > 1);
    let next = unmerged.min_by_key(|(number, part)| (left(**number, part), Reverse(part.bytes())));
    next.map(|(number, part)| (*number, part.bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(part: u32, level: i32, size: usize) -> LiveFile {
        LiveFile {
            column_family_name: part_name("uid/state", part),
            name: String::new(),
            size,
            level,
            start_key: None,
            end_key: None,
            num_entries: 0,
            num_deletions: 0,
        }
    }

    #[test]
    fn the_part_is_next_that_has_the_fewest_runs_left_before_it_is_merged_anyway() {
        let files = [
            // One run.
            (1, 6, 100),
            (1, 6, 100),
            // Three each, of which the first may have two less than the others.
            (2, 0, 5),
            (2, 5, 100),
            (2, 6, 100),
            (4, 0, 5),
            (4, 0, 5),
            (4, 6, 200),
            (4, 6, 200),
            (20, 0, 5),
            (20, 0, 5),
            (20, 6, 300),
        ];
        let files = files.map(|(part, level, size)| file(part, level, size));
        let mut parts = parts(&files, "uid/state");
        let mut order = Vec::new();
        while let Some((number, bytes)) = next(&parts) {
            order.push((number, bytes));
            parts.remove(&number);
        }
        assert_eq!(order, [(2, 205), (4, 410), (20, 310)]);
    }
}
