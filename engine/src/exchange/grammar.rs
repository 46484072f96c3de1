//! The receiving ends of channels, held to the grammar of streams where a job asks for it.
//!
//! [`crate::stage`] writes the grammar down. A check is per batch and per signal, and one branch where
//! it is off: what crosses by a direct call is only counted, and the count is looked at with the
//! signals and at the end of a turn.

use crate::checkpoint::CheckpointId;
use crate::fault::{Fault, Flow};
use crate::stage::Signal;
use crate::time::Timestamp;

#[derive(Clone, Copy, Debug)]
struct Channel {
    watermark: Timestamp,
    barrier: CheckpointId,
    ended: bool,
    /// Records so far, for a channel that is a direct call.
    counted: u64,
}

/// What the channels of a gate have said so far, and what the gate made of it.
#[derive(Debug)]
pub(super) struct Grammar {
    channels: Vec<Channel>,
    passed: Timestamp,
}

#[cold]
fn breach(channel: usize, what: impl std::fmt::Display) -> Fault {
    Fault::internal(format_args!("input channel {channel}: {what}"))
}

impl Grammar {
    /// Of channels that have said nothing.
    pub fn new(channels: usize) -> Self {
        let silent = Channel {
            watermark: Timestamp::MIN,
            barrier: CheckpointId::default(),
            ended: false,
            counted: 0,
        };
        Grammar {
            channels: vec![silent; channels],
            passed: Timestamp::MIN,
        }
    }

    /// `records` came on a channel at once.
    pub fn records(&self, channel: usize, records: usize) -> Flow {
        let state = self.channels[channel];
        match records {
            0 => Ok(()),
            _ if state.ended => Err(breach(channel, "a record behind the end of input")),
            _ if state.watermark == Timestamp::MAX => {
                Err(breach(channel, "a record behind the last watermark"))
            }
            _ => Ok(()),
        }
    }

    /// So many records in all have come on a channel.
    pub fn counted(&mut self, channel: usize, records: u64) -> Flow {
        let before = std::mem::replace(&mut self.channels[channel].counted, records);
        self.records(channel, (records - before) as usize)
    }

    /// A signal came on a channel.
    pub fn signal(&mut self, channel: usize, signal: Signal) -> Flow {
        let state = &mut self.channels[channel];
        if state.ended {
            return Err(breach(
                channel,
                format_args!("{signal:?} behind the end of input"),
            ));
        }
        match signal {
            Signal::Watermark(at) if at < state.watermark => {
                let before = state.watermark;
                return Err(breach(
                    channel,
                    format_args!("the watermark went back from {before} to {at}"),
                ));
            }
            Signal::Watermark(at) => state.watermark = at,
            Signal::Barrier(barrier) if barrier.id <= state.barrier => {
                let (before, now) = (state.barrier, barrier.id);
                return Err(breach(
                    channel,
                    format_args!("barrier {now} behind barrier {before}"),
                ));
            }
            Signal::Barrier(barrier) => state.barrier = barrier.id,
            Signal::Idle => {}
            Signal::EndOfInput if state.watermark != Timestamp::MAX => {
                return Err(breach(channel, "the input ended before its last watermark"));
            }
            Signal::EndOfInput => state.ended = true,
        }
        Ok(())
    }

    /// A barrier came on a channel ahead of what waits there.
    pub fn overtaken(&mut self, channel: usize, id: CheckpointId) {
        let state = &mut self.channels[channel];
        state.barrier = state.barrier.max(id);
    }

    /// The gate passes this on.
    pub fn passes(&mut self, signal: Signal) -> Flow {
        match signal {
            Signal::Watermark(at) if at < self.passed => Err(Fault::internal(format_args!(
                "the combined watermark went back from {} to {at}",
                self.passed
            ))),
            Signal::Watermark(at) => {
                self.passed = at;
                Ok(())
            }
            Signal::EndOfInput if self.passed != Timestamp::MAX => Err(Fault::internal(
                "all input ended before the last combined watermark",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: Signal = Signal::Watermark(Timestamp::MAX);

    fn message(result: Flow) -> String {
        result.expect_err("a breach").message().to_owned()
    }

    #[test]
    fn each_breach_is_told_and_each_channel_is_by_itself() {
        let mut grammar = Grammar::new(2);
        assert!(grammar.signal(0, Signal::Watermark(Timestamp(5))).is_ok());
        assert!(grammar.signal(0, Signal::Idle).is_ok());
        assert!(grammar.signal(0, Signal::Watermark(Timestamp(5))).is_ok());
        assert!(grammar.signal(1, Signal::Watermark(Timestamp(3))).is_ok());
        let back = message(grammar.signal(0, Signal::Watermark(Timestamp(4))));
        assert!(
            back.starts_with("input channel 0: the watermark went back"),
            "{back}"
        );
        assert!(message(grammar.signal(1, Signal::EndOfInput)).contains("before its last"));
        assert!(grammar.records(0, 1).is_ok());
        assert!(grammar.signal(0, LAST).is_ok());
        assert!(message(grammar.records(0, 1)).contains("behind the last watermark"));
        assert!(grammar.signal(0, Signal::EndOfInput).is_ok());
        assert!(message(grammar.records(0, 1)).contains("behind the end of input"));
        assert!(message(grammar.signal(0, Signal::Idle)).contains("Idle behind the end"));
        assert!(
            grammar.records(0, 0).is_ok(),
            "an empty batch brings signals only"
        );
        assert!(grammar.records(1, 1).is_ok());
    }

    #[test]
    fn direct_calls_are_held_to_it_by_their_count() {
        let mut grammar = Grammar::new(1);
        assert!(grammar.counted(0, 7).is_ok());
        assert!(grammar.signal(0, LAST).is_ok());
        assert!(grammar.counted(0, 7).is_ok());
        assert!(message(grammar.counted(0, 8)).contains("behind the last watermark"));
    }

    #[test]
    fn what_is_passed_on_never_goes_back() {
        let mut grammar = Grammar::new(1);
        assert!(message(grammar.passes(Signal::EndOfInput)).contains("before the last"));
        assert!(grammar.passes(Signal::Watermark(Timestamp(5))).is_ok());
        assert!(message(grammar.passes(Signal::Watermark(Timestamp(4)))).contains("went back"));
    }
}
