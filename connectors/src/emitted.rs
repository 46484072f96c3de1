//! What a user's function emits, on its way into the stream: records and watermarks in order.

use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use tidegate_engine::build::OpenContext;
use tidegate_engine::checkpoint::codec;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::stage::{Collector, Signal};
use tidegate_engine::time::Timestamp;

/// One thing that was emitted.
#[derive(Debug)]
pub(crate) enum Emitted<T> {
    Record(Timestamp, T),
    Watermark(Timestamp),
    Idle,
    /// The function can go on from here, by this description of its own.
    Position(Vec<u8>),
}

/// What a checkpoint keeps of a function that can go back: the subtask and the parallelism, the last
/// position that it set, and how many records it has emitted behind that.
type Saved = (u32, u32, Option<Vec<u8>>, u64);

/// What a function begins with.
#[derive(Debug, Default)]
pub(crate) struct Begin {
    /// The position that it set last.
    pub(crate) position: Option<Vec<u8>>,
    /// How many of the records that follow it were covered by the checkpoint.
    skip: u64,
    /// It has come to its end.
    pub(crate) done: bool,
}

impl Begin {
    /// What the subtask that is opened begins with.
    pub(crate) fn find(context: &OpenContext<'_>, replayable: bool) -> Flow<Self> {
        let Some(saved) = context.all_restored_splits().filter(|_| replayable) else {
            return Ok(Begin::default());
        };
        let saved = saved.iter().map(|bytes| codec::decode::<Saved>(bytes));
        let saved = saved.collect::<Flow<Vec<_>>>()?;
        if let Some((_, was, ..)) = saved.iter().find(|s| s.1 != context.parallelism()) {
            return Err(Fault::user(format_args!(
                "the checkpoint was taken when this source had a parallelism of {was}; a function can't \
                 go on with another one, set it to what it was"
            )));
        }
        let mine = saved.into_iter().find(|s| s.0 == context.subtask());
        Ok(match mine {
            Some((_, _, position, skip)) => Begin {
                position,
                skip,
                done: false,
            },
            None => Begin {
                done: true,
                ..Begin::default()
            },
        })
    }
}

/// Decodes the position that a function set.
pub(crate) fn position_of<P: DeserializeOwned>(position: Option<&Vec<u8>>) -> Flow<Option<P>> {
    position.map(|bytes| codec::decode(bytes)).transpose()
}

/// Passes on what was emitted, within the stream's grammar: a watermark that goes back is dropped, and
/// the last one of all is the end's to say.
#[derive(Debug)]
pub(crate) struct Emitter<T> {
    pub(crate) queue: VecDeque<Emitted<T>>,
    watermark: Timestamp,
    position: Option<Vec<u8>>,
    /// Records that were emitted behind the position.
    since: u64,
    /// Records that come again and were covered by the checkpoint.
    skip: u64,
}

impl<T> Default for Emitter<T> {
    fn default() -> Self {
        Emitter {
            queue: VecDeque::new(),
            watermark: Timestamp::MIN,
            position: None,
            since: 0,
            skip: 0,
        }
    }
}

impl<T> Emitter<T> {
    /// Goes on where a checkpoint says.
    pub(crate) fn begin(begin: Begin) -> Self {
        Emitter {
            position: begin.position,
            skip: begin.skip,
            ..Emitter::default()
        }
    }

    /// Where the function is, if it can go back there.
    pub(crate) fn save(&self, subtask: u32, parallelism: u32) -> Flow<Vec<u8>> {
        // What was covered before and has not come again yet is still covered.
        let since = self.since + self.skip;
        let saved: Saved = (subtask, parallelism, self.position.clone(), since);
        codec::encode(&saved)
    }

    /// The same in words.
    pub(crate) fn position(&self) -> String {
        let since = self.since + self.skip;
        match self.position {
            Some(_) => format!("{since} records behind its last position"),
            None => format!("{since} records behind its beginning"),
        }
    }

    /// Passes on at most `budget` records, and the signals behind them.
    pub(crate) fn emit<C: Collector<T>>(&mut self, budget: usize, out: &mut C) -> Flow<usize> {
        let mut records = 0;
        while let Some(emitted) = self.queue.pop_front() {
            match emitted {
                Emitted::Record(..) if self.skip > 0 => {
                    self.skip -= 1;
                    self.since += 1;
                }
                Emitted::Record(at, value) if records < budget => {
                    records += 1;
                    self.since += 1;
                    out.collect(at, value)?;
                }
                Emitted::Record(..) => {
                    self.queue.push_front(emitted);
                    break;
                }
                Emitted::Watermark(at) => {
                    let at = at.min(Timestamp(Timestamp::MAX.0 - 1));
                    if at > self.watermark {
                        self.watermark = at;
                        out.signal(Signal::Watermark(at))?;
                    }
                }
                // One that comes again says what is known.
                Emitted::Position(_) if self.skip > 0 => {}
                Emitted::Position(position) => {
                    (self.position, self.since, self.skip) = (Some(position), 0, 0);
                }
                Emitted::Idle => out.signal(Signal::Idle)?,
            }
        }
        Ok(records)
    }
}
