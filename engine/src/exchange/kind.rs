//! The names of the distributions, as plans and reports show them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How an edge chooses the subtask of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are those of the distributions")]
pub enum EdgeKind {
    Forward,
    Hash,
    Rebalance,
    Rescale,
    Shuffle,
    Broadcast,
    Global,
    Custom,
}

impl fmt::Display for EdgeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}
