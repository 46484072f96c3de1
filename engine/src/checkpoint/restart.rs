//! Whether, and when, a job that has failed is started again.
//!
//! No clock and no thread: the policy is told when attempts fail and when they run, and says how long to
//! wait. What is random in it comes from a seed.

use crate::time::{Timestamp, millis};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// How often and after which pauses a failed job is started again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum RestartStrategy {
    /// Never: the first failure is the end.
    None,
    /// So many times in the life of the job, after the same pause each time.
    FixedDelay {
        /// How often at most.
        attempts: u32,
        /// The pause.
        delay: Duration,
    },
    /// As often as it takes, after pauses that grow while the job keeps failing.
    ExponentialDelay(ExponentialDelay),
    /// As long as failures are rare enough.
    FailureRate {
        /// This many failures are tolerated ...
        max_failures: u32,
        /// ... within this time.
        interval: Duration,
        /// The pause before each restart.
        delay: Duration,
    },
}

/// Pauses that grow. The defaults bring a job that failed once back at once, and a job that can't run
/// down to a restart a minute.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExponentialDelay {
    /// The first pause. Default: 50 ms.
    pub initial: Duration,
    /// The longest. Default: 60 s.
    pub max: Duration,
    /// By how much each pause is longer than the one before. Default: 2.
    pub multiplier: f64,
    /// The share of a pause by which it is made longer or shorter at random, so that jobs that failed
    /// together don't come back together. Default: 0.1.
    pub jitter: f64,
    /// A job that ran for so long begins again with the first pause. Default: 10 min.
    pub reset_after: Duration,
    /// How many restarts without such a run in between; `None`, the default, for no limit.
    pub attempts: Option<u32>,
}

impl Default for ExponentialDelay {
    fn default() -> Self {
        ExponentialDelay {
            initial: Duration::from_millis(50),
            max: Duration::from_secs(60),
            multiplier: 2.0,
            jitter: 0.1,
            reset_after: Duration::from_secs(600),
            attempts: None,
        }
    }
}

impl Default for RestartStrategy {
    /// Growing pauses: a job that may recover is not given up, one that can't doesn't burn the machine.
    fn default() -> Self {
        RestartStrategy::ExponentialDelay(ExponentialDelay::default())
    }
}

impl RestartStrategy {
    /// What is wrong with it, in words for the person who wrote it.
    pub fn check(&self) -> Result<(), String> {
        let RestartStrategy::ExponentialDelay(e) = self else {
            return Ok(());
        };
        if !(e.multiplier >= 1.0 && e.multiplier.is_finite()) {
            return Err(format!(
                "restart multiplier is {}; it has to be at least 1",
                e.multiplier
            ));
        }
        if !(0.0..=1.0).contains(&e.jitter) {
            return Err(format!(
                "restart jitter is {}; it has to be from 0 to 1",
                e.jitter
            ));
        }
        if e.initial > e.max {
            return Err("the first restart pause is longer than the longest".into());
        }
        Ok(())
    }
}

/// What to do about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start the next attempt after this pause.
    RestartAfter(Duration),
    /// The job has failed for good.
    GiveUp(String),
}

/// A strategy at work in one job.
#[derive(Clone, Debug)]
pub struct RestartPolicy {
    strategy: RestartStrategy,
    dice: u64,
    /// Restarts so far, or since the job last ran for long enough.
    restarts: u32,
    /// Of the failures that a rate counts.
    recent: VecDeque<Timestamp>,
    healthy_since: Option<Timestamp>,
}

impl RestartPolicy {
    /// The policy at the start of a job. Jobs with different seeds wait for different times.
    pub fn new(strategy: RestartStrategy, seed: u64) -> Self {
        RestartPolicy {
            strategy,
            dice: seed,
            restarts: 0,
            recent: VecDeque::new(),
            healthy_since: None,
        }
    }

    /// Restarts so far; with growing pauses, those since the job last ran for long enough.
    pub fn restarts(&self) -> u32 {
        self.restarts
    }

    /// All subtasks of an attempt are running.
    pub fn on_healthy(&mut self, now: Timestamp) {
        self.healthy_since.get_or_insert(now);
    }

    /// The attempt has failed.
    pub fn on_failure(&mut self, now: Timestamp) -> Decision {
        let healthy_since = self.healthy_since.take();
        let decision = match self.strategy.clone() {
            RestartStrategy::None => Decision::GiveUp("jobs of this kind aren't restarted".into()),
            RestartStrategy::FixedDelay { attempts, delay } => self.at_most(attempts, delay),
            RestartStrategy::ExponentialDelay(growing) => {
                let ran = healthy_since.map_or(0, |since| now.0.saturating_sub(since.0));
                if ran >= millis(growing.reset_after) {
                    self.restarts = 0;
                }
                let delay = self.grown(&growing);
                self.at_most(growing.attempts.unwrap_or(u32::MAX), delay)
            }
            RestartStrategy::FailureRate {
                max_failures,
                interval,
                delay,
            } => self.if_rare(now, max_failures, interval, delay),
        };
        if matches!(decision, Decision::RestartAfter(_)) {
            self.restarts = self.restarts.saturating_add(1);
        }
        decision
    }

    fn at_most(&self, attempts: u32, delay: Duration) -> Decision {
        if self.restarts < attempts {
            Decision::RestartAfter(delay)
        } else {
            Decision::GiveUp(format!(
                "it was restarted {attempts} times, as often as it may"
            ))
        }
    }

    fn if_rare(
        &mut self,
        now: Timestamp,
        most: u32,
        interval: Duration,
        delay: Duration,
    ) -> Decision {
        let begin = now.minus(interval);
        while self.recent.pop_front_if(|at| *at <= begin).is_some() {}
        self.recent.push_back(now);
        if self.recent.len() <= most as usize {
            return Decision::RestartAfter(delay);
        }
        let count = self.recent.len();
        Decision::GiveUp(format!(
            "it failed {count} times within {interval:?}, and {most} are tolerated"
        ))
    }

    fn grown(&mut self, growing: &ExponentialDelay) -> Duration {
        let max = growing.max.as_secs_f64();
        let factor = growing.multiplier.powf(f64::from(self.restarts));
        let pause = (growing.initial.as_secs_f64() * factor).min(max);
        let shift = 1.0 + growing.jitter * (2.0 * self.fraction() - 1.0);
        let seconds = (pause * shift).clamp(0.0, max);
        Duration::try_from_secs_f64(seconds).unwrap_or(growing.max)
    }

    /// The next random number from 0 to below 1 (the SplitMix64 generator).
    fn fraction(&mut self) -> f64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn pause(decision: Decision) -> Duration {
        match decision {
            Decision::RestartAfter(pause) => pause,
            Decision::GiveUp(reason) => panic!("given up: {reason}"),
        }
    }

    fn gives_up(decision: &Decision) -> bool {
        matches!(decision, Decision::GiveUp(_))
    }

    #[test]
    fn none_gives_up_at_once_and_fixed_delay_after_its_attempts() {
        let mut none = RestartPolicy::new(RestartStrategy::None, 0);
        assert!(gives_up(&none.on_failure(Timestamp(0))));
        let (attempts, delay) = (2, ms(300));
        let fixed = RestartStrategy::FixedDelay { attempts, delay };
        let mut fixed = RestartPolicy::new(fixed, 0);
        assert_eq!(pause(fixed.on_failure(Timestamp(0))), delay);
        fixed.on_healthy(Timestamp(1));
        assert_eq!(pause(fixed.on_failure(Timestamp(1_000_000))), delay);
        assert!(gives_up(&fixed.on_failure(Timestamp(2_000_000))));
    }

    #[test]
    fn pauses_grow_to_the_longest_and_begin_again_after_a_long_run() {
        let growing = ExponentialDelay {
            jitter: 0.0,
            max: ms(1_000),
            ..ExponentialDelay::default()
        };
        let mut policy = RestartPolicy::new(RestartStrategy::ExponentialDelay(growing), 0);
        let mut pauses = Vec::new();
        for n in 0..7 {
            policy.on_healthy(Timestamp(n * 1_000));
            pauses.push(pause(policy.on_failure(Timestamp(n * 1_000 + 500))).as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1_000, 1_000]);
        policy.on_healthy(Timestamp(10_000));
        assert_eq!(pause(policy.on_failure(Timestamp(610_000))), ms(50));
        // Time in which it didn't run is no long run.
        assert_eq!(pause(policy.on_failure(Timestamp(9_000_000))), ms(100));
    }

    #[test]
    fn thousands_of_failures_stay_within_the_longest_pause() {
        let mut policy = RestartPolicy::new(RestartStrategy::default(), 7);
        for n in 0..5_000 {
            assert!(pause(policy.on_failure(Timestamp(n))) <= Duration::from_secs(60));
        }
    }

    #[test]
    fn jitter_spreads_pauses_within_its_share_and_a_seed_repeats_them() {
        let first = |seed| {
            let mut policy = RestartPolicy::new(RestartStrategy::default(), seed);
            pause(policy.on_failure(Timestamp(0)))
        };
        let pauses: Vec<Duration> = (0..200).map(first).collect();
        assert!(pauses.iter().all(|p| *p >= ms(45) && *p <= ms(55)));
        let (least, most) = (pauses.iter().min(), pauses.iter().max());
        assert!(least.unwrap() < &ms(47) && most.unwrap() > &ms(53));
        assert_eq!(first(3), first(3));
    }

    #[test]
    fn a_rate_gives_up_only_when_failures_come_close_together() {
        let rate = RestartStrategy::FailureRate {
            max_failures: 2,
            interval: ms(1_000),
            delay: ms(10),
        };
        let mut policy = RestartPolicy::new(rate, 0);
        for at in [0, 500, 1_000, 1_500, 2_500] {
            assert_eq!(pause(policy.on_failure(Timestamp(at))), ms(10), "at {at}");
        }
        assert_eq!(pause(policy.on_failure(Timestamp(2_600))), ms(10));
        assert!(gives_up(&policy.on_failure(Timestamp(2_700))));
    }

    #[test]
    fn strategies_that_can_t_work_are_told() {
        assert_eq!(RestartStrategy::default().check(), Ok(()));
        let default = ExponentialDelay::default;
        for bad in [
            ExponentialDelay {
                multiplier: 0.5,
                ..default()
            },
            ExponentialDelay {
                multiplier: f64::NAN,
                ..default()
            },
            ExponentialDelay {
                jitter: -0.1,
                ..default()
            },
            ExponentialDelay {
                initial: ms(70_000),
                ..default()
            },
        ] {
            assert!(RestartStrategy::ExponentialDelay(bad).check().is_err());
        }
    }
}
