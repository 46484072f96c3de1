//! What a user's function emits, on its way into the stream: records and watermarks in order.

use std::collections::VecDeque;
use tidegate_engine::fault::Flow;
use tidegate_engine::stage::{Collector, Signal};
use tidegate_engine::time::Timestamp;

/// One thing that was emitted.
#[derive(Debug)]
pub(crate) enum Emitted<T> {
    Record(Timestamp, T),
    Watermark(Timestamp),
    Idle,
}

/// Passes on what was emitted, within the stream's grammar: a watermark that goes back is dropped, and
/// the last one of all is the end's to say.
#[derive(Debug)]
pub(crate) struct Emitter<T> {
    pub(crate) queue: VecDeque<Emitted<T>>,
    watermark: Timestamp,
}

impl<T> Default for Emitter<T> {
    fn default() -> Self {
        Emitter {
            queue: VecDeque::new(),
            watermark: Timestamp::MIN,
        }
    }
}

impl<T> Emitter<T> {
    /// Passes on at most `budget` records, and the signals behind them.
    pub(crate) fn emit<C: Collector<T>>(&mut self, budget: usize, out: &mut C) -> Flow<usize> {
        let mut records = 0;
        while let Some(emitted) = self.queue.pop_front() {
            match emitted {
                Emitted::Record(at, value) if records < budget => {
                    records += 1;
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
                Emitted::Idle => out.signal(Signal::Idle)?,
            }
        }
        Ok(records)
    }
}
