//! At most one record for each record.

use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::Collector;
use crate::time::Timestamp;

/// At most one record for each record.
#[derive(Clone, Debug)]
pub struct FilterMap<F>(F);

impl<F> FilterMap<F> {
    /// With the user's function.
    pub fn new(function: F) -> Self {
        FilterMap(function)
    }
}

impl<T, U, F> Operator<T> for FilterMap<F>
where
    T: 'static,
    U: 'static,
    F: FnMut(T) -> Option<U> + 'static,
{
    type Out = U;

    #[inline(always)]
    fn process<C: Collector<U>>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow {
        match (self.0)(value) {
            Some(mapped) => out.collect(at, mapped),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::OperatorHarness;

    #[test]
    fn keeps_what_maps_to_some() {
        let mut harness =
            OperatorHarness::new(FilterMap::new(|x: u64| (x > 1).then(|| x.to_string())));
        for x in 0..4 {
            harness.push(0, x).expect("maps");
        }
        assert_eq!(harness.values(), ["2", "3"]);
    }
}
