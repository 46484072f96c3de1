//! Every default and every port, in one place and with its reason.
//!
//! A figure that two files need stands here and nowhere else; a figure that is one algorithm's own
//! affair stays with its algorithm.

use std::time::Duration;

/// Port of the JobManager's REST API and dashboard.
pub const JOB_MANAGER_HTTP_PORT: u16 = 8081;
/// Port on which JobManager and TaskManagers talk to each other.
pub const JOB_MANAGER_RPC_PORT: u16 = 6123;
/// Port over which TaskManagers exchange records.
pub const TASK_MANAGER_DATA_PORT: u16 = 6121;
/// Port of a TaskManager's control interface.
pub const TASK_MANAGER_RPC_PORT: u16 = 6122;
/// First port of the TaskManagers of a cluster on one machine; TaskManager *i* has this plus *i*.
pub const TASK_MANAGER_BASE_PORT: u16 = 7000;

/// The host that listens and is spoken to where none is named: nobody else can reach it.
pub const DEFAULT_HOST: &str = "localhost";

/// Subtasks of an operator that doesn't name a number.
pub const DEFAULT_PARALLELISM: u32 = 1;
/// Key groups: the most subtasks that a keyed operator may ever have.
pub const DEFAULT_MAX_PARALLELISM: u32 = 128;
/// Key groups at most, and so subtasks of an operator: what a signed 16-bit number tells apart.
pub const MOST_KEY_GROUPS: u32 = 32_768;
/// Records that a source reads in one turn at most: some hundred microseconds of cheap work.
pub const DEFAULT_SLICE_RECORDS: usize = 16_384;
/// Microseconds that a slice may take before the next ones are made shorter.
pub const DEFAULT_SLICE_MICROS: u64 = 1_000;

/// Records that a consumer grants a channel at first and when it is pressed.
pub const DEFAULT_CHANNEL_CREDITS: u32 = 1000;
/// Credits in use at which a throttled channel is served again.
pub const DEFAULT_LOW_WATER_MARK: u32 = 200;
/// Credits in use from which a channel is throttled.
pub const DEFAULT_HIGH_WATER_MARK: u32 = 800;
/// Milliseconds that a full channel may take to drain.
pub const DEFAULT_TARGET_DRAIN_MS: u32 = 1000;
/// Records that a consumer grants a channel at most: about what fits into a core's cache.
pub const DEFAULT_MAX_CHANNEL_CREDITS: u32 = 16 * 1024;
/// Records in a full batch: makes the price of a message vanish.
pub const DEFAULT_BATCH_RECORDS: u32 = 1024;
/// Milliseconds that a record may wait for its batch to fill.
pub const DEFAULT_FLUSH_INTERVAL_MS: u64 = 10;

/// The budget for pooled memory, in bytes: 1 GiB.
pub const DEFAULT_MAX_MEMORY: usize = 1024 * 1024 * 1024;

/// How often a job's pressure is measured on one machine.
pub const LOCAL_MONITORING_INTERVAL: Duration = Duration::from_millis(100);
/// How often the pressure of a pipeline of stages is measured.
pub const PIPELINE_MONITORING_INTERVAL: Duration = Duration::from_secs(2);
/// From here on a pressure of 0 to 1 is moderate, for what steers by it.
pub const MODERATE_PRESSURE: f64 = 0.6;
/// From here on it is high: what was throttled stays so.
pub const HIGH_PRESSURE: f64 = 0.8;
/// From here on it is critical: throttling begins.
pub const CRITICAL_PRESSURE: f64 = 0.9;

/// How long one turn of user code may take before the job is given up.
pub const DEFAULT_TURN_PATIENCE: Duration = Duration::from_secs(60);
/// How long subtasks may take to stop after a failure.
pub const DEFAULT_STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Where a JobManager's dashboard is: `http://host:8081`.
///
/// ```
/// use tidegate_engine::constants::{DEFAULT_HOST, job_manager_web_ui};
/// assert_eq!(job_manager_web_ui(DEFAULT_HOST), "http://localhost:8081");
/// assert_eq!(job_manager_web_ui("::1"), "http://[::1]:8081");
/// ```
pub fn job_manager_web_ui(host: &str) -> String {
    let bare_ipv6 = host.contains(':') && !host.starts_with('[');
    let host = if bare_ipv6 {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    format!("http://{host}:{JOB_MANAGER_HTTP_PORT}")
}

/// The port of TaskManager `index` of a cluster on one machine; `None` where there is no such port.
///
/// ```
/// use tidegate_engine::constants::task_manager_port;
/// assert_eq!(task_manager_port(2), Some(7002));
/// assert_eq!(task_manager_port(60_000), None);
/// ```
pub fn task_manager_port(index: u16) -> Option<u16> {
    TASK_MANAGER_BASE_PORT.checked_add(index)
}
