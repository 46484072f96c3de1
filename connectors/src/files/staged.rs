//! Output in two phases: what a checkpoint covers is on the disk under a hidden name before the checkpoint
//! is complete, and gets its own name after that. A rename that was done already is harmless.

use super::parts::{Part, cant, folder_of, hidden, remove, sync_folder};
use crate::background::Write;
use crate::failpoints::failpoint;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use tidegate_engine::checkpoint::codec;
use tidegate_engine::fault::{Fault, Flow};

/// What a checkpoint keeps of a subtask's output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Committable {
    /// Whole parts: the name in the folder that each has, and the one that it is to get.
    Parts(Vec<(String, String)>),
    /// The one file: how many bytes count, and whether none follow.
    Single { length: u64, ended: bool },
}

impl Committable {
    pub(crate) fn decode(bytes: &[u8]) -> Flow<Self> {
        codec::decode(bytes)
    }
}

/// Shows parts.
pub(crate) fn commit_parts(folder: &Path, parts: &[(String, String)], sync: bool) -> Flow {
    failpoint!("file_sink::before_commit");
    for (hidden, whole) in parts {
        show(&folder.join(hidden), &folder.join(whole))?;
    }
    failpoint!("file_sink::after_commit");
    if sync { sync_folder(folder) } else { Ok(()) }
}

/// Gives a file its name, if it hasn't got it.
fn show(hidden: &Path, whole: &Path) -> Flow {
    failpoint!("file_sink::before_rename");
    match fs::rename(hidden, whole) {
        Ok(()) => {
            failpoint!("file_sink::after_rename");
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && whole.exists() => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(lost(hidden, whole)),
        Err(error) => Err(cant("rename", hidden, &error)),
    }
}

#[cold]
fn lost(hidden: &Path, whole: &Path) -> Fault {
    Fault::external(format_args!(
        "output that a checkpoint covers is gone: there is neither {} nor {}; put it back, or start \
         without the checkpoint",
        hidden.display(),
        whole.display()
    ))
}

/// Writes the parts of one subtask.
pub(crate) struct StagedParts {
    folder: PathBuf,
    /// What the names of this attempt's parts begin with.
    prefix: String,
    next: u64,
    sync: bool,
    open: Option<Part>,
    /// Whole, and in no committable yet.
    whole: Vec<(String, String)>,
}

impl StagedParts {
    pub(crate) fn new(folder: PathBuf, prefix: String, sync: bool) -> Self {
        StagedParts {
            folder,
            prefix,
            next: 0,
            sync,
            open: None,
            whole: Vec::new(),
        }
    }
}

impl Write for StagedParts {
    fn write(&mut self, bytes: &mut Vec<u8>) -> Flow {
        let part = match self.open.take() {
            Some(part) => part,
            None => {
                let name = format!("{}-{}", self.prefix, self.next);
                self.next += 1;
                Part::create(self.folder.join(name))?
            }
        };
        self.open.insert(part).write(bytes)
    }

    fn roll(&mut self) -> Flow {
        let Some(part) = &self.open else {
            return Ok(());
        };
        if self.sync {
            part.sync()?;
        }
        let names = part.names();
        self.open = None;
        self.whole.push(names);
        Ok(())
    }

    fn prepare(&mut self) -> Flow<Vec<u8>> {
        failpoint!("file_sink::before_prepare");
        self.roll()?;
        if self.whole.is_empty() {
            return Ok(Vec::new());
        }
        if self.sync {
            sync_folder(&self.folder)?;
        }
        failpoint!("file_sink::after_prepare");
        codec::encode(&Committable::Parts(std::mem::take(&mut self.whole)))
    }

    fn commit(&mut self, committable: Vec<u8>, _last: bool) -> Flow {
        match Committable::decode(&committable)? {
            Committable::Parts(parts) => commit_parts(&self.folder, &parts, self.sync),
            Committable::Single { .. } => Err(other_shape()),
        }
    }

    fn end(&mut self) -> Flow {
        self.roll()
    }
}

/// What no checkpoint can cover any more leaves nothing behind.
impl Drop for StagedParts {
    fn drop(&mut self) {
        let open = self.open.take().map(|part| part.names());
        for (hidden, _) in self.whole.drain(..).chain(open) {
            let _ = fs::remove_file(self.folder.join(hidden));
        }
    }
}

#[cold]
pub(crate) fn other_shape() -> Fault {
    Fault::user(
        "the checkpoint was taken when the sink wrote something else, a folder of parts or a single \
         file; set .single_file() as it was, or start without the checkpoint",
    )
}

/// What there is of the one file when an attempt begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Begun {
    /// Nothing.
    #[default]
    New,
    /// So many bytes, hidden.
    GoesOn(u64),
    /// Everything, under its own name.
    Finished(u64),
}

impl Begun {
    /// Makes the hidden file what the newest committable says, and tells what that is.
    pub(crate) fn recover(path: &Path, newest: Option<&[u8]>) -> Flow<Begun> {
        let hidden = hidden(path);
        let Some(newest) = newest else {
            if hidden.exists() {
                remove(&hidden)?;
            }
            return Ok(Begun::New);
        };
        let Committable::Single { length, ended } = Committable::decode(newest)? else {
            return Err(other_shape());
        };
        let file = match File::options().write(true).open(&hidden) {
            Ok(file) => file,
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cant("write to", &hidden, &error));
            }
            Err(_) if ended && path.is_file() => return Ok(Begun::Finished(length)),
            Err(_) => return Err(lost(&hidden, path)),
        };
        let failed = |error: io::Error| cant("truncate", &hidden, &error);
        if file.metadata().map_err(failed)?.len() < length {
            return Err(Fault::external(format_args!(
                "{} is shorter than the {length} bytes that the checkpoint covers; put back the file that \
                 it was, or start without the checkpoint",
                hidden.display()
            )));
        }
        failpoint!("file_sink::before_truncate");
        file.set_len(length).map_err(failed)?;
        failpoint!("file_sink::after_truncate");
        file.sync_all().map_err(failed)?;
        Ok(Begun::GoesOn(length))
    }
}

/// Writes the one file.
pub(crate) struct StagedFile {
    path: PathBuf,
    sync: bool,
    begun: Begun,
    open: Option<Part>,
    ended: bool,
    /// Some checkpoint may need the hidden file.
    prepared: bool,
}

impl StagedFile {
    pub(crate) fn new(path: PathBuf, begun: Begun, sync: bool) -> Self {
        StagedFile {
            path,
            sync,
            begun,
            open: None,
            ended: false,
            prepared: begun != Begun::New,
        }
    }

    /// The hidden file; none where all has been shown.
    fn part(&mut self) -> Flow<Option<&mut Part>> {
        if self.open.is_none() {
            self.open = match self.begun {
                Begun::New => Some(Part::create(self.path.clone())?),
                Begun::GoesOn(length) => Some(Part::go_on(self.path.clone(), length)?),
                Begun::Finished(_) => None,
            };
        }
        Ok(self.open.as_mut())
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &mut Vec<u8>) -> Flow {
        match self.part()? {
            Some(part) => part.write(bytes),
            None => Err(Fault::internal(
                "records came for a file that a checkpoint says is complete",
            )),
        }
    }

    fn prepare(&mut self) -> Flow<Vec<u8>> {
        let (sync, first) = (self.sync, !self.prepared);
        let finished = match self.begun {
            Begun::Finished(length) => Some(length),
            Begun::New | Begun::GoesOn(_) => None,
        };
        let length = match self.part()? {
            Some(part) => {
                if sync {
                    part.sync()?;
                }
                part.length
            }
            None => finished.unwrap_or(0),
        };
        if sync && first {
            sync_folder(folder_of(&self.path))?;
        }
        self.prepared = true;
        let ended = self.ended || finished.is_some();
        codec::encode(&Committable::Single { length, ended })
    }

    /// Only the whole file is shown. A job that is stopped with a savepoint goes on writing it later.
    fn commit(&mut self, committable: Vec<u8>, last: bool) -> Flow {
        let Committable::Single { length, ended } = Committable::decode(&committable)? else {
            return Err(other_shape());
        };
        if !(last && ended) {
            return Ok(());
        }
        show(&hidden(&self.path), &self.path)?;
        (self.open, self.begun) = (None, Begun::Finished(length));
        if self.sync {
            sync_folder(folder_of(&self.path))?;
        }
        Ok(())
    }

    fn end(&mut self) -> Flow {
        self.ended = true;
        self.part().map(drop)
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if !self.prepared && self.open.is_some() {
            let _ = fs::remove_file(hidden(&self.path));
        }
    }
}
