//! Any number of records for each record.

use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::Collector;
use crate::time::Timestamp;

/// Any number of records for each record.
#[derive(Clone, Debug)]
pub struct FlatMap<F>(F);

impl<F> FlatMap<F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        FlatMap(function)
    }
}

impl<T, I, F> Operator<T> for FlatMap<F>
where
    T: 'static,
    I: IntoIterator + 'static,
    I::Item: 'static,
    F: FnMut(T) -> I + 'static,
{
    type Out = I::Item;

    #[inline(always)]
    fn process<C: Collector<I::Item>>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow {
        for mapped in (self.0)(value) {
            out.collect(at, mapped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::OperatorHarness;

    #[test]
    fn emits_all_with_the_timestamp_of_their_origin() {
        let mut harness = OperatorHarness::new(FlatMap::new(|n: u64| (0..n).collect::<Vec<_>>()));
        harness.push(7, 0).expect("maps");
        harness.push(8, 2).expect("maps");
        assert_eq!(harness.records(), [(Timestamp(8), 0), (Timestamp(8), 1)]);
    }
}
