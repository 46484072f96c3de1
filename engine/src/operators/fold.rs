//! A running accumulator per key: each record yields what the function makes of it.

use crate::checkpoint::{Key, StateValue, StateVisitor};
use crate::exchange::Keyed;
use crate::fault::Flow;
use crate::operator::Operator;
use crate::stage::Collector;
use crate::state::BackedTable;
use crate::time::Timestamp;

/// Changes a key's accumulator by each record: `(accumulator, key, record) -> emitted`.
pub struct Fold<K, A, F> {
    initial: A,
    fold: F,
    values: BackedTable<K, A>,
}

impl<K, A: Clone, F: Clone> Clone for Fold<K, A, F> {
    fn clone(&self) -> Self {
        Fold {
            initial: self.initial.clone(),
            fold: self.fold.clone(),
            values: BackedTable::default(),
        }
    }
}

impl<K, A, F> Fold<K, A, F> {
    /// With the accumulator of a new key and the user's function.
    pub fn new(initial: A, fold: F) -> Self {
        Fold {
            initial,
            fold,
            values: BackedTable::default(),
        }
    }
}

impl<K, T, A, U, F> Operator<Keyed<K, T>> for Fold<K, A, F>
where
    K: Key,
    T: 'static,
    A: StateValue + Clone,
    U: 'static,
    F: FnMut(&mut A, &K, T) -> U + 'static,
{
    type Out = U;

    #[inline(always)]
    fn process<C: Collector<U>>(
        &mut self,
        at: Timestamp,
        record: Keyed<K, T>,
        out: &mut C,
    ) -> Flow {
        let Keyed { hash, key, value } = record;
        if let Some(accumulator) = self.values.get_mut(hash, &key)? {
            return out.collect(at, (self.fold)(accumulator, &key, value));
        }
        // Folded before it is stored: to read it back from a table that has just missed every cache is to wait for
        // its memory.
        let mut accumulator = self.initial.clone();
        let emitted = (self.fold)(&mut accumulator, &key, value);
        self.values.insert_new(hash, key, accumulator)?;
        out.collect(at, emitted)
    }

    fn state(&mut self, state: &mut StateVisitor<'_>) -> Flow {
        state.keyed("values", &mut self.values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::side::SideOutput;
    use crate::testing::OperatorHarness;
    use crate::testing::cut::{Case, Numbered, cuts, script};
    use proptest::prelude::*;

    #[test]
    fn counts_per_key() {
        let count = Fold::new(0u64, |n: &mut u64, key: &u64, _| {
            *n += 1;
            (*key, *n)
        });
        let mut harness = OperatorHarness::keyed(count, |x: &u64| x % 2);
        for x in [1, 2, 3] {
            harness.push(0, x).expect("folds");
        }
        assert_eq!(harness.values(), [(1, 1), (0, 1), (1, 2)]);
    }

    proptest! {
        #[test]
        fn goes_on_from_a_checkpoint_anywhere(script in script(), cuts in cuts()) {
            let tag = SideOutput::<()>::new("late");
            let make = || Fold::new(Vec::new(), |all: &mut Vec<u32>, key: &u8, record: Numbered| {
                all.push(record.1);
                (*key, all.clone())
            });
            Case { make: &make, key: |record: &Numbered| record.0, tag: &tag }.holds(&script, &cuts)?;
        }
    }
}
