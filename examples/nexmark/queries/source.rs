//! The generator as a source: each subtask makes every p-th stripe of event numbers.

use crate::events::Event;
use crate::generator::Generator;
use crate::options::Options;
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;
use tidegate::engine::checkpoint::codec;
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

    fn replayable(&self) -> bool {
        true
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<EventReader<E>> {
        let (me, of) = (
            u64::from(context.subtask()),
            u64::from(context.parallelism()),
        );
        let shares = match context.restored_splits()? {
            None => vec![Share {
                next: me * STRIPE,
                jump: (of - 1) * STRIPE,
            }],
            Some(splits) => splits
                .iter()
                .map(|split| codec::decode(split))
                .collect::<Flow<_>>()?,
        };
        let mut reader = EventReader {
            generator: self.generator,
            shares,
            count: self.count,
            event: PhantomData,
        };
        reader.sort();
        Ok(reader)
    }
}

/// Every so many stripes of the event numbers.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Share {
    next: u64,
    jump: u64,
}

/// Makes the events of one subtask.
pub struct EventReader<E> {
    generator: Generator,
    /// That with the earliest event first.
    shares: Vec<Share>,
    count: u64,
    event: PhantomData<fn() -> E>,
}

impl<E> EventReader<E> {
    fn sort(&mut self) {
        self.shares.retain(|share| share.next < self.count);
        self.shares.sort_by_key(|share| share.next);
    }
}

impl<E: Event> SourceReader for EventReader<E> {
    type Item = E;

    fn poll<C: Collector<E>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        let mut made = 0;
        while made < budget {
            let Some(share) = self.shares.first_mut() else {
                return Ok(Poll::End);
            };
            let begin = share.next;
            let end = (begin + STRIPE).min(self.count);
            for n in begin..end {
                let event = E::generate(&self.generator, n);
                out.collect(Timestamp(Generator::time(n) as i64), event)?;
            }
            made += (end - begin) as usize;
            share.next = end + share.jump;
            self.sort();
            // Every event of this subtask from here on is at least as late as its next one.
            if let Some(share) = self.shares.first() {
                let next = Generator::time(share.next) as i64;
                out.signal(Signal::Watermark(Timestamp(next - 1)))?;
            }
        }
        Ok(Poll::Read(made))
    }

    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        self.shares.iter().map(codec::encode).collect()
    }

    fn position(&self) -> String {
        let next = self.shares.first().map_or(self.count, |share| share.next);
        format!("event {next}")
    }
}
