//! What a new attempt begins with: saved state, dealt out to the subtasks that there are now.

use super::barrier::CheckpointId;
use super::image::{IN_FLIGHT, OperatorImage, StateData, StateImage, StateKind};
use super::pieces::Pieces;
use super::shape::{fits, paths_only};
use super::shared::{FilesImage, FilesOrigin, RestoredFiles};
use super::stream::StoredGroup;
use crate::fault::{Fault, FaultKind, Flow};
use crate::hash::owner_of_group;
use crate::time::Timestamp;
use std::borrow::Cow;
use std::collections::HashMap;

/// A checkpoint or savepoint that a job goes on from.
#[derive(Debug, Default)]
pub struct RestoredJob {
    /// Its number.
    pub id: CheckpointId,
    /// The images of each operator by its stable id, in the order of the old subtasks.
    operators: HashMap<String, Vec<OperatorImage>>,
    /// Whether an operator may leave states behind that it does not have any more.
    allow_left_over: bool,
    /// Where the files are that states are in.
    origin: Option<FilesOrigin>,
}

impl RestoredJob {
    /// Of the images that a checkpoint holds: each operator's by the number of the subtask.
    pub fn new(id: CheckpointId, images: impl IntoIterator<Item = (u32, OperatorImage)>) -> Self {
        let mut all: Vec<(u32, OperatorImage)> = images.into_iter().collect();
        all.sort_by_key(|(subtask, _)| *subtask);
        let mut operators: HashMap<String, Vec<OperatorImage>> = HashMap::new();
        for (_, image) in all {
            operators.entry(image.uid.clone()).or_default().push(image);
        }
        RestoredJob {
            id,
            operators,
            allow_left_over: false,
            origin: None,
        }
    }

    /// Where the files are that states are in.
    pub fn with_files(mut self, origin: FilesOrigin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// Whether an operator may leave states behind that it does not have any more; by default it may not.
    pub fn allow_left_over(mut self, allow: bool) -> Self {
        self.allow_left_over = allow;
        self
    }

    /// The stable ids of all operators that it holds state of.
    pub fn uids(&self) -> impl Iterator<Item = &str> {
        self.operators.keys().map(String::as_str)
    }

    /// Whether states are in files that only what they spilled to can read.
    pub fn has_files(&self) -> bool {
        let images = self.operators.values().flatten();
        let mut states = images.flat_map(|image| &image.states);
        states.any(|state| matches!(state.data, StateData::Files(_)))
    }

    /// All elements of an operator's state without keys, from all subtasks.
    pub fn all_elements(&self, uid: &str, state: &str) -> Vec<&[u8]> {
        let images = self.operators.get(uid).into_iter().flatten();
        let states = images.flat_map(|image| &image.states);
        states
            .filter(|s| s.name == state)
            .flat_map(elements)
            .collect()
    }

    /// The bytes of a file that an operator's state of this name is in, in whichever subtask; verified.
    pub fn read_file(&self, uid: &str, state: &str, file: &str) -> Flow<Vec<u8>> {
        let images = self.operators.get(uid).into_iter().flatten();
        let states = images.flat_map(|image| &image.states);
        let mut files = states
            .filter(|s| s.name == state)
            .flat_map(|s| match &s.data {
                StateData::Files(files) => files.index.files.as_slice(),
                _ => &[],
            });
        match (files.find(|found| found.name == file), &self.origin) {
            (Some(found), Some(origin)) => origin.read(&found.file),
            _ => Err(Fault::user(format_args!(
                "checkpoint {} does not hold the file '{file}' of the state '{state}'",
                self.id
            ))),
        }
    }

    /// The share of subtask `me` of `parallelism`; `None` where nothing was saved of this operator.
    pub fn operator(
        &self,
        uid: &str,
        me: u32,
        parallelism: u32,
        max_parallelism: u32,
    ) -> Flow<Option<RestoredOperator<'_>>> {
        let Some(images) = self.operators.get(uid) else {
            return Ok(None);
        };
        for image in images {
            let keyed = image.states.iter().any(|s| s.kind == StateKind::Keyed);
            if keyed && image.max_parallelism != max_parallelism {
                return Err(Fault::user(format_args!(
                    "its state was saved with max_parallelism {} and the job has {max_parallelism}; \
                     the number of key groups can't change, set it to what it was",
                    image.max_parallelism
                )));
            }
        }
        Ok(Some(RestoredOperator {
            uid: uid.to_owned(),
            images,
            me,
            parallelism,
            max_parallelism,
            taken: Vec::new(),
            allow_left_over: self.allow_left_over,
            origin: self.origin.as_ref(),
        }))
    }
}

fn elements(state: &StateImage) -> impl Iterator<Item = &[u8]> {
    let list = match &state.data {
        StateData::Elements(elements) => elements.as_slice(),
        _ => &[],
    };
    list.iter().map(Vec::as_slice)
}

/// The entries of a key group: [`RestoredOperator::read`] has their bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RestoredGroup<'a> {
    /// The key group.
    pub(crate) group: u32,
    /// How many entries it has.
    pub(crate) entries: u64,
    bytes: GroupBytes<'a>,
}

/// The bytes of a key group, or where they are.
#[derive(Clone, Copy, Debug)]
enum GroupBytes<'a> {
    Here(&'a Pieces),
    Stored(StoredGroup<'a>),
}

/// What one subtask of an operator begins with.
#[derive(Debug)]
pub struct RestoredOperator<'a> {
    uid: String,
    images: &'a [OperatorImage],
    me: u32,
    parallelism: u32,
    max_parallelism: u32,
    /// The states that the operator has asked for.
    taken: Vec<String>,
    allow_left_over: bool,
    origin: Option<&'a FilesOrigin>,
}

impl<'a> RestoredOperator<'a> {
    /// The watermark that all old subtasks had seen.
    pub fn watermark(&self) -> Timestamp {
        let seen = self.images.iter().map(|image| image.watermark);
        seen.min().unwrap_or(Timestamp::MIN)
    }

    /// The type of the values of a state when it was saved.
    pub(super) fn value_type(&self, name: &str) -> Option<&'a str> {
        let first = self.states(name).into_iter().next();
        first.map(|state| state.value_type.as_str())
    }

    /// The key groups of a keyed state that this subtask owns now.
    pub(crate) fn groups(
        &mut self,
        name: &str,
        types: (&str, &str),
    ) -> Flow<Vec<RestoredGroup<'a>>> {
        self.taken.push(name.to_owned());
        let owner = |group| owner_of_group(group, self.max_parallelism, self.parallelism);
        let mut groups = Vec::new();
        for state in self.states(name) {
            self.same_types(state, StateKind::Keyed, types)?;
            match &state.data {
                StateData::Groups(all) => {
                    let mine = all.iter().filter(|g| owner(g.group) == self.me);
                    groups.extend(mine.map(|image| RestoredGroup {
                        group: image.group,
                        entries: image.entries,
                        bytes: GroupBytes::Here(&image.bytes),
                    }));
                }
                StateData::Stored(stored) => {
                    let mine = stored.groups().filter(|g| owner(g.index.group) == self.me);
                    groups.extend(mine.map(|stored| RestoredGroup {
                        group: stored.index.group,
                        entries: stored.index.entries,
                        bytes: GroupBytes::Stored(stored),
                    }));
                }
                // Those of this subtask are asked for by themselves.
                StateData::Files(_) => {}
                StateData::Elements(_) | StateData::Streamed(_) => {
                    return Err(self.other_kind(state, StateKind::Keyed));
                }
            }
        }
        Ok(groups)
    }

    /// The entries of a key group.
    pub(crate) fn read(&self, group: RestoredGroup<'a>) -> Flow<Cow<'a, [u8]>> {
        match (group.bytes, self.origin) {
            (GroupBytes::Here(bytes), _) => Ok(bytes.joined()),
            (GroupBytes::Stored(stored), Some(origin)) => {
                let bytes = stored.read(&*origin.storage).map_err(Fault::user)?;
                Ok(Cow::Owned(bytes))
            }
            (GroupBytes::Stored(_), None) => {
                Err(Fault::internal("restored state without its storage"))
            }
        }
    }

    /// The files that a keyed state is in, as far as they have entries of this subtask.
    pub(super) fn files(&self, name: &str) -> Option<RestoredFiles<'a>> {
        let owner = |group: &u32| owner_of_group(*group, self.max_parallelism, self.parallelism);
        let mut mine = (0..self.max_parallelism).filter(|g| owner(g) == self.me);
        let first = mine.next().unwrap_or_default();
        let groups = first..mine.next_back().unwrap_or(first) + 1;
        let images = self.states(name).into_iter().filter_map(|s| match &s.data {
            StateData::Files(files) => Some(files),
            _ => None,
        });
        let mine = |image: &&FilesImage| {
            let occupied = image.index.groups;
            occupied.is_some_and(|(from, to)| from < groups.end && to >= groups.start)
        };
        let images: Vec<_> = images.filter(mine).collect();
        (!images.is_empty()).then_some(RestoredFiles {
            images,
            groups,
            origin: self.origin,
        })
    }

    /// This subtask's elements of a state without keys.
    pub(crate) fn elements(
        &mut self,
        name: &str,
        kind: StateKind,
        type_name: &str,
    ) -> Flow<Vec<&'a [u8]>> {
        self.taken.push(name.to_owned());
        let mut all = Vec::new();
        for state in self.states(name) {
            self.same_types(state, kind, ("", type_name))?;
            all.extend(elements(state));
            if kind == StateKind::Broadcast {
                break;
            }
        }
        if kind == StateKind::List {
            let (me, parallelism) = (self.me as usize, self.parallelism as usize);
            all = all.into_iter().skip(me).step_by(parallelism).collect();
        }
        Ok(all)
    }

    /// At which parallelism this was saved, where that is not the present one.
    pub(super) fn rescaled_from(&self) -> Option<u32> {
        let saved = self.images.first().map(|image| image.parallelism);
        saved.filter(|saved| *saved != self.parallelism)
    }

    /// Says that each subtask has all of what others had, which what was right for as many may not be for more or
    /// fewer.
    pub(super) fn warn_of_union(&self, name: &str) {
        if let (Some(saved), 0) = (self.rescaled_from(), self.me) {
            tracing::warn!(
                operator = self.uid,
                state = name,
                "union state that was saved at parallelism {saved} is restored at {}: each subtask begins with the \
                 elements of all, and has to tell itself which are still its own",
                self.parallelism
            );
        }
    }

    /// None of the states is for who asks.
    pub(super) fn leave_all(&mut self) {
        self.allow_left_over = true;
    }

    /// A fault that says of which state it is.
    pub(super) fn in_state(&self, name: &str, fault: Fault) -> Fault {
        if fault.kind() != FaultKind::User {
            return fault;
        }
        let (uid, saved) = (&self.uid, self.value_type(name).unwrap_or_default());
        Fault::user(format_args!(
            "operator '{uid}', state '{name}', which was saved as {saved}: {fault}"
        ))
    }

    /// Fails where states were saved that the operator has not asked for: they would be lost.
    pub(super) fn check_left_over(&self) -> Flow {
        let states = self.images.iter().flat_map(|image| &image.states);
        let left = states.filter(|s| !self.taken.contains(&s.name) && s.data.bytes() > 0);
        let mut names: Vec<String> = left.map(|s| format!("'{}'", s.name)).collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() || self.allow_left_over {
            return Ok(());
        }
        Err(Fault::user(format_args!(
            "operator '{}': there is saved state named {} that it does not have any more; declare it \
             again, or leave it behind with --allow-non-restored-state",
            self.uid,
            names.join(", ")
        )))
    }

    fn states(&self, name: &str) -> Vec<&'a StateImage> {
        let images: &'a [OperatorImage] = self.images;
        let named = |image: &'a OperatorImage| image.states.iter().find(|s| s.name == name);
        images.iter().filter_map(named).collect()
    }

    fn other_kind(&self, state: &StateImage, kind: StateKind) -> Fault {
        Fault::user(format_args!(
            "operator '{}', state '{}': it was saved as {:?} state and is {kind:?} state now",
            self.uid, state.name, state.kind
        ))
    }

    fn same_types(&self, state: &StateImage, kind: StateKind, types: (&str, &str)) -> Flow {
        if state.kind != kind {
            return Err(self.other_kind(state, kind));
        }
        let changed = |what: &str, old: &str, new: &str, advice: &str| {
            // Where the paths tell already, what they stand for would only be in the way.
            let paths = (paths_only(old), paths_only(new));
            let (old, new) = match paths.0 == paths.1 {
                true => (old.to_owned(), new.to_owned()),
                false => paths,
            };
            Err(Fault::user(format_args!(
                "operator '{}', state '{}': its {what} was saved as {old} and is {new} now; {advice}",
                self.uid, state.name
            )))
        };
        if !fits(&state.key_type, types.0) {
            let advice = "go back to the old type, or give the state a new name";
            return changed("key", &state.key_type, types.0, advice);
        }
        if !fits(&state.value_type, types.1) {
            let advice = if self.images.iter().any(|image| image.name == IN_FLIGHT) {
                "go on with the program that sent these records; a savepoint holds none of them, and behind one their \
                 type may change"
            } else {
                "go back to the old type, declare a migration from it, or give the state a new name"
            };
            return changed("value", &state.value_type, types.1, advice);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "restore_tests.rs"]
mod tests;
