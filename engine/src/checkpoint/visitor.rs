//! The one hook by which an operator saves and loads its state.
//!
//! `Operator::state` names each part of the state once; the visitor that it is called with decides
//! what happens: at a barrier every part is frozen, then saved (a large one step by step, while
//! records flow again), and in a later attempt the same call loads what was saved. So what is saved
//! and what is loaded can't drift apart.

use super::codec::{StateValue, decode, encode};
use super::image::{StateData, StateImage, StateKind};
use super::keyed::{Entries, KeyedPart, KeyedSection};
use super::restore::RestoredOperator;
use super::shape::{fits, stored_name};
use crate::fault::{Fault, Flow};
use crate::state::backing::{Backing, Claim};
use crate::time::Timestamp;

/// State without keys, as a list of elements.
pub trait ElementsPart {
    /// The name of the type of an element.
    fn type_name(&self) -> &'static str;

    /// The encoded elements.
    fn save(&self) -> Flow<Vec<Vec<u8>>>;

    /// Takes these elements, in addition to what is there.
    fn load(&mut self, elements: &[&[u8]]) -> Flow;
}

impl<T: StateValue> ElementsPart for Vec<T> {
    fn type_name(&self) -> &'static str {
        stored_name::<T>()
    }

    fn save(&self) -> Flow<Vec<Vec<u8>>> {
        self.iter().map(encode).collect()
    }

    fn load(&mut self, elements: &[&[u8]]) -> Flow {
        for element in elements {
            self.push(decode(element)?);
        }
        Ok(())
    }
}

/// Elements that are bytes already, in an encoding of their owner.
#[derive(Clone, Debug, Default)]
pub struct Opaque(pub Vec<Vec<u8>>);

impl ElementsPart for Opaque {
    fn type_name(&self) -> &'static str {
        "bytes"
    }

    fn save(&self) -> Flow<Vec<Vec<u8>>> {
        Ok(self.0.clone())
    }

    fn load(&mut self, elements: &[&[u8]]) -> Flow {
        self.0.extend(elements.iter().map(|e| e.to_vec()));
        Ok(())
    }
}

/// The states of one operator that are being saved.
#[derive(Debug, Default)]
pub struct Capture {
    states: Vec<Captured>,
    max_parallelism: u32,
    shares_files: bool,
    streams: bool,
}

#[derive(Debug)]
struct Captured {
    image: StateImage,
    section: Option<KeyedSection>,
    complete: bool,
}

impl Capture {
    /// Nothing yet, of an operator with so many key groups.
    pub fn new(max_parallelism: u32) -> Self {
        Capture {
            states: Vec::new(),
            max_parallelism,
            shares_files: false,
            streams: false,
        }
    }

    /// Whether states may be saved as entries that whoever writes them reads.
    pub fn streaming(mut self, streams: bool) -> Self {
        self.streams = streams;
        self
    }

    /// Whether states may be saved as files that other checkpoints name too.
    pub fn sharing_files(mut self, shares: bool) -> Self {
        self.shares_files = shares;
        self
    }

    /// Whether there is nothing to do but to wait for what other threads do.
    pub fn waits(&self) -> bool {
        let mut open = self.states.iter().filter(|s| !s.complete);
        open.all(|s| s.section.as_ref().is_some_and(KeyedSection::waits))
    }

    /// How many bytes have been saved by key.
    pub fn bytes(&self) -> usize {
        let sections = self.states.iter().filter_map(|s| s.section.as_ref());
        sections.map(KeyedSection::bytes).sum()
    }

    /// Whether every part has been saved whole.
    pub fn complete(&self) -> bool {
        self.states.iter().all(|state| state.complete)
    }

    /// The images of the states, in the order in which they were named.
    pub fn into_states(self) -> Vec<StateImage> {
        let images = self.states.into_iter().map(|state| {
            let data = state.section.map(KeyedSection::into_data);
            let data = data.unwrap_or(state.image.data);
            StateImage {
                data,
                ..state.image
            }
        });
        images.collect()
    }

    fn enter(&mut self, name: &str, kind: StateKind, types: (&str, &str)) -> Flow<&mut Captured> {
        if self.states.iter().any(|s| s.image.name == name) {
            return Err(Fault::internal(format_args!(
                "two states are named '{name}'"
            )));
        }
        let keyed = kind == StateKind::Keyed;
        self.states.push(Captured {
            image: StateImage {
                name: name.to_owned(),
                kind,
                key_type: types.0.to_owned(),
                value_type: types.1.to_owned(),
                data: StateData::Elements(Vec::new()),
            },
            section: keyed.then(|| {
                KeyedSection::new(self.max_parallelism)
                    .sharing_files(self.shares_files)
                    .streaming(self.streams)
            }),
            complete: !keyed,
        });
        let last = self.states.len() - 1;
        Ok(&mut self.states[last])
    }

    fn find(&mut self, name: &str) -> Flow<&mut Captured> {
        let found = self.states.iter_mut().find(|s| s.image.name == name);
        found.ok_or_else(|| {
            Fault::internal(format_args!(
                "the state '{name}' was not there at the barrier"
            ))
        })
    }
}

enum Mode<'a> {
    Freeze(&'a mut Capture),
    Save(&'a mut Capture, usize),
    Thaw,
    Spill(&'a mut SpillState<'a>),
    Maintain,
    Load(&'a mut RestoredOperator<'a>),
}

/// Opens what the state of this name spills to: see [`super::OpenBacking`].
pub type SpillState<'a> = dyn FnMut(&str) -> Flow<(u32, Box<dyn Backing>, Claim)> + 'a;

/// What an operator shows its state to.
pub struct StateVisitor<'a>(Mode<'a>);

impl<'a> StateVisitor<'a> {
    /// A barrier is here: small states are saved at once, keyed ones frozen.
    pub fn freeze(capture: &'a mut Capture) -> Self {
        StateVisitor(Mode::Freeze(capture))
    }

    /// Goes on saving what is frozen, about `budget` entries of it.
    pub fn save(capture: &'a mut Capture, budget: usize) -> Self {
        StateVisitor(Mode::Save(capture, budget))
    }

    /// The checkpoint was given up.
    pub fn thaw() -> Self {
        StateVisitor(Mode::Thaw)
    }

    /// The state may become larger than memory.
    pub fn spill(open: &'a mut SpillState<'a>) -> Self {
        StateVisitor(Mode::Spill(open))
    }

    /// Between turns of state that spills.
    pub fn maintain() -> Self {
        StateVisitor(Mode::Maintain)
    }

    /// A new attempt begins with what was saved.
    pub fn load(from: &'a mut RestoredOperator<'a>) -> Self {
        StateVisitor(Mode::Load(from))
    }

    /// Whether state is being loaded: what depends on it is to be worked out anew behind the last part.
    pub fn loads(&self) -> bool {
        matches!(self.0, Mode::Load(_))
    }

    /// Whether state that was in memory is about to spill.
    pub fn spills(&self) -> bool {
        matches!(self.0, Mode::Spill(_))
    }

    /// The operator has named all of its parts. Where state was loaded, none may be left over.
    pub fn finish(self) -> Flow {
        match self.0 {
            Mode::Load(from) => from.check_left_over(),
            _ => Ok(()),
        }
    }

    /// Where state is loaded: the watermark that it had seen.
    pub fn restored_watermark(&self) -> Option<Timestamp> {
        match &self.0 {
            Mode::Load(from) => Some(from.watermark()),
            _ => None,
        }
    }

    /// What shows nothing is not the operator whose state is being loaded, but an adapter that goes by its
    /// id: none of the state is missed here.
    pub(crate) fn passes_by(&mut self) {
        if let Mode::Load(from) = &mut self.0 {
            from.leave_all();
        }
    }

    /// Whether state is being loaded and there is some of this name.
    pub fn has_saved(&self, name: &str) -> bool {
        matches!(&self.0, Mode::Load(from) if from.value_type(name).is_some())
    }

    /// State by key.
    pub fn keyed(&mut self, name: &str, part: &mut (impl KeyedPart + ?Sized)) -> Flow {
        match &mut self.0 {
            Mode::Freeze(capture) => {
                let (key, value) = (part.types().0, part.value_type());
                capture.enter(name, StateKind::Keyed, (key, &value))?;
                part.freeze()
            }
            Mode::Save(capture, budget) => {
                let captured = capture.find(name)?;
                if let (false, Some(section)) = (captured.complete, &mut captured.section) {
                    section.wait(false);
                    captured.complete = part.save(section, *budget)?;
                }
                Ok(())
            }
            Mode::Thaw => {
                part.thaw();
                Ok(())
            }
            Mode::Spill(open) => part.spill(&mut || open(name)),
            Mode::Maintain => part.maintain(),
            Mode::Load(from) => {
                let (key, mut value) = (part.types().0, part.value_type());
                if let Some(saved) = from.value_type(name)
                    && !fits(saved, &value)
                    && part.accept(saved)
                {
                    value = saved.into();
                }
                let groups = from.groups(name, (key, &value))?;
                if let Some(files) = from.files(name) {
                    part.load_files(&files)?;
                }
                for group in groups {
                    let bytes = from.read(group)?;
                    let loaded = part.load(&mut Entries::new(&bytes));
                    loaded.map_err(|fault| from.in_state(name, fault))?;
                }
                Ok(())
            }
        }
    }

    /// Elements that a later attempt deals out to its subtasks in turns.
    pub fn list(&mut self, name: &str, part: &mut (impl ElementsPart + ?Sized)) -> Flow {
        self.elements(name, StateKind::List, part)
    }

    /// Elements that each subtask of a later attempt gets all of.
    pub fn union(&mut self, name: &str, part: &mut (impl ElementsPart + ?Sized)) -> Flow {
        self.elements(name, StateKind::Union, part)?;
        if let Mode::Load(from) = &self.0 {
            from.warn_of_union(name);
        }
        Ok(())
    }

    /// Elements that are the same in all subtasks, now and later.
    pub fn broadcast(&mut self, name: &str, part: &mut (impl ElementsPart + ?Sized)) -> Flow {
        self.elements(name, StateKind::Broadcast, part)
    }

    /// One value of each subtask; a later attempt begins everywhere with `merge` of all of them.
    pub fn value<T: StateValue + Clone>(
        &mut self,
        name: &str,
        value: &mut T,
        merge: impl Fn(T, T) -> T,
    ) -> Flow {
        let mut all: Vec<T> = match self.0 {
            Mode::Load(_) => Vec::new(),
            _ => vec![value.clone()],
        };
        self.elements(name, StateKind::Union, &mut all)?;
        if self.loads()
            && let Some(merged) = all.into_iter().reduce(merge)
        {
            *value = merged;
        }
        Ok(())
    }

    fn elements(
        &mut self,
        name: &str,
        kind: StateKind,
        part: &mut (impl ElementsPart + ?Sized),
    ) -> Flow {
        match &mut self.0 {
            Mode::Freeze(capture) => {
                let elements = part.save()?;
                let captured = capture.enter(name, kind, ("", part.type_name()))?;
                captured.image.data = StateData::Elements(elements);
                Ok(())
            }
            Mode::Save(..) | Mode::Thaw | Mode::Spill(_) | Mode::Maintain => Ok(()),
            Mode::Load(from) => {
                let elements = from.elements(name, kind, part.type_name())?;
                let loaded = part.load(&elements);
                loaded.map_err(|fault| from.in_state(name, fault))
            }
        }
    }
}
