//! Records made from their number: for tests, benchmarks and first steps.

use crate::lanes::Lanes;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::{Poll, Source, SourceReader};
use tidegate_engine::stage::Collector;
use tidegate_engine::time::Timestamp;

/// How many consecutive numbers a subtask takes at a time.
const STRIPE: u64 = 1024;

/// Makes record *n* of 0.. by a function of *n*; the subtasks share the numbers in stripes. After a
/// recovery it goes on behind the numbers that the checkpoint covers, with any parallelism.
///
/// ```
/// use tidegate_connectors::Generator;
/// let thousand = Generator::new(1_000, |n| n * n);
/// ```
pub struct Generator<F> {
    make: Arc<F>,
    count: u64,
    per_second: Option<f64>,
}

impl<T, F: Fn(u64) -> T + Send + Sync + 'static> Generator<F> {
    /// Records `make(0)` to `make(count - 1)`.
    pub fn new(count: u64, make: F) -> Self {
        Generator {
            make: Arc::new(make),
            count,
            per_second: None,
        }
    }

    /// Records without end.
    pub fn unbounded(make: F) -> Self {
        Generator::new(u64::MAX, make)
    }

    /// At most so many records per second, over all subtasks together: record *n* is emitted no
    /// earlier than *n* / rate after the start; after a recovery, the rate holds from where it goes on.
    pub fn per_second(mut self, rate: f64) -> Self {
        self.per_second = Some(rate);
        self
    }
}

impl<T: 'static, F: Fn(u64) -> T + Send + Sync + 'static> Source for Generator<F> {
    type Item = T;
    type Reader = GeneratorReader<F>;

    fn check(&self) -> Flow {
        match self.per_second {
            Some(rate) if !(rate > 0.0 && rate.is_finite()) => Err(Fault::user(format_args!(
                "a generator can't emit {rate} records per second; give it a rate above 0"
            ))),
            _ => Ok(()),
        }
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<GeneratorReader<F>> {
        let lanes = Lanes::open(context, STRIPE, self.count)?;
        Ok(GeneratorReader {
            make: self.make.clone(),
            next: lanes.next().unwrap_or(self.count),
            lanes,
            pace: self.per_second.map(|rate| (rate, Instant::now())),
        })
    }

    fn replayable(&self) -> bool {
        true
    }

    fn bounded(&self) -> bool {
        self.count != u64::MAX
    }
}

/// Makes the records of one subtask.
pub struct GeneratorReader<F> {
    make: Arc<F>,
    lanes: Lanes,
    /// The record at hand.
    next: u64,
    pace: Option<(f64, Instant)>,
}

impl<F> GeneratorReader<F> {
    /// How many records are due and how long until the next is.
    fn due(&self, next: u64) -> (u64, Duration) {
        let Some((rate, began)) = self.pace else {
            return (u64::MAX, Duration::ZERO);
        };
        let elapsed = began.elapsed().as_secs_f64();
        let next = next - self.lanes.base();
        let due = ((elapsed * rate) as u64 + 1).saturating_sub(next);
        let wait = next as f64 / rate - elapsed;
        (due, Duration::from_secs_f64(wait.clamp(0.0, 3600.0)))
    }
}

impl<T: 'static, F: Fn(u64) -> T + Send + Sync + 'static> SourceReader for GeneratorReader<F> {
    type Item = T;

    fn poll<C: Collector<T>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        let Some(next) = self.lanes.next() else {
            return Ok(Poll::End);
        };
        let (due, wait) = self.due(next);
        if due == 0 {
            return Ok(Poll::Wait(wait));
        }
        let budget = (budget as u64).min(due);
        let mut left = budget;
        while let Some((begin, end)) = self.lanes.run(left) {
            if begin == end {
                break;
            }
            for n in begin..end {
                self.next = n;
                out.collect(Timestamp::MIN, (self.make)(n))?;
            }
            self.lanes.emitted(end);
            left -= end - begin;
        }
        self.next = self.lanes.next().unwrap_or(self.next + 1);
        Ok(Poll::Read((budget - left) as usize))
    }

    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        self.lanes.save()
    }

    fn positions(&self) -> Vec<String> {
        self.lanes.positions()
    }

    fn position(&self) -> String {
        format!("generated record {}", self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Attempt, Reading, read_in_attempts};

    #[test]
    fn attempts_with_other_parallelism_emit_the_rest() {
        let source = Generator::new(20_000, |n| n);
        let cuts = [(2, 1500, 30), (3, 4000, 0), (1, 100, 2000)];
        let mut got = read_in_attempts(&source, &cuts, 700, 2).unwrap();
        got.sort_unstable();
        assert_eq!(got, (0..20_000).collect::<Vec<_>>());
    }

    #[test]
    fn the_rate_holds_from_where_it_goes_on() {
        let source = Generator::new(1_000_000, |n| n).per_second(0.001);
        let fast = Generator::new(1_000_000, |n| n);
        let mut reading = Reading::begin(&fast, 0, 1, &Attempt::first()).unwrap();
        reading.some(5000, 5000).unwrap();
        let splits = reading.reader.splits().unwrap();
        let attempt = Attempt::after(1, vec![splits]);
        let mut reading = Reading::begin(&source, 0, 1, &attempt).unwrap();
        reading.some(1, 100).unwrap();
        assert_eq!(
            reading.take(),
            [(Timestamp::MIN, 5000)],
            "one is due at once"
        );
        reading.once(100).unwrap();
        assert_eq!(reading.kept(), 0);
    }
}
