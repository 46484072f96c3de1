//! The checkout that the house rules look at: which files there are, and what each of them is.

use std::fmt;
use std::path::Path;
use std::process::Command;

pub struct Checkout {
    pub files: Vec<File>,
}

pub struct File {
    /// Relative to the top of the checkout.
    pub path: String,
    /// Empty unless a rule looks into such a file: `.rs` and `Cargo.toml`.
    pub text: String,
}

impl Checkout {
    pub fn here() -> Self {
        let top = top();
        let paths = tracked_files(top).unwrap_or_else(|| walk(top));
        // A file that is deleted but not yet committed is still tracked, and no longer there.
        let there = paths.into_iter().filter(|path| top.join(path).is_file());
        Self {
            files: there.map(|path| File::read(top, path)).collect(),
        }
    }

    pub fn sources(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }
}

impl File {
    fn read(top: &Path, path: String) -> Self {
        let matters = path.ends_with(".rs") || path.ends_with("Cargo.toml");
        let text = match matters.then(|| std::fs::read_to_string(top.join(&path))) {
            None => String::new(),
            Some(Ok(text)) => text,
            Some(Err(error)) => panic!("{path}: {error}"),
        };
        Self { path, text }
    }

    pub fn is_in(&self, folder: &str) -> bool {
        self.path.split('/').next() == Some(folder)
    }

    pub fn is_example(&self) -> bool {
        self.path.split('/').any(|part| part == "examples")
    }

    fn is_in_test_folder(&self) -> bool {
        self.is_in("integration-tests") || self.path.split('/').any(|part| part == "tests")
    }

    /// The number of the line from which on the file is test code: a `#[cfg(test)]` at the margin
    /// that opens a block. `#[cfg(test)] mod tests;` only names another file.
    pub fn tests_from(&self) -> usize {
        if self.is_in_test_folder() || self.path.ends_with("/tests.rs") {
            return 1;
        }
        let lines: Vec<&str> = self.text.lines().collect();
        let opens_block = |at: usize| {
            let item = lines[at..].iter().find(|line| !line.starts_with("#["));
            item.is_some_and(|line| !line.trim_end().ends_with(';'))
        };
        let found =
            (0..lines.len()).find(|&at| lines[at].trim_end() == "#[cfg(test)]" && opens_block(at));
        found.map_or(usize::MAX, |at| at + 1)
    }
}

/// How long the files are that ship. A `tests.rs` beside its module counts: it is read with it.
pub struct Lengths {
    files: usize,
    median: usize,
    pub p95: usize,
    largest: usize,
    largest_path: String,
}

impl Lengths {
    pub fn of(checkout: &Checkout) -> Option<Self> {
        let ships = |file: &&File| !file.is_in_test_folder() && !file.is_example();
        let mut lengths: Vec<(usize, &str)> = checkout
            .sources()
            .filter(ships)
            .map(|file| (file.text.lines().count(), file.path.as_str()))
            .collect();
        lengths.sort_unstable();
        let (largest, largest_path) = *lengths.last()?;
        let files = lengths.len();
        Some(Self {
            files,
            median: lengths[(files - 1) / 2].0,
            p95: lengths[(files * 95 + 50) / 100 - 1].0,
            largest,
            largest_path: largest_path.to_owned(),
        })
    }
}

impl fmt::Display for Lengths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            files,
            median,
            p95,
            largest,
            largest_path,
        } = self;
        write!(
            f,
            "{files} source files: median {median} lines, 95th percentile {p95}, "
        )?;
        write!(f, "largest {largest} ({largest_path})")
    }
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this package is a folder of the checkout")
}

/// What git tracks, or nothing where there is no git or no repository.
fn tracked_files(top: &Path) -> Option<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(top)
        .output()
        .ok()?;
    let listing = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<String> = listing
        .split('\0')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

/// All files, without dot folders and build output: for a copy that is no repository.
fn walk(top: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    visit(top, "", &mut paths);
    paths.sort_unstable();
    paths
}

fn visit(folder: &Path, prefix: &str, paths: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the checkout is readable") {
        let entry = entry.expect("a folder of the checkout is readable");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        if name.starts_with('.') || path == "target" {
            continue;
        }
        if entry.path().is_dir() {
            visit(&entry.path(), &format!("{path}/"), paths);
        } else {
            paths.push(path);
        }
    }
}

#[test]
fn walking_finds_what_git_tracks() {
    let walked = walk(top());
    assert!(walked.iter().any(|path| path == "engine/src/lib.rs"));
    for path in tracked_files(top()).unwrap_or_default() {
        let hidden = path.split('/').any(|part| part.starts_with('.'));
        let found = hidden || walked.contains(&path) || !top().join(&path).exists();
        assert!(found, "the walk misses {path}");
    }
}
