//! The files that a sink's subtask writes: hidden while in progress, under their own name when whole.

use crate::background::Write;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tidegate_engine::fault::{Fault, Flow};

/// Where one subtask's records go.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// Part files in a folder.
    Parts { folder: PathBuf, subtask: u32 },
    /// One file.
    Single(PathBuf),
}

/// Writes part after part.
pub(crate) struct PartFiles {
    target: Target,
    sync: bool,
    next: u64,
    open: Option<Part>,
}

struct Part {
    file: File,
    hidden: PathBuf,
    whole: PathBuf,
}

impl PartFiles {
    pub(crate) fn new(target: Target, sync: bool) -> Self {
        PartFiles {
            target,
            sync,
            next: 0,
            open: None,
        }
    }

    fn part(&mut self) -> Flow<&mut Part> {
        let part = match self.open.take() {
            Some(part) => part,
            None => self.create()?,
        };
        Ok(self.open.insert(part))
    }

    fn create(&mut self) -> Flow<Part> {
        let whole = match &self.target {
            Target::Parts { folder, subtask } => {
                folder.join(format!("part-{subtask}-{}", self.next))
            }
            Target::Single(path) => path.clone(),
        };
        self.next += 1;
        let hidden = hidden(&whole);
        let file = File::create(&hidden).map_err(|error| cant("create", &hidden, &error))?;
        Ok(Part {
            file,
            hidden,
            whole,
        })
    }
}

impl Write for PartFiles {
    fn write(&mut self, bytes: &[u8]) -> Flow {
        let part = self.part()?;
        part.file
            .write_all(bytes)
            .map_err(|error| cant("write to", &part.hidden, &error))
    }

    fn roll(&mut self) -> Flow {
        let Some(part) = self.open.take() else {
            return Ok(());
        };
        if self.sync {
            part.file
                .sync_all()
                .map_err(|error| cant("sync", &part.hidden, &error))?;
        }
        fs::rename(&part.hidden, &part.whole)
            .map_err(|error| cant("rename", &part.hidden, &error))?;
        if self.sync {
            let folder = folder_of(&part.whole);
            let synced = File::open(folder).and_then(|folder| folder.sync_all());
            synced.map_err(|error| cant("sync", folder, &error))?;
        }
        Ok(())
    }

    fn end(&mut self) -> Flow {
        if matches!(self.target, Target::Single(_)) {
            self.part()?;
        }
        self.roll()
    }
}

/// A part that did not become whole leaves nothing behind.
impl Drop for PartFiles {
    fn drop(&mut self) {
        if let Some(part) = self.open.take() {
            let _ = fs::remove_file(part.hidden);
        }
    }
}

/// The folder that a file is in.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn hidden(whole: &Path) -> PathBuf {
    let name = whole.file_name().unwrap_or_default().to_string_lossy();
    whole.with_file_name(format!(".{name}.inprogress"))
}

/// Whether a name is one that a sink gives to its parts, whole or in progress.
pub(crate) fn is_part_name(name: &str) -> bool {
    let part = name
        .strip_prefix('.')
        .and_then(|n| n.strip_suffix(".inprogress"))
        .unwrap_or(name);
    let number = |n: &str| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit());
    let numbers = part
        .strip_prefix("part-")
        .and_then(|numbers| numbers.split_once('-'));
    numbers.is_some_and(|(subtask, n)| number(subtask) && number(n))
}

#[cold]
pub(crate) fn cant(what: &str, path: &Path, error: &std::io::Error) -> Fault {
    let hint = match error.kind() {
        std::io::ErrorKind::StorageFull => "; make room on this disk",
        std::io::ErrorKind::NotFound => "; create the folder that it is in",
        std::io::ErrorKind::PermissionDenied => "; let this user write there",
        _ => "",
    };
    Fault::external(format_args!(
        "can't {what} {}: {error}{hint}",
        path.display()
    ))
}
