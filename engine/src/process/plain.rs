//! The function of a stream without keys.

use super::RecordContext;
use crate::build::OpenContext;
use crate::fault::Flow;
use crate::stage::Collector;

/// Handles each record of a stream, knowing its time; may put records to side outputs.
pub trait ProcessFunction<In>: Clone + Send + 'static {
    /// What it emits.
    type Out: 'static;
    /// What it has at hand at work, such as side outputs.
    type State: 'static;

    /// Makes what it needs, once in each subtask.
    fn open(&mut self, context: &mut OpenContext<'_>) -> Flow<Self::State>;

    /// Takes a record.
    fn process<C: Collector<Self::Out>>(
        &mut self,
        state: &mut Self::State,
        cx: &RecordContext<'_>,
        value: In,
        out: &mut C,
    ) -> Flow;
}
