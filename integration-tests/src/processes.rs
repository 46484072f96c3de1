//! Runs the built examples as a user does, and sees what they print, how they end and what memory
//! they took.
//!
//! Cargo tells a package's tests where its own binaries are, and not where another package's
//! examples are. They lie beside the tests: `release/deps/bad_input-1a2b` and
//! `release/examples/flights`.

use crate::PATIENCE;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often the memory of a running process is looked at.
const GLANCE: Duration = Duration::from_millis(1);

/// The checkout.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// The built example of this name.
///
/// # Panics
///
/// Where it isn't built, with what to run.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("Linux knows a process's executable");
    let folder = test.ancestors().nth(2).expect("tests are in release/deps");
    let path = folder.join("examples").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --release --examples`",
        path.display()
    );
    path
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
    /// The most memory that it held, in bytes, but for what it took in its last millisecond.
    pub peak_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl Ended {
    /// That it ended well; returns what it printed.
    ///
    /// # Panics
    ///
    /// Where it did not.
    pub fn well(self) -> String {
        // Progress is shown there too.
        let progress = |line: &str| line.contains(" s  read ");
        let quiet = self.stderr.lines().all(progress);
        assert!(self.code == Some(0) && quiet, "{self:#?}");
        self.stdout
    }

    /// That it failed as a well-behaved program does: with this exit code, and an error that begins
    /// with one line which holds all of `words`. Returns that line.
    ///
    /// # Panics
    ///
    /// Where it did not.
    pub fn badly(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.stdout, "", "{self:#?}");
        for noise in ["panicked", "RUST_BACKTRACE", "stack backtrace", ".rs:"] {
            assert!(!self.stderr.contains(noise), "{noise}: {self:#?}");
        }
        let line = self.stderr.lines().next().unwrap_or_default().to_owned();
        assert!(line.starts_with("error: "), "{self:#?}");
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:#?}");
        }
        line
    }

    /// The same, where all it says is one line.
    ///
    /// # Panics
    ///
    /// Where it says more.
    pub fn in_one_line(self, words: &[&str]) -> String {
        assert_eq!(self.stderr.trim_end().lines().count(), 1, "{self:#?}");
        self.badly(1, words)
    }
}

/// Runs an example with these arguments to its end.
///
/// # Panics
///
/// Where it doesn't end in time: it is killed then.
pub fn run<I: IntoIterator<Item: AsRef<OsStr>>>(name: &str, arguments: I) -> Ended {
    run_command(Command::new(example(name)).args(arguments))
}

/// Runs a command to its end.
///
/// # Panics
///
/// Where it can't be started or doesn't end in time.
pub fn run_command(command: &mut Command) -> Ended {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started");
    let (stdout, stderr) = (read(child.stdout.take()), read(child.stderr.take()));
    let mut peak_bytes = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is this process's child") {
            break status;
        }
        peak_bytes = peak_bytes.max(peak_of(&child));
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} does not end; it says {}", text(stderr));
        }
        thread::park_timeout(GLANCE);
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    Ended {
        code: status.code(),
        stdout,
        stderr,
        peak_bytes,
        took: began.elapsed(),
    }
}

fn read(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    let mut pipe = pipe.expect("it was asked for");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

fn text(reading: JoinHandle<Vec<u8>>) -> String {
    let bytes = reading.join().expect("reading a pipe does not panic");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The most memory that a process has held so far; Linux keeps that mark.
fn peak_of(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id()));
    let status = status.unwrap_or_default();
    let mark = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = mark.and_then(|mark| mark.trim().strip_suffix(" kB")?.trim().parse().ok());
    kib.unwrap_or(0u64) * 1024
}
