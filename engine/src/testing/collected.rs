//! What stands behind an operator that is driven by hand.

use crate::checkpoint::Participant;
use crate::fault::Flow;
use crate::stage::{Collector, Signal, Stage};
use crate::time::Timestamp;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// A stage that keeps what it receives.
pub struct Collected<T> {
    pub(crate) records: Rc<RefCell<Vec<(Timestamp, T)>>>,
    pub(crate) signals: Rc<RefCell<Vec<Signal>>>,
    pub(crate) room: Rc<Cell<bool>>,
    /// Told of the barriers that come here.
    participant: Participant,
}

impl<T> Collected<T> {
    /// The end of the chain of a subtask.
    pub fn leaf(participant: Participant) -> Self {
        participant.add_leaf();
        Collected {
            participant,
            ..Collected::default()
        }
    }
}

impl<T> Default for Collected<T> {
    fn default() -> Self {
        let room = Rc::new(Cell::new(true));
        Collected {
            records: Rc::default(),
            signals: Rc::default(),
            room,
            participant: Participant::default(),
        }
    }
}

impl<T> Clone for Collected<T> {
    fn clone(&self) -> Self {
        let (records, signals) = (self.records.clone(), self.signals.clone());
        Collected {
            records,
            signals,
            room: self.room.clone(),
            participant: self.participant.clone(),
        }
    }
}

impl<T> Collector<T> for Collected<T> {
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        self.records.borrow_mut().push((at, value));
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.room.get()
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<T> Stage for Collected<T> {
    fn each(&mut self, _visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        Ok(())
    }

    fn each_ref(&self, _visit: &mut dyn FnMut(&dyn Stage)) {}

    fn signal(&mut self, signal: Signal) -> Flow {
        if let Signal::Barrier(barrier) = signal {
            self.participant.passed_leaf(barrier);
        }
        self.signals.borrow_mut().push(signal);
        Ok(())
    }

    fn room(&self) -> bool {
        self.room.get()
    }
}
