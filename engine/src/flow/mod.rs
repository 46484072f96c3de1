//! Flow control as arithmetic: who may send how much, and how hard the engine is pressed.
//!
//! A sender spends one credit per record and stops at zero, so the memory between two subtasks is
//! bounded by what the receiver granted, whatever a queue could hold. Nothing here waits, sends or
//! drops: a refused request grants zero, and the caller keeps its records.
//!
//! - [`CreditBasedFlowController`]: the credit cycle over channels known by name, as the pipeline
//!   stages and the public interface use it.
//! - [`CreditWindow`]: the receiver's ledger of one channel, for the path of every batch.
//! - [`PressureLevel`] and [`combine`]: one number and one name for how pressed a stage is.

mod credit;
mod pressure;
mod settings;
mod window;

pub use credit::{ChannelStatus, CreditBasedFlowController};
pub use pressure::{PressureLevel, PressureSample, PressureWeights, combine, queue_ratio};
pub use settings::{FlowSettings, FlowSettingsBuilder};
pub use window::CreditWindow;

/// Why flow control refused a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// The settings contradict each other.
    #[error(
        "flow settings must satisfy low < high <= max and a drain time above zero, got low {low}, \
         high {high}, max {max}, drain {drain_ms} ms"
    )]
    InvalidSettings {
        /// Low water mark, in credits.
        low: u32,
        /// High water mark, in credits.
        high: u32,
        /// Credits per channel at most.
        max: u32,
        /// Target drain time in milliseconds.
        drain_ms: u32,
    },
    /// The channel never asked for credits, or was closed.
    #[error("channel `{0}` is not known to flow control")]
    UnknownChannel(String),
    /// More credits would be consumed than the channel holds; nothing was consumed.
    #[error("channel `{channel}` holds {available} credits and wanted to consume {wanted}")]
    InsufficientCredits {
        /// The channel.
        channel: String,
        /// Credits asked for.
        wanted: u32,
        /// Credits granted and not consumed yet.
        available: u32,
    },
}
