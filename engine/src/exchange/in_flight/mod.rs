//! Records in flight as part of a checkpoint: what barriers that overtake leave behind them.
//!
//! An unaligned checkpoint takes its picture of a subtask at the first sign of it, whatever waits in the
//! subtask's channels. What a barrier has overtaken belongs before it all the same, so it becomes part of
//! the picture: at the sending end what has not left (`recorder::SENT`), at the receiving end what comes on a
//! channel between the picture and that channel's barrier (`recorder::RECEIVED`). See Chandy and Lamport,
//! "Distributed Snapshots: Determining Global States of Distributed Systems" (1985).
//!
//! A later attempt hands these records to the stages behind the edge before anything else, those that had
//! been received first (`replay::Replay`). Signals are not kept: watermarks, and the end of input, are made
//! anew by those that stand before the edge, and come behind.

mod arrivals;
mod codec;
mod recorder;
mod replay;

pub(super) use arrivals::Arrivals;
pub use codec::{Codecs, RecordCodec, name_of_generic};
pub(super) use recorder::{Recorder, SENT};

use super::Rec;
use crate::checkpoint::{Participant, StateKind};
use crate::fault::{Fault, Flow};
use crate::node::Identity;
use crate::time::Timestamp;
use std::sync::Arc;

/// How records in flight find their subtask in a later attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dealing {
    /// That which owns their hash's key group.
    ByHash,
    /// Any: they are dealt out in turns.
    InTurn,
}

/// What both ends of an edge know of keeping its records.
pub struct Flight<T> {
    /// By what the edge is known in checkpoints.
    pub identity: Identity,
    /// How records find their subtask.
    pub dealing: Dealing,
    /// How a record becomes bytes.
    pub codec: Arc<dyn RecordCodec<T>>,
    /// Whether barriers may overtake here; if not, it is only for what an earlier attempt left.
    pub overtakes: bool,
    /// This subtask's part in checkpoints.
    pub participant: Participant,
}

impl<T> Clone for Flight<T> {
    fn clone(&self) -> Self {
        Flight {
            identity: self.identity.clone(),
            dealing: self.dealing,
            codec: self.codec.clone(),
            overtakes: self.overtakes,
            participant: self.participant.clone(),
        }
    }
}

/// What comes before the value of an encoded record: its time and its hash.
const HEAD: usize = 16;

impl<T: 'static> Flight<T> {
    fn kind(&self) -> StateKind {
        match self.dealing {
            Dealing::ByHash => StateKind::Keyed,
            Dealing::InTurn => StateKind::List,
        }
    }

    fn encode(&self, record: &Rec<T>, into: &mut Vec<u8>) -> Flow {
        into.extend(record.at.0.to_le_bytes());
        into.extend(record.hash.to_le_bytes());
        let encoded = self.codec.encode(&record.value, into);
        encoded.map_err(|fault| fault.at(&self.identity.uid))
    }

    fn decode(&self, bytes: &[u8]) -> Flow<(Rec<T>, usize)> {
        let cut_off = || Fault::user("a record in flight is cut off").at(&self.identity.uid);
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or_else(cut_off)?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[at..at + 8]);
            word
        };
        let at = Timestamp(i64::from_le_bytes(word(0)));
        let hash = u64::from_le_bytes(word(8));
        let decoded = self.codec.decode(rest);
        let (value, taken) = decoded.map_err(|fault| fault.at(&self.identity.uid))?;
        Ok((Rec { at, hash, value }, HEAD + taken))
    }
}
