//! A sink that writes part files, or one file.

use super::format::{CsvOut, Encode, JsonLinesOut, LinesOut};
use super::parts::{PartFiles, Target, cant, folder_of, is_part_name};
use crate::background::Background;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tidegate_engine::build::OpenContext;
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::sink::{Sink, SinkWriter};
use tidegate_engine::time::Timestamp;

/// Bytes that are handed to the writing thread at a time.
const BUFFER: usize = 128 * 1024;

/// When a part is finished and the next one begun.
#[derive(Clone, Copy, Debug)]
struct Rolling {
    bytes: u64,
    records: u64,
    every: Option<Duration>,
}

/// Writes records to files: as CSV, JSON lines, lines of text, or by an [`Encode`] of your own.
///
/// The path is a folder, into which each subtask writes files `part-<subtask>-<n>`; with
/// [`FileSink::single_file`] it is one file. While a file is being written its name begins with a dot, so
/// that readers see only whole files.
///
/// Parts of an earlier run are removed when the job starts. A folder that holds anything else is
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
    /// The earlier run's parts are gone.
    cleaned: Mutex<bool>,
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
            rolling: Rolling {
                bytes: u64::MAX,
                records: u64::MAX,
                every: None,
            },
            cleaned: Mutex::new(false),
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

    fn clean(&self) -> Flow {
        let mut cleaned = self.cleaned.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *cleaned, true) {
            return Ok(());
        }
        for part in self.earlier_parts()? {
            fs::remove_file(&part).map_err(|error| cant("remove", &part, &error))?;
        }
        fs::create_dir_all(&self.path).map_err(|error| cant("create", &self.path, &error))
    }
}

impl<T: 'static, E: Encode<T>> Sink<T> for FileSink<E> {
    type Writer = FileWriter<E>;

    fn check(&self) -> Flow {
        *self.cleaned.lock().unwrap_or_else(PoisonError::into_inner) = false;
        if self.single {
            self.check_single()
        } else {
            self.earlier_parts().map(drop)
        }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<FileWriter<E>> {
        let target = if self.single {
            check_alone(context.parallelism(), &self.path)?;
            Target::Single(self.path.clone())
        } else {
            self.clean()?;
            Target::Parts {
                folder: self.path.clone(),
                subtask: context.subtask(),
            }
        };
        let mut rolling = self.rolling;
        if self.single {
            rolling = Rolling {
                bytes: u64::MAX,
                records: u64::MAX,
                every: None,
            };
        }
        let thread = Background::start(PartFiles::new(target, self.sync), context.waker())?;
        let (encode, clock) = (self.encode.clone(), context.clock());
        Ok(FileWriter {
            encode,
            rolling,
            clock,
            thread,
            buffer: Vec::new(),
            part: None,
        })
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

/// The part at hand.
struct Part {
    bytes: u64,
    records: u64,
    /// When it has to be finished.
    due: Timestamp,
}

/// Writes the records of one subtask.
pub struct FileWriter<E> {
    encode: E,
    rolling: Rolling,
    clock: Clock,
    thread: Background,
    buffer: Vec<u8>,
    part: Option<Part>,
}

impl<E> FileWriter<E> {
    fn hand_over(&mut self) -> Flow {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, self.thread.buffer());
        self.thread.write(full)
    }

    #[cold]
    fn roll(&mut self) -> Flow {
        self.part = None;
        self.hand_over()?;
        self.thread.roll()
    }
}

impl<T: 'static, E: Encode<T>> SinkWriter<T> for FileWriter<E> {
    fn write(&mut self, _at: Timestamp, value: T) -> Flow {
        let part = match &mut self.part {
            Some(part) => part,
            None => {
                self.encode.begin();
                let due = self
                    .rolling
                    .every
                    .map_or(Timestamp::MAX, |d| self.clock.now().plus(d));
                self.part.insert(Part {
                    bytes: 0,
                    records: 0,
                    due,
                })
            }
        };
        let before = self.buffer.len();
        self.encode
            .encode(&value, &mut self.buffer)
            .map_err(|reason| Fault::user(format_args!("a record can't be written: {reason}")))?;
        part.bytes += (self.buffer.len() - before) as u64;
        part.records += 1;
        if part.bytes >= self.rolling.bytes || part.records >= self.rolling.records {
            return self.roll();
        }
        if self.buffer.len() >= BUFFER {
            self.hand_over()
        } else {
            Ok(())
        }
    }

    fn has_room(&self) -> bool {
        self.thread.has_room()
    }

    fn turn(&mut self, now: Timestamp) -> Flow<Timestamp> {
        self.thread.pump()?;
        let due = self.part.as_ref().map_or(Timestamp::MAX, |part| part.due);
        if due > now {
            return Ok(due);
        }
        self.roll()?;
        Ok(Timestamp::MAX)
    }

    fn close(&mut self) -> Flow {
        self.hand_over()?;
        self.thread.end()
    }

    fn closed(&self) -> bool {
        self.thread.done()
    }
}
