//! What stands between an operator and an edge whose records are of another type.

use crate::checkpoint::StateVisitor;
use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::Collector;
use crate::time::Timestamp;

/// Makes the records of an edge of those of an operator, by whose id it goes.
#[derive(Clone, Debug)]
pub struct Adapt<F>(F);

impl<F> Adapt<F> {
    /// By this function.
    pub fn new(wrap: F) -> Self {
        Adapt(wrap)
    }
}

impl<T, U, F> Operator<T> for Adapt<F>
where
    T: 'static,
    U: 'static,
    F: FnMut(T) -> U + 'static,
{
    type Out = U;

    #[inline(always)]
    fn process<C: Collector<U>>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow {
        out.collect(at, (self.0)(value))
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        state.passes_by();
        Ok(())
    }
}
