//! What whole jobs read: splits that can be read again from any place, dealt out to any number of readers.

use crate::network::Dice;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tidegate_engine::prelude::*;

/// A record: its key, its number there, and what has been worked out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Item {
    pub key: u64,
    pub n: u64,
    pub value: u64,
}

/// A number that depends on all of an item.
pub fn mix(item: &Item) -> u64 {
    let mut dice = Dice(item.key << 40 ^ item.n << 8 ^ item.value.rotate_left(17));
    dice.roll(usize::MAX) as u64
}

/// How many keys one split has, so that all records of a key are in order.
const KEYS_OF_SPLIT: u64 = 3;
/// The keys of one source begin so far behind those of the one before it.
pub const KEYS_OF_SOURCE: u64 = 1_000;

/// How far each split was read by the attempt that read it last: by source and split.
pub type Reached = BTreeMap<(u32, u32), u64>;

/// A source of several splits; each has a millisecond of event time times `pace` between records.
#[derive(Clone)]
pub struct Splits {
    pub source: u32,
    /// The lengths of its splits.
    pub lengths: Vec<u64>,
    pub pace: i64,
    pub jitter: i64,
    pub seed: u64,
    pub reached: Arc<Mutex<Reached>>,
}

impl Splits {
    /// The record at a place.
    pub fn item(source: u32, split: u32, n: u64) -> Item {
        let key = u64::from(source) * KEYS_OF_SOURCE + u64::from(split) * KEYS_OF_SPLIT;
        Item {
            key: key + n % KEYS_OF_SPLIT,
            n,
            value: n * 7 + u64::from(split),
        }
    }

    /// An even number: so no record is exactly an odd gap behind another, where it would depend on the
    /// watermark whether it still belongs to that one's session.
    fn time(&self, split: u32, n: u64) -> i64 {
        let noise = mix(&Self::item(self.source, split, n)) % (self.jitter as u64 + 1);
        2 * (n as i64 * self.pace + noise as i64)
    }
}

pub struct SplitsReader {
    source: Splits,
    /// The splits and the numbers of their next records.
    splits: Vec<(u32, u64)>,
    dice: Dice,
}

impl Source for Splits {
    type Item = Item;
    type Reader = SplitsReader;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<SplitsReader> {
        let (me, all) = (context.subtask(), context.parallelism());
        let mine = (0..self.lengths.len() as u32).filter(|split| split % all == me);
        let splits: Vec<(u32, u64)> = match context.restored_splits()? {
            None => mine.map(|split| (split, 0)).collect(),
            Some(saved) => {
                let number =
                    |bytes: &[u8]| bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
                let one = |s: &Vec<u8>| (number(&s[..4]) as u32, number(&s[4..]));
                saved.iter().map(one).collect()
            }
        };
        let mut reached = self.reached.lock().expect("no panic inside");
        for (split, n) in &splits {
            reached.insert((self.source, *split), *n);
        }
        Ok(SplitsReader {
            dice: Dice(self.seed ^ u64::from(me) << 32 ^ u64::from(self.source)),
            source: self.clone(),
            splits,
        })
    }

    fn replayable(&self) -> bool {
        true
    }
}

impl SplitsReader {
    /// The split whose next record is the oldest, but for the noise.
    fn next(&mut self) -> Option<&mut (u32, u64)> {
        let lengths = &self.source.lengths;
        let left = self.splits.iter_mut();
        let left = left.filter(|(split, n)| *n < lengths[*split as usize]);
        left.min_by_key(|(split, n)| (*n, *split))
    }
}

impl SourceReader for SplitsReader {
    type Item = Item;

    fn poll<C: Collector<Item>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        if self.next().is_none() {
            return Ok(Poll::End);
        }
        if self.dice.roll(4) == 0 {
            let pause = Duration::from_millis(self.dice.roll(30) as u64);
            return Ok(Poll::Wait(pause));
        }
        let most = 1 + self.dice.roll(budget);
        for read in 0..most {
            let Some(place) = self.next() else {
                return Ok(Poll::Read(read));
            };
            let (split, n) = *place;
            place.1 += 1;
            let id = self.source.source;
            let reached = &self.source.reached;
            reached
                .lock()
                .expect("no panic inside")
                .insert((id, split), n + 1);
            let at = Timestamp(self.source.time(split, n));
            out.collect(at, Splits::item(id, split, n))?;
        }
        Ok(Poll::Read(most))
    }

    fn position(&self) -> String {
        format!("{:?}", self.splits)
    }

    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        let lengths = &self.source.lengths;
        let dice = &mut self.dice;
        // One that was read to its end may be named or not.
        let named = self
            .splits
            .iter()
            .filter(|(split, n)| *n < lengths[*split as usize] || dice.roll(2) == 0);
        Ok(named
            .map(|(split, n)| [&split.to_le_bytes()[..], &n.to_le_bytes()[..]].concat())
            .collect())
    }
}
