//! Records made from their number: for tests, benchmarks and first steps.

use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_engine::build::OpenContext;
use tidegate_engine::fault::{Fault, Flow};
use tidegate_engine::source::{Poll, Source, SourceReader};
use tidegate_engine::stage::Collector;
use tidegate_engine::time::Timestamp;

/// How many consecutive numbers a subtask takes at a time.
const STRIPE: u64 = 1024;

/// Makes record *n* of 0.. by a function of *n*; the subtasks share the numbers in stripes.
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
    /// earlier than *n* / rate after the start.
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
        let (me, of) = (
            u64::from(context.subtask()),
            u64::from(context.parallelism()),
        );
        Ok(GeneratorReader {
            make: self.make.clone(),
            next: me.saturating_mul(STRIPE),
            stripe_end: (me + 1).saturating_mul(STRIPE).min(self.count),
            jump: (of - 1).saturating_mul(STRIPE),
            count: self.count,
            pace: self.per_second.map(|rate| (rate, Instant::now())),
        })
    }

    fn bounded(&self) -> bool {
        self.count != u64::MAX
    }
}

/// Makes the records of one subtask.
pub struct GeneratorReader<F> {
    make: Arc<F>,
    next: u64,
    stripe_end: u64,
    jump: u64,
    count: u64,
    pace: Option<(f64, Instant)>,
}

impl<F> GeneratorReader<F> {
    /// How many records are due and how long until the next is.
    fn due(&self) -> (u64, Duration) {
        let Some((rate, began)) = self.pace else {
            return (u64::MAX, Duration::ZERO);
        };
        let elapsed = began.elapsed().as_secs_f64();
        let due = ((elapsed * rate) as u64 + 1).saturating_sub(self.next);
        let wait = self.next as f64 / rate - elapsed;
        (due, Duration::from_secs_f64(wait.clamp(0.0, 3600.0)))
    }
}

impl<T: 'static, F: Fn(u64) -> T + Send + Sync + 'static> SourceReader for GeneratorReader<F> {
    type Item = T;

    fn poll<C: Collector<T>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        if self.next >= self.count {
            return Ok(Poll::End);
        }
        let (due, wait) = self.due();
        if due == 0 {
            return Ok(Poll::Wait(wait));
        }
        let budget = (budget as u64).min(due);
        let mut left = budget;
        while left > 0 && self.next < self.count {
            let begin = self.next;
            let end = self.stripe_end.min(begin.saturating_add(left));
            for n in begin..end {
                self.next = n;
                out.collect(Timestamp::MIN, (self.make)(n))?;
            }
            self.next = end;
            left -= end - begin;
            if end == self.stripe_end {
                self.next = end.saturating_add(self.jump);
                self.stripe_end = self.next.saturating_add(STRIPE).min(self.count);
            }
        }
        Ok(Poll::Read((budget - left) as usize))
    }

    fn position(&self) -> String {
        format!("generated record {}", self.next)
    }
}
