//! Shows a person how far a job is, on stderr, from a thread that the job does not wait for.
//!
//! On a terminal it is one line that is rewritten; elsewhere, such as in a log file, a plain line
//! now and then. It reads what subtasks write anyway, so it costs the job nothing.

use crate::telemetry::Telemetry;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tidegate_engine::flow::PressureLevel;
use tidegate_engine::graph::JobGraph;
use tidegate_engine::observe::SubtaskSnapshot;
use tidegate_engine::time::Timestamp;

const ON_A_TERMINAL: Duration = Duration::from_millis(250);
const ELSEWHERE: Duration = Duration::from_secs(5);
/// The records of how long ago the present rate is measured against.
const WINDOW: Duration = Duration::from_secs(1);

/// Shorter silences of what a job speaks to are not shown.
const NOTABLE: Duration = Duration::from_secs(3);

/// Clears the line, and keeps a long one from wrapping, after which it could not be rewritten.
const REWRITE: &str = "\r\x1b[2K\x1b[?7l";
const WRAP_AGAIN: &str = "\x1b[?7h";

/// Whether progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgressMode {
    /// For jobs whose input comes to an end.
    Auto,
    /// For every job.
    On,
    /// For none.
    #[default]
    Off,
}

impl ProgressMode {
    /// Whether it is shown for this job.
    pub fn applies_to(self, job: &JobGraph) -> bool {
        match self {
            ProgressMode::Auto => job.bounded,
            ProgressMode::On => true,
            ProgressMode::Off => false,
        }
    }
}

/// What a line shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Figures {
    /// Since the job's beginning.
    pub elapsed: Duration,
    /// Records that sources read.
    pub read: u64,
    /// Records that sinks wrote.
    pub written: u64,
    /// Records that came too late.
    pub late: u64,
    /// Records that did not parse.
    pub dead_letters: u64,
    /// The least watermark of the vertices that have one.
    pub watermark: Option<Timestamp>,
    /// The most pressed vertex, if that is above healthy.
    pub pressed: Option<(String, f64)>,
    /// The vertex whose outside has not answered for longest, and for how long, if for more than a moment.
    pub silent: Option<(String, Duration)>,
}

/// Puts lines together; knows the rate from the lines before.
#[derive(Debug, Default)]
pub struct Progress {
    before: Vec<(Duration, u64)>,
}

impl Progress {
    /// The next line, without its end.
    pub fn line(&mut self, now: &Figures) -> String {
        let rate = self.rate(now);
        let mut line = format!("{:.1} s", now.elapsed.as_secs_f64());
        // Writing into a string cannot fail.
        let _ = write!(line, "  read {} ({}/s)", grouped(now.read), grouped(rate));
        let _ = write!(line, "  written {}", grouped(now.written));
        for (name, count) in [("late", now.late), ("dead letters", now.dead_letters)] {
            if count > 0 {
                let _ = write!(line, "  {name} {}", grouped(count));
            }
        }
        if let Some(at) = now.watermark {
            let _ = write!(line, "  watermark {at}");
        }
        if let Some((vertex, pressure)) = &now.pressed {
            let level = PressureLevel::of(*pressure).to_string().to_lowercase();
            let _ = write!(line, "  {level} at '{vertex}'");
        }
        if let Some((vertex, lasts)) = &now.silent {
            let seconds = lasts.as_secs();
            let _ = write!(line, "  no answer to '{vertex}' for {seconds} s");
        }
        line
    }

    fn rate(&mut self, now: &Figures) -> u64 {
        // The newest line that is old enough stays, as what the next rate is measured against.
        let old = |(at, _): &(Duration, u64)| now.elapsed.saturating_sub(*at) >= WINDOW;
        let passed = self.before.iter().take_while(|before| old(before)).count();
        self.before.drain(..passed.saturating_sub(1));
        let (at, read) = self.before.first().copied().unwrap_or_default();
        self.before.push((now.elapsed, now.read));
        let seconds = now.elapsed.saturating_sub(at).as_secs_f64();
        if seconds > 0.0 {
            (now.read.saturating_sub(read) as f64 / seconds) as u64
        } else {
            0
        }
    }
}

/// A number with commas, such as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

impl Figures {
    /// Of a job at this moment.
    pub fn of(telemetry: &Telemetry) -> Self {
        let (job, subtasks) = (&telemetry.job, telemetry.stats.snapshot());
        let has = |s: &&SubtaskSnapshot, kind: &str| {
            let mut operators = job.vertices[s.vertex_id as usize].operators.iter();
            operators.any(|o| job.operators[o.0 as usize].kind == kind)
        };
        let sources = subtasks.iter().filter(|s| has(s, "source"));
        let sinks = subtasks.iter().filter(|s| has(s, "sink"));
        let open = |at: &i64| *at != Timestamp::MAX.0;
        let silent = subtasks.iter().max_by_key(|s| s.silence_ms);
        let silent = silent.filter(|s| s.silence_ms >= NOTABLE.as_millis() as u64);
        let highest = telemetry.pressure.highest();
        let pressed = highest.filter(|r| PressureLevel::of(r.pressure) > PressureLevel::Healthy);
        Figures {
            elapsed: telemetry.began.elapsed(),
            read: sources.map(|s| s.records_in).sum(),
            written: sinks.map(|s| s.records_out).sum(),
            late: subtasks.iter().map(|s| s.late).sum(),
            dead_letters: subtasks.iter().map(|s| s.dead_letters).sum(),
            watermark: subtasks
                .iter()
                .filter_map(|s| s.watermark)
                .filter(open)
                .min()
                .map(Timestamp),
            pressed: pressed.map(|report| (report.vertex, report.pressure)),
            silent: silent.map(|s| (s.vertex.clone(), Duration::from_millis(s.silence_ms))),
        }
    }
}

/// The thread that shows progress, until it is dropped.
#[derive(Debug)]
pub struct ProgressThread {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl ProgressThread {
    /// Shows a job's progress on stderr. Without a thread to spare it shows nothing.
    pub fn start(telemetry: Telemetry) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let terminal = io::stderr().is_terminal();
        let period = if terminal { ON_A_TERMINAL } else { ELSEWHERE };
        let show = move || {
            let mut progress = Progress::default();
            let mut shown = false;
            let finished = loop {
                match stopped.recv_timeout(period) {
                    Ok(()) => break true,
                    Err(RecvTimeoutError::Disconnected) => break false,
                    Err(RecvTimeoutError::Timeout) => {
                        print(terminal, &progress.line(&Figures::of(&telemetry)));
                        shown = true;
                    }
                }
            };
            if finished {
                // The rate of this one is that of the whole job.
                print(
                    terminal,
                    &Progress::default().line(&Figures::of(&telemetry)),
                );
            } else if shown && terminal {
                print(terminal, &progress.line(&Figures::of(&telemetry)));
            }
            if terminal && (shown || finished) {
                let _ = io::stderr().write_all(b"\n");
            }
        };
        let thread = thread::Builder::new()
            .name("tidegate-progress".into())
            .spawn(show)
            .ok();
        ProgressThread {
            stop: Some(stop),
            thread,
        }
    }

    /// The job has come to a good end: one more line tells all of it, however short it was.
    pub fn finish(self) {
        if let Some(stop) = &self.stop {
            let _ = stop.send(());
        }
    }
}

impl Drop for ProgressThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Who can't be told, isn't: a job does not fail because nobody watches.
fn print(terminal: bool, line: &str) {
    let text = if terminal {
        format!("{REWRITE}{line}{WRAP_AGAIN}")
    } else {
        format!("{line}\n")
    };
    let mut stderr = io::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64, read: u64) -> Figures {
        Figures {
            elapsed: Duration::from_millis(ms),
            read,
            ..Figures::default()
        }
    }

    #[test]
    fn a_line_shows_what_there_is_and_leaves_out_what_is_not() {
        let quiet = Progress::default().line(&at(500, 1_000));
        assert_eq!(quiet, "0.5 s  read 1,000 (2,000/s)  written 0");
        let full = Figures {
            written: 12,
            late: 3,
            dead_letters: 1_234_567,
            watermark: Some(Timestamp(0)),
            pressed: Some(("count -> out".into(), 0.7)),
            silent: Some(("orders".into(), Duration::from_millis(12_400))),
            ..at(2_000, 100)
        };
        assert_eq!(
            Progress::default().line(&full),
            "2.0 s  read 100 (50/s)  written 12  late 3  dead letters 1,234,567  \
             watermark 1970-01-01T00:00:00Z  high pressure at 'count -> out'  no answer to 'orders' for 12 s"
        );
    }

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let mut progress = Progress::default();
        let mut rates = Vec::new();
        // A thousand per second for two seconds, then standstill.
        for (ms, read) in [(500, 500), (1_000, 1_000), (1_500, 1_500), (2_000, 2_000)] {
            rates.push(progress.rate(&at(ms, read)));
        }
        for ms in [2_500, 3_000, 3_500] {
            rates.push(progress.rate(&at(ms, 2_000)));
        }
        assert_eq!(rates, [1_000, 1_000, 1_000, 1_000, 500, 0, 0]);
        assert!(progress.before.len() < 5);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (12_345_678, "12,345,678"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
