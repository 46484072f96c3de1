//! Records of one side of an edge on their way into a checkpoint.

use super::{Dealing, Flight};
use crate::checkpoint::image::{GroupImage, IN_FLIGHT};
use crate::checkpoint::{Barrier, CheckpointId, Pieces, StateData, StateImage};
use crate::exchange::Rec;
use crate::fault::Flow;
use crate::hash::key_group;
use crate::time::Timestamp;
use std::collections::BTreeMap;

/// The state of the sending side: what had not left.
pub const SENT: &str = "sent";
/// The state of the receiving side: what had arrived, or came before the barrier of its channel.
pub const RECEIVED: &str = "received";

/// Gathers the records that a barrier overtakes, and hands them to the subtask's image.
pub struct Recorder<T> {
    flight: Flight<T>,
    state: &'static str,
    under_way: Option<Recording>,
}

struct Recording {
    barrier: Barrier,
    groups: BTreeMap<u32, GroupImage>,
    elements: Vec<Vec<u8>>,
}

impl<T: 'static> Recorder<T> {
    /// Of the side of the edge that calls its state so.
    pub fn new(flight: Flight<T>, state: &'static str) -> Self {
        Recorder {
            flight,
            state,
            under_way: None,
        }
    }

    /// By what the edge is known in checkpoints.
    pub fn uid(&self) -> &str {
        &self.flight.identity.uid
    }

    /// Whether barriers may overtake here.
    pub fn overtakes(&self) -> bool {
        self.flight.overtakes
    }

    /// The checkpoint whose records it gathers.
    pub fn records_for(&self) -> Option<Barrier> {
        self.under_way.as_ref().map(|recording| recording.barrier)
    }

    /// How many records may be encoded in one turn.
    pub fn budget(&self) -> usize {
        self.flight.participant.saved_in_a_turn()
    }

    /// Begins with a checkpoint, whose image waits from now on. One that is under way was given up.
    pub fn begin(&mut self, barrier: Barrier) {
        let of_use = self.flight.participant.begin(barrier);
        self.under_way = of_use.then(|| Recording {
            barrier,
            groups: BTreeMap::new(),
            elements: Vec::new(),
        });
    }

    /// Takes records of one channel, in their order.
    pub fn record(&mut self, records: &[Rec<T>]) -> Flow {
        let Some(recording) = &mut self.under_way else {
            return Ok(());
        };
        if records.is_empty() {
            return Ok(());
        }
        match self.flight.dealing {
            Dealing::ByHash => {
                let groups = self.flight.identity.max_parallelism;
                for record in records {
                    let image = recording.group(key_group(record.hash, groups));
                    image.entries += 1;
                    self.flight.encode(record, image.bytes.end())?;
                }
            }
            Dealing::InTurn => {
                let mut element = Vec::new();
                for record in records {
                    self.flight.encode(record, &mut element)?;
                }
                recording.elements.push(element);
            }
        }
        Ok(())
    }

    /// Takes records that are encoded: so many of one key group, or an element of any number.
    pub fn record_encoded(&mut self, group: Option<(u32, u64)>, bytes: &[u8]) {
        let Some(recording) = &mut self.under_way else {
            return;
        };
        match group {
            Some((group, entries)) => {
                let image = recording.group(group);
                image.entries += entries;
                image.bytes.end().extend(bytes);
            }
            None => recording.elements.push(bytes.to_vec()),
        }
    }

    /// Nothing more belongs to the checkpoint: hands over what there is.
    pub fn finish(&mut self) {
        let Some(recording) = self.under_way.take() else {
            return;
        };
        let Flight {
            identity,
            dealing,
            participant,
            ..
        } = &self.flight;
        let data = match dealing {
            Dealing::ByHash => StateData::Groups(recording.groups.into_values().collect()),
            Dealing::InTurn => StateData::Elements(recording.elements),
        };
        let bytes = data.bytes();
        participant.persisted(recording.barrier, bytes);
        let state = StateImage {
            name: self.state.to_owned(),
            kind: self.flight.kind(),
            key_type: String::new(),
            value_type: self.flight.codec.stored_name(),
            data,
        };
        let image = || identity.image(IN_FLIGHT, Timestamp::MIN, vec![state]);
        participant.saved(recording.barrier, (bytes > 0).then(image));
    }

    /// A checkpoint, and all before it, were given up.
    pub fn abort(&mut self, id: CheckpointId) {
        self.under_way
            .take_if(|recording| recording.barrier.id <= id);
    }
}

impl Recording {
    fn group(&mut self, group: u32) -> &mut GroupImage {
        self.groups.entry(group).or_insert_with(|| GroupImage {
            group,
            entries: 0,
            bytes: Pieces::default(),
        })
    }
}
