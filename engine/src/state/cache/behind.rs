//! What is behind the tables of a state: the entries that it spilled, and how far a snapshot of them
//! has come.
//!
//! A snapshot first writes back what was dirty at the barrier; until then, and until the files are there
//! where it becomes files, nothing newer is written, so that what is behind the tables is the state at
//! the barrier. What is deleted meanwhile is deleted later.

use super::slots::Place;
use crate::checkpoint::codec::{decode, encode_into};
use crate::checkpoint::stream::EntryStream;
use crate::checkpoint::{FilesImage, Key, KeyedSection, RestoredFiles, StateValue};
use crate::fault::Flow;
use crate::state::backing::{Backing, Changes, Claim, Export, Scan};

/// What is written even if that has to wait: memory has its limit.
const WAIT_ABOVE: f64 = 2.0;
/// Changes of so many bytes are written even if memory is not short.
const GATHERED: usize = 64 << 10;

/// How far a snapshot has come.
enum Snapshot {
    None,
    /// What was dirty at the barrier is written back.
    Flush,
    Copy(Box<dyn Scan>),
    Export(Box<dyn Export>),
    Exported(Box<FilesImage>),
}

/// Makes the entries of a checkpoint of those that are behind.
pub(crate) trait Transform: Send {
    /// Adds an entry.
    fn put(&mut self, into: &mut KeyedSection, key: &[u8], value: &[u8]) -> Flow;

    /// Adds what it has kept back.
    fn end(&mut self, _into: &mut KeyedSection) -> Flow {
        Ok(())
    }
}

/// All entries of a scan.
struct ScanStream {
    scan: Box<dyn Scan>,
    transform: Box<dyn Transform>,
}

impl EntryStream for ScanStream {
    fn next(&mut self, into: &mut KeyedSection, budget: usize) -> Flow<bool> {
        self.scan.wait()?;
        let transform = &mut self.transform;
        let mut put = |key: &[u8], value: &[u8]| transform.put(into, key, value);
        let ended = self.scan.next(budget, &mut put)?;
        self.transform.end(into)?;
        Ok(ended)
    }
}

/// See the module.
pub(crate) struct Behind {
    backing: Box<dyn Backing>,
    pub claim: Claim,
    pub max_parallelism: u32,
    /// Counts barriers.
    pub epoch: u32,
    snapshot: Snapshot,
    /// What is to be written next.
    pub changes: Changes,
    /// What may be written only when the snapshot doesn't mind any more.
    later: Changes,
    /// Something was written behind.
    pub spilled: bool,
    key_bytes: Vec<u8>,
    value_bytes: Vec<u8>,
    /// Encoded bytes of an entry, as far as seen: `(entries, bytes)`.
    sizes: (u64, u64),
}

/// What memory allows.
pub(crate) enum Room {
    /// Nothing has to go.
    Enough,
    /// So many bytes should go, but what is behind would make writers wait now.
    Stalled,
    /// So many bytes have to go.
    Over(u64),
}

impl Behind {
    pub fn new(backing: Box<dyn Backing>, claim: Claim, max_parallelism: u32) -> Self {
        Behind {
            backing,
            claim,
            max_parallelism,
            epoch: 1,
            snapshot: Snapshot::None,
            changes: Changes::default(),
            later: Changes::default(),
            spilled: false,
            key_bytes: Vec::new(),
            value_bytes: Vec::new(),
            sizes: (0, 0),
        }
    }

    /// The value of a key at a place.
    pub fn get<K: Key, V: StateValue>(&mut self, place: Place, key: &K) -> Flow<Option<V>> {
        self.key_bytes.clear();
        place.encode_key(key, self.max_parallelism, &mut self.key_bytes)?;
        if !self.backing.get(&self.key_bytes, &mut self.value_bytes)? {
            return Ok(None);
        }
        self.seen(self.key_bytes.len() + self.value_bytes.len());
        decode(&self.value_bytes).map(Some)
    }

    /// The value of an encoded key.
    pub fn get_encoded(&mut self, key: &[u8]) -> Flow<Option<&[u8]>> {
        let found = self.backing.get(key, &mut self.value_bytes)?;
        Ok(found.then_some(&self.value_bytes))
    }

    /// Adds a value, or that there is none, to the changes.
    pub fn write_back<K: Key, V: StateValue>(
        &mut self,
        place: Place,
        key: &K,
        value: Option<&V>,
    ) -> Flow {
        let groups = self.max_parallelism;
        let Some(value) = value else {
            let delete = |bytes: &mut Vec<u8>| place.encode_key(key, groups, bytes);
            return self.changes.delete(delete);
        };
        self.changes.put(|bytes| {
            place.encode_key(key, groups, bytes)?;
            let key_end = bytes.len();
            encode_into(value, bytes)?;
            Ok(key_end)
        })
    }

    /// Takes note of the size of an entry.
    pub fn seen(&mut self, bytes: usize) {
        self.sizes.0 += 1;
        self.sizes.1 += bytes as u64;
    }

    /// What an entry takes outside of its slot, taken to be as long as its encoding.
    pub fn elsewhere<K, V>(&self) -> u64 {
        match self.sizes {
            (entries, bytes) if std::mem::needs_drop::<(K, V)>() => bytes / entries.max(1),
            _ => 0,
        }
    }

    /// Whether there is a snapshot that is not whole.
    pub fn is_frozen(&self) -> bool {
        !matches!(self.snapshot, Snapshot::None)
    }

    /// Whether what was dirty at a barrier is being written back.
    pub fn flushes(&self) -> bool {
        matches!(self.snapshot, Snapshot::Flush)
    }

    /// Nothing that changed since the barrier may be written now.
    pub fn holds_back(&self) -> bool {
        matches!(self.snapshot, Snapshot::Flush | Snapshot::Export(_))
    }

    /// Changes that are newer than any barrier.
    pub fn newest(&mut self) -> &mut Changes {
        match self.holds_back() {
            true => &mut self.later,
            false => &mut self.changes,
        }
    }

    /// Writes the changes.
    pub fn write_changes(&mut self) -> Flow {
        if !self.changes.is_empty() {
            self.backing.write(&self.changes)?;
            self.changes.clear();
            self.spilled = true;
        }
        Ok(())
    }

    /// Whether there are changes that are not written.
    pub fn has_changes(&self) -> bool {
        !(self.changes.is_empty() && self.later.is_empty())
    }

    /// Writes changes that have gathered, where nothing stands against it.
    pub fn write_gathered(&mut self) -> Flow {
        if self.changes.bytes() > GATHERED && !self.holds_back() && self.backing.has_room() {
            self.write_changes()?;
        }
        Ok(())
    }

    /// The snapshot doesn't mind changes any more. Those that waited are older than what comes now.
    fn release(&mut self) {
        self.changes.append(&mut self.later);
    }

    /// What memory allows. Waits for the files of a snapshot where it is short beyond measure.
    pub fn room(&mut self) -> Flow<Room> {
        let memory = self.claim.memory();
        let over = memory.used().saturating_sub(memory.limit() / 8 * 7);
        if over == 0 {
            return Ok(Room::Enough);
        }
        if memory.pressure() >= WAIT_ABOVE {
            self.end_export()?;
        } else if !self.backing.has_room() {
            return Ok(Room::Stalled);
        }
        Ok(Room::Over(over))
    }

    /// Waits for the files of a snapshot.
    pub fn end_export(&mut self) -> Flow {
        if let Snapshot::Export(export) = &mut self.snapshot
            && let Some(files) = export.poll(true)?
        {
            self.snapshot = Snapshot::Exported(Box::new(files));
            self.release();
        }
        Ok(())
    }

    /// A barrier is here.
    pub fn freeze(&mut self) {
        self.epoch += 1;
        self.snapshot = Snapshot::Flush;
    }

    /// The snapshot was given up. What was to be written for it does no harm: it is dirty again, or deleted
    /// later.
    pub fn thaw(&mut self) {
        if self.holds_back() {
            self.release();
        }
        self.snapshot = Snapshot::None;
    }

    /// All that was dirty at the barrier is among the changes. True where that is all there was to do:
    /// whoever writes the section reads the entries, which go through `transform`.
    pub fn flushed(
        &mut self,
        into: &mut KeyedSection,
        transform: impl FnOnce() -> Box<dyn Transform>,
    ) -> Flow<bool> {
        self.write_changes()?;
        let export = match into.shares_files() {
            true => self.backing.export()?,
            false => None,
        };
        if let Some(export) = export {
            self.snapshot = Snapshot::Export(export);
            return Ok(false);
        }
        let scan = self.backing.scan()?;
        let streams = into.streams();
        if streams {
            let transform = transform();
            into.put_stream(Box::new(ScanStream { scan, transform }));
            self.snapshot = Snapshot::None;
        } else {
            self.snapshot = Snapshot::Copy(scan);
        }
        self.release();
        Ok(streams)
    }

    /// Goes on with a snapshot behind its flush, about `budget` entries of it, which go through
    /// `transform`; true once it is whole.
    pub fn save(
        &mut self,
        into: &mut KeyedSection,
        budget: usize,
        transform: &mut dyn Transform,
    ) -> Flow<bool> {
        match &mut self.snapshot {
            Snapshot::None | Snapshot::Flush => return Ok(false),
            Snapshot::Export(_) if budget == usize::MAX => self.end_export()?,
            Snapshot::Export(export) => match export.poll(false)? {
                Some(files) => {
                    self.snapshot = Snapshot::Exported(Box::new(files));
                    self.release();
                }
                None => into.wait(true),
            },
            Snapshot::Exported(files) => {
                into.put_files(std::mem::take(&mut **files));
                self.snapshot = Snapshot::None;
                return Ok(true);
            }
            Snapshot::Copy(scan) => {
                let ended = scan.next(budget, &mut |key, value| transform.put(into, key, value))?;
                transform.end(into)?;
                if ended {
                    self.snapshot = Snapshot::None;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// All entries as they are now.
    pub fn scan(&mut self) -> Flow<Box<dyn Scan>> {
        self.backing.scan()
    }

    /// About how many entries are behind the tables.
    pub fn estimate(&mut self) -> u64 {
        self.backing.estimate()
    }

    /// See [`Backing::walk`].
    pub fn walk(
        &mut self,
        from: &[u8],
        until: &[u8],
        budget: usize,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> Flow,
    ) -> Flow<bool> {
        self.backing.walk(from, until, budget, visit)
    }

    /// Begins with what was saved as files.
    pub fn import(&mut self, files: &RestoredFiles<'_>) -> Flow {
        self.spilled = true;
        self.backing.import(files)
    }
}
