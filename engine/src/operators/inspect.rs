//! Shows each record to a function and passes it on.

use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::Collector;
use crate::time::Timestamp;

/// Shows each record to a function and passes it on.
#[derive(Clone, Debug)]
pub struct Inspect<F>(F);

impl<F> Inspect<F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        Inspect(function)
    }
}

impl<T, F> Operator<T> for Inspect<F>
where
    T: 'static,
    F: FnMut(&T) + 'static,
{
    type Out = T;

    #[inline(always)]
    fn process<C: Collector<T>>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow {
        (self.0)(&value);
        out.collect(at, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::OperatorHarness;

    #[test]
    fn sees_what_it_passes_on() {
        let mut harness = OperatorHarness::new(Inspect::new(|x: &u64| assert!(*x < 3)));
        harness.push(0, 2).expect("passes");
        assert_eq!(harness.values(), [2]);
    }
}
