//! State without keys: elements that belong to an operator's subtasks, and are dealt out anew when there
//! are more or fewer of those.

use crate::checkpoint::{StateValue, StateVisitor};
use crate::fault::{Fault, Flow};
use std::cell::RefCell;
use std::rc::Rc;

/// How elements come to the subtasks of a later attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dealt {
    InTurns,
    ToAll,
}

/// Where an operator declares its state without keys: [`crate::build::OpenContext::operator_states`].
///
/// ```
/// use tidegate_engine::prelude::*;
///
/// /// Sends records on in batches of a hundred.
/// #[derive(Clone)]
/// struct InBatches;
///
/// impl ProcessFunction<u64> for InBatches {
///     type Out = Vec<u64>;
///     type State = ElementsState<u64>;
///
///     fn open(&mut self, context: &mut OpenContext<'_>) -> Flow<Self::State> {
///         context.operator_states().list("waiting")
///     }
///
///     fn process<C: Collector<Vec<u64>>>(
///         &mut self,
///         waiting: &mut Self::State,
///         cx: &RecordContext<'_>,
///         value: u64,
///         out: &mut C,
///     ) -> Flow {
///         waiting.add(value);
///         match waiting.len() {
///             100 => out.collect(cx.timestamp(), waiting.take()),
///             _ => Ok(()),
///         }
///     }
/// }
/// ```
#[derive(Default)]
pub struct OperatorStates(Vec<Rc<dyn Declared>>);

/// A declared state, without its type.
trait Declared {
    fn name(&self) -> &str;

    fn state(&self, visitor: &mut StateVisitor<'_>) -> Flow;
}

struct Elements<T> {
    name: String,
    dealt: Dealt,
    elements: RefCell<Vec<T>>,
}

impl<T: StateValue> Declared for Elements<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn state(&self, visitor: &mut StateVisitor<'_>) -> Flow {
        let elements = &mut *self.elements.borrow_mut();
        if visitor.has_saved(&self.name) {
            // What `open` has put there is for a beginning from scratch.
            elements.clear();
        }
        match self.dealt {
            Dealt::InTurns => visitor.list(&self.name, elements),
            Dealt::ToAll => visitor.union(&self.name, elements),
        }
    }
}

impl OperatorStates {
    /// Declares a list whose elements are dealt out in turns to the subtasks of a later attempt.
    pub fn list<T: StateValue>(&mut self, name: &str) -> Flow<ElementsState<T>> {
        self.declare(name, Dealt::InTurns)
    }

    /// Declares a list of which each subtask of a later attempt gets the elements of all subtasks. Each
    /// then drops what is not its own: what all keep multiplies with every restart.
    pub fn union<T: StateValue>(&mut self, name: &str) -> Flow<ElementsState<T>> {
        self.declare(name, Dealt::ToAll)
    }

    fn declare<T: StateValue>(&mut self, name: &str, dealt: Dealt) -> Flow<ElementsState<T>> {
        if self.0.iter().any(|state| state.name() == name) {
            return Err(Fault::user(format_args!(
                "two states without keys are named '{name}'; give each state a name of its own"
            )));
        }
        let elements = Rc::new(Elements {
            name: name.to_owned(),
            dealt,
            elements: RefCell::default(),
        });
        self.0.push(elements.clone());
        Ok(ElementsState(elements))
    }

    /// Whether nothing was declared.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of all.
    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|state| state.name()).collect()
    }

    /// Saves or loads all of them; see [`crate::operator::Operator::state`].
    pub fn state(&mut self, visitor: &mut StateVisitor<'_>) -> Flow {
        self.0.iter().try_for_each(|state| state.state(visitor))
    }
}

/// Elements that belong to a subtask and not to a key. Clones are handles of the same state.
pub struct ElementsState<T>(Rc<Elements<T>>);

impl<T> Clone for ElementsState<T> {
    fn clone(&self) -> Self {
        ElementsState(self.0.clone())
    }
}

impl<T: StateValue> ElementsState<T> {
    /// Shows the elements. The function must not use the same state again.
    pub fn with<R>(&self, look: impl FnOnce(&[T]) -> R) -> R {
        look(&self.0.elements.borrow())
    }

    /// A copy of the elements.
    pub fn get(&self) -> Vec<T>
    where
        T: Clone,
    {
        self.with(<[T]>::to_vec)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.with(<[T]>::len)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an element at the end.
    #[inline(always)]
    pub fn add(&self, element: T) {
        self.0.elements.borrow_mut().push(element);
    }

    /// Changes the elements. The function must not use the same state again.
    pub fn update<R>(&self, change: impl FnOnce(&mut Vec<T>) -> R) -> R {
        change(&mut self.0.elements.borrow_mut())
    }

    /// Replaces the elements.
    pub fn set(&self, elements: Vec<T>) {
        self.update(|all| *all = elements);
    }

    /// Takes all elements out.
    pub fn take(&self) -> Vec<T> {
        self.update(std::mem::take)
    }

    /// Forgets all elements.
    pub fn clear(&self) {
        self.update(Vec::clear);
    }
}
