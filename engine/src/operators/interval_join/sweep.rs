//! Which keys are looked at when for what expired, and what is dropped then.

use super::{BETWEEN_ASKING, IntervalJoin};
use crate::checkpoint::{Key, KeyedPart, StateValue};
use crate::fault::Flow;
use crate::hash::key_hash;
use crate::state::Timer;
use crate::time::Timestamp;

impl<K: Key, A: StateValue, B: StateValue, F> IntervalJoin<K, A, B, F> {
    /// Drops what expired by now, of those keys of which something may have.
    pub(super) fn sweep(&mut self) -> Flow {
        if self.spilled_sweeps.spills() {
            return self.sweep_spilled();
        }
        let step = self.interval.step();
        while let Some(entry) = self.sweeps.first_entry() {
            if entry.key().saturating_mul(step) > self.passed.0 {
                return Ok(());
            }
            for (hash, key) in entry.remove() {
                self.sweep_key(hash, key)?;
            }
        }
        Ok(())
    }

    /// The same where the keys in question are not in memory.
    #[cold]
    fn sweep_spilled(&mut self) -> Flow {
        let due = match self.passed {
            Timestamp::MAX => i64::MAX,
            passed => passed.0.div_euclid(self.interval.step()),
        };
        let mut swept = 0u32;
        while let Some(Timer { hash, key, .. }) = self.spilled_sweeps.pop(due)? {
            self.sweep_key(hash, key)?;
            swept += 1;
            if swept.is_multiple_of(BETWEEN_ASKING) {
                // Many may be due at once, of which few are in memory.
                self.sides.maintain()?;
                self.spilled_sweeps.maintain()?;
            }
        }
        Ok(())
    }

    /// Drops what expired of a key, and sees to when it is to be swept next.
    fn sweep_key(&mut self, hash: u64, key: K) -> Flow {
        let Some(sides) = self.sides.get_mut(hash, &key)? else {
            return Ok(());
        };
        sides.prune(&self.interval, self.passed);
        match sides.expires(&self.interval) {
            Some(at) => self.sweep_at(self.interval.step_of(at), hash, key),
            None => self.sides.remove(hash, &key).map(drop),
        }
    }

    /// Has a key swept in this step.
    pub(super) fn sweep_at(&mut self, step: i64, hash: u64, key: K) -> Flow {
        if self.spilled_sweeps.spills() {
            return self.spilled_sweeps.push(step, hash, &key);
        }
        self.sweeps.entry(step).or_default().push((hash, key));
        Ok(())
    }

    /// Works out anew which keys are to be swept when.
    pub(super) fn rebuild_sweeps(&mut self) -> Flow {
        let (interval, sweeps) = (self.interval, &mut self.sweeps);
        let spilled = &mut self.spilled_sweeps;
        self.sides.each(|key, sides| {
            let Some(at) = sides.expires(&interval) else {
                return Ok(());
            };
            let (step, hash) = (interval.step_of(at), key_hash(key));
            if spilled.spills() {
                spilled.push(step, hash, key)?;
                return spilled.maintain();
            }
            sweeps.entry(step).or_default().push((hash, key.clone()));
            Ok(())
        })
    }
}
