//! Streams that split: side outputs, and forks whose branches all see every record.
//!
//! A branch is a chain of its own in the same actor. Records reach it in small batches, so the one
//! dynamic call is paid per batch.

use crate::exchange::EdgeId;
use crate::fault::Flow;
use crate::stage::{Collector, Delivery, Signal, Stage, Turn};
use crate::time::Timestamp;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// The typed name of a side output.
#[derive(Debug)]
pub struct SideOutput<S> {
    id: u64,
    name: String,
    record: PhantomData<fn(S)>,
}

impl<S> Clone for SideOutput<S> {
    fn clone(&self) -> Self {
        SideOutput {
            id: self.id,
            name: self.name.clone(),
            record: PhantomData,
        }
    }
}

impl<S> SideOutput<S> {
    /// A new side output; `name` is for messages and plans.
    pub fn new(name: impl Into<String>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        SideOutput {
            id: NEXT.fetch_add(1, Relaxed),
            name: name.into(),
            record: PhantomData,
        }
    }

    /// What tells it apart from all others in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Where an operator puts the records of a side output during a turn. It lives in one actor, but
/// operators, which own one, must be `Send` to be prototypes; hence the lock, which nobody contends.
pub struct SideBuffer<S>(Option<Arc<Mutex<SideRecords<S>>>>);

type SideRecords<S> = Vec<(Timestamp, S)>;

impl<S> Clone for SideBuffer<S> {
    fn clone(&self) -> Self {
        SideBuffer(self.0.clone())
    }
}

impl<S> Default for SideBuffer<S> {
    fn default() -> Self {
        SideBuffer(None)
    }
}

impl<S> SideBuffer<S> {
    /// A buffer that somebody empties.
    pub fn connected() -> Self {
        SideBuffer(Some(Arc::default()))
    }

    /// Whether anybody takes the records.
    pub fn is_connected(&self) -> bool {
        self.0.is_some()
    }

    /// Puts a record to the side.
    pub fn collect(&self, at: Timestamp, value: S) {
        if let Some(buffer) = &self.0 {
            buffer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((at, value));
        }
    }

    /// Takes all records out.
    pub fn drain(&self) -> Vec<(Timestamp, S)> {
        let mut records = Vec::new();
        self.take(&mut records);
        records
    }

    /// Takes out what was put to the side, in exchange for the contents of `into`.
    pub fn take(&self, into: &mut Vec<(Timestamp, S)>) {
        if let Some(buffer) = &self.0 {
            std::mem::swap(
                &mut *buffer.lock().unwrap_or_else(PoisonError::into_inner),
                into,
            );
        }
    }
}

/// A chain behind a fork or side output, with its type erased.
pub trait Branch<T>: Stage {
    /// Takes all records of `records`, in order.
    fn take(&mut self, records: &mut Vec<(Timestamp, T)>) -> Flow;
}

/// A chain as a [`Branch`].
pub struct BranchHead<D>(pub D);

impl<T, D: Collector<T> + Stage> Branch<T> for BranchHead<D> {
    fn take(&mut self, records: &mut Vec<(Timestamp, T)>) -> Flow {
        for (at, value) in records.drain(..) {
            self.0.collect(at, value)?;
        }
        Ok(())
    }
}

impl<D: Stage> Stage for BranchHead<D> {
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        visit(&mut self.0)
    }

    fn each_ref(&self, visit: &mut dyn FnMut(&dyn Stage)) {
        visit(&self.0);
    }
}

/// How many records a fork gathers before it calls its branches.
const GATHERED: usize = 256;

/// The end of a chain that goes on in several branches; each gets every record.
pub struct Fork<T> {
    gathered: Vec<(Timestamp, T)>,
    copies: Vec<(Timestamp, T)>,
    branches: Vec<Box<dyn Branch<T>>>,
    copy: fn(&T) -> T,
}

impl<T> Fork<T> {
    /// Goes on in `branches`; `copy` clones a record for all but the last.
    pub fn new(branches: Vec<Box<dyn Branch<T>>>, copy: fn(&T) -> T) -> Self {
        Fork {
            gathered: Vec::with_capacity(GATHERED),
            copies: Vec::new(),
            branches,
            copy,
        }
    }

    fn flush(&mut self) -> Flow {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let last = self.branches.len().saturating_sub(1);
        for (i, branch) in self.branches.iter_mut().enumerate() {
            if i == last {
                branch.take(&mut self.gathered)?;
            } else {
                let copy = self.copy;
                self.copies
                    .extend(self.gathered.iter().map(|(at, v)| (*at, copy(v))));
                branch.take(&mut self.copies)?;
            }
        }
        self.gathered.clear();
        Ok(())
    }
}

impl<T> Collector<T> for Fork<T> {
    #[inline(always)]
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        self.gathered.push((at, value));
        if self.gathered.len() >= GATHERED {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn has_room(&self) -> bool {
        self.room()
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<T> Stage for Fork<T> {
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        for branch in &mut self.branches {
            visit(branch.as_mut())?;
        }
        Ok(())
    }

    fn each_ref(&self, visit: &mut dyn FnMut(&dyn Stage)) {
        for branch in &self.branches {
            visit(branch.as_ref());
        }
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        self.flush()?;
        self.each(&mut |branch| branch.signal(signal))
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        self.flush()?;
        self.each(&mut |branch| branch.turn(turn))
    }

    fn deliver(&mut self, edge: EdgeId, delivery: &mut Delivery<'_>) -> Flow<bool> {
        for branch in &mut self.branches {
            if branch.deliver(edge, delivery)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A stage that the main stream passes through and at which a side stream leaves.
pub struct SideStage<S, D> {
    buffer: SideBuffer<S>,
    taken: Vec<(Timestamp, S)>,
    branch: Box<dyn Branch<S>>,
    down: D,
}

impl<S, D> SideStage<S, D> {
    /// Records that come into `buffer` go to `branch`.
    pub fn new(buffer: SideBuffer<S>, branch: Box<dyn Branch<S>>, down: D) -> Self {
        SideStage {
            buffer,
            taken: Vec::new(),
            branch,
            down,
        }
    }

    fn flush(&mut self) -> Flow {
        self.buffer.take(&mut self.taken);
        if self.taken.is_empty() {
            return Ok(());
        }
        self.branch.take(&mut self.taken)
    }
}

impl<T, S, D: Collector<T> + Stage> Collector<T> for SideStage<S, D> {
    #[inline(always)]
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        self.down.collect(at, value)
    }

    fn has_room(&self) -> bool {
        self.room()
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<S, D: Stage> Stage for SideStage<S, D> {
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        visit(self.branch.as_mut())?;
        visit(&mut self.down)
    }

    fn each_ref(&self, visit: &mut dyn FnMut(&dyn Stage)) {
        visit(self.branch.as_ref());
        visit(&self.down);
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        self.flush()?;
        self.each(&mut |next| next.signal(signal))
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        self.flush()?;
        self.each(&mut |next| next.turn(turn))
    }
}

/// What is behind a side stream that no main stream passes by.
pub struct Nowhere;

impl Stage for Nowhere {
    fn each(&mut self, _visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        Ok(())
    }

    fn each_ref(&self, _visit: &mut dyn FnMut(&dyn Stage)) {}
}

/// A stage and the side streams of its vertex, as many as the graph says.
pub struct WithSides<D> {
    sides: Vec<Box<dyn Stage>>,
    down: D,
}

impl<D> WithSides<D> {
    /// Side streams beside `down`.
    pub fn new(sides: Vec<Box<dyn Stage>>, down: D) -> Self {
        WithSides { sides, down }
    }
}

impl<T, D: Collector<T> + Stage> Collector<T> for WithSides<D> {
    #[inline(always)]
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        self.down.collect(at, value)
    }

    fn has_room(&self) -> bool {
        self.room()
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<D: Stage> Stage for WithSides<D> {
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        for side in &mut self.sides {
            visit(side.as_mut())?;
        }
        visit(&mut self.down)
    }

    fn each_ref(&self, visit: &mut dyn FnMut(&dyn Stage)) {
        for side in &self.sides {
            visit(side.as_ref());
        }
        visit(&self.down);
    }
}
