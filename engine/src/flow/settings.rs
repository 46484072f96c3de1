//! The limits of credit-based flow control, checked before anything runs with them.

use super::FlowError;
use crate::constants;

/// Limits of one channel, in credits; a credit stands for one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowSettings {
    pub(super) max_credits_per_channel: u32,
    pub(super) low_water_mark: u32,
    pub(super) high_water_mark: u32,
    pub(super) target_drain_ms: u32,
}

impl Default for FlowSettings {
    fn default() -> Self {
        Self {
            max_credits_per_channel: constants::DEFAULT_CHANNEL_CREDITS,
            low_water_mark: constants::DEFAULT_LOW_WATER_MARK,
            high_water_mark: constants::DEFAULT_HIGH_WATER_MARK,
            target_drain_ms: constants::DEFAULT_TARGET_DRAIN_MS,
        }
    }
}

impl FlowSettings {
    /// Starts from the defaults: at most 1000 credits, water marks 200 and 800, drain in 1000 ms.
    pub fn builder() -> FlowSettingsBuilder {
        FlowSettingsBuilder(Self::default())
    }

    /// Credits that one channel may hold or have in flight at most.
    pub fn max_credits_per_channel(&self) -> u32 {
        self.max_credits_per_channel
    }

    /// Credits in use at which a throttled channel is served again.
    pub fn low_water_mark(&self) -> u32 {
        self.low_water_mark
    }

    /// Credits in use from which a channel is throttled.
    pub fn high_water_mark(&self) -> u32 {
        self.high_water_mark
    }

    /// A channel's limit is what its receiver processes in this time, in milliseconds.
    pub fn target_drain_ms(&self) -> u32 {
        self.target_drain_ms
    }

    /// A water mark, scaled from the maximum to a channel's present limit.
    pub(super) fn scaled(&self, mark: u32, limit: u32) -> u32 {
        let scaled = u64::from(mark) * u64::from(limit) / u64::from(self.max_credits_per_channel);
        u32::try_from(scaled).unwrap_or(limit)
    }
}

/// Builds [`FlowSettings`] and checks them at the end.
#[derive(Debug, Clone)]
#[must_use]
pub struct FlowSettingsBuilder(FlowSettings);

impl FlowSettingsBuilder {
    /// Credits that one channel may hold or have in flight at most.
    pub fn max_credits_per_channel(mut self, credits: u32) -> Self {
        self.0.max_credits_per_channel = credits;
        self
    }

    /// Credits in use at which a throttled channel is served again.
    pub fn low_water_mark(mut self, credits: u32) -> Self {
        self.0.low_water_mark = credits;
        self
    }

    /// Credits in use from which a channel is throttled.
    pub fn high_water_mark(mut self, credits: u32) -> Self {
        self.0.high_water_mark = credits;
        self
    }

    /// How long a full channel may take to drain, in milliseconds.
    pub fn target_drain_ms(mut self, ms: u32) -> Self {
        self.0.target_drain_ms = ms;
        self
    }

    /// The settings, or [`FlowError::InvalidSettings`] unless low < high <= max and drain > 0.
    pub fn build(self) -> Result<FlowSettings, FlowError> {
        let s = self.0;
        let ordered =
            s.low_water_mark < s.high_water_mark && s.high_water_mark <= s.max_credits_per_channel;
        if ordered && s.target_drain_ms > 0 {
            return Ok(s);
        }
        Err(FlowError::InvalidSettings {
            low: s.low_water_mark,
            high: s.high_water_mark,
            max: s.max_credits_per_channel,
            drain_ms: s.target_drain_ms,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        let built = FlowSettings::builder().build().expect("defaults are valid");
        assert_eq!(built, FlowSettings::default());
        assert_eq!(built.max_credits_per_channel(), 1000);
        assert_eq!(
            (built.low_water_mark(), built.high_water_mark()),
            (200, 800)
        );
    }

    #[test]
    fn contradictions_are_refused_with_their_figures() {
        let equal = FlowSettings::builder().low_water_mark(800).build();
        let text = equal.expect_err("low must be below high").to_string();
        assert!(text.contains("low 800, high 800, max 1000"), "{text}");
        assert!(
            FlowSettings::builder()
                .high_water_mark(1001)
                .build()
                .is_err()
        );
        assert!(
            FlowSettings::builder()
                .max_credits_per_channel(0)
                .build()
                .is_err()
        );
        assert!(FlowSettings::builder().target_drain_ms(0).build().is_err());
        assert!(
            FlowSettings::builder()
                .high_water_mark(1000)
                .build()
                .is_ok()
        );
    }
}
