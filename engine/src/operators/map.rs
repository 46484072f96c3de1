//! One record for each record.

use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::Collector;
use crate::time::Timestamp;

/// One record for each record.
#[derive(Clone, Debug)]
pub struct Map<F>(F);

impl<F> Map<F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        Map(function)
    }
}

impl<T, U, F> Operator<T> for Map<F>
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::OperatorHarness;

    #[test]
    fn keeps_the_timestamp() {
        let mut harness = OperatorHarness::new(Map::new(|x: u64| x + 1));
        harness.push(5, 1).expect("maps");
        assert_eq!(harness.records(), [(Timestamp(5), 2)]);
    }
}
