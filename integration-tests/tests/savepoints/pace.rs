//! Sources that are slow enough to be stopped on their way, however long the machine stands still meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tidegate::connectors::GeneratorReader;
use tidegate::prelude::*;

/// How fast sources read, and that they stop after five sixths of their records until they are let go.
#[derive(Clone)]
pub struct Pace {
    pub per_second: f64,
    free: Arc<AtomicBool>,
}

impl Pace {
    pub fn of(per_second: f64) -> Self {
        Pace {
            per_second,
            free: Arc::default(),
        }
    }

    /// A fraction of the pace, let go together with it.
    pub fn times(&self, factor: f64) -> Self {
        Pace {
            per_second: self.per_second * factor,
            free: self.free.clone(),
        }
    }

    /// Lets sources read to their end.
    pub fn let_go(&self) {
        self.free.store(true, SeqCst);
    }
}

/// Numbered records at a pace, or as fast as they can be made.
pub struct Paced<F> {
    numbers: Generator<F>,
    count: u64,
    pace: Option<Pace>,
}

impl<T: 'static, F: Fn(u64) -> T + Send + Sync + 'static> Paced<F> {
    pub fn new(count: u64, make: F, pace: Option<&Pace>) -> Self {
        let mut numbers = Generator::new(count, make);
        if let Some(pace) = pace {
            numbers = numbers.per_second(pace.per_second);
        }
        let pace = pace.cloned();
        Paced {
            numbers,
            count,
            pace,
        }
    }
}

impl<T: 'static, F: Fn(u64) -> T + Send + Sync + 'static> Source for Paced<F> {
    type Item = T;
    type Reader = PacedReader<F>;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<PacedReader<F>> {
        let share = self.count / u64::from(context.parallelism());
        Ok(PacedReader {
            numbers: self.numbers.open(context)?,
            at_most: share * 5 / 6,
            pace: self.pace.clone(),
        })
    }

    fn replayable(&self) -> bool {
        true
    }
}

pub struct PacedReader<F> {
    numbers: GeneratorReader<F>,
    /// How many more it reads before it is let go.
    at_most: u64,
    pace: Option<Pace>,
}

impl<T: 'static, F: Fn(u64) -> T + Send + Sync + 'static> SourceReader for PacedReader<F> {
    type Item = T;

    fn poll<C: Collector<T>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        let held = matches!(&self.pace, Some(pace) if !pace.free.load(SeqCst));
        if !held {
            return self.numbers.poll(budget, out);
        }
        if self.at_most == 0 {
            return Ok(Poll::Wait(Duration::from_millis(2)));
        }
        let budget = budget.min(self.at_most as usize);
        let polled = self.numbers.poll(budget, out)?;
        if let Poll::Read(count) = polled {
            self.at_most = self.at_most.saturating_sub(count as u64);
        }
        Ok(polled)
    }

    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        self.numbers.splits()
    }

    fn positions(&self) -> Vec<String> {
        self.numbers.positions()
    }

    fn position(&self) -> String {
        self.numbers.position()
    }
}
