//! The options by which a job survives: where its checkpoints go, what it begins with, when it restarts.

use clap::Args;
use std::path::PathBuf;
use std::time::Duration;
use tidegate_actors::checkpoint_storage::{of_checkpoint, open_below};
use tidegate_actors::checkpointing::{Checkpointing, Restore, Target};
use tidegate_engine::checkpoint::{self, CheckpointMode, CheckpointSettings, RestartStrategy};

/// Milliseconds between checkpoints where only their folder is given.
const INTERVAL: u64 = 10_000;

/// The options of checkpoints and recovery; flatten them into a program's own with clap.
#[derive(Args, Clone, Debug, Default)]
pub struct CheckpointArgs {
    /// Take checkpoints into this folder, from which the job recovers; each job has a folder of its
    /// own name in it. A folder of this machine or s3://BUCKET/FOLDER, for which AWS_ACCESS_KEY_ID,
    /// AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT are read from the environment
    #[arg(long, value_name = "DIR")]
    pub checkpoint_dir: Option<PathBuf>,
    /// Milliseconds from one checkpoint to the next [default: 10000]
    #[arg(long, value_name = "MS", requires = "checkpoint_dir",
        value_parser = clap::value_parser!(u64).range(1..))]
    pub checkpoint_interval: Option<u64>,
    /// On SIGTERM or SIGINT (Ctrl-C), stop with a savepoint in a folder of its own in this one, print
    /// `savepoint: ` and its path, and exit with code 0; a second signal ends the process at once.
    /// Carry on with --restore latest, or --restore and that path
    #[arg(long, value_name = "DIR", requires = "checkpoint_dir")]
    pub savepoint_dir: Option<PathBuf>,
    /// Begin with the state of a checkpoint or savepoint: `latest` for the job's newest checkpoint, or
    /// the savepoint that it was stopped with after that (or from the beginning, where there is
    /// nothing yet); or the folder of one
    #[arg(long, value_name = "latest|PATH", requires = "checkpoint_dir")]
    pub restore: Option<String>,
    /// Leave behind restored state that no operator of the job claims
    #[arg(long)]
    pub allow_non_restored_state: bool,
    /// What happens after a failure: none, fixed:TIMES:MS, rate:FAILURES:PER_MS:MS, or exponential
    /// [default: exponential, where checkpoints are taken]
    #[arg(long, value_name = "STRATEGY", requires = "checkpoint_dir", value_parser = restart_strategy)]
    pub restart: Option<RestartStrategy>,
    /// Let records count twice after a recovery, for checkpoints that make no channel wait
    #[arg(long, requires = "checkpoint_dir")]
    pub at_least_once: bool,
    /// Let barriers overtake records that wait for room, which become part of the checkpoint: one is
    /// complete in time however slow the sinks are. Not on forward, rescale and broadcast edges
    #[arg(long, requires = "checkpoint_dir", conflicts_with = "at_least_once")]
    pub unaligned: bool,
    /// Milliseconds from a checkpoint's trigger in which its barriers stay in order, before they overtake
    /// [default: 0]
    #[arg(long, value_name = "MS", requires = "unaligned")]
    pub aligned_timeout: Option<u64>,
}

impl CheckpointArgs {
    /// When checkpoints are taken, if they are.
    pub fn settings(&self) -> Option<CheckpointSettings> {
        self.checkpoint_dir.as_ref()?;
        let interval = self.checkpoint_interval.unwrap_or(INTERVAL);
        let mut settings = CheckpointSettings::every(Duration::from_millis(interval));
        if self.at_least_once {
            settings.mode = CheckpointMode::AtLeastOnce;
        }
        settings.unaligned = self.unaligned;
        settings.aligned_timeout = Duration::from_millis(self.aligned_timeout.unwrap_or(0));
        Some(settings)
    }

    /// Where the checkpoints of the job of this name go, and what it begins with; none where none are taken.
    pub fn checkpointing(&self, job: &str) -> checkpoint::Result<Option<Checkpointing>> {
        let Some(folder) = &self.checkpoint_dir else {
            return Ok(None);
        };
        let storage = open_below(folder, &folder_name(job))?;
        let mut checkpointing = Checkpointing::new(storage);
        checkpointing.restore = match self.restore.as_deref() {
            None => Restore::Nothing,
            Some("latest") => Restore::Latest,
            Some(path) => {
                let (storage, folder) = of_checkpoint(path.as_ref())?;
                Restore::From(Target { storage, folder })
            }
        };
        checkpointing.allow_non_restored_state = self.allow_non_restored_state;
        if let Some(restart) = &self.restart {
            checkpointing.restart = restart.clone();
        }
        Ok(Some(checkpointing))
    }

    /// Where the savepoint goes with which a signal stops the job of this name, if one does.
    pub fn savepoints(&self, job: &str) -> checkpoint::Result<Option<Target>> {
        let folder = self.savepoint_dir.as_ref();
        let storage = folder.map(|folder| open_below(folder, &folder_name(job)));
        Ok(storage.transpose()?.map(|storage| Target {
            storage,
            folder: String::new(),
        }))
    }
}

/// The name of a job as that of a folder: what could lead elsewhere becomes a dash.
fn folder_name(job: &str) -> String {
    let safe = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
    job.chars().map(|c| if safe(c) { c } else { '-' }).collect()
}

fn restart_strategy(text: &str) -> Result<RestartStrategy, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let number = |text: &str| {
        let parsed = text.parse::<u32>();
        parsed.map_err(|error| format!("'{text}' is no number: {error}"))
    };
    let millis = |text: &str| Ok::<_, String>(Duration::from_millis(number(text)?.into()));
    match parts.as_slice() {
        ["none"] => Ok(RestartStrategy::None),
        ["exponential"] => Ok(RestartStrategy::default()),
        ["fixed", attempts, delay] => Ok(RestartStrategy::FixedDelay {
            attempts: number(attempts)?,
            delay: millis(delay)?,
        }),
        ["rate", failures, interval, delay] => Ok(RestartStrategy::FailureRate {
            max_failures: number(failures)?,
            interval: millis(interval)?,
            delay: millis(delay)?,
        }),
        _ => Err("give none, exponential, fixed:TIMES:MS or rate:FAILURES:PER_MS:MS".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_are_read_and_nonsense_is_told() {
        let fixed = RestartStrategy::FixedDelay {
            attempts: 3,
            delay: Duration::from_millis(250),
        };
        assert_eq!(restart_strategy("fixed:3:250"), Ok(fixed));
        assert_eq!(restart_strategy("none"), Ok(RestartStrategy::None));
        assert!(restart_strategy("rate:3:1000:10").is_ok());
        let error = restart_strategy("fixed:three:1").expect_err("no number");
        assert!(error.contains("'three' is no number"), "{error}");
        assert!(restart_strategy("often").is_err());
    }

    #[test]
    fn a_job_can_not_name_a_folder_outside() {
        assert_eq!(folder_name("../etc/x.y"), "---etc-x-y");
        assert_eq!(folder_name("order totals_2"), "order totals_2");
    }
}
