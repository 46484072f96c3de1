//! A test kit for the authors of jobs: one operator driven by hand, or a whole job and its output.
//!
//! | to test | take |
//! |---|---|
//! | an operator with its state, timers, watermarks and side outputs | [`OperatorHarness`]: no thread, a clock that stands still until it is moved |
//! | a job, or a part of one | [`run`]: real actors in this process; returns what the stream emitted |
//! | that parallelism doesn't change the answer | [`same_at`] |
//! | a job with several outputs, or settings of its own | [`StreamEnv::with_parallelism`] with a [`Collect`] per output |
//!
//! [`OperatorHarness`] and [`run`] check the grammar of the stream on the way: a watermark that goes back
//! or a record behind the last watermark is an error, not a wrong answer later. [`GrammarCheck`] is
//! that check for chains that a test builds itself.

use crate::env::{Result, StreamEnv};
use std::fmt::Debug;
use std::ops::Deref;
use tidegate_actors::runner::JobResult;
use tidegate_connectors::Collect;
use tidegate_engine::api::{DataStream, Upstream};
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::operator::{Operator, Progress};
use tidegate_engine::stage::Collector;
pub use tidegate_engine::testing::{GrammarCheck, OperatorHarness};
use tidegate_engine::time::Timestamp;

/// What a job emitted. It is a slice of `(timestamp, record)`; records of one subtask are in order, those
/// of several are mixed.
#[derive(Clone, Debug)]
pub struct Output<T> {
    records: Vec<(Timestamp, T)>,
    /// The job's numbers: records in and out, late records, time.
    pub result: JobResult,
}

impl<T> Output<T> {
    /// The records without their timestamps.
    pub fn values(self) -> Vec<T> {
        self.records.into_iter().map(|(_, value)| value).collect()
    }

    /// The records in their own order, as no other is certain where several subtasks emit.
    pub fn sorted(self) -> Vec<T>
    where
        T: Ord,
    {
        let mut values = self.values();
        values.sort();
        values
    }
}

impl<T> Deref for Output<T> {
    type Target = [(Timestamp, T)];

    fn deref(&self) -> &Self::Target {
        &self.records
    }
}

/// Runs the job that `define` describes to its end and returns what its stream emitted.
///
/// ```
/// use tidegate::prelude::*;
/// use tidegate::testing;
///
/// # fn main() -> Result<()> {
/// let output = testing::run(2, |env| {
///     env.source("clicks", Values::timestamped([(1_000, "a"), (2_000, "b"), (61_000, "a")]))
///         .watermarks(WatermarkStrategy::monotonous())
///         .key_by(|page| page.to_string())
///         .window(Tumbling::event_time(Duration::from_secs(60)))
///         .count()
///         .map(|w| (w.key, w.window.start.millis(), w.value))
/// })?;
/// assert_eq!(output.result.late(), 0);
/// let of = |page: &str, start, count| (page.to_owned(), start, count);
/// assert_eq!(output.sorted(), [of("a", 0, 1), of("a", 60_000, 1), of("b", 0, 1)]);
/// # Ok(())
/// # }
/// ```
///
/// What goes wrong in the job is an error with the operator's name, the cause, and the record's origin:
///
/// ```
/// use tidegate::prelude::*;
/// use tidegate::testing;
///
/// let error = testing::run(1, |env| env.source("numbers", Values::new([3, 0])).map(|n| 12 / n));
/// let error = error.err().map(|e| e.to_string()).unwrap_or_default();
/// assert!(error.contains("'map'") && error.contains("divide by zero"), "{error}");
/// ```
pub fn run<T, U>(
    parallelism: u32,
    define: impl FnOnce(&StreamEnv) -> DataStream<T, U>,
) -> Result<Output<T>>
where
    T: Send + 'static,
    U: Upstream<Out = T>,
{
    let env = StreamEnv::with_parallelism(parallelism);
    let collect = Collect::new();
    define(&env)
        .operate("grammar", Grammar::default())
        .sink("output", collect.clone());
    let result = env.execute("test")?;
    let records = collect.take();
    Ok(Output { records, result })
}

/// Runs the job once at each parallelism and returns its sorted output.
///
/// ```
/// use tidegate::prelude::*;
/// use tidegate::testing;
///
/// # fn main() -> Result<()> {
/// let sums = testing::same_at([1, 2, 7], |env| {
///     env.source("numbers", Generator::new(1_000, |n| n))
///         .window_all(Tumbling::event_time(Duration::from_secs(1)))
///         .reduce(|a, b| a + b)
///         .map(|w| w.value)
/// });
/// assert!(sums.is_err(), "these records have no event time: {sums:?}");
///
/// let squares = testing::same_at([1, 2, 7], |env| {
///     env.source("numbers", Generator::new(5, |n| n)).map(|n| n * n)
/// })?;
/// assert_eq!(squares, [0, 1, 4, 9, 16]);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
///
/// If the output differs; the message names the two parallelisms and shows what each has and the other
/// has not.
pub fn same_at<T, U>(
    parallelisms: impl IntoIterator<Item = u32>,
    define: impl Fn(&StreamEnv) -> DataStream<T, U>,
) -> Result<Vec<T>>
where
    T: Ord + Debug + Send + 'static,
    U: Upstream<Out = T>,
{
    let mut first: Option<(u32, Vec<T>)> = None;
    for parallelism in parallelisms {
        let values = run(parallelism, &define)?.sorted();
        match &first {
            None => first = Some((parallelism, values)),
            Some((other, expected)) => {
                let (missing, extra) = difference(expected, &values);
                assert!(
                    missing.is_empty() && extra.is_empty(),
                    "parallelism {parallelism} lacks {missing:?} of parallelism {other}, and has {extra:?} beyond it"
                );
            }
        }
    }
    Ok(first.map(|(_, values)| values).unwrap_or_default())
}

/// What only `left` has and what only `right` has, of two sorted slices.
fn difference<'a, T: Ord>(left: &'a [T], right: &'a [T]) -> (Vec<&'a T>, Vec<&'a T>) {
    let (mut only_left, mut only_right) = (Vec::new(), Vec::new());
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    while let (Some(l), Some(r)) = (left.peek(), right.peek()) {
        if l <= r {
            if l == r {
                right.next();
            } else {
                only_left.push(*l);
            }
            left.next();
        } else {
            only_right.push(*r);
            right.next();
        }
    }
    only_left.extend(left);
    only_right.extend(right);
    (only_left, only_right)
}

/// Passes everything on, and fails at the first breach of the stream's grammar.
#[derive(Clone)]
struct Grammar {
    watermark: Timestamp,
}

impl Default for Grammar {
    fn default() -> Self {
        Grammar {
            watermark: Timestamp::MIN,
        }
    }
}

impl<T: 'static> Operator<T> for Grammar {
    type Out = T;

    fn process<C: Collector<T>>(&mut self, at: Timestamp, value: T, out: &mut C) -> Flow {
        if self.watermark == Timestamp::MAX {
            return Err(Fault::user("a record behind the last watermark"));
        }
        out.collect(at, value)
    }

    fn watermark<C: Collector<T>>(&mut self, at: Timestamp, _out: &mut C) -> Flow<Progress> {
        if at < self.watermark {
            return Err(Fault::user(format_args!(
                "the watermark went back from {} to {at}",
                self.watermark
            )));
        }
        self.watermark = at;
        Ok(Progress::Forward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;

    /// Passes each record on and says that event time has come to the record's value.
    #[derive(Clone)]
    struct TimeIsValue;

    impl Operator<i64> for TimeIsValue {
        type Out = i64;

        fn process<C: Collector<i64>>(&mut self, at: Timestamp, value: i64, out: &mut C) -> Flow {
            out.collect(at, value)?;
            out.signal(Signal::Watermark(Timestamp(value)))
        }
    }

    fn breach(times: [i64; 3]) -> String {
        let output = run(1, |env| {
            env.source("times", Values::new(times))
                .operate("clock", TimeIsValue)
        });
        output.map_or_else(|error| error.to_string(), |_| String::new())
    }

    #[test]
    fn a_breach_of_the_grammar_fails_the_job() {
        assert_eq!(breach([1, 2, 2]), "");
        let error = breach([1, 3, 2]);
        assert!(error.contains("the watermark went back"), "{error}");
        let error = breach([1, i64::MAX, 2]);
        assert!(error.contains("behind the last watermark"), "{error}");
    }

    #[test]
    fn records_keep_their_timestamps() {
        let output = run(1, |env| {
            env.source("times", Values::timestamped([(5, 'a'), (3, 'b')]))
        });
        let output = output.expect("the job runs");
        assert_eq!(output[..], [(Timestamp(5), 'a'), (Timestamp(3), 'b')]);
        assert_eq!(output.result.records_out("output"), 2);
        assert_eq!(output.values(), ['a', 'b']);
    }

    #[test]
    #[should_panic(expected = "parallelism 2 lacks [1] of parallelism 1, and has [4, 5] beyond it")]
    fn answers_that_depend_on_the_parallelism_are_shown() {
        let _ = same_at([1, 2], |env| {
            let values = match env.settings().parallelism {
                1 => vec![1, 2, 3],
                _ => vec![2, 3, 4, 5],
            };
            env.source("values", Values::new(values))
        });
    }

    #[test]
    fn the_difference_counts_copies() {
        let (left, right) = difference(&[1, 1, 2], &[1, 2, 2, 3]);
        assert_eq!((left, right), (vec![&1], vec![&2, &3]));
    }
}
