//! The files that a sink's subtask writes: hidden while in progress, under their own name when whole.

use crate::background::Write;
use crate::failpoints::failpoint;
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

/// A file that is being written, under its hidden name.
pub(crate) struct Part {
    file: File,
    hidden: PathBuf,
    whole: PathBuf,
    pub(crate) length: u64,
}

impl Part {
    pub(crate) fn create(whole: PathBuf) -> Flow<Self> {
        let hidden = hidden(&whole);
        failpoint!("file_sink::before_create");
        let file = File::create(&hidden).map_err(|error| cant("create", &hidden, &error))?;
        failpoint!("file_sink::after_create");
        Ok(Part {
            file,
            hidden,
            whole,
            length: 0,
        })
    }

    /// Goes on behind so many bytes, which are all that there are.
    pub(crate) fn go_on(whole: PathBuf, length: u64) -> Flow<Self> {
        let hidden = hidden(&whole);
        let file = File::options().append(true).open(&hidden);
        let file = file.map_err(|error| cant("go on with", &hidden, &error))?;
        Ok(Part {
            file,
            hidden,
            whole,
            length,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Flow {
        failpoint!("file_sink::before_write");
        let written = self.file.write_all(bytes);
        written.map_err(|error| cant("write to", &self.hidden, &error))?;
        self.length += bytes.len() as u64;
        failpoint!("file_sink::after_write");
        Ok(())
    }

    /// Forces it to the disk.
    pub(crate) fn sync(&self) -> Flow {
        failpoint!("file_sink::before_sync");
        let synced = self.file.sync_all();
        synced.map_err(|error| cant("sync", &self.hidden, &error))?;
        failpoint!("file_sink::after_sync");
        Ok(())
    }

    /// Its hidden name, and the one that it is to get.
    pub(crate) fn names(&self) -> (String, String) {
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        (name(&self.hidden), name(&self.whole))
    }
}

/// Forces the names in a folder to the disk.
pub(crate) fn sync_folder(folder: &Path) -> Flow {
    failpoint!("file_sink::before_sync_folder");
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| cant("sync", folder, &error))?;
    failpoint!("file_sink::after_sync_folder");
    Ok(())
}

/// Removes a file.
pub(crate) fn remove(path: &Path) -> Flow {
    failpoint!("file_sink::before_remove");
    fs::remove_file(path).map_err(|error| cant("remove", path, &error))?;
    failpoint!("file_sink::after_remove");
    Ok(())
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
        Part::create(whole)
    }
}

impl Write for PartFiles {
    fn write(&mut self, bytes: &mut Vec<u8>) -> Flow {
        self.part()?.write(bytes)
    }

    fn roll(&mut self) -> Flow {
        let Some(part) = self.open.take() else {
            return Ok(());
        };
        if self.sync {
            part.sync()?;
        }
        failpoint!("file_sink::before_rename");
        fs::rename(&part.hidden, &part.whole)
            .map_err(|error| cant("rename", &part.hidden, &error))?;
        failpoint!("file_sink::after_rename");
        if self.sync {
            sync_folder(folder_of(&part.whole))?;
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

/// The name of a file while it is being written.
pub(crate) fn hidden(whole: &Path) -> PathBuf {
    let name = whole.file_name().unwrap_or_default().to_string_lossy();
    whole.with_file_name(format!(".{name}.inprogress"))
}

/// Whether a name is one that a sink gives to its parts, whole or in progress: with two numbers, or in
/// a job that takes checkpoints with three.
pub(crate) fn is_part_name(name: &str) -> bool {
    let in_progress = name
        .strip_prefix('.')
        .and_then(|n| n.strip_suffix(".inprogress"));
    let part = in_progress.unwrap_or(name);
    let Some(numbers) = part.strip_prefix("part-") else {
        return false;
    };
    let all = numbers
        .split('-')
        .all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    all && matches!(numbers.split('-').count(), 2 | 3)
}

/// Whether a part of this name is in progress.
pub(crate) fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
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
