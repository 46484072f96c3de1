//! Checks that what passes keeps the grammar of a stream.

use crate::fault::{Fault, Flow};
use crate::stage::{Collector, Signal, Stage, Turn};
use crate::time::Timestamp;

/// A stage that passes everything on and fails on the first breach of the grammar that
/// [`crate::stage`] writes down.
pub struct GrammarCheck<D> {
    watermark: Timestamp,
    ended: bool,
    down: D,
}

impl<D> GrammarCheck<D> {
    /// Checks what goes to `down`.
    pub fn new(down: D) -> Self {
        GrammarCheck {
            watermark: Timestamp::MIN,
            ended: false,
            down,
        }
    }
}

impl<T, D: Collector<T> + Stage> Collector<T> for GrammarCheck<D> {
    fn collect(&mut self, at: Timestamp, value: T) -> Flow {
        if self.ended {
            return Err(Fault::internal("a record behind the end of input"));
        }
        if self.watermark == Timestamp::MAX {
            return Err(Fault::internal("a record behind the last watermark"));
        }
        self.down.collect(at, value)
    }

    fn has_room(&self) -> bool {
        self.down.has_room()
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        Stage::signal(self, signal)
    }
}

impl<D: Stage> Stage for GrammarCheck<D> {
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Stage) -> Flow) -> Flow {
        visit(&mut self.down)
    }

    fn each_ref(&self, visit: &mut dyn FnMut(&dyn Stage)) {
        visit(&self.down);
    }

    fn signal(&mut self, signal: Signal) -> Flow {
        // Behind the end of input, a barrier only asks for what is left.
        if self.ended && !matches!(signal, Signal::Barrier(_)) {
            return Err(Fault::internal(format_args!(
                "{signal:?} behind the end of input"
            )));
        }
        match signal {
            Signal::Watermark(at) if at < self.watermark => {
                return Err(Fault::internal(format_args!(
                    "the watermark went back from {} to {at}",
                    self.watermark
                )));
            }
            Signal::Watermark(at) => self.watermark = at,
            Signal::Idle | Signal::Barrier(_) => {}
            Signal::EndOfInput if self.watermark != Timestamp::MAX => {
                return Err(Fault::internal("the input ended before its last watermark"));
            }
            Signal::EndOfInput => self.ended = true,
        }
        Stage::signal(&mut self.down, signal)
    }

    fn turn(&mut self, turn: &mut Turn<'_>) -> Flow {
        self.down.turn(turn)
    }
}
