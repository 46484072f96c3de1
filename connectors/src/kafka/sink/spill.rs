//! What of an epoch's output is too much for memory: segment by segment in a file on this machine, until it is
//! committed. A checkpoint takes copies; so nothing here has to outlive the process, and the file has no name
//! in its folder: when nobody holds it any more, whatever happened, it is gone.

use super::committable::{About, Committable, HEADER, Segment, Segments};
use crate::background::Write;
use crate::failpoints::failpoint;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_engine::checkpoint::{LocalFiles, StoredFiles};
use tidegate_engine::fault::{Fault, Flow};

/// The segments of one epoch, one behind the other.
#[derive(Debug)]
pub(super) struct EpochFile {
    file: File,
    pub(super) segments: Vec<Segment>,
}

impl EpochFile {
    fn create(folder: &Path) -> Flow<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|error| unwritable(folder, &error))?;
        let segments = Vec::new();
        Ok(EpochFile { file, segments })
    }

    fn append(&mut self, folder: &Path, bytes: &[u8]) -> Flow {
        let written = self.file.write_all(bytes);
        written.map_err(|error| unwritable(folder, &error))?;
        self.segments.push(Segment::of(bytes));
        Ok(())
    }

    fn read(&self, n: usize) -> io::Result<Vec<u8>> {
        let (before, rest) = self.segments.split_at(n.min(self.segments.len()));
        let length = rest.first().map_or(0, |segment| segment.length);
        let mut bytes = vec![0; length as usize];
        let offset = before.iter().map(|segment| segment.length).sum();
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

#[cold]
fn unwritable(folder: &Path, error: &io::Error) -> Fault {
    Fault::external(format_args!(
        "output for Kafka that is too much for memory can't be written to {}: {error}; free some space there, or \
         choose another folder with .spill_dir(..)",
        folder.display()
    ))
}

/// The files of the epochs that are not committed yet, by the names of their segments. Clones are handles of the
/// same.
#[derive(Clone, Debug, Default)]
pub(super) struct Spilled(Arc<Mutex<ByName>>);

/// The file that a segment is in, and which of its segments it is.
type ByName = BTreeMap<String, (Arc<EpochFile>, usize)>;

impl Spilled {
    fn lock(&self) -> MutexGuard<'_, ByName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An epoch is complete.
    pub(super) fn add(&self, about: &About, file: EpochFile) {
        let file = Arc::new(file);
        let all = (0..file.segments.len()).map(|n| (about.segment(n), (file.clone(), n)));
        self.lock().extend(all);
    }

    /// Segments are committed.
    pub(super) fn remove(&self, names: impl IntoIterator<Item = String>) {
        let mut all = self.lock();
        for name in names {
            all.remove(&name);
        }
    }

    /// The files that these committables need, for a checkpoint.
    pub(super) fn files(
        &self,
        committables: &[&[u8]],
        stored: &StoredFiles,
    ) -> Flow<Option<Arc<dyn LocalFiles>>> {
        let all = self.lock();
        if all.is_empty() {
            return Ok(None);
        }
        let mut files = ByName::new();
        for bytes in committables {
            for name in Committable::decode(bytes.to_vec())?.segments() {
                let found = all.get(&name).cloned().ok_or_else(|| gone(&name))?;
                files.insert(name, found);
            }
        }
        let stored = stored.clone();
        Ok((!files.is_empty()).then(|| Arc::new(Kept { files, stored }) as Arc<dyn LocalFiles>))
    }
}

impl Segments for Spilled {
    fn read(&self, name: &str) -> Flow<Vec<u8>> {
        let found = self.lock().get(name).cloned();
        let (file, n) = found.ok_or_else(|| gone(name))?;
        file.read(n).map_err(|error| {
            Fault::external(format_args!(
                "output for Kafka that was written to disk can't be read again: {error}"
            ))
        })
    }
}

#[cold]
fn gone(name: &str) -> Fault {
    Fault::internal(format_args!("'{name}' is gone before it was committed"))
}

/// Segments that a checkpoint takes copies of.
struct Kept {
    files: ByName,
    stored: StoredFiles,
}

impl LocalFiles for Kept {
    fn names(&self) -> Result<Vec<String>, String> {
        Ok(self.files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, String> {
        let (file, n) = self.files.get(name).ok_or("it is not there")?;
        file.read(*n).map_err(|error| error.to_string())
    }

    fn stored(&self) -> &StoredFiles {
        &self.stored
    }
}

/// Writes segments, on a thread of its own: committing may take long, and must not hold up what comes.
pub(super) struct Spiller {
    folder: PathBuf,
    open: Option<EpochFile>,
    closed: Closed,
}

/// The files of epochs that are complete, oldest first.
pub(super) type Closed = Arc<Mutex<VecDeque<EpochFile>>>;

impl Spiller {
    pub(super) fn new(folder: PathBuf, closed: Closed) -> Self {
        Spiller {
            folder,
            open: None,
            closed,
        }
    }
}

impl Write for Spiller {
    fn write(&mut self, buffer: &mut Vec<u8>) -> Flow {
        failpoint!("kafka_sink::before_spill");
        let mut file = match self.open.take() {
            Some(file) => file,
            None => EpochFile::create(&self.folder)?,
        };
        file.append(&self.folder, &buffer[HEADER..])?;
        self.open = Some(file);
        failpoint!("kafka_sink::after_spill");
        Ok(())
    }

    fn prepare(&mut self) -> Flow<Vec<u8>> {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        closed.extend(self.open.take());
        Ok(Vec::new())
    }

    fn end(&mut self) -> Flow {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::committable::Owner;
    use super::*;

    fn about(checkpoint: u64) -> About {
        About {
            slot: 1,
            checkpoint,
            owner: Owner(5),
            records: 2,
        }
    }

    /// The epoch's committable.
    fn spill(spiller: &mut Spiller, closed: &Closed, spilled: &Spilled, id: u64) -> Vec<u8> {
        for text in ["one", "four"] {
            let mut buffer = Committable::buffer();
            buffer.extend(text.bytes());
            spiller.write(&mut buffer).unwrap();
        }
        spiller.prepare().unwrap();
        let file = closed.lock().unwrap().pop_front().unwrap();
        let committable = Committable::close(Committable::buffer(), about(id), &file.segments);
        spilled.add(&about(id), file);
        committable
    }

    #[test]
    fn segments_are_read_back_until_their_epoch_is_committed_and_for_as_long_as_a_checkpoint_holds_them()
     {
        let folder = tempfile::tempdir().unwrap();
        let (closed, spilled) = (Closed::default(), Spilled::default());
        let mut spiller = Spiller::new(folder.path().to_owned(), closed.clone());
        let first = spill(&mut spiller, &closed, &spilled, 7);
        let second = spill(&mut spiller, &closed, &spilled, 8);
        assert_eq!(
            folder.path().read_dir().unwrap().count(),
            0,
            "no name is left"
        );
        assert_eq!(spilled.read(&about(7).segment(1)).unwrap(), b"four");
        let kept = spilled.files(&[&first, &second], &StoredFiles::default());
        let kept = kept.unwrap().unwrap();
        assert_eq!(kept.names().unwrap().len(), 4);
        spilled.remove(Committable::decode(first.clone()).unwrap().segments());
        assert!(spilled.read(&about(7).segment(1)).is_err());
        assert_eq!(spilled.read(&about(8).segment(0)).unwrap(), b"one");
        assert_eq!(kept.read(&about(7).segment(1)).unwrap(), b"four");
        let missing = spilled.files(&[&first], &StoredFiles::default());
        assert!(
            missing.is_err(),
            "a checkpoint without it would be of no use"
        );
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let mut spiller = Spiller::new("/nowhere/at/all".into(), Closed::default());
        let fault = spiller.write(&mut Committable::buffer()).unwrap_err();
        assert!(fault.message().contains("/nowhere/at/all"), "{fault}");
        assert!(fault.message().contains(".spill_dir"), "{fault}");
    }
}
