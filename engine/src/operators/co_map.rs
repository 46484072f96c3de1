//! A function for each of two connected streams.

use crate::exchange::Either;
use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::Collector;
use crate::time::Timestamp;

/// One record for each record of either stream.
#[derive(Clone, Debug)]
pub struct CoMap<F, G>(F, G);

impl<F, G> CoMap<F, G> {
    /// With the user's functions for the first and the second stream.
    pub fn new(first: F, second: G) -> Self {
        CoMap(first, second)
    }
}

impl<A, B, V, F, G> Operator<Either<A, B>> for CoMap<F, G>
where
    V: 'static,
    F: FnMut(A) -> V + 'static,
    G: FnMut(B) -> V + 'static,
{
    type Out = V;

    #[inline(always)]
    fn process<C: Collector<V>>(
        &mut self,
        at: Timestamp,
        value: Either<A, B>,
        out: &mut C,
    ) -> Flow {
        match value {
            Either::First(value) => out.collect(at, (self.0)(value)),
            Either::Second(value) => out.collect(at, (self.1)(value)),
        }
    }
}

/// Any number of records for each record of either stream.
#[derive(Clone, Debug)]
pub struct CoFlatMap<F, G>(F, G);

impl<F, G> CoFlatMap<F, G> {
    /// With the user's functions for the first and the second stream.
    pub fn new(first: F, second: G) -> Self {
        CoFlatMap(first, second)
    }
}

impl<A, B, V, I, J, F, G> Operator<Either<A, B>> for CoFlatMap<F, G>
where
    V: 'static,
    I: IntoIterator<Item = V>,
    J: IntoIterator<Item = V>,
    F: FnMut(A) -> I + 'static,
    G: FnMut(B) -> J + 'static,
{
    type Out = V;

    #[inline(always)]
    fn process<C: Collector<V>>(
        &mut self,
        at: Timestamp,
        value: Either<A, B>,
        out: &mut C,
    ) -> Flow {
        match value {
            Either::First(value) => (self.0)(value)
                .into_iter()
                .try_for_each(|v| out.collect(at, v)),
            Either::Second(value) => (self.1)(value)
                .into_iter()
                .try_for_each(|v| out.collect(at, v)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::OperatorHarness;

    #[test]
    fn each_stream_has_its_function() {
        let mut map = OperatorHarness::new(CoMap::new(|n: u64| n * 2, |s: &str| s.len() as u64));
        map.push(1, Either::First(21)).expect("maps");
        map.push(2, Either::Second("tide")).expect("maps");
        assert_eq!(map.records(), [(Timestamp(1), 42), (Timestamp(2), 4)]);
        let mut flat = OperatorHarness::new(CoFlatMap::new(|n: u64| 0..n, |s: Option<u64>| s));
        flat.push(1, Either::First(2)).expect("maps");
        flat.push(2, Either::Second(None)).expect("maps");
        flat.push(3, Either::Second(Some(7))).expect("maps");
        assert_eq!(flat.values(), [0, 1, 7]);
    }
}
