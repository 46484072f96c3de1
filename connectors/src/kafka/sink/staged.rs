//! Output that waits for its checkpoint: in memory while it is little, segment by segment on disk beyond that.

use super::committable::{About, Committable, HEADER, Owner};
use super::settings::SinkSettings;
use super::spill::{Closed, Spilled, Spiller};
use crate::background::Background;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use tidegate_engine::checkpoint::{CheckpointId, LocalFiles, StoredFiles};
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::Waker;

/// Segments that may be in memory at a time: one that is filled, four that wait to be written, one that is written,
/// and two that are empty and will be filled.
const SEGMENTS: usize = 8;

/// What part of the memory the records in a committable may take: several of these are in memory in copies.
const INLINE: usize = 256;

/// The most bytes that epochs have which are committed together, where the one before took longer than them.
const BATCH: u64 = 64 << 20;

/// Epochs that may be on their way into Kafka. Each keeps a file open.
const EPOCHS: usize = 32;

/// The output of one subtask that is not committed yet.
pub(super) struct Staged {
    slot: u32,
    owner: Owner,
    folder: PathBuf,
    waker: Waker,
    max_bytes: u64,
    segment: usize,
    inline: usize,
    /// The records that were written last.
    buffer: Vec<u8>,
    /// Records since the last barrier, and their bytes, without those in the buffer.
    records: u64,
    handed: u64,
    /// There once something was too much for memory.
    spiller: Option<Background>,
    closed: Closed,
    spilled: Spilled,
    prepared: VecDeque<Prepared>,
    committing: Committing,
}

/// The output between two barriers.
enum Prepared {
    Nothing,
    Epoch {
        about: About,
        rest: Vec<u8>,
        spilled: bool,
    },
}

/// What is to be committed, and what is.
#[derive(Default)]
struct Committing {
    /// Committables that wait, oldest first, each with what is spilled of it.
    waiting: VecDeque<(Vec<u8>, Due)>,
    /// What is being committed.
    under_way: Vec<Due>,
    /// How many were committed that nobody has asked for.
    done: usize,
    /// Of all of them.
    bytes: u64,
}

/// What a committable holds until it is committed.
struct Due {
    bytes: u64,
    segments: Vec<String>,
}

impl Committing {
    fn epochs(&self) -> usize {
        self.waiting.len() + self.under_way.len()
    }
}

impl Staged {
    pub(super) fn new((slot, owner): (u32, Owner), settings: &SinkSettings, waker: Waker) -> Self {
        let folder = settings.spill_dir.clone();
        Staged {
            slot,
            owner,
            folder: folder.unwrap_or_else(std::env::temp_dir),
            waker,
            max_bytes: settings.max_epoch_bytes,
            segment: settings.max_epoch_memory / SEGMENTS,
            inline: settings.max_epoch_memory / INLINE,
            buffer: Committable::buffer(),
            records: 0,
            handed: 0,
            spiller: None,
            closed: Closed::default(),
            spilled: Spilled::default(),
            prepared: VecDeque::new(),
            committing: Committing::default(),
        }
    }

    /// What was too much for memory.
    pub(super) fn spilled(&self) -> Spilled {
        self.spilled.clone()
    }

    /// Takes a record, which `encode` appends.
    pub(super) fn write(&mut self, encode: impl FnOnce(&mut Vec<u8>) -> Flow) -> Flow {
        encode(&mut self.buffer)?;
        self.records += 1;
        let here = self.buffer.len() - HEADER;
        if self.handed + here as u64 > self.max_bytes {
            return Err(too_much(self.max_bytes));
        }
        if here >= self.segment {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> Flow {
        let spiller = match self.spiller.take() {
            Some(spiller) => spiller,
            None => {
                let spiller = Spiller::new(self.folder.clone(), self.closed.clone());
                Background::start(spiller, self.waker.clone())?
            }
        };
        let spiller = self.spiller.insert(spiller);
        let mut fresh = spiller.buffer();
        fresh.resize(HEADER, 0);
        self.handed += (self.buffer.len() - HEADER) as u64;
        spiller.write(std::mem::replace(&mut self.buffer, fresh))
    }

    /// Whether there is room for more, in memory and on the way into Kafka.
    pub(super) fn has_room(&self) -> bool {
        let spills = self.spiller.as_ref().is_none_or(Background::has_room);
        let committing = &self.committing;
        spills && committing.epochs() < EPOCHS && committing.bytes <= self.max_bytes
    }

    /// Goes on spilling.
    pub(super) fn pump(&mut self) -> Flow {
        self.spiller.as_mut().map_or(Ok(()), Background::pump)
    }

    /// A barrier is here. Returns whether there was anything before it.
    pub(super) fn prepare(&mut self, checkpoint: CheckpointId) -> Flow<bool> {
        let records = std::mem::take(&mut self.records);
        if records == 0 {
            self.prepared.push_back(Prepared::Nothing);
            return Ok(false);
        }
        if self.buffer.len() - HEADER > self.inline {
            self.spill()?;
        }
        let spilled = std::mem::take(&mut self.handed) > 0;
        if let (true, Some(spiller)) = (spilled, &mut self.spiller) {
            spiller.prepare()?;
        }
        self.prepared.push_back(Prepared::Epoch {
            about: About {
                slot: self.slot,
                checkpoint: checkpoint.0,
                owner: self.owner,
                records,
            },
            rest: std::mem::replace(&mut self.buffer, Committable::buffer()),
            spilled,
        });
        Ok(true)
    }

    /// The oldest committable that was not asked for, once all of it is written; empty where nothing was.
    pub(super) fn prepared(&mut self) -> Flow<Option<Vec<u8>>> {
        let waits = matches!(
            self.prepared.front(),
            Some(Prepared::Epoch { spilled: true, .. })
        );
        if let (true, Some(spiller)) = (waits, &mut self.spiller)
            && spiller.prepared()?.is_none()
        {
            return Ok(None);
        }
        let (about, rest, spilled) = match self.prepared.pop_front() {
            None => return Ok(None),
            Some(Prepared::Nothing) => return Ok(Some(Vec::new())),
            Some(Prepared::Epoch {
                about,
                rest,
                spilled,
            }) => (about, rest, spilled),
        };
        if !spilled {
            return Ok(Some(Committable::close(rest, about, &[])));
        }
        let file = {
            let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
            closed.pop_front()
        };
        let file = file.ok_or_else(|| Fault::internal("an epoch was spilled without a file"))?;
        let committable = Committable::close(rest, about, &file.segments);
        self.spilled.add(&about, file);
        Ok(Some(committable))
    }

    /// Something is to be committed.
    pub(super) fn commit(&mut self, committable: Vec<u8>) -> Flow {
        let decoded = Committable::decode(committable.clone())?;
        let due = Due {
            bytes: decoded.length(),
            segments: decoded.segments().collect(),
        };
        self.committing.bytes += due.bytes;
        self.committing.waiting.push_back((committable, due));
        Ok(())
    }

    /// What is to be committed next, in one transaction: as much of what waits as one may have.
    pub(super) fn next_batch(&mut self) -> Option<Vec<u8>> {
        let Committing {
            waiting, under_way, ..
        } = &mut self.committing;
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some((_, due)) = waiting.front() {
            bytes += due.bytes;
            if bytes > BATCH && !batch.is_empty() {
                break;
            }
            if let Some((committable, due)) = waiting.pop_front() {
                Committable::append(&committable, &mut batch);
                under_way.push(due);
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// What was to be committed is.
    pub(super) fn batch_committed(&mut self) {
        let committing = &mut self.committing;
        for due in committing.under_way.drain(..) {
            committing.done += 1;
            committing.bytes -= due.bytes;
            self.spilled.remove(due.segments);
        }
    }

    /// Whether nothing waits to be committed.
    pub(super) fn committed(&self) -> bool {
        self.committing.epochs() == 0
    }

    /// How many committables were committed since this was asked.
    pub(super) fn newly_committed(&mut self) -> usize {
        std::mem::take(&mut self.committing.done)
    }

    /// The files that a checkpoint of these committables needs.
    pub(super) fn files(
        &self,
        committables: &[&[u8]],
        stored: &StoredFiles,
    ) -> Flow<Option<Arc<dyn LocalFiles>>> {
        self.spilled.files(committables, stored)
    }
}

#[cold]
fn too_much(bytes: u64) -> Fault {
    Fault::user(format_args!(
        "a subtask's output between two checkpoints has more than {bytes} bytes; take checkpoints more often, \
         give the sink more subtasks, or raise .max_epoch_bytes(..)"
    ))
}
