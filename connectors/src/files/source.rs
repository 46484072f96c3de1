//! The description of a source that reads files.

use super::fetch::{Fetcher, Work};
use super::follow::{Follow, mine};
use super::format::{Csv, Format, Framing, JsonLines, Lines};
use super::open_file::ReadOptions;
use super::plan::{self, Split, unreadable};
use super::progress::{self, Progress};
use super::reader::FileReader;
use crate::dead_letters::OnError;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::{Source, SourceReader};

/// Files and folders to read: one path or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths(Vec<PathBuf>);

impl<P: AsRef<Path>> From<P> for Paths {
    fn from(path: P) -> Self {
        Paths(vec![path.as_ref().to_owned()])
    }
}

impl<P: Into<PathBuf>> FromIterator<P> for Paths {
    fn from_iter<I: IntoIterator<Item = P>>(paths: I) -> Self {
        Paths(paths.into_iter().map(Into::into).collect())
    }
}

/// Reads records from files: CSV, JSON lines, lines of text, or a [`Format`] of your own; plain or gzip,
/// told apart by their first bytes.
///
/// A path is a file or a folder, whose files (but not its folders, and not hidden files) are read in the
/// order of their names. By default the files are read once, to their end; with [`FileSource::follow`]
/// the source goes on with what is appended to them and with new files in the folders.
///
/// The subtasks share the files, and the ranges of files that can be split.
///
/// After a recovery each file is read on behind the last record that the checkpoint covers, with any
/// parallelism; in gzip files by passing over what comes before. A source that reads files once then
/// reads those that were there in the beginning; one that follows them finds new ones too. A file that
/// the checkpoint knows must still be there and not be shorter than it was. What was put aside as a dead
/// letter behind the checkpoint is put aside again. Pipes and devices can't be read again.
///
/// ```
/// use tidegate_connectors::{DeadLetters, FileSource};
///
/// #[derive(serde::Deserialize)]
/// struct Flight { carrier: String, dep_delay_min: i32 }
///
/// let flights = FileSource::csv::<Flight>("flights.csv.gz").on_error(DeadLetters::file("bad.jsonl"));
/// ```
pub struct FileSource<F = Lines> {
    format: F,
    paths: Vec<PathBuf>,
    follow: Option<Duration>,
    splittable: Option<bool>,
    range_bytes: u64,
    block_bytes: usize,
    max_record_bytes: usize,
    on_error: OnError,
    /// What all subtasks read, as found when the job was checked.
    plan: Mutex<Option<Arc<Vec<Split>>>>,
}

impl FileSource<Lines> {
    /// Rows of comma-separated values with a header.
    pub fn csv<T: DeserializeOwned + 'static>(paths: impl Into<Paths>) -> FileSource<Csv<T>> {
        FileSource::with_format(Csv::new(), paths)
    }

    /// One JSON value per line.
    pub fn json_lines<T>(paths: impl Into<Paths>) -> FileSource<JsonLines<T>>
    where
        T: DeserializeOwned + 'static,
    {
        FileSource::with_format(JsonLines::default(), paths)
    }

    /// Lines of text.
    pub fn lines(paths: impl Into<Paths>) -> FileSource<Lines> {
        FileSource::with_format(Lines, paths)
    }
}

impl<F: Format> FileSource<F> {
    /// Records of any format.
    pub fn with_format(format: F, paths: impl Into<Paths>) -> Self {
        FileSource {
            format,
            paths: paths.into().0,
            follow: None,
            splittable: None,
            range_bytes: 8 << 20,
            block_bytes: 128 << 10,
            max_record_bytes: 1 << 20,
            on_error: OnError::Fail,
            plan: Mutex::new(None),
        }
    }

    /// Reads this, too.
    pub fn and(mut self, paths: impl Into<Paths>) -> Self {
        self.paths.append(&mut paths.into().0);
        self
    }

    /// Reads to the end of the files; this is the default.
    pub fn bounded(mut self) -> Self {
        self.follow = None;
        self
    }

    /// Goes on with what is appended, and with new files in folders, for ever. A line is read when its
    /// newline is there. A file that becomes shorter is read anew.
    pub fn follow(mut self) -> Self {
        self.follow = Some(Duration::from_millis(200));
        self
    }

    /// How often growing files are looked at; turns following on. By default every 200 ms.
    pub fn poll_interval(mut self, every: Duration) -> Self {
        self.follow = Some(every);
        self
    }

    /// Whether plain files may be read in ranges by several subtasks, each newline ending a record.
    /// By default so for lines and JSON lines, and not for CSV, where quotes may hide newlines.
    pub fn splittable(mut self, splittable: bool) -> Self {
        self.splittable = Some(splittable);
        self
    }

    /// The size of these ranges; 8 MiB by default.
    pub fn range_bytes(mut self, bytes: u64) -> Self {
        self.range_bytes = bytes.max(1);
        self
    }

    /// How many bytes the reading thread hands over at a time; 128 KiB by default.
    pub fn block_bytes(mut self, bytes: usize) -> Self {
        self.block_bytes = bytes.max(16);
        self
    }

    /// The longest record that is read; a longer one is a bad record. 1 MiB by default.
    pub fn max_record_bytes(mut self, bytes: usize) -> Self {
        self.max_record_bytes = bytes.max(1);
        self
    }

    /// What becomes of records that can't be read; by default the first one ends the job.
    pub fn on_error(mut self, policy: impl Into<OnError>) -> Self {
        self.on_error = policy.into();
        self
    }

    /// Where each newline ends a record by decision, quotes hide none.
    fn framing(&self) -> Framing {
        if self.splittable == Some(true) {
            Framing::Lines
        } else {
            self.format.framing()
        }
    }

    fn make_plan(&self) -> Flow<Arc<Vec<Split>>> {
        let files = plan::list(&self.paths)?;
        if files.is_empty() && self.follow.is_none() {
            let names: Vec<_> = self.paths.iter().map(|p| p.display().to_string()).collect();
            return Err(Fault::user(match names.as_slice() {
                [] => "no path was given: name a file or a folder to read".to_owned(),
                names => {
                    format!(
                        "there is no file to read in {}; check the path",
                        names.join(", ")
                    )
                }
            }));
        }
        for path in files.iter().filter(|path| path.is_file()) {
            File::open(path).map_err(|error| unreadable(path, &error))?;
        }
        let splits = self.splittable.unwrap_or_else(|| self.format.splittable());
        let splits = splits && self.follow.is_none();
        Ok(Arc::new(plan::split(
            &files,
            splits.then_some(self.range_bytes),
        )?))
    }

    fn plan(&self, anew: bool) -> Flow<Arc<Vec<Split>>> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plan) = plan.as_ref().filter(|_| !anew) {
            return Ok(plan.clone());
        }
        let made = self.make_plan()?;
        *plan = Some(made.clone());
        Ok(made)
    }

    /// What one subtask begins with: of what the checkpoint names if there is one, else of what is there.
    fn splits(&self, context: &OpenContext<'_>, share: (u32, u32)) -> Flow<Vec<Split>> {
        if self.follow.is_some() {
            // A file is its owner's whether it is known or new, so that none is read twice.
            let known = context.all_restored_splits().unwrap_or_default();
            let known = known.iter().map(|split| progress::decode(split));
            let known = known.collect::<Flow<Vec<Split>>>()?;
            if known.iter().any(|split| split.range.is_some()) {
                return Err(Fault::user(
                    "the checkpoint was taken while the files were read in ranges, once; they can't be \
                     followed from there: leave out .follow(), or start without the checkpoint",
                ));
            }
            return Ok(known.into_iter().filter(|s| mine(&s.path, share)).collect());
        }
        if let Some(restored) = context.restored_splits()? {
            let splits = restored.iter().map(|split| progress::decode(split));
            let splits = splits.collect::<Flow<Vec<Split>>>()?;
            return Ok(splits.into_iter().filter(|split| !split.done).collect());
        }
        let (me, of) = (share.0 as usize, share.1.max(1) as usize);
        let plan = self.plan(false)?;
        Ok(plan.iter().skip(me).step_by(of).cloned().collect())
    }
}

impl<F: Format> Source for FileSource<F>
where
    FileReader<F>: SourceReader<Item = F::Item>,
{
    type Item = F::Item;
    type Reader = FileReader<F>;

    fn check(&self) -> Flow {
        self.plan(true)?;
        self.on_error.check()
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<FileReader<F>> {
        let share = (context.subtask(), context.parallelism());
        let splits = self.splits(context, share)?;
        let options = ReadOptions {
            framing: self.framing(),
            has_header: self.format.has_header(),
            block_bytes: self.block_bytes,
            max_record_bytes: self.max_record_bytes,
        };
        let paths = self.paths.clone();
        let follow = self.follow.map(|every| Follow {
            paths,
            every,
            share,
        });
        let progress = Progress::new(&splits);
        let fetcher = Fetcher::start(
            Work {
                splits,
                options,
                follow,
            },
            context.waker(),
        )?;
        let bad = self.on_error.open(context.name())?;
        let (format, framing) = (self.format.clone(), options.framing);
        Ok(FileReader::new(
            format,
            framing,
            self.max_record_bytes,
            fetcher,
            progress,
            bad,
        ))
    }

    fn bounded(&self) -> bool {
        self.follow.is_none()
    }

    /// Nobody can go back in a pipe or a device.
    fn replayable(&self) -> bool {
        let is_stream = |path: &PathBuf| {
            let meta = std::fs::metadata(path);
            meta.is_ok_and(|meta| !meta.is_file() && !meta.is_dir())
        };
        !self.paths.iter().any(is_stream)
    }
}
