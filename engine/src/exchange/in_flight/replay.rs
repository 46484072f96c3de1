//! Records that an earlier attempt had in flight, on their way to the stages behind the edge.

use super::recorder::{RECEIVED, Recorder, SENT};
use super::{Dealing, Flight};
use crate::exchange::Rec;
use crate::fault::{Fault, Flow};
use std::collections::VecDeque;

/// What one subtask has to hand on before anything that comes over the edge.
pub struct Replay<T> {
    flight: Flight<T>,
    chunks: VecDeque<Chunk>,
}

/// Encoded records that stay in their order.
struct Chunk {
    /// Their key group, and how many are left of it.
    group: Option<(u32, u64)>,
    bytes: Vec<u8>,
    /// Where the next one begins.
    at: usize,
}

impl<T: 'static> Replay<T> {
    /// What falls to this subtask of what the restored checkpoint holds: first what had been received, then
    /// what had not left its sender, which is how the records of each channel followed each other.
    pub fn new(flight: Flight<T>) -> Flow<Self> {
        let restored = flight.participant.restored().cloned();
        let mut chunks = VecDeque::new();
        let identity = &flight.identity;
        let mut load = || {
            let Some(job) = &restored else { return Ok(()) };
            let share = job.operator(
                &identity.uid,
                identity.me,
                identity.parallelism,
                identity.max_parallelism,
            )?;
            let Some(mut share) = share else {
                return Ok(());
            };
            let of = flight.codec.stored_name();
            for state in [RECEIVED, SENT] {
                match flight.dealing {
                    Dealing::ByHash => {
                        let groups = share.groups(state, ("", &of))?;
                        for group in groups {
                            chunks.push_back(Chunk {
                                group: Some((group.group, group.entries)),
                                bytes: share.read(group)?.into_owned(),
                                at: 0,
                            });
                        }
                    }
                    Dealing::InTurn => {
                        let elements = share.elements(state, flight.kind(), &of)?;
                        chunks.extend(elements.into_iter().map(|bytes| Chunk {
                            group: None,
                            bytes: bytes.to_vec(),
                            at: 0,
                        }));
                    }
                }
            }
            Ok(())
        };
        load().map_err(|fault: Fault| fault.at(&identity.uid))?;
        chunks.retain(|chunk| !chunk.bytes.is_empty());
        Ok(Replay { flight, chunks })
    }

    /// By what the edge is known in checkpoints.
    pub fn uid(&self) -> &str {
        &self.flight.identity.uid
    }

    /// Whether all has been handed on.
    pub fn is_over(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The next record.
    pub fn next(&mut self) -> Flow<Option<Rec<T>>> {
        let Some(chunk) = self.chunks.front_mut() else {
            return Ok(None);
        };
        let (record, taken) = self.flight.decode(&chunk.bytes[chunk.at..])?;
        chunk.at += taken;
        if let Some((_, left)) = &mut chunk.group {
            *left = left.saturating_sub(1);
        }
        if chunk.at >= chunk.bytes.len() {
            self.chunks.pop_front();
        }
        Ok(Some(record))
    }

    /// What is left is in flight once more.
    pub fn record(&self, into: &mut Recorder<T>) {
        for chunk in &self.chunks {
            into.record_encoded(chunk.group, &chunk.bytes[chunk.at..]);
        }
    }
}
