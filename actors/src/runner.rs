//! Runs a job on this machine: arbiters, actors, and everything taken down again.

use crate::attempt::{Attempts, JobControl};
use crate::checkpointing::{Checkpointing, Target};
use crate::failpoints;
use crate::memory_use::MemoryUse;
use crate::metrics_server::{self, MetricsSettings, MetricsSocket};
use crate::pressure::{PressureBoard, PressureSettings};
use crate::progress::{ProgressMode, ProgressThread};
use crate::protocol::PressureReport;
use crate::signals::StopOnSignal;
use crate::state_backend::StateBoard;
use crate::supervisor::{Outcome, Patience};
use crate::telemetry::{CheckpointBoard, Telemetry};
use actix::prelude::*;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use tidegate_engine::checkpoint::{CheckpointHistory, SavepointKind};
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::Fault;
use tidegate_engine::graph::JobGraph;
use tidegate_engine::metrics::MetricRegistry;
use tidegate_engine::observe::{JobStats, SubtaskSnapshot};

/// Why a job did not come to a good end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A check of a source or sink, or a subtask, failed.
    #[error("job '{job}' failed: {fault}{}", list(.stuck))]
    Failed {
        /// The job's name.
        job: String,
        /// The root cause.
        fault: Fault,
        /// Subtasks that did not stop and still hold their thread.
        stuck: Vec<String>,
    },
    /// It was ended early.
    #[error("job '{job}' was cancelled{}", list(.stuck))]
    Cancelled {
        /// The job's name.
        job: String,
        /// Subtasks that did not stop and still hold their thread.
        stuck: Vec<String>,
    },
    /// Its metrics can't be served.
    #[error(transparent)]
    Metrics(#[from] metrics_server::Error),
    /// The machine refused a thread.
    #[error("job '{job}' could not start: {cause}")]
    Start {
        /// The job's name.
        job: String,
        /// What the machine said.
        cause: String,
    },
}

fn list(stuck: &[String]) -> String {
    if stuck.is_empty() {
        return String::new();
    }
    format!("; these subtasks did not stop: {}", stuck.join(", "))
}

/// What a job that finished tells.
#[derive(Clone, Debug)]
pub struct JobResult {
    /// The job's name.
    pub job: String,
    /// From the first start to the last end.
    pub elapsed: Duration,
    /// The final numbers of every subtask.
    pub subtasks: Vec<SubtaskSnapshot>,
    /// What became of the checkpoints of the last attempt.
    pub checkpoints: CheckpointHistory,
    /// Where the savepoint is, if a signal stopped the job with one.
    pub savepoint: Option<String>,
}

impl JobResult {
    fn sum(&self, of: impl Fn(&SubtaskSnapshot) -> u64) -> u64 {
        self.subtasks.iter().map(of).sum()
    }

    /// Records that came after their window was gone.
    pub fn late(&self) -> u64 {
        self.sum(|s| s.late)
    }

    /// Records that did not parse and were skipped or put aside.
    pub fn dead_letters(&self) -> u64 {
        self.sum(|s| s.dead_letters)
    }

    /// Records that the vertex with this name (or the operator it begins with) received.
    pub fn records_in(&self, vertex: &str) -> u64 {
        self.sum(|s| {
            if matches(&s.vertex, vertex) {
                s.records_in
            } else {
                0
            }
        })
    }

    /// Records that it handed on or wrote.
    pub fn records_out(&self, vertex: &str) -> u64 {
        self.sum(|s| {
            if matches(&s.vertex, vertex) {
                s.records_out
            } else {
                0
            }
        })
    }
}

fn matches(vertex: &str, wanted: &str) -> bool {
    vertex.split(" -> ").any(|operator| operator == wanted)
}

/// How to run.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// Arbiters at most; by default the machine's cores.
    pub cores: usize,
    /// Where processing time comes from.
    pub clock: Clock,
    /// Limits of supervision.
    pub patience: Patience,
    /// The memory that the job may use, as its pressure is measured against it.
    pub memory: MemoryUse,
    /// How its pressure is measured and answered.
    pub pressure: PressureSettings,
    /// Where its numbers are served over HTTP, if anywhere.
    pub metrics: Option<MetricsSettings>,
    /// Whether its progress is shown on stderr.
    pub progress: ProgressMode,
    /// Records per second that each subtask of a source reads at most.
    pub source_rate: Option<f64>,
    /// Where its checkpoints go. A job takes some where its settings say so too.
    pub checkpointing: Option<Checkpointing>,
    /// SIGINT and SIGTERM stop the job with a savepoint that goes there; a second one ends the process.
    /// `None` leaves these signals alone.
    pub stop_on_signal: Option<Target>,
}

impl Default for RunSettings {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        RunSettings {
            cores,
            clock: Clock::System,
            patience: Patience::default(),
            memory: MemoryUse::default(),
            pressure: PressureSettings::default(),
            metrics: None,
            progress: ProgressMode::default(),
            source_rate: None,
            checkpointing: None,
            stop_on_signal: None,
        }
    }
}

/// A job that runs.
pub struct RunningJob {
    telemetry: Telemetry,
    control: Arc<JobControl>,
    thread: Option<JoinHandle<Outcome>>,
    ended: Arc<AtomicBool>,
    stopped_at: Arc<OnceLock<String>>,
    metrics_address: Option<SocketAddr>,
    progress: Option<ProgressThread>,
}

impl RunningJob {
    /// The job's live numbers.
    pub fn stats(&self) -> Arc<JobStats> {
        self.telemetry.stats.clone()
    }

    /// The job.
    pub fn job(&self) -> &Arc<JobGraph> {
        &self.telemetry.job
    }

    /// Everything that can be known of it while it runs.
    pub fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// The newest pressure of each vertex.
    pub fn pressure(&self) -> Vec<PressureReport> {
        self.telemetry.pressure.latest()
    }

    /// Where its metrics are served, with the port that the system chose.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Whether it has come to its end.
    pub fn ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Ends it early.
    pub fn cancel(&self) {
        self.control.cancel();
    }

    /// The number of the attempt that is running, or ran last, from 1.
    pub fn attempt(&self) -> u32 {
        self.control.attempt()
    }

    /// Takes a savepoint and waits until it is complete: into `folder`, or into one of its own beside
    /// the checkpoints. Returns where it is; the error says why there is none.
    pub fn savepoint(&self, kind: SavepointKind, folder: Option<Target>) -> Result<String, String> {
        self.control.savepoint(kind, folder)
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Result<JobResult, Error> {
        let job = self.telemetry.job.name.clone();
        let outcome = self.thread.take().map(JoinHandle::join);
        match (&outcome, self.progress.take()) {
            (Some(Ok(Outcome::Finished)), Some(progress)) => progress.finish(),
            (_, progress) => drop(progress),
        }
        match outcome {
            Some(Ok(Outcome::Finished)) => Ok(JobResult {
                job,
                elapsed: self.telemetry.began.elapsed(),
                subtasks: self.telemetry.stats.snapshot(),
                checkpoints: self.telemetry.checkpoints.latest(),
                savepoint: self.stopped_at.get().cloned(),
            }),
            Some(Ok(Outcome::Cancelled { stuck })) => Err(Error::Cancelled { job, stuck }),
            Some(Ok(Outcome::Failed { fault, stuck, .. })) => {
                Err(Error::Failed { job, fault, stuck })
            }
            _ => {
                let fault = Fault::internal("the job's own thread panicked");
                Err(Error::Failed {
                    job,
                    fault,
                    stuck: Vec::new(),
                })
            }
        }
    }
}

/// Runs jobs in this process.
#[derive(Clone, Debug, Default)]
pub struct LocalRunner {
    settings: RunSettings,
}

impl LocalRunner {
    /// With these settings.
    pub fn new(settings: RunSettings) -> Self {
        LocalRunner { settings }
    }

    /// Runs a job to its end.
    pub fn run(&self, job: JobGraph) -> Result<JobResult, Error> {
        self.start(job)?.wait()
    }

    /// Checks a job's sources and sinks and starts it on threads of its own.
    pub fn start(&self, job: JobGraph) -> Result<RunningJob, Error> {
        failpoints::from_environment();
        let name = job.name.clone();
        let failed = |fault| Error::Failed {
            job: name.clone(),
            fault,
            stuck: Vec::new(),
        };
        tidegate_engine::fault::catch(|| job.check()).map_err(failed)?;
        let socket = self
            .settings
            .metrics
            .as_ref()
            .map(MetricsSocket::bind)
            .transpose()?;
        let metrics_address = socket.as_ref().map(MetricsSocket::address);
        let job = Arc::new(job);
        let vertices = (0..job.vertices.len() as u32).map(tidegate_engine::graph::VertexId);
        let vertices = vertices.map(|v| (job.vertex_name(v), job.parallelism(v)));
        let telemetry = Telemetry {
            stats: Arc::new(JobStats::new(vertices)),
            job,
            metrics: MetricRegistry::new(),
            pressure: PressureBoard::default(),
            checkpoints: CheckpointBoard::default(),
            state: StateBoard::default(),
            clock: self.settings.clock.clone(),
            began: Instant::now(),
        };
        telemetry.warn();
        let ended = Arc::new(AtomicBool::new(false));
        let control = Arc::new(JobControl::default());
        let stopped_at = Arc::new(OnceLock::new());
        let (watched, settings) = (telemetry.clone(), self.settings.clone());
        let host = Host {
            telemetry: watched,
            settings,
            socket,
            control: control.clone(),
            stopped_at: stopped_at.clone(),
        };
        let flag = ended.clone();
        let spawned = thread::Builder::new()
            .name("tidegate-job".into())
            .spawn(move || {
                let outcome = host.run();
                flag.store(true, Relaxed);
                outcome
            });
        let start = |cause: String| Error::Start {
            job: name.clone(),
            cause,
        };
        let thread = spawned.map_err(|e| start(e.to_string()))?;
        let shown = self.settings.progress.applies_to(&telemetry.job);
        let progress = shown.then(|| ProgressThread::start(telemetry.clone()));
        let thread = Some(thread);
        Ok(RunningJob {
            telemetry,
            control,
            thread,
            ended,
            stopped_at,
            metrics_address,
            progress,
        })
    }
}

/// The thread that owns a job's actix system.
struct Host {
    telemetry: Telemetry,
    settings: RunSettings,
    socket: Option<MetricsSocket>,
    control: Arc<JobControl>,
    stopped_at: Arc<OnceLock<String>>,
}

impl Host {
    fn run(mut self) -> Outcome {
        let system = System::new();
        let socket = self.socket.take();
        let tasks = self.telemetry.job.tasks.iter();
        let widest = tasks.map(|t| t.parallelism as usize).max().unwrap_or(1);
        let cores = self.settings.cores.clamp(1, widest);
        let arbiters: Vec<Arbiter> = (0..cores).map(|_| Arbiter::new()).collect();
        let outcome = system.block_on(async {
            let server = socket.and_then(|socket| self.serve(socket));
            if let Some(target) = &self.settings.stop_on_signal
                && let Err(error) = self.listen(target.clone())
            {
                let error = format_args!("signals can't be caught: {error}");
                return Outcome::failed(Fault::internal(error));
            }
            let attempts = Attempts {
                telemetry: &self.telemetry,
                settings: &self.settings,
                arbiters: &arbiters,
                control: &self.control,
            };
            let outcome = attempts.run().await;
            if let Some(server) = server {
                server.stop(false).await;
            }
            outcome
        });
        let stuck = match &outcome {
            Outcome::Failed { stuck, .. } | Outcome::Cancelled { stuck } => !stuck.is_empty(),
            _ => false,
        };
        for arbiter in &arbiters {
            arbiter.stop();
        }
        // A thread that user code holds can't be taken back: it is left behind, and named.
        if !stuck {
            for arbiter in arbiters {
                let _ = arbiter.join();
            }
        }
        outcome
    }

    /// Stops the job with a savepoint when a signal comes.
    fn listen(&self, target: Target) -> std::io::Result<()> {
        let (control, stopped_at) = (self.control.clone(), self.stopped_at.clone());
        let stop = StopOnSignal::new(control, target, stopped_at)?;
        actix_rt::spawn(stop.run());
        Ok(())
    }

    /// Serves the metrics; the handle stops that. The socket is bound, so nothing but the machine's
    /// limits can refuse here, and a job does not fail because nobody can watch it.
    fn serve(&self, socket: MetricsSocket) -> Option<actix_web::dev::ServerHandle> {
        let address = socket.address();
        match socket.serve(self.telemetry.clone()) {
            Ok(server) => {
                let handle = server.handle();
                actix_rt::spawn(server);
                eprintln!("metrics: http://{address}/metrics");
                Some(handle)
            }
            Err(cause) => {
                tracing::error!(%address, "metrics are not served: {cause}");
                None
            }
        }
    }
}
