//! When checkpoints are taken, what counts as a failed one, and how many are kept.

use super::barrier::CheckpointMode;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How a job takes its checkpoints. Times are written in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointSettings {
    /// From the trigger of one checkpoint to that of the next. `None`, the default, takes none by the
    /// clock; savepoints, and the last checkpoint that two-phase sinks need, are still taken.
    #[serde(rename = "interval_ms", with = "optional_millis")]
    pub interval: Option<Duration>,
    /// A checkpoint that isn't ready to be published after so long is given up. Default: 60 s.
    #[serde(rename = "timeout_ms", with = "in_millis")]
    pub timeout: Duration,
    /// Time between the end of one checkpoint and the trigger of the next, so that a job whose
    /// checkpoints take long still does something else. `None`, the default, stands for half the
    /// interval.
    #[serde(rename = "min_pause_ms", with = "optional_millis")]
    pub min_pause: Option<Duration>,
    /// How many checkpoints may be under way at once. Default: 1.
    pub max_concurrent: u32,
    /// How many checkpoints in a row may fail before the job does. Default: 3.
    pub tolerable_failures: u32,
    /// How many complete checkpoints are kept, at least 1. Savepoints belong to a person and don't
    /// count. Default: 3.
    pub retained: u32,
    /// How many checkpoints, of whatever outcome, are remembered for people. Default: 10.
    pub history: u32,
    /// What a recovery promises. Default: exactly once.
    pub mode: CheckpointMode,
    /// Whether barriers may overtake records that wait for room, which then become part of the
    /// checkpoint. Savepoints never do. Default: they may not.
    pub unaligned: bool,
    /// Where they may: how long after its trigger a checkpoint stays aligned. 0, the default, lets
    /// barriers overtake at once.
    #[serde(rename = "aligned_timeout_ms", with = "in_millis")]
    pub aligned_timeout: Duration,
}

impl Default for CheckpointSettings {
    fn default() -> Self {
        CheckpointSettings {
            interval: None,
            timeout: Duration::from_secs(60),
            min_pause: None,
            max_concurrent: 1,
            tolerable_failures: 3,
            retained: 3,
            history: 10,
            mode: CheckpointMode::ExactlyOnce,
            unaligned: false,
            aligned_timeout: Duration::ZERO,
        }
    }
}

impl CheckpointSettings {
    /// The defaults, with a checkpoint each `interval`.
    pub fn every(interval: Duration) -> Self {
        CheckpointSettings {
            interval: Some(interval),
            ..Self::default()
        }
    }

    /// The pause that is kept between checkpoints.
    pub fn pause(&self) -> Duration {
        let half = || self.interval.unwrap_or_default() / 2;
        self.min_pause.unwrap_or_else(half)
    }

    /// What is wrong with them, in words for the person who wrote them.
    pub fn check(&self) -> Result<(), String> {
        if self.interval == Some(Duration::ZERO) {
            return Err("the checkpoint interval is 0; leave it out to take no checkpoints".into());
        }
        for (name, count) in [
            ("max_concurrent", self.max_concurrent),
            ("retained", self.retained),
        ] {
            if count == 0 {
                return Err(format!("checkpoints: {name} is 0 and has to be at least 1"));
            }
        }
        if self.timeout.is_zero() {
            return Err("the checkpoint timeout is 0: no checkpoint could be taken".into());
        }
        if self.unaligned && self.mode == CheckpointMode::AtLeastOnce {
            return Err(
                "checkpoints that count at least once align nothing: leave out unaligned \
                        or at_least_once"
                    .into(),
            );
        }
        if self.unaligned && self.max_concurrent > 1 {
            return Err(format!(
                "unaligned checkpoints are taken one at a time: max_concurrent is {} and has to be 1",
                self.max_concurrent
            ));
        }
        Ok(())
    }
}

mod in_millis {
    use crate::time::millis;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        millis(*value).serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Duration, D::Error> {
        Ok(Duration::from_millis(u64::deserialize(from)?))
    }
}

mod optional_millis {
    use crate::time::millis;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::time::Duration;

    pub fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        value.map(millis).serialize(to)
    }

    pub fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default_and_what_is_unknown_is_an_error() {
        let read = serde_json::from_str::<CheckpointSettings>;
        let settings = read(r#"{"interval_ms": 2000, "retained": 5}"#).unwrap();
        assert_eq!(settings.interval, Some(Duration::from_secs(2)));
        assert_eq!(settings.pause(), Duration::from_secs(1));
        assert_eq!((settings.retained, settings.max_concurrent), (5, 1));
        assert_eq!(settings.timeout, Duration::from_secs(60));
        assert!(read(r#"{"intervall_ms": 1}"#).is_err());
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(read(&text).unwrap(), settings);
    }

    #[test]
    fn settings_that_can_t_work_are_told() {
        let good = CheckpointSettings::every(Duration::from_secs(1));
        assert_eq!(good.check(), Ok(()));
        let bad = [
            CheckpointSettings::every(Duration::ZERO),
            CheckpointSettings {
                max_concurrent: 0,
                ..good.clone()
            },
            CheckpointSettings {
                retained: 0,
                ..good.clone()
            },
            CheckpointSettings {
                timeout: Duration::ZERO,
                ..good.clone()
            },
            CheckpointSettings {
                unaligned: true,
                max_concurrent: 2,
                ..good.clone()
            },
            CheckpointSettings {
                unaligned: true,
                mode: CheckpointMode::AtLeastOnce,
                ..good
            },
        ];
        for settings in bad {
            assert!(settings.check().is_err(), "{settings:?}");
        }
    }
}
