//! A sink that writes part files, or one file.

use super::format::{CsvOut, Encode, JsonLinesOut, LinesOut};
use super::parts::{
    PartFiles, Target, cant, folder_of, is_hidden, is_part_name, remove, sync_folder,
};
use super::staged::{Begun, Committable, StagedFile, StagedParts, commit_parts, other_shape};
use super::writer::{FileWriter, Rolling};
use crate::background::Background;
use crate::failpoints::failpoint;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::sink::Sink;

/// Writes records to files: as CSV, JSON lines, lines of text, or by an [`Encode`] of your own.
///
/// The path is a folder, into which each subtask writes files `part-<subtask>-<n>`; with
/// [`FileSink::single_file`] it is one file. While a file is being written its name begins with a dot, so
/// that readers see only whole files.
///
/// # With checkpoints
///
/// In a job that takes checkpoints, records are seen once, whatever happens, and not before a checkpoint
/// covers them: at each checkpoint the part at hand is closed, and gets its name when the checkpoint is
/// complete. Parts are then called `part-<subtask>-<checkpoint that the attempt went on from>-<n>`. Leave
/// them where they are while the job runs: a recovery may have to look whether they are there. A recovery
/// removes what no checkpoint covers. A job that is started with an older checkpoint than its newest
/// leaves the parts that were shown behind it; remove them yourself.
///
/// A single file is seen when the job has come to the end of its input. When the job is stopped with a
/// savepoint before that, the file stays hidden (`.<name>.inprogress`), and the job that is started with the
/// savepoint goes on writing it.
///
/// Parts of an earlier run are removed when the job starts anew. A folder that holds anything else is
/// refused unless [`FileSink::overwrite`] is set.
///
/// ```
/// use tidegate_connectors::FileSink;
///
/// #[derive(serde::Serialize)]
/// struct Total { carrier: String, flights: u64 }
///
/// let totals: FileSink<_> = FileSink::csv("totals").header(false).sync(true);
/// ```
pub struct FileSink<E> {
    encode: E,
    path: PathBuf,
    single: bool,
    overwrite: bool,
    sync: bool,
    rolling: Rolling,
    /// What this attempt begins with, where it writes a single file.
    begun: Mutex<Begun>,
}

impl FileSink<CsvOut> {
    /// Rows of comma-separated values; each file begins with a header.
    pub fn csv(path: impl Into<PathBuf>) -> Self {
        FileSink::with_encoding(CsvOut::default(), path)
    }

    /// Whether each file begins with a header; by default it does.
    pub fn header(mut self, header: bool) -> Self {
        self.encode = self.encode.header(header);
        self
    }

    /// Separates values by another character.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.encode = self.encode.delimiter(delimiter);
        self
    }
}

impl FileSink<JsonLinesOut> {
    /// One JSON value per line.
    pub fn json_lines(path: impl Into<PathBuf>) -> Self {
        FileSink::with_encoding(JsonLinesOut, path)
    }
}

/// How [`FileSink::lines`] writes a record.
pub type WriteLine<T> = fn(&T, &mut dyn Write) -> io::Result<()>;

impl<T: Display + 'static> FileSink<LinesOut<T, WriteLine<T>>> {
    /// Each record as it displays itself, on a line.
    pub fn lines(path: impl Into<PathBuf>) -> Self {
        FileSink::with_encoding(LinesOut::new(|value, out| write!(out, "{value}")), path)
    }
}

impl<T: 'static, F> FileSink<LinesOut<T, F>>
where
    F: Fn(&T, &mut dyn Write) -> io::Result<()> + Clone + Send + Sync + 'static,
{
    /// Each record on a line, as `write` writes it (without the newline).
    pub fn lines_with(path: impl Into<PathBuf>, write: F) -> Self {
        FileSink::with_encoding(LinesOut::new(write), path)
    }
}

impl<E> FileSink<E> {
    /// Records of any encoding.
    pub fn with_encoding(encode: E, path: impl Into<PathBuf>) -> Self {
        FileSink {
            encode,
            path: path.into(),
            single: false,
            overwrite: false,
            sync: true,
            rolling: Rolling::default(),
            begun: Mutex::default(),
        }
    }

    /// Writes one file at the path, replacing the one that is there when the job is done. The sink must
    /// have a parallelism of 1.
    pub fn single_file(mut self) -> Self {
        self.single = true;
        self
    }

    /// Accepts a folder that holds other files than parts. They stay, unless a part takes their name.
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Whether a finished file is forced to the disk before it gets its name; by default it is.
    pub fn sync(mut self, sync: bool) -> Self {
        self.sync = sync;
        self
    }

    /// Begins a new part when one has so many bytes.
    pub fn roll_bytes(mut self, bytes: u64) -> Self {
        self.rolling.bytes = bytes.max(1);
        self
    }

    /// Begins a new part when one has so many records.
    pub fn roll_records(mut self, records: u64) -> Self {
        self.rolling.records = records.max(1);
        self
    }

    /// Begins a new part when one is so old.
    pub fn roll_every(mut self, every: Duration) -> Self {
        self.rolling.every = Some(every);
        self
    }

    fn check_single(&self) -> Flow {
        if self.path.is_dir() {
            let path = self.path.display();
            let why = format_args!("{path} is a folder and the sink writes one file; name a file");
            return Err(Fault::user(why));
        }
        let folder = folder_of(&self.path);
        let meta = fs::metadata(folder).map_err(|error| cant("write into", folder, &error))?;
        if meta.is_dir() {
            return Ok(());
        }
        Err(Fault::user(format_args!(
            "can't write into {}: it is no folder",
            folder.display()
        )))
    }

    /// The parts of an earlier run, or what is in the way.
    fn earlier_parts(&self) -> Flow<Vec<PathBuf>> {
        let path = self.path.display();
        if self.path.exists() && !self.path.is_dir() {
            return Err(Fault::user(format_args!(
                "{path} is a file and the sink writes a folder of parts; remove it or name another path"
            )));
        }
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(|error| cant("look into", &self.path, &error))?,
        };
        let mut parts = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| cant("look into", &self.path, &error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_part_name(&name) && entry.path().is_file() {
                parts.push(entry.path());
            } else if !self.overwrite {
                return Err(Fault::user(format_args!(
                    "{path} holds '{name}', which is no part of an earlier output; \
                     name another folder, or set .overwrite(true) to write beside it"
                )));
            }
        }
        Ok(parts)
    }

    /// Begins from scratch, or with what a checkpoint covers: shows that, and removes what no checkpoint does.
    fn recover_parts(&self, committables: Option<Vec<Vec<u8>>>) -> Flow {
        create_folder(&self.path, self.sync)?;
        failpoint!("file_sink::before_recover");
        for committable in committables.iter().flatten() {
            match Committable::decode(committable)? {
                Committable::Parts(parts) => commit_parts(&self.path, &parts, false)?,
                Committable::Single { .. } => return Err(other_shape()),
            }
        }
        for part in self.earlier_parts()? {
            let name = part.file_name().unwrap_or_default().to_string_lossy();
            if committables.is_none() || is_hidden(&name) {
                remove(&part)?;
            }
        }
        if self.sync && committables.is_some() {
            sync_folder(&self.path)?;
        }
        failpoint!("file_sink::after_recover");
        Ok(())
    }

    /// The thread of a writer, and what its file holds already.
    fn start(&self, context: &OpenContext<'_>, staged: bool) -> Flow<(Background, u64)> {
        let (path, sync, waker) = (self.path.clone(), self.sync, context.waker());
        let (subtask, attempt) = (context.subtask(), context.restored_from());
        if !self.single {
            let thread = if staged {
                let prefix = format!("part-{subtask}-{attempt}");
                Background::start(StagedParts::new(path, prefix, sync), waker)?
            } else {
                let target = Target::Parts {
                    folder: path,
                    subtask,
                };
                Background::start(PartFiles::new(target, sync), waker)?
            };
            return Ok((thread, 0));
        }
        check_alone(context.parallelism(), &self.path)?;
        if !staged {
            let thread = Background::start(PartFiles::new(Target::Single(path), sync), waker)?;
            return Ok((thread, 0));
        }
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let length = match begun {
            Begun::GoesOn(length) => length,
            Begun::New | Begun::Finished(_) => 0,
        };
        let file = StagedFile::new(path, begun, sync);
        Ok((Background::start(file, waker)?, length))
    }
}

impl<T: 'static, E: Encode<T>> Sink<T> for FileSink<E> {
    type Writer = FileWriter<E>;

    fn check(&self) -> Flow {
        if self.single {
            self.check_single()
        } else {
            self.earlier_parts().map(drop)
        }
    }

    fn recover(&self, committables: Option<Vec<Vec<u8>>>) -> Flow {
        if !self.single {
            return self.recover_parts(committables);
        }
        let newest = committables.as_ref().and_then(|all| all.last());
        let begun = Begun::recover(&self.path, newest.map(Vec::as_slice))?;
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = begun;
        Ok(())
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<FileWriter<E>> {
        let staged = context.checkpointed();
        let (thread, length) = self.start(context, staged)?;
        let rolling = if self.single {
            Rolling::default()
        } else {
            self.rolling
        };
        let (encode, clock) = (self.encode.clone(), context.clock());
        let writer = FileWriter::new(encode, rolling, clock, thread);
        Ok(match (staged, self.single) {
            (false, _) => writer,
            (true, false) => writer.staged(),
            (true, true) => writer.staged().single::<T>(length),
        })
    }
}

/// Makes a folder, and those above it that are missing; with `sync` they outlive a loss of power, as what will be
/// in it has to.
fn create_folder(path: &Path, sync: bool) -> Flow {
    let missing: Vec<_> = path.ancestors().take_while(|p| !p.exists()).collect();
    fs::create_dir_all(path).map_err(|error| cant("create", path, &error))?;
    if sync {
        for made in missing {
            sync_folder(above(made))?;
        }
    }
    Ok(())
}

/// The folder that something is in.
fn above(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn check_alone(parallelism: u32, path: &Path) -> Flow {
    if parallelism == 1 {
        return Ok(());
    }
    Err(Fault::user(format_args!(
        "{parallelism} subtasks can't write the one file {}; give the sink a parallelism of 1, or leave \
         out .single_file() to write a folder of parts",
        path.display()
    )))
}
