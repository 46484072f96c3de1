//! A person, or what runs the process, ends a job by a signal: with a savepoint, so that it can be carried on.
//!
//! Only where it was asked for: else SIGINT and SIGTERM end the process as they end any other. The first
//! one asks for a stop-with-savepoint; a second one while that is under way ends the process at once.
//! Where there could be no savepoint the job goes on, and the next signal tries again.

use crate::attempt::JobControl;
use crate::checkpointing::Target;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidegate_engine::checkpoint::SavepointKind;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often a job that is only just starting, or again, is asked whether it can take a savepoint now.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// Stops a job with a savepoint when a signal comes.
pub(crate) struct StopOnSignal {
    control: Arc<JobControl>,
    target: Target,
    taken: Arc<OnceLock<String>>,
    interrupt: Signal,
    terminate: Signal,
}

impl StopOnSignal {
    /// Catches SIGINT and SIGTERM from now on. The place of the savepoint goes to `taken`.
    pub fn new(
        control: Arc<JobControl>,
        target: Target,
        taken: Arc<OnceLock<String>>,
    ) -> io::Result<Self> {
        Ok(StopOnSignal {
            control,
            target,
            taken,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Serves signals until the job ends.
    #[allow(
        clippy::disallowed_methods,
        reason = "a second signal asks for just that: an end at once, as if nobody had caught it"
    )]
    pub async fn run(mut self) {
        loop {
            self.next().await;
            eprintln!(
                "stopping with a savepoint in {}; a second signal ends the process at once",
                self.target.place()
            );
            let (control, target) = (self.control.clone(), self.target.clone());
            let taking = take(control, target, self.taken.clone());
            tokio::pin!(taking);
            let result = tokio::select! {
                result = &mut taking => result,
                code = self.next() => {
                    eprintln!("ended by a second signal; there is no savepoint");
                    std::process::exit(code);
                }
            };
            match result {
                Ok(_) => {
                    // The savepoint is complete; what is left is to commit, and a signal may end that.
                    let code = self.next().await;
                    std::process::exit(code);
                }
                Err(reason) => eprintln!("no savepoint, the job goes on: {reason}"),
            }
        }
    }

    /// Waits for a signal; returns the exit code of a process that it ends.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.interrupt.recv() => 128 + SignalKind::interrupt().as_raw_value(),
            _ = self.terminate.recv() => 128 + SignalKind::terminate().as_raw_value(),
        }
    }
}

async fn take(
    control: Arc<JobControl>,
    target: Target,
    place: Arc<OnceLock<String>>,
) -> Result<String, String> {
    while !control.takes_savepoints() {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    let taking = move || control.take(SavepointKind::Stop, Some(target), place);
    let taken = tokio::task::spawn_blocking(taking).await;
    taken.unwrap_or_else(|error| Err(error.to_string()))
}
