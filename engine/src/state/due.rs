//! When to look at which key, where those are more than memory holds: what an operator works out from its
//! state when it is in memory.
//!
//! A checkpoint that names files has it as files. Any other has nothing of it: whoever begins with that
//! works it out from the state, as one in memory does.

use super::{Timer, TimerQueue};
use crate::checkpoint::stored_name;
use crate::checkpoint::{
    Entries, Key, KeyedPart, KeyedSection, OpenBacking, RestoredFiles, StateVisitor,
};
use crate::fault::Flow;
use crate::time::Timestamp;

/// See the module.
pub(crate) struct SpilledDue<K> {
    queue: TimerQueue<K>,
    restored: bool,
}

impl<K> Default for SpilledDue<K> {
    fn default() -> Self {
        SpilledDue {
            queue: TimerQueue::default(),
            restored: false,
        }
    }
}

impl<K: Key> SpilledDue<K> {
    /// Whether it is in use.
    pub fn spills(&self) -> bool {
        self.queue.spills()
    }

    /// Looks at a key at this time; once, however often this is said.
    pub fn push(&mut self, at: i64, hash: u64, key: &K) -> Flow {
        self.queue.register(Timestamp(at), hash, key).map(drop)
    }

    /// The next key that is due at `now`.
    pub fn pop(&mut self, now: i64) -> Flow<Option<Timer<K>>> {
        self.queue.pop_due(Timestamp(now))
    }

    /// When the next key is due, at the earliest.
    pub fn next(&self) -> Option<i64> {
        self.queue.next().map(Timestamp::millis)
    }

    /// Shows itself to a visitor under this name, where it is in use or will be. True where it has to
    /// be worked out from the state.
    pub fn state(&mut self, visitor: &mut StateVisitor<'_>, name: &str) -> Flow<bool> {
        if self.spills() || visitor.spills() {
            visitor.keyed(name, self)?;
        }
        Ok(visitor.loads() && !self.restored)
    }
}

impl<K: Key> KeyedPart for SpilledDue<K> {
    fn types(&self) -> (&'static str, &'static str) {
        (stored_name::<K>(), "due")
    }

    fn freeze(&mut self) -> Flow {
        self.queue.freeze()
    }

    fn save(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        if !into.shares_files() {
            self.queue.thaw();
            return Ok(true);
        }
        let mut part = into.fresh();
        let whole = self.queue.save(&mut part, budget)?;
        into.wait(part.waits());
        if let Some(files) = part.take_files() {
            into.put_files(files);
        }
        Ok(whole)
    }

    fn thaw(&mut self) {
        self.queue.thaw();
    }

    fn spill(&mut self, open: &mut OpenBacking<'_>) -> Flow {
        self.queue.spill(open)
    }

    fn maintain(&mut self) -> Flow {
        self.queue.maintain()
    }

    fn load(&mut self, _: &mut Entries<'_>) -> Flow {
        Ok(())
    }

    fn load_files(&mut self, files: &RestoredFiles<'_>) -> Flow {
        self.restored = true;
        self.queue.load_files(files)
    }
}
