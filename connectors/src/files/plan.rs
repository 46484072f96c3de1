//! Which files there are, and who reads what of them.

use super::progress::Place;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs};
use tidegate_engine::fault::{Fault, Flow};

/// A part of a file that one subtask reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) path: Arc<Path>,
    /// The records that begin in these bytes; `None` for all of a file.
    pub(crate) range: Option<(u64, u64)>,
    /// Where an earlier attempt got to; `None` for the beginning.
    pub(crate) at: Option<Place>,
    /// An earlier attempt read it to its end.
    pub(crate) done: bool,
}

impl Split {
    /// All of a file, or what begins in a range of it.
    pub(crate) fn new(path: Arc<Path>, range: Option<(u64, u64)>) -> Self {
        Split {
            path,
            range,
            at: None,
            done: false,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some((begin, end)) = self.range {
            write!(f, ", bytes {begin} to {end}")?;
        }
        match &self.at {
            // Lines are counted from where a range begins.
            Some(at) if self.range.is_some() => write!(f, ": byte {}", at.offset),
            Some(at) => write!(f, ": byte {}, line {}", at.offset, at.line),
            None => write!(f, ": its beginning"),
        }
    }
}

/// The files in `paths`, in the order of their names in each folder; hidden ones and folders in
/// folders are passed over.
pub(crate) fn list(paths: &[PathBuf]) -> Flow<Vec<Arc<Path>>> {
    let mut files = Vec::new();
    for path in paths {
        let meta = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if !meta.is_dir() {
            files.push(path.as_path().into());
            continue;
        }
        files.append(&mut list_folder(path)?);
    }
    Ok(files)
}

fn list_folder(folder: &Path) -> Flow<Vec<Arc<Path>>> {
    let mut files: Vec<Arc<Path>> = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, &error))? {
        let path = entry.map_err(|error| unreadable(folder, &error))?.path();
        let hidden = path
            .file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() {
            files.push(path.into());
        }
    }
    files.sort();
    Ok(files)
}

/// Deals files, or their ranges of `range` bytes, into splits.
pub(crate) fn split(files: &[Arc<Path>], range: Option<u64>) -> Flow<Vec<Split>> {
    let mut splits = Vec::new();
    for path in files {
        let whole = Split::new(path.clone(), None);
        let Some(range) = range else {
            splits.push(whole);
            continue;
        };
        let meta = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
        if !meta.is_file() || meta.len() <= range || super::open_file::is_gzip(path)? {
            splits.push(whole);
            continue;
        }
        let begins = (0..meta.len()).step_by(range.max(1) as usize);
        splits.extend(begins.map(|begin| {
            let end = (begin + range).min(meta.len());
            Split::new(path.clone(), Some((begin, end)))
        }));
    }
    Ok(splits)
}

#[cold]
pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "; check the path",
        std::io::ErrorKind::PermissionDenied => "; let this user read it",
        _ => "",
    };
    Fault::external(format_args!("can't read {}: {error}{hint}", path.display()))
}
