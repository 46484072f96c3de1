//! A ring of panes: event time in equal pieces, of which the oldest ends first.

use std::collections::VecDeque;

/// Panes of `SIZE` milliseconds, from the oldest that has not ended.
pub struct Panes<const SIZE: u64, T> {
    /// The number of the oldest pane.
    oldest: u64,
    ring: VecDeque<T>,
    /// Emptied contents, to be used again with the memory that they hold.
    spare: Vec<T>,
}

impl<const SIZE: u64, T: Default> Default for Panes<SIZE, T> {
    fn default() -> Self {
        Panes {
            oldest: 0,
            ring: VecDeque::from([T::default()]),
            spare: Vec::new(),
        }
    }
}

impl<const SIZE: u64, T: Default> Panes<SIZE, T> {
    /// The pane of a time that lies in the oldest or a later pane.
    #[inline(always)]
    pub fn at(&mut self, time: u64) -> &mut T {
        let index = (time / SIZE - self.oldest) as usize;
        if index >= self.ring.len() {
            self.grow(index);
        }
        &mut self.ring[index]
    }

    #[cold]
    fn grow(&mut self, index: usize) {
        while self.ring.len() <= index {
            self.ring.push_back(self.spare.pop().unwrap_or_default());
        }
    }

    /// When the oldest pane begins.
    #[inline(always)]
    pub fn start(&self) -> u64 {
        self.oldest * SIZE
    }

    /// When the oldest pane ends.
    #[inline(always)]
    pub fn end(&self) -> u64 {
        (self.oldest + 1) * SIZE
    }

    /// How many panes there are, at least one.
    pub fn len(&self) -> usize {
        self.ring.len()
    }

    /// Takes out the oldest pane.
    pub fn pop(&mut self) -> T {
        self.oldest += 1;
        let pane = self.ring.pop_front().unwrap_or_default();
        if self.ring.is_empty() {
            self.grow(0);
        }
        pane
    }

    /// Takes back what a pane held, emptied.
    pub fn recycle(&mut self, empty: T) {
        self.spare.push(empty);
    }
}
