//! Keeps a fast sender from overwhelming a slow receiver, channel by channel.
//!
//! The cycle of a credit, in six steps:
//! 1. A sender requests credits before it sends ([`CreditBasedFlowController::request_credits`]).
//! 2. The controller looks at what the channel has in use downstream: granted and unspent, plus
//!    consumed and not completed.
//! 3. Below the high water mark it grants, up to the channel's limit.
//! 4. At or above it the channel is throttled: every request gets zero, until use has fallen to
//!    the low water mark. The gap between the marks keeps a channel from flickering.
//! 5. When the receiver completes records, it replenishes ([`CreditBasedFlowController::replenish`]).
//! 6. The next request sees the new figures, and the cycle starts again.
//!
//! The measured processing rate sizes the limit ([`CreditBasedFlowController::adapt`]): a channel
//! may have in use what its receiver gets through in the target drain time, so slow receivers
//! have short queues. The water marks shrink and grow along.

use super::{FlowError, FlowSettings};
use serde::Serialize;
use std::collections::BTreeMap;

/// How much of a new measurement enters the smoothed rate.
const SMOOTHING: f64 = 0.5;

#[derive(Debug, Clone)]
struct Channel {
    /// Granted and not consumed yet.
    available: u32,
    /// Consumed and not completed yet.
    in_flight: u32,
    /// The most that may be in use; adapted to the processing rate.
    limit: u32,
    throttled: bool,
    /// Smoothed, in records per second.
    rate: Option<f64>,
}

impl Channel {
    fn in_use(&self) -> u32 {
        self.available.saturating_add(self.in_flight)
    }

    fn level(&self) -> f64 {
        (f64::from(self.in_use()) / f64::from(self.limit.max(1))).min(1.0)
    }

    fn update_throttle(&mut self, settings: &FlowSettings) {
        let high = settings.scaled(settings.high_water_mark, self.limit).max(1);
        let low = settings.scaled(settings.low_water_mark, self.limit);
        if self.in_use() >= high {
            self.throttled = true;
        } else if self.in_use() <= low {
            self.throttled = false;
        }
    }

    fn grant(&mut self, wanted: u32) -> u32 {
        let granted = wanted.min(self.limit.saturating_sub(self.in_use()));
        self.available += granted;
        granted
    }
}

/// The figures of one channel, for monitoring.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelStatus {
    /// The channel's name.
    pub channel: String,
    /// Credits granted and not consumed yet.
    pub available: u32,
    /// Credits consumed, whose records are not completed yet.
    pub in_flight: u32,
    /// The most credits that may be in use at the measured processing rate.
    pub limit: u32,
    /// Whether requests are refused until use falls to the low water mark.
    pub throttled: bool,
    /// Credits in use as a share of the limit, 0 to 1.
    pub level: f64,
}

/// Grants, counts and takes back the credits of channels known by name.
///
/// ```
/// use tidegate_engine::flow::{CreditBasedFlowController, FlowSettings};
///
/// let mut flow = CreditBasedFlowController::new(FlowSettings::default());
/// assert_eq!(flow.request_credits("channel-1", 10), 10);
/// flow.consume_credits("channel-1", 10)?; // ten records are sent
/// flow.replenish("channel-1", 10); // and completed
/// assert_eq!(flow.back_pressure_level(), 0.0);
/// # Ok::<(), tidegate_engine::flow::FlowError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct CreditBasedFlowController {
    settings: FlowSettings,
    channels: BTreeMap<String, Channel>,
}

impl CreditBasedFlowController {
    /// A controller without channels; a channel appears with its first request or grant.
    pub fn new(settings: FlowSettings) -> Self {
        Self {
            settings,
            channels: BTreeMap::new(),
        }
    }

    /// The limits this controller works with.
    pub fn settings(&self) -> &FlowSettings {
        &self.settings
    }

    /// Asks for `n` credits and returns how many were granted: all, some, or zero under pressure.
    /// Zero means wait for completions and ask again.
    pub fn request_credits(&mut self, channel: &str, n: u32) -> u32 {
        let settings = self.settings;
        let channel = self.entry(channel);
        channel.update_throttle(&settings);
        if channel.throttled {
            return 0;
        }
        channel.grant(n)
    }

    /// Hands `n` credits to a channel unasked, throttled or not, and returns how many fit below
    /// its limit.
    pub fn grant(&mut self, channel: &str, n: u32) -> u32 {
        self.entry(channel).grant(n)
    }

    /// Spends `n` granted credits, because `n` records are being sent.
    ///
    /// # Errors
    /// [`FlowError::UnknownChannel`], or [`FlowError::InsufficientCredits`] with nothing spent.
    pub fn consume_credits(&mut self, channel: &str, n: u32) -> Result<(), FlowError> {
        let Some(state) = self.channels.get_mut(channel) else {
            return Err(FlowError::UnknownChannel(channel.to_owned()));
        };
        let Some(rest) = state.available.checked_sub(n) else {
            return Err(FlowError::InsufficientCredits {
                channel: channel.to_owned(),
                wanted: n,
                available: state.available,
            });
        };
        state.available = rest;
        state.in_flight += n;
        Ok(())
    }

    /// Takes note that `n` records in flight are complete, which makes room for new grants.
    /// Returns how many really were in flight; more than that cannot be replenished.
    pub fn replenish(&mut self, channel: &str, n: u32) -> u32 {
        let settings = self.settings;
        let Some(state) = self.channels.get_mut(channel) else {
            return 0;
        };
        let completed = n.min(state.in_flight);
        state.in_flight -= completed;
        state.update_throttle(&settings);
        completed
    }

    /// Gives back `n` granted credits unspent, and returns how many the channel really held.
    pub fn give_back(&mut self, channel: &str, n: u32) -> u32 {
        let settings = self.settings;
        let Some(state) = self.channels.get_mut(channel) else {
            return 0;
        };
        let returned = n.min(state.available);
        state.available -= returned;
        state.update_throttle(&settings);
        returned
    }

    /// Sizes a channel's limit by its receiver's measured rate, in records per second: what is
    /// processed in the target drain time, between the low water mark (at least one) and the
    /// maximum. Rates are smoothed; one that is negative or not finite is ignored. Returns the
    /// new limit in credits.
    pub fn adapt(&mut self, channel: &str, records_per_second: f64) -> u32 {
        let settings = self.settings;
        let channel = self.entry(channel);
        if !records_per_second.is_finite() || records_per_second < 0.0 {
            return channel.limit;
        }
        let rate = match channel.rate {
            Some(old) => old + SMOOTHING * (records_per_second - old),
            None => records_per_second,
        };
        channel.rate = Some(rate);
        let drained = rate * f64::from(settings.target_drain_ms) / 1000.0;
        // The cast saturates, and the clamp bounds what it yields.
        channel.limit = (drained as u32).clamp(
            settings.low_water_mark.max(1),
            settings.max_credits_per_channel,
        );
        channel.update_throttle(&settings);
        channel.limit
    }

    /// The pressure of the most pressed channel, 0 (nothing in use) to 1 (limit reached).
    pub fn back_pressure_level(&self) -> f64 {
        self.channels
            .values()
            .map(Channel::level)
            .fold(0.0, f64::max)
    }

    /// The pressure of one channel, 0 to 1; 0 for an unknown one.
    pub fn channel_pressure(&self, channel: &str) -> f64 {
        self.channels.get(channel).map_or(0.0, Channel::level)
    }

    /// Whether requests of this channel are refused for now.
    pub fn is_throttled(&self, channel: &str) -> bool {
        self.channels.get(channel).is_some_and(|c| c.throttled)
    }

    /// Credits granted to a channel and not consumed yet.
    pub fn available(&self, channel: &str) -> u32 {
        self.channels.get(channel).map_or(0, |c| c.available)
    }

    /// Forgets a channel and every credit it held. Returns whether it was known.
    pub fn close_channel(&mut self, channel: &str) -> bool {
        self.channels.remove(channel).is_some()
    }

    /// The figures of every channel, by name.
    pub fn status(&self) -> Vec<ChannelStatus> {
        self.channels
            .iter()
            .map(|(name, c)| ChannelStatus {
                channel: name.clone(),
                available: c.available,
                in_flight: c.in_flight,
                limit: c.limit,
                throttled: c.throttled,
                level: c.level(),
            })
            .collect()
    }

    fn entry(&mut self, channel: &str) -> &mut Channel {
        if !self.channels.contains_key(channel) {
            let fresh = Channel {
                available: 0,
                in_flight: 0,
                limit: self.settings.max_credits_per_channel,
                throttled: false,
                rate: None,
            };
            self.channels.insert(channel.to_owned(), fresh);
        }
        self.channels
            .get_mut(channel)
            .expect("the channel is known or was inserted above")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_six_steps_of_the_cycle() {
        let mut flow = CreditBasedFlowController::default();
        assert_eq!(flow.request_credits("c", 700), 700);
        assert_eq!(
            flow.request_credits("c", 99),
            99,
            "799 is below the high mark"
        );
        assert_eq!(
            flow.request_credits("c", 500),
            201,
            "partial: the limit is 1000"
        );
        assert_eq!(flow.request_credits("c", 1), 0, "throttled");
        flow.consume_credits("c", 1000).expect("granted");
        assert_eq!(flow.replenish("c", 799), 799);
        assert_eq!(flow.request_credits("c", 1), 0, "201 is above the low mark");
        assert_eq!(flow.replenish("c", 1), 1);
        assert_eq!(flow.request_credits("c", 10), 10);
        assert_eq!(flow.back_pressure_level(), 0.21);
    }

    #[test]
    fn credits_cannot_be_spent_twice() {
        let mut flow = CreditBasedFlowController::default();
        assert!(matches!(
            flow.consume_credits("c", 1),
            Err(FlowError::UnknownChannel(_))
        ));
        assert_eq!(flow.request_credits("c", 5), 5);
        let refused = flow.consume_credits("c", 6).expect_err("only five");
        assert_eq!(
            refused.to_string(),
            "channel `c` holds 5 credits and wanted to consume 6"
        );
        assert_eq!(flow.available("c"), 5);
        assert_eq!(flow.consume_credits("c", 5), Ok(()));
        assert_eq!(flow.replenish("c", 9), 5);
        assert_eq!(flow.replenish("other", 9), 0);
    }

    #[test]
    fn the_measured_rate_sizes_the_limit() {
        let mut flow = CreditBasedFlowController::default();
        assert_eq!(flow.adapt("c", 500.0), 500);
        assert_eq!(flow.request_credits("c", 10_000), 500);
        assert_eq!(flow.channel_pressure("c"), 1.0);
        assert_eq!(flow.adapt("c", 0.0), 250, "smoothed");
        assert_eq!(flow.adapt("c", f64::NAN), 250);
        for _ in 0..20 {
            flow.adapt("c", 0.0);
        }
        assert_eq!(flow.status()[0].limit, 200, "never below the low mark");
        assert!(flow.is_throttled("c"));
        assert_eq!(flow.adapt("c", 1e12), 1000);
        assert_eq!(flow.give_back("c", 500), 500);
        assert!(!flow.is_throttled("c"));
        assert!(flow.close_channel("c"));
        assert_eq!(flow.back_pressure_level(), 0.0);
    }

    #[test]
    fn channels_do_not_share_credits() {
        let mut flow = CreditBasedFlowController::default();
        assert_eq!(flow.grant("a", 2000), 1000);
        assert_eq!(flow.request_credits("a", 1), 0);
        assert_eq!(flow.request_credits("b", 1), 1);
        assert_eq!(flow.status().len(), 2);
    }

    proptest! {
        #[test]
        fn use_stays_below_the_maximum_and_completion_always_unblocks(
            max in 1u32..2000,
            steps in prop::collection::vec((0..5u8, 0..1500u32), 0..80),
        ) {
            let high = max.div_ceil(2);
            let settings = FlowSettings::builder()
                .max_credits_per_channel(max).high_water_mark(high).low_water_mark(high / 2);
            let mut flow = CreditBasedFlowController::new(settings.build().expect("ordered"));
            for (what, n) in steps {
                match what {
                    0 => { flow.request_credits("c", n); }
                    1 => { let _ = flow.consume_credits("c", n); }
                    2 => { flow.replenish("c", n); }
                    3 => { flow.grant("c", n); }
                    _ => { flow.adapt("c", f64::from(n)); }
                }
                for c in flow.status() {
                    prop_assert!(c.available + c.in_flight <= max);
                    prop_assert!((0.0..=1.0).contains(&c.level));
                }
            }
            let held = flow.available("c");
            let _ = flow.consume_credits("c", held);
            flow.replenish("c", u32::MAX);
            prop_assert_eq!(flow.request_credits("c", 1), 1);
        }
    }
}
