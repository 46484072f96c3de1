//! A store that states spill to in tests: an ordered map.

use crate::checkpoint::codec::{decode, encode};
use crate::checkpoint::{FilesImage, FilesIndex, RestoredFiles};
use crate::fault::Flow;
use crate::state::backing::{Backing, Change, Changes, Export, Scan, Spill, StateMemory};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// Keeps everything in memory, and opens an empty map for each state.
#[derive(Debug)]
pub struct MemorySpill {
    memory: StateMemory,
    shares_files: bool,
}

impl MemorySpill {
    /// With so many bytes for the tables in front.
    pub fn new(limit: u64) -> Self {
        MemorySpill {
            memory: StateMemory::new(limit),
            shares_files: false,
        }
    }

    /// Whether checkpoints get what there is in one piece, as from a store that has files to share.
    pub fn sharing_files(mut self, shares: bool) -> Self {
        self.shares_files = shares;
        self
    }
}

impl Spill for MemorySpill {
    fn open(&self, _uid: &str, _state: &str, _: u32) -> Flow<Box<dyn Backing>> {
        Ok(Box::new(
            MapBacking::default().sharing_files(self.shares_files),
        ))
    }

    fn memory(&self) -> &StateMemory {
        &self.memory
    }
}

/// One state. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct MapBacking {
    map: Arc<Mutex<Map>>,
    shares_files: bool,
}

impl MapBacking {
    /// See [`MemorySpill::sharing_files`].
    pub fn sharing_files(mut self, shares: bool) -> Self {
        self.shares_files = shares;
        self
    }

    fn map(&self) -> MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn estimate(&mut self) -> u64 {
        self.len() as u64
    }

    fn write(&mut self, changes: &Changes) -> Flow {
        let mut map = self.map();
        for change in changes.iter() {
            match change {
                Change::Put(key, value) => drop(map.insert(key.to_vec(), value.to_vec())),
                Change::Delete(key) => drop(map.remove(key)),
                Change::DeleteRange(from, to) => map.retain(|key, _| &**key < from || &**key >= to),
            }
        }
        Ok(())
    }

    fn walk(
        &mut self,
        from: &[u8],
        until: &[u8],
        budget: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Flow,
    ) -> Flow<bool> {
        let map = self.map();
        let until = match until {
            [] => Bound::Unbounded,
            until => Bound::Excluded(until.max(from)),
        };
        let mut entries = map.range::<[u8], _>((Bound::Included(from), until));
        for (key, value) in entries.by_ref().take(budget) {
            visit(key, value)?;
        }
        Ok(entries.next().is_none())
    }

    fn scan(&mut self) -> Flow<Box<dyn Scan>> {
        Ok(Box::new(MapScan(self.map().clone())))
    }

    fn export(&mut self) -> Flow<Option<Box<dyn Export>>> {
        if !self.shares_files {
            return Ok(None);
        }
        Ok(Some(Box::new(MapExport(self.map().clone(), 2))))
    }

    fn import(&mut self, files: &RestoredFiles<'_>) -> Flow {
        for image in &files.images {
            let entries = decode::<Map>(&image.manifest)?.into_iter();
            let mine =
                entries.filter(|(key, _)| group(key).is_some_and(|g| files.groups.contains(&g)));
            self.map().extend(mine);
        }
        Ok(())
    }
}

/// The key group that a key begins with.
fn group(key: &[u8]) -> Option<u32> {
    Some(u32::from(u16::from_be_bytes(*key.first_chunk()?)))
}

/// A map on its way, and how often it says that it isn't there yet.
struct MapExport(Map, u32);

impl Export for MapExport {
    fn poll(&mut self, wait: bool) -> Flow<Option<FilesImage>> {
        self.1 = self.1.saturating_sub(1);
        if self.1 > 0 && !wait {
            return Ok(None);
        }
        let groups = || self.0.keys().filter_map(|key| group(key));
        Ok(Some(FilesImage {
            index: FilesIndex {
                format: "map".to_owned(),
                groups: groups().min().zip(groups().max()),
                entries: self.0.len() as u64,
                files: Vec::new(),
            },
            manifest: encode(&self.0)?,
            local: Default::default(),
        }))
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
