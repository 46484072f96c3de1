//! What exactly-once needs of Kafka, and no more: so the rules can be tried against a broker of a test that
//! crashes, forgets and repeats wherever it likes.

use super::committable::Owner;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use tidegate_engine::fault::{Fault, Flow};

/// How far the output of a slot has been committed; part of the same transaction as the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    /// All output up to this checkpoint.
    pub(crate) checkpoint: u64,
    /// The attempt that the slot belongs to. Any other one has been taken over from.
    pub(crate) owner: Owner,
    /// Attempts that it was taken over from since output was committed last, the youngest last: what these
    /// left in a checkpoint still follows on what is committed.
    pub(crate) heir_of: Vec<Owner>,
}

/// How a marker is written: readable for people.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    checkpoint: u64,
    owner: String,
    #[serde(default)]
    heir_of: Vec<String>,
}

/// How many attempts a marker remembers.
const REMEMBERED: usize = 32;

impl Marker {
    /// Of a slot of which `owner` has committed all output up to a checkpoint.
    pub(crate) fn new(checkpoint: u64, owner: Owner) -> Self {
        Marker {
            checkpoint,
            owner,
            heir_of: Vec::new(),
        }
    }

    /// Of a slot that `owner` takes over where `before` says it stands.
    pub(crate) fn take_over(checkpoint: u64, owner: Owner, before: &Marker) -> Self {
        let mut heir_of = before.heir_of.clone();
        heir_of.push(before.owner);
        heir_of.drain(..heir_of.len().saturating_sub(REMEMBERED));
        Marker {
            checkpoint,
            owner,
            heir_of,
        }
    }

    /// Whether the output of this attempt behind the marker follows on what is committed.
    pub(crate) fn goes_on_with(&self, owner: Owner) -> bool {
        self.owner == owner || self.heir_of.contains(&owner)
    }

    pub(crate) fn encode(&self) -> Flow<Vec<u8>> {
        let hex = |owner: &Owner| format!("{:016x}", owner.0);
        let written = Written {
            checkpoint: self.checkpoint,
            owner: hex(&self.owner),
            heir_of: self.heir_of.iter().map(hex).collect(),
        };
        serde_json::to_vec(&written).map_err(Fault::internal)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let owner = |hex: &String| {
            let number = u64::from_str_radix(hex, 16);
            number.map(Owner).map_err(|error| error.to_string())
        };
        Ok(Marker {
            checkpoint: written.checkpoint,
            owner: owner(&written.owner)?,
            heir_of: written
                .heir_of
                .iter()
                .map(owner)
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Why a step failed.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// It would fail again.
    Fatal(Fault),
    /// It may have had its effect or not, and the instance can't be used any more: a connection was lost, an
    /// answer didn't come, another instance has fenced this one. Only a new instance, and the markers read
    /// after that, can tell.
    Unsure(String),
}

impl From<Fault> for Trouble {
    fn from(fault: Fault) -> Self {
        Trouble::Fatal(fault)
    }
}

/// The markers of all slots.
pub(crate) type Markers = BTreeMap<u32, Marker>;

/// Kafka, as far as the committers of one sink need it.
pub(crate) trait Broker {
    /// A producer instance that can make one transaction.
    type Instance: Instance;

    /// A new instance under the slot's transactional id. When it is there, no older one of that id can
    /// commit, and what became of their transactions is settled.
    fn fence(&self, slot: u32) -> Result<Self::Instance, Trouble>;

    /// The slots that ever were, and the markers as far as they can be seen at once: something may be under way.
    fn glance(&self) -> Result<(BTreeSet<u32>, Markers), Trouble>;

    /// The markers of all transactions that were settled before the call.
    fn markers(&self) -> Result<Markers, Trouble>;

    /// Waits before the next try; false when there were enough.
    fn pause(&self, tries: u32) -> bool;
}

/// A producer instance. It makes one transaction and is thrown away: within one instance the broker can't
/// tell a late repetition of a request from a request of the next transaction.
pub(crate) trait Instance {
    /// Begins the transaction.
    fn begin(&mut self) -> Result<(), Trouble>;

    /// Sends some of the records.
    fn produce(&mut self, records: &[u8]) -> Result<(), Trouble>;

    /// Sends the progress record.
    fn mark(&mut self, marker: &Marker) -> Result<(), Trouble>;

    /// Commits the transaction.
    fn commit(self) -> Result<(), Trouble>;
}
