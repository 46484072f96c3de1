//! A sink that counts and forgets: what remains is the cost of everything before it.

use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::Flow;
use tidegate_engine::sink::{Sink, SinkWriter};
use tidegate_engine::time::Timestamp;

/// Forgets every record.
#[derive(Clone, Copy, Debug, Default)]
pub struct BlackHole;

impl<T: 'static> Sink<T> for BlackHole {
    type Writer = BlackHole;

    fn open(&self, _context: &mut OpenContext<'_>) -> Flow<BlackHole> {
        Ok(BlackHole)
    }
}

impl<T: 'static> SinkWriter<T> for BlackHole {
    #[inline(always)]
    fn write(&mut self, _at: Timestamp, value: T) -> Flow {
        std::hint::black_box(&value);
        Ok(())
    }
}
