//! Reading files as they grow, and new ones as they appear in folders.

use super::fetch::{Event, Gone, Thread, Work};
use super::open_file::OpenFile;
use super::plan::{self, Split};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tidegate_engine::fault::Flow;

/// How growing files are followed.
pub(crate) struct Follow {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) every: Duration,
    /// This subtask's share of the files that are found later.
    pub(crate) share: (u32, u32),
}

/// A file that is known: it is not taken for a new one.
struct Followed {
    /// Its split's number.
    number: usize,
    /// Absent where it can't grow and is read to its end.
    file: Option<OpenFile>,
}

type Files = BTreeMap<Arc<Path>, Followed>;

impl Thread {
    /// Reads for ever. It begins with what an earlier attempt knew.
    pub(super) fn follow(&self, work: &Work, follow: &Follow) -> Result<Flow, Gone> {
        let mut files = Files::new();
        for (number, split) in work.splits.iter().enumerate() {
            if let Err(fault) = self.begin(&mut files, split, number, work)? {
                return Ok(Err(fault));
            }
        }
        let mut next = work.splits.len();
        loop {
            let found: HashSet<Arc<Path>> = match plan::list(&follow.paths) {
                Ok(found) => found.into_iter().collect(),
                Err(fault) => return Ok(Err(fault)),
            };
            let mut new: Vec<_> = found
                .iter()
                .filter(|path| !files.contains_key(*path) && mine(path, follow.share))
                .collect();
            new.sort();
            for path in new {
                let split = Split::new(path.clone(), None);
                self.send(Event::Found(split.clone()))?;
                if let Err(fault) = self.begin(&mut files, &split, next, work)? {
                    return Ok(Err(fault));
                }
                next += 1;
            }
            for followed in files.values_mut() {
                if let Err(fault) = self.go_on(followed)? {
                    return Ok(Err(fault));
                }
            }
            // What has vanished was read to its end just now.
            let vanished = files.extract_if(.., |path, _| !found.contains(path));
            for (_, followed) in vanished {
                self.send(Event::Forgotten(followed.number))?;
            }
            self.pause(follow.every)?;
        }
    }

    fn begin(
        &self,
        files: &mut Files,
        split: &Split,
        number: usize,
        work: &Work,
    ) -> Result<Flow, Gone> {
        let file = if split.done {
            None
        } else {
            match self.open(split, number, work.options)? {
                Ok(file) => Some(file),
                Err(fault) => return Ok(Err(fault)),
            }
        };
        files.insert(split.path.clone(), Followed { number, file });
        Ok(Ok(()))
    }

    /// Hands over what was appended to a file.
    fn go_on(&self, followed: &mut Followed) -> Result<Flow, Gone> {
        let Some(file) = &mut followed.file else {
            return Ok(Ok(()));
        };
        match file.restart_if_truncated() {
            Ok(true) => self.send(Event::Restarted(followed.number))?,
            Ok(false) => {}
            Err(fault) => return Ok(Err(fault)),
        }
        let complete = !file.can_grow();
        if let Err(fault) = self.drain(file, complete)? {
            return Ok(Err(fault));
        }
        if complete {
            followed.file = None;
            self.send(Event::Finished(followed.number))?;
        }
        Ok(Ok(()))
    }
}

/// Whether a file is this subtask's: by the hash of its path, so that all subtasks agree whatever they
/// find first.
pub(crate) fn mine(path: &Path, (me, of): (u32, u32)) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 32) % u64::from(of.max(1)) == u64::from(me)
}
