//! Timers where they are kept: in memory, or with the last of them elsewhere.

use super::spilled::SpilledTimers;
use super::{Timer, Timers};
use crate::checkpoint::codec::{decode, encode_into};
use crate::checkpoint::stored_name;
use crate::checkpoint::{Entries, Key, KeyedPart, KeyedSection, OpenBacking, RestoredFiles};
use crate::fault::Flow;
use crate::hash::{key_group, key_hash};
use crate::time::Timestamp;

/// Timers that a load takes in before it makes room.
const LOADED_AT_ONCE: usize = 1024;

/// Timers of one domain of time, as many as there are. Those of the same time come out in the order of
/// their registration where they are in memory, and else in that of their keys.
pub(crate) struct TimerQueue<K> {
    memory: Timers<K>,
    spilled: Option<Box<SpilledTimers>>,
}

impl<K> Default for TimerQueue<K> {
    fn default() -> Self {
        TimerQueue {
            memory: Timers::default(),
            spilled: None,
        }
    }
}

/// A key behind its group.
fn encoded<K: Key>(spilled: &SpilledTimers, hash: u64, key: &K) -> Flow<Vec<u8>> {
    let group = key_group(hash, spilled.max_parallelism()) as u16;
    let mut bytes = group.to_be_bytes().to_vec();
    encode_into(key, &mut bytes)?;
    Ok(bytes)
}

impl<K: Key> TimerQueue<K> {
    /// Sets a timer; false if it was set already.
    #[inline]
    pub fn register(&mut self, at: Timestamp, hash: u64, key: &K) -> Flow<bool> {
        match &mut self.spilled {
            None => Ok(self.memory.register(at, hash, key)),
            Some(spilled) => {
                let key = encoded(spilled, hash, key)?;
                spilled.insert(at.0, &key, None)
            }
        }
    }

    /// Unsets a timer; false if it was not set.
    pub fn delete(&mut self, at: Timestamp, hash: u64, key: &K) -> Flow<bool> {
        match &mut self.spilled {
            None => Ok(self.memory.delete(at, hash, key)),
            Some(spilled) => {
                let key = encoded(spilled, hash, key)?;
                spilled.delete(at.0, &key)
            }
        }
    }

    /// Takes out the earliest timer that is due at `now`.
    pub fn pop_due(&mut self, now: Timestamp) -> Flow<Option<Timer<K>>> {
        let Some(spilled) = &mut self.spilled else {
            return Ok(self.memory.pop_due(now));
        };
        let Some((at, bytes)) = spilled.pop_due(now.0)? else {
            return Ok(None);
        };
        let key: K = decode(&bytes[2..])?;
        Ok(Some(Timer {
            at: Timestamp(at),
            hash: key_hash(&key),
            key,
        }))
    }

    /// When the earliest timer is due; not later than that where some are not in memory.
    #[inline]
    pub fn next(&self) -> Option<Timestamp> {
        match &self.spilled {
            None => self.memory.next(),
            Some(spilled) => spilled.next(),
        }
    }

    /// How many timers are set; about, where some are not in memory.
    pub fn len(&self) -> usize {
        match &self.spilled {
            None => self.memory.len(),
            Some(spilled) => spilled.len(),
        }
    }

    /// Whether some of them may be elsewhere.
    pub fn spills(&self) -> bool {
        self.spilled.is_some()
    }
}

impl<K: Key> KeyedPart for TimerQueue<K> {
    fn types(&self) -> (&'static str, &'static str) {
        (stored_name::<K>(), "timer")
    }

    fn freeze(&mut self) -> Flow {
        match &mut self.spilled {
            None => self.memory.freeze(),
            Some(spilled) => {
                spilled.freeze();
                Ok(())
            }
        }
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        match &mut self.spilled {
            None => self.memory.save(into, budget),
            Some(spilled) => spilled.save(into, budget),
        }
    }

    fn thaw(&mut self) {
        match &mut self.spilled {
            None => self.memory.thaw(),
            Some(spilled) => spilled.thaw(),
        }
    }

    fn spill(&mut self, open: &mut OpenBacking<'_>) -> Flow {
        if self.spilled.is_some() {
            return Ok(());
        }
        let (max_parallelism, backing, claim) = open()?;
        let mut spilled = Box::new(SpilledTimers::new(backing, claim, max_parallelism));
        while let Some(timer) = self.memory.pop_due(Timestamp::MAX) {
            let key = encoded(&spilled, timer.hash, &timer.key)?;
            spilled.insert(timer.at.0, &key, None)?;
        }
        self.spilled = Some(spilled);
        Ok(())
    }

    fn maintain(&mut self) -> Flow {
        match &mut self.spilled {
            None => Ok(()),
            Some(spilled) => spilled.keep_to_memory(),
        }
    }

    fn load(&mut self, entries: &mut Entries<'_>) -> Flow {
        let Some(spilled) = &mut self.spilled else {
            return self.memory.load(entries);
        };
        let mut loaded = 0;
        while let Some((at, registration, key)) = entries.take_next::<(Timestamp, u64, K)>()? {
            let key = encoded(spilled, key_hash(&key), &key)?;
            spilled.insert(at.0, &key, Some(registration))?;
            loaded += 1;
            if loaded % LOADED_AT_ONCE == 0 {
                spilled.keep_to_memory()?;
            }
        }
        Ok(())
    }

    fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        match &mut self.spilled {
            None => Err(files.in_memory()),
            Some(spilled) => spilled.load_files(files),
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
