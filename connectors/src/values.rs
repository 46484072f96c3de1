//! A source of values that are at hand: for tests and first steps.

use crate::lanes::Lanes;
use std::sync::Arc;
use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::Flow;
use tidegate_engine::source::{Poll, Source, SourceReader};
use tidegate_engine::stage::Collector;
use tidegate_engine::time::Timestamp;

/// Emits given values in order; several subtasks take them in turn. After a recovery it goes on behind those
/// that the checkpoint covers, with any parallelism; give it as many values as it had.
///
/// ```
/// use tidegate_connectors::Values;
/// let words = Values::new(["to", "be", "or", "not"]);
/// let squares: Values<u64> = (0..10).map(|n| n * n).collect();
/// ```
#[derive(Clone, Debug)]
pub struct Values<T> {
    values: Arc<Vec<(Timestamp, T)>>,
}

impl<T> Values<T> {
    /// Values without event time.
    pub fn new(values: impl IntoIterator<Item = T>) -> Self {
        values.into_iter().collect()
    }

    /// Values with their event time.
    pub fn timestamped<A: Into<Timestamp>>(values: impl IntoIterator<Item = (A, T)>) -> Self {
        let values = values
            .into_iter()
            .map(|(at, value)| (at.into(), value))
            .collect();
        Values {
            values: Arc::new(values),
        }
    }
}

impl<T> FromIterator<T> for Values<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Values::timestamped(values.into_iter().map(|value| (Timestamp::MIN, value)))
    }
}

impl<T: Clone + Send + Sync + 'static> Source for Values<T> {
    type Item = T;
    type Reader = ValuesReader<T>;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<ValuesReader<T>> {
        let count = self.values.len() as u64;
        Ok(ValuesReader {
            values: self.values.clone(),
            lanes: Lanes::open(context, 1, count)?,
            next: 0,
        })
    }

    fn replayable(&self) -> bool {
        true
    }
}

/// Emits the values of one subtask.
pub struct ValuesReader<T> {
    values: Arc<Vec<(Timestamp, T)>>,
    lanes: Lanes,
    /// The value behind the one that was emitted last.
    next: u64,
}

impl<T: Clone + Send + Sync + 'static> SourceReader for ValuesReader<T> {
    type Item = T;

    fn poll<C: Collector<T>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        let mut emitted = 0;
        while emitted < budget {
            let Some((begin, end)) = self.lanes.run((budget - emitted) as u64) else {
                break;
            };
            for (at, value) in &self.values[begin as usize..end as usize] {
                out.collect(*at, value.clone())?;
            }
            self.lanes.emitted(end);
            self.next = end;
            emitted += (end - begin) as usize;
        }
        Ok(if emitted == 0 {
            Poll::End
        } else {
            Poll::Read(emitted)
        })
    }

    fn position(&self) -> String {
        format!("value {}", self.next)
    }

    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        self.lanes.save()
    }

    fn positions(&self) -> Vec<String> {
        self.lanes.positions()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Reading, read_all, read_in_attempts};

    #[test]
    fn subtasks_take_turns() {
        let source = Values::new(0..7);
        assert_eq!(read_all(&source, 1).values, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(read_all(&source, 3).values, [0, 3, 6, 1, 4, 2, 5]);
        assert!(read_all(&Values::<u8>::new([]), 2).values.is_empty());
    }

    #[test]
    fn attempts_with_other_parallelism_emit_the_rest() {
        let source = Values::new(0..50);
        let cuts = [(2, 7, 3), (3, 4, 0), (1, 5, 5)];
        let mut got = read_in_attempts(&source, &cuts, 3, 2).unwrap();
        got.sort_unstable();
        assert_eq!(got, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn they_may_have_timestamps() {
        let mut reading = Reading::open(&Values::timestamped([(7, 'a'), (9, 'b')]), 0, 1).unwrap();
        reading.until(|_| false).unwrap();
        assert_eq!(reading.take(), [(Timestamp(7), 'a'), (Timestamp(9), 'b')]);
    }
}
