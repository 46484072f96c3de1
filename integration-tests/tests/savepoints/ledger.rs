//! A sink in two phases whose committables hold the records themselves: what a checkpoint covers can be
//! committed by any process that has the checkpoint, also years later.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate::engine::checkpoint::{CheckpointId, codec};
use tidegate::engine::sink::TwoPhase;
use tidegate::prelude::*;

/// What is visible outside: lines by the name of the committable that brought them.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Ledger {
    fn edit<R>(&self, edit: impl FnOnce(&mut BTreeMap<String, Vec<String>>) -> R) -> R {
        edit(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All lines, sorted.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.edit(|all| all.values().flatten().cloned().collect());
        lines.sort_unstable();
        lines
    }

    /// The part of it that one sink of a job writes.
    pub fn page(&self, name: &str) -> Page {
        Page {
            ledger: self.clone(),
            name: name.to_owned(),
        }
    }

    fn commit(&self, committable: &[u8]) -> Flow {
        let (name, lines): (String, Vec<String>) = codec::decode(committable)?;
        self.edit(|all| match all.get(&name) {
            Some(before) if *before != lines => {
                Err(Fault::user(format_args!("'{name}' came with other lines")))
            }
            _ => {
                all.insert(name, lines);
                Ok(())
            }
        })
    }
}

/// A sink of the ledger.
#[derive(Clone)]
pub struct Page {
    ledger: Ledger,
    name: String,
}

pub struct PageWriter {
    ledger: Ledger,
    name: String,
    epoch: Vec<String>,
    prepared: VecDeque<Vec<u8>>,
}

impl Sink<String> for Page {
    type Writer = PageWriter;

    fn recover(&self, committables: Option<Vec<Vec<u8>>>) -> Flow {
        let mut all = committables.into_iter().flatten();
        all.try_for_each(|committable| self.ledger.commit(&committable))
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<PageWriter> {
        let (from, subtask) = (context.restored_from(), context.subtask());
        Ok(PageWriter {
            ledger: self.ledger.clone(),
            name: format!("{}-{from}-{subtask}", self.name),
            epoch: Vec::new(),
            prepared: VecDeque::new(),
        })
    }
}

impl SinkWriter<String> for PageWriter {
    fn write(&mut self, _: Timestamp, line: String) -> Flow {
        self.epoch.push(line);
        Ok(())
    }

    fn two_phase(&mut self) -> Option<&mut dyn TwoPhase> {
        Some(self)
    }
}

impl TwoPhase for PageWriter {
    fn prepare(&mut self, checkpoint: CheckpointId) -> Flow {
        let name = format!("{}-{checkpoint}", self.name);
        let epoch = std::mem::take(&mut self.epoch);
        self.prepared.push_back(codec::encode(&(name, epoch))?);
        Ok(())
    }

    fn prepared(&mut self) -> Flow<Option<Vec<u8>>> {
        Ok(self.prepared.pop_front())
    }

    fn commit(&mut self, committable: Vec<u8>, _last: bool) -> Flow {
        self.ledger.commit(&committable)
    }

    fn committed(&mut self) -> Flow<bool> {
        Ok(true)
    }
}
