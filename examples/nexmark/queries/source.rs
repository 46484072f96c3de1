//! The generator as a source: each subtask makes every p-th stripe of event numbers.

use crate::events::Event;
use crate::generator::Generator;
use crate::options::Options;
use std::marker::PhantomData;
use tidegate::prelude::*;

/// Consecutive events that one subtask makes: one millisecond of event time.
const STRIPE: u64 = 1_000;

/// The events of a run.
pub struct Events<E> {
    generator: Generator,
    count: u64,
    event: PhantomData<fn() -> E>,
}

impl<E> Clone for Events<E> {
    fn clone(&self) -> Self {
        Events {
            event: PhantomData,
            ..*self
        }
    }
}

impl<E> Events<E> {
    /// The events that the options ask for.
    pub fn new(options: &Options) -> Self {
        Events {
            generator: options.generator,
            count: options.events,
            event: PhantomData,
        }
    }
}

impl<E: Event> Source for Events<E> {
    type Item = E;
    type Reader = EventReader<E>;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<EventReader<E>> {
        let (me, of) = (
            u64::from(context.subtask()),
            u64::from(context.parallelism()),
        );
        Ok(EventReader {
            generator: self.generator,
            next: me * STRIPE,
            jump: (of - 1) * STRIPE,
            count: self.count,
            event: PhantomData,
        })
    }
}

/// Makes the events of one subtask.
pub struct EventReader<E> {
    generator: Generator,
    next: u64,
    jump: u64,
    count: u64,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> SourceReader for EventReader<E> {
    type Item = E;

    fn poll<C: Collector<E>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        let mut made = 0;
        while made < budget && self.next < self.count {
            let begin = self.next;
            let end = (begin + STRIPE).min(self.count);
            for n in begin..end {
                let event = E::generate(&self.generator, n);
                out.collect(Timestamp(Generator::time(n) as i64), event)?;
            }
            made += (end - begin) as usize;
            self.next = end + self.jump;
            // Every event of this subtask from here on is at least as late as its next one.
            if self.next < self.count {
                let next = Generator::time(self.next) as i64;
                out.signal(Signal::Watermark(Timestamp(next - 1)))?;
            }
        }
        Ok(if self.next >= self.count {
            Poll::End
        } else {
            Poll::Read(made)
        })
    }

    fn position(&self) -> String {
        format!("event {}", self.next)
    }
}
