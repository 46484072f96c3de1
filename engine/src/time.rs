//! One unit of time for events and clocks: milliseconds since the epoch, without a zone to get wrong.

use serde::{Deserialize, Serialize};

/// A moment in milliseconds since 1970-01-01T00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Before every record: the watermark of a channel that has said nothing yet.
    pub const MIN: Timestamp = Timestamp(i64::MIN);
    /// After every record: the watermark of a channel that has ended.
    pub const MAX: Timestamp = Timestamp(i64::MAX);
}
