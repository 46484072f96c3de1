//! A store that states spill to in tests: an ordered map.

use crate::fault::Flow;
use crate::state::backing::{Backing, Changes, Scan, Spill, StateMemory};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keeps everything in memory, and opens an empty map for each state.
#[derive(Debug)]
pub struct MemorySpill {
    memory: StateMemory,
}

impl MemorySpill {
    /// With so many bytes for the tables in front.
    pub fn new(limit: u64) -> Self {
        MemorySpill {
            memory: StateMemory::new(limit),
        }
    }
}

impl Spill for MemorySpill {
    fn open(&self, _uid: &str, _state: &str) -> Flow<Box<dyn Backing>> {
        Ok(Box::new(MapBacking::default()))
    }

    fn memory(&self) -> &StateMemory {
        &self.memory
    }
}

/// One state. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct MapBacking(Arc<Mutex<Map>>);

impl MapBacking {
    fn map(&self) -> MutexGuard<'_, Map> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.map().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Backing for MapBacking {
    fn get(&mut self, key: &[u8], into: &mut Vec<u8>) -> Flow<bool> {
        let map = self.map();
        let found = map.get(key);
        into.clear();
        into.extend(found.into_iter().flatten());
        Ok(found.is_some())
    }

    fn write(&mut self, changes: &Changes) -> Flow {
        let mut map = self.map();
        for (key, value) in changes.iter() {
            match value {
                Some(value) => map.insert(key.to_vec(), value.to_vec()),
                None => map.remove(key),
            };
        }
        Ok(())
    }

    fn walk(
        &mut self,
        after: &[u8],
        budget: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Flow,
    ) -> Flow<bool> {
        let map = self.map();
        let mut entries = map.range::<[u8], _>((Bound::Excluded(after), Bound::Unbounded));
        for (key, value) in entries.by_ref().take(budget) {
            visit(key, value)?;
        }
        Ok(entries.next().is_none())
    }

    fn scan(&mut self) -> Flow<Box<dyn Scan>> {
        Ok(Box::new(MapScan(self.map().clone())))
    }
}

struct MapScan(Map);

impl Scan for MapScan {
    fn next(&mut self, budget: usize, visit: &mut dyn FnMut(&[u8], &[u8]) -> Flow) -> Flow<bool> {
        for _ in 0..budget {
            let Some((key, value)) = self.0.pop_first() else {
                return Ok(true);
            };
            visit(&key, &value)?;
        }
        Ok(self.0.is_empty())
    }
}
