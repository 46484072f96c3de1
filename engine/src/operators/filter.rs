//! Those records for which a function says yes.

use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::Collector;
use crate::time::Timestamp;

/// Those records for which a function says yes.
#[derive(Clone, Debug)]
pub struct Filter<F>(F);

impl<F> Filter<F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        Filter(function)
    }
}

impl<T, F> Operator<T> for Filter<F>
where
    T: 'static,
    F: FnMut(&T) -> bool + 'static,
{
    type Out = T;

    #[inline(always)]
    fn process<C: Collector<T>>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow {
        if (self.0)(&value) {
            out.collect(at, value)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::OperatorHarness;

    #[test]
    fn drops_what_does_not_match() {
        let mut harness = OperatorHarness::new(Filter::new(|x: &u64| x.is_multiple_of(2)));
        for x in 0..4 {
            harness.push(0, x).expect("filters");
        }
        assert_eq!(harness.values(), [0, 2]);
    }
}
