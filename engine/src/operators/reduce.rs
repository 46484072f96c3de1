//! A running combination of all records of a key: each record yields the newest value.

use crate::checkpoint::{Key, StateValue, StateVisitor};
use crate::exchange::Keyed;
use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::Collector;
use crate::state::BackedTable;
use crate::time::Timestamp;

/// Combines each record with the value so far by a function `(so far, record) -> value`.
pub struct Reduce<K, T, F> {
    combine: F,
    values: BackedTable<K, T>,
}

impl<K, T, F: Clone> Clone for Reduce<K, T, F> {
    fn clone(&self) -> Self {
        Reduce {
            combine: self.combine.clone(),
            values: BackedTable::default(),
        }
    }
}

impl<K, T, F> Reduce<K, T, F> {
    /// With the user's function.
    pub fn new(combine: F) -> Self {
        Reduce {
            combine,
            values: BackedTable::default(),
        }
    }
}

impl<K, T, F> Operator<Keyed<K, T>> for Reduce<K, T, F>
where
    K: Key,
    T: StateValue + Clone,
    F: FnMut(&T, T) -> T + 'static,
{
    type Out = T;

    #[inline(always)]
    fn process<C: Collector<T>>(
        &mut self,
        at: Timestamp,
        record: Keyed<K, T>,
        out: &mut C,
    ) -> Flow {
        let Keyed { hash, key, value } = record;
        let combined = match self.values.get_mut(hash, &key)? {
            Some(so_far) => {
                *so_far = (self.combine)(so_far, value);
                so_far.clone()
            }
            None => {
                self.values.insert_new(hash, key, value.clone())?;
                value
            }
        };
        out.collect(at, combined)
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        state.keyed("values", &mut self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::OperatorHarness;

    #[test]
    fn combines_per_key() {
        let mut harness = OperatorHarness::keyed(Reduce::new(|a: &u64, b| a + b), |x: &u64| x % 2);
        for x in 1..=4 {
            harness.push(0, x).expect("reduces");
        }
        assert_eq!(harness.values(), [1, 2, 4, 6]);
    }
}
