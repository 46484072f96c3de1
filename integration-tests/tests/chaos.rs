//! Real processes, killed with SIGKILL at random moments or dying at a failpoint, with another parallelism each
//! time: in the end their output is that of a run that nobody killed, to the byte after sorting, and nothing
//! else is left.
//!
//! `make chaos KILLS=100` asks for more kills than the tests do; `SEED=n` chooses other moments.

use integration_tests::PATIENCE;
use integration_tests::dice::{Dice, number};
use integration_tests::failpoints;
use integration_tests::processes::{example, root, run};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What the job's subtasks are from one life to the next.
const PARALLELISM: [u32; 3] = [2, 3, 1];

/// A job that is killed.
struct Victim {
    name: &'static str,
    program: &'static str,
    arguments: Vec<String>,
    /// The name of its folder of checkpoints.
    job: &'static str,
    /// Records per second and subtask, so that it lives long enough to be killed.
    rate: u32,
    /// Where its state is kept.
    backend: &'static str,
    /// What it has to put out, sorted.
    expected: Vec<String>,
}

/// How barriers pass what is in flight: it may be another way in each life.
const PASSING: [&[&str]; 3] = [
    &[],
    &["--unaligned"],
    &["--unaligned", "--aligned-timeout", "5"],
];

/// One life of a process.
struct Life {
    /// When it is killed.
    until: Duration,
    /// Where it dies before that, if it comes there.
    point: Option<String>,
    /// Whether its source is held to a rate.
    held: bool,
    passing: &'static [&'static str],
}

/// Mostly somewhere in the middle of the work, now and then while it begins, or as fast as it
/// runs, so that its end comes into reach.
fn next_life(dice: &mut Dice, points: &[String]) -> Life {
    let millis = match dice.below(10) {
        0..2 => 2 + dice.below(60),
        _ => 60 + dice.below(500),
    };
    let point = (dice.below(2) > 0).then(|| {
        let point = &points[dice.below(points.len() as u64) as usize];
        format!("{point}={}*exit", 1 + dice.below(4))
    });
    Life {
        // Where it does not come by its point, it is killed all the same.
        until: Duration::from_millis(if point.is_some() { 800 } else { millis }),
        point,
        held: dice.below(8) > 0,
        passing: PASSING[dice.below(PASSING.len() as u64) as usize],
    }
}

/// The lines of all visible files of a folder, without headers, sorted.
fn rows(folder: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for file in files(folder) {
        assert!(!hidden(&file), "{} is left over", file.display());
        let text = fs::read_to_string(&file).expect("a part is text");
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("session_start,"));
        rows.extend(lines.map(str::to_owned));
    }
    rows.sort_unstable();
    rows
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|e| Some(e.ok()?.path())).collect()
}

fn hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

/// The newest complete checkpoint of a job, for the log.
fn newest_checkpoint(folder: &Path) -> u64 {
    let complete = files(folder)
        .into_iter()
        .filter(|f| f.join("_metadata").is_file());
    let number = |f: PathBuf| f.file_name()?.to_str()?.strip_prefix("chk-")?.parse().ok();
    complete.filter_map(number).max().unwrap_or(0)
}

impl Victim {
    fn flights() -> Self {
        let data = root().join("examples/data");
        let input = data.join("flights-2013-01.csv");
        let answer = fs::read_to_string(data.join("expected/tailnum-sessions-24h.csv"));
        let answer = answer.expect("the answer is bundled");
        let mut expected: Vec<_> = answer.lines().skip(1).map(str::to_owned).collect();
        expected.sort_unstable();
        let words = [
            "--query",
            "tailnum-sessions",
            "--input",
            &input.to_string_lossy(),
        ]
        .map(str::to_owned);
        Victim {
            name: "flights sessions",
            program: "flights",
            arguments: words.to_vec(),
            job: "flights",
            rate: 4_000,
            backend: "memory",
            expected,
        }
    }

    fn nexmark() -> Self {
        let words = "--query q5 --mode lean --events 400000"
            .split(' ')
            .map(str::to_owned);
        let arguments: Vec<_> = words.collect();
        let folder = tempfile::tempdir().expect("there is room for files");
        let output = folder.path().join("out");
        let mut whole = arguments.clone();
        whole.extend(["--output".to_owned(), output.to_string_lossy().into_owned()]);
        run("nexmark", &whole).well();
        Victim {
            name: "nexmark q5",
            program: "nexmark",
            arguments,
            job: "q5",
            rate: 100_000,
            backend: "memory",
            expected: rows(&output),
        }
    }

    /// The same with its state in another backend.
    fn in_backend(self, backend: &'static str) -> Self {
        Victim { backend, ..self }
    }

    /// Starts it with what its last life left.
    fn start(&self, folder: &Path, parallelism: u32, life: &Life) -> Child {
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let mut command = Command::new(example(self.program));
        command
            .args(&self.arguments)
            .args([
                "--output",
                &path("out"),
                "--checkpoint-dir",
                &path("checkpoints"),
            ])
            .args(["--checkpoint-interval", "100", "--restore", "latest"])
            .args(["--parallelism", &parallelism.to_string()])
            .args(["--state-backend", self.backend])
            .args(["--state-dir", &path("state")])
            .args(life.passing)
            .env("TIDEGATE_CHECK_GRAMMAR", "1");
        if let Some(point) = &life.point {
            command.env("FAILPOINTS", point);
        }
        if life.held {
            command.args(["--source-rate", &self.rate.to_string()]);
        }
        let log = File::create(folder.join("stderr")).expect("the log can be written");
        let spawned = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        spawned.expect("the example can be started")
    }

    /// One round: killed until it gets to its end, or until the kills are used up and it is let live.
    /// Returns the kills.
    fn round(&self, kills: u32, dice: &mut Dice, log: &mut impl FnMut(String)) -> u32 {
        let folder = tempfile::tempdir().expect("there is room for files");
        let points = failpoints::local();
        let mut killed = 0;
        for life in 0.. {
            let parallelism = PARALLELISM[life % PARALLELISM.len()];
            let last = killed == kills;
            let next = if last {
                Life {
                    until: PATIENCE,
                    point: None,
                    held: false,
                    passing: PASSING[0],
                }
            } else {
                next_life(dice, &points)
            };
            let began = Instant::now();
            let mut process = self.start(folder.path(), parallelism, &next);
            let ended = wait(&mut process, next.until);
            let lived = began.elapsed();
            let checkpoint = newest_checkpoint(&folder.path().join("checkpoints").join(self.job));
            let name = format!("{} in {}", self.name, self.backend);
            if let Some(code) = ended {
                let complaint = fs::read_to_string(folder.path().join("stderr"));
                let complaint = complaint.unwrap_or_default();
                assert_eq!(code, 0, "{name}, life {life}: {complaint}");
                log(format!(
                    "{name}: life {life}, parallelism {parallelism}: came to its end, checkpoint {checkpoint}"
                ));
                break;
            }
            assert!(!last, "{name}: it does not come to its end");
            killed += 1;
            let itself = lived < next.until;
            assert!(
                !itself || next.point.is_some(),
                "{name}, life {life}: it died by itself"
            );
            let place = match &next.point {
                Some(point) if itself => format!(" at {point}"),
                _ => String::new(),
            };
            let unaligned = next.passing.first().map_or("", |_| ", unaligned");
            log(format!(
                "{name}: life {life}, parallelism {parallelism}{unaligned}: killed after {} ms{place}, checkpoint {checkpoint}",
                lived.as_millis()
            ));
        }
        self.check(&folder.path().join("out"));
        let left = files(&folder.path().join("state"));
        assert!(left.is_empty(), "{left:?} is left over");
        killed
    }

    fn check(&self, output: &Path) {
        let got = rows(output);
        let differs = got
            .iter()
            .zip(&self.expected)
            .find(|(got, want)| got != want);
        assert!(
            got == self.expected,
            "{}: {} rows, and {} without kills; the first pair that differs: {differs:?}",
            self.name,
            got.len(),
            self.expected.len()
        );
    }
}

/// Kills a process after a time, with a signal that it can't catch; its exit code if it ended before.
fn wait(process: &mut Child, until: Duration) -> Option<i32> {
    let began = Instant::now();
    while began.elapsed() < until {
        if let Some(status) = process.try_wait().expect("it is this process's child") {
            return status.code();
        }
        thread::park_timeout(Duration::from_micros(500));
    }
    let _ = process.kill();
    let status = process.wait().expect("it is this process's child");
    // It may have ended in the very last moment.
    status.code()
}

#[test]
fn the_output_is_that_of_a_run_without_kills() {
    let kills = number("TIDEGATE_CHAOS_KILLS").unwrap_or(5) as u32;
    let mut dice = Dice::new("chaos");
    let victims = [
        Victim::flights(),
        Victim::nexmark().in_backend("rocksdb"),
        Victim::flights().in_backend("rocksdb"),
        Victim::nexmark(),
    ];
    let (mut killed, mut rounds) = (0, 0);
    while killed < kills {
        for (place, victim) in victims.iter().enumerate() {
            let left = kills - killed;
            let share =
                left.min((kills / 4).max(3))
                    .min(if place == 0 { left.div_ceil(2) } else { left });
            killed += victim.round(share, &mut dice, &mut |line| println!("{line}"));
            rounds += 1;
        }
    }
    println!(
        "chaos: {killed} kills in {rounds} rounds from seed {}: each output equals that of a run without one",
        dice.seed
    );
}
