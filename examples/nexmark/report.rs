//! What a run cost and answered, as one line: JSON for programs, words for people.

use crate::digest::Outcome;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::time::Instant;

/// Measures a run from its start.
#[derive(Debug)]
pub struct Stopwatch {
    started: Instant,
    cpu_before: f64,
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Stopwatch {
            cpu_before: cpu_seconds(),
            started: Instant::now(),
        }
    }

    /// Seconds of the clock and of all threads' CPU time since the start.
    pub fn stop(self) -> (f64, f64) {
        let seconds = self.started.elapsed().as_secs_f64();
        (seconds, cpu_seconds() - self.cpu_before)
    }
}

/// The line.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The query's name.
    pub query: &'static str,
    /// `full` or `lean`.
    pub mode: &'static str,
    /// How many events were generated.
    pub events: u64,
    /// How many subtasks each part of the job had; 1 for a bare loop.
    pub parallelism: usize,
    /// How long the run took.
    pub seconds: f64,
    /// Events by seconds.
    pub events_per_second: f64,
    /// How many rows the answer has.
    pub results: u64,
    /// The order-independent digest of the rows, 16 hexadecimal digits.
    pub digest: String,
    /// The most memory that the process held so far.
    pub peak_rss_bytes: u64,
    /// CPU time of the run in all threads, also those that have ended.
    pub cpu_seconds: f64,
}

impl Report {
    /// Fills in what was measured.
    pub fn new(
        (query, mode): (&'static str, &'static str),
        (events, parallelism): (u64, usize),
        outcome: Outcome,
        watch: Stopwatch,
    ) -> Self {
        let (seconds, cpu_seconds) = watch.stop();
        Report {
            query,
            mode,
            events,
            parallelism,
            seconds,
            events_per_second: events as f64 / seconds.max(1e-9),
            results: outcome.results,
            digest: format!("{:016x}", outcome.digest),
            peak_rss_bytes: peak_rss_bytes(),
            cpu_seconds,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {} at parallelism {}: {} events in {:.3} s ({:.2} M/s, {:.2} CPU s, {} MiB), {} results, digest {}",
            self.query,
            self.mode,
            self.parallelism,
            self.events,
            self.seconds,
            self.events_per_second / 1e6,
            self.cpu_seconds,
            self.peak_rss_bytes >> 20,
            self.results,
            self.digest,
        )
    }
}

/// CPU time of this process so far, of all its threads.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The high-water mark of this process's resident memory; 0 where there is no `/proc`.
pub fn peak_rss_bytes() -> u64 {
    status_bytes("VmHWM:")
}

/// This process's resident memory; 0 where there is no `/proc`.
pub fn rss_bytes() -> u64 {
    status_bytes("VmRSS:")
}

fn status_bytes(field: &str) -> u64 {
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| kibibytes(&status, field))
        .unwrap_or(0)
        * 1024
}

fn kibibytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_proc() {
        let status = "Name:\tx\nVmHWM:\t    1234 kB\nVmRSS: 1 kB\n";
        assert_eq!(kibibytes(status, "VmHWM:"), Some(1234));
        assert_eq!(kibibytes(status, "VmRSS:"), Some(1));
        assert_eq!(kibibytes(status, "VmSwap:"), None);
        assert!(peak_rss_bytes() > 0 && rss_bytes() > 0);
    }

    #[test]
    fn cpu_time_counts_threads_that_have_ended() {
        let watch = Stopwatch::start();
        let work = || {
            let began = Instant::now();
            while began.elapsed().as_millis() < 20 {
                std::hint::black_box(peak_rss_bytes());
            }
        };
        std::thread::spawn(work).join().expect("it does not panic");
        let (seconds, cpu_seconds) = watch.stop();
        assert!(seconds >= 0.02 && cpu_seconds > 0.001, "{cpu_seconds}");
    }

    #[test]
    fn json_has_the_promised_keys() {
        let outcome = Outcome {
            results: 3,
            digest: 255,
        };
        let report = Report::new(("q5", "lean"), (1_000, 1), outcome, Stopwatch::start());
        let json = serde_json::to_string(&report).expect("a report is JSON");
        for key in [
            "query",
            "mode",
            "events",
            "parallelism",
            "seconds",
            "events_per_second",
            "results",
            "digest",
        ] {
            assert!(json.contains(&format!("\"{key}\":")), "{json}");
        }
        assert!(
            json.contains("\"digest\":\"00000000000000ff\"")
                && json.contains("\"peak_rss_bytes\":")
        );
        assert!(json.contains("\"cpu_seconds\":"));
    }
}
