//! A source that is a function: called again and again, it emits records and watermarks.

use crate::emitted::{Begin, Emitted, Emitter, position_of};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::time::Duration;
use tidegate_engine::build::{OpenContext, Prototype};
use tidegate_engine::checkpoint::codec;
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::Flow;
use tidegate_engine::source::{Poll, Source, SourceReader};
use tidegate_engine::stage::Collector;
use tidegate_engine::time::Timestamp;

/// What a source function says when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceStatus {
    /// Call it again at once.
    More,
    /// Nothing now: call it again after this long.
    Idle(Duration),
    /// The input is complete.
    Done,
}

/// What a source function emits with.
pub struct SourceContext<T> {
    emitter: Emitter<T>,
    clock: Clock,
    subtask: u32,
    parallelism: u32,
    budget: usize,
    emitted: u64,
    restored: Option<Vec<u8>>,
}

impl<T> SourceContext<T> {
    /// Emits a record without event time; a watermark strategy behind the source can give it one.
    pub fn collect(&mut self, record: T) {
        self.collect_with_timestamp(record, Timestamp::MIN);
    }

    /// Emits a record with its event time.
    pub fn collect_with_timestamp(&mut self, record: T, at: impl Into<Timestamp>) {
        self.emitter
            .queue
            .push_back(Emitted::Record(at.into(), record));
        self.budget = self.budget.saturating_sub(1);
        self.emitted += 1;
    }

    /// Says that no record with this or a smaller timestamp follows. One that goes back has no effect.
    pub fn emit_watermark(&mut self, watermark: impl Into<Timestamp>) {
        self.emitter
            .queue
            .push_back(Emitted::Watermark(watermark.into()));
    }

    /// Says that nothing flows here for now: others need not wait for this subtask's watermark.
    pub fn mark_idle(&mut self) {
        self.emitter.queue.push_back(Emitted::Idle);
    }

    /// Says that the function can go on from here: of a source that is replayable, a later attempt finds
    /// this in [`SourceContext::restored_position`].
    pub fn set_position<P: Serialize>(&mut self, position: &P) -> Flow {
        let position = codec::encode(position)?;
        self.emitter.queue.push_back(Emitted::Position(position));
        Ok(())
    }

    /// The position that was set last before the checkpoint which this attempt goes on from. `None` in the
    /// beginning, and where none was set.
    pub fn restored_position<P: DeserializeOwned>(&self) -> Flow<Option<P>> {
        position_of(self.restored.as_ref())
    }

    /// The present, by the job's clock.
    pub fn processing_time(&self) -> Timestamp {
        self.clock.now()
    }

    /// The subtask's number, from 0.
    pub fn subtask(&self) -> u32 {
        self.subtask
    }

    /// How many subtasks there are.
    pub fn parallelism(&self) -> u32 {
        self.parallelism
    }

    /// How many records more are welcome in this call. What is emitted beyond waits in memory.
    pub fn budget(&self) -> usize {
        self.budget
    }
}

/// A source that calls a function for its records. Each subtask calls a clone of its own.
///
/// The function must not block; where it would, it returns [`SourceStatus::Idle`]. For code that waits,
/// see [`crate::AsyncSource`].
///
/// ```
/// use tidegate_connectors::{FunctionSource, SourceContext, SourceStatus};
///
/// let mut n = 0;
/// let source = FunctionSource::new(move |ctx: &mut SourceContext<u64>| {
///     n += 1;
///     ctx.collect_with_timestamp(n, n as i64 * 1000);
///     ctx.emit_watermark(n as i64 * 1000);
///     Ok(if n == 100 { SourceStatus::Done } else { SourceStatus::More })
/// });
/// ```
pub struct FunctionSource<T, F> {
    function: Prototype<F>,
    bounded: bool,
    replayable: bool,
    item: PhantomData<fn() -> T>,
}

impl<T, F> FunctionSource<T, F>
where
    T: 'static,
    F: FnMut(&mut SourceContext<T>) -> Flow<SourceStatus> + Clone + Send + 'static,
{
    /// Calls `function` until it is done.
    pub fn new(function: F) -> Self {
        FunctionSource {
            function: Prototype::new(function),
            bounded: true,
            replayable: false,
            item: PhantomData,
        }
    }

    /// Says that the function is never done.
    pub fn unbounded(mut self) -> Self {
        self.bounded = false;
        self
    }

    /// Says that it can go back: called anew, it emits the same records in the same order, from the
    /// position that it set last, or from the beginning if it set none. Those that a checkpoint covers are
    /// then passed over. The parallelism can't change. What is not replayable begins anew after a recovery.
    pub fn replayable(mut self) -> Self {
        self.replayable = true;
        self
    }
}

impl<T, F> Source for FunctionSource<T, F>
where
    T: 'static,
    F: FnMut(&mut SourceContext<T>) -> Flow<SourceStatus> + Clone + Send + 'static,
{
    type Item = T;
    type Reader = FunctionReader<T, F>;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<FunctionReader<T, F>> {
        let begin = Begin::find(context, self.replayable)?;
        let (restored, done) = (begin.position.clone(), begin.done);
        let context = SourceContext {
            restored,
            emitter: Emitter::begin(begin),
            clock: context.clock(),
            subtask: context.subtask(),
            parallelism: context.parallelism(),
            budget: 0,
            emitted: 0,
        };
        Ok(FunctionReader {
            function: self.function.get(),
            context,
            replayable: self.replayable,
            pause: None,
            done,
        })
    }

    fn bounded(&self) -> bool {
        self.bounded
    }

    fn replayable(&self) -> bool {
        self.replayable
    }
}

/// Calls the function for one subtask.
pub struct FunctionReader<T, F> {
    function: F,
    context: SourceContext<T>,
    replayable: bool,
    /// The function asked for a pause, which begins when what it emitted before is passed on.
    pause: Option<Duration>,
    done: bool,
}

impl<T, F> SourceReader for FunctionReader<T, F>
where
    T: 'static,
    F: FnMut(&mut SourceContext<T>) -> Flow<SourceStatus> + 'static,
{
    type Item = T;

    fn poll<C: Collector<T>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        let mut records = self.context.emitter.emit(budget, out)?;
        // A function that emits nothing for long is called no more often than one that does.
        for _ in 0..budget {
            let rests = self.done || self.pause.is_some();
            if rests || records >= budget || !self.context.emitter.queue.is_empty() {
                break;
            }
            self.context.budget = budget - records;
            match (self.function)(&mut self.context)? {
                SourceStatus::More => {}
                SourceStatus::Idle(long) => self.pause = Some(long),
                SourceStatus::Done => self.done = true,
            }
            records += self.context.emitter.emit(budget - records, out)?;
        }
        if records > 0 || !self.context.emitter.queue.is_empty() {
            return Ok(Poll::Read(records));
        }
        Ok(match self.pause.take() {
            Some(long) => Poll::Wait(long),
            None if self.done => Poll::End,
            None => Poll::Read(0),
        })
    }

    fn position(&self) -> String {
        let queue = self.context.emitter.queue.iter();
        let waiting = queue.filter(|e| matches!(e, Emitted::Record(..))).count() as u64;
        format!(
            "record {} of subtask {}",
            self.context.emitted - waiting,
            self.context.subtask
        )
    }

    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        if !self.replayable {
            return Ok(Vec::new());
        }
        let SourceContext {
            emitter,
            subtask,
            parallelism,
            ..
        } = &self.context;
        Ok(vec![emitter.save(*subtask, *parallelism)?])
    }

    fn positions(&self) -> Vec<String> {
        let known = self.replayable.then(|| self.context.emitter.position());
        known.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Attempt, Reading, read_all, read_in_attempts};
    use tidegate_engine::fault::Fault;
    use tidegate_engine::stage::Signal;

    #[test]
    fn records_and_watermarks_come_in_order_and_never_go_back() {
        let mut n = 0i64;
        let source = FunctionSource::new(move |ctx: &mut SourceContext<i64>| {
            n += 1;
            ctx.collect_with_timestamp(n, n * 10);
            ctx.emit_watermark(if n == 3 { 5 } else { n * 10 });
            Ok(if n == 5 {
                SourceStatus::Done
            } else {
                SourceStatus::More
            })
        });
        let mut reading = Reading::open(&source, 0, 1).unwrap();
        assert!(reading.until(|_| false).unwrap());
        let want: Vec<_> = (1..=5).map(|n| (Timestamp(n * 10), n)).collect();
        assert_eq!(reading.take(), want);
        let want = [10, 20, 40, 50].map(|at| Signal::Watermark(Timestamp(at)));
        assert_eq!(reading.signals(), want, "the one that goes back is dropped");
    }

    #[test]
    fn a_watermark_can_not_end_the_stream_before_its_end() {
        let mut calls = 0;
        let source = FunctionSource::new(move |ctx: &mut SourceContext<u32>| {
            calls += 1;
            ctx.emit_watermark(Timestamp::MAX);
            ctx.collect(calls);
            Ok(if calls == 2 {
                SourceStatus::Done
            } else {
                SourceStatus::Idle(Duration::ZERO)
            })
        });
        let got = read_all(&source, 2);
        assert_eq!((got.values, got.fault), (vec![1, 2, 1, 2], None));
    }

    #[test]
    fn what_is_emitted_beyond_the_budget_waits() {
        let source = FunctionSource::new(|ctx: &mut SourceContext<u64>| {
            assert!(ctx.budget() <= 100);
            (0..1000).for_each(|n| ctx.collect(n));
            Ok(SourceStatus::Done)
        });
        let got = read_all(&source, 1);
        assert_eq!(got.values, (0..1000).collect::<Vec<_>>());
        assert_eq!(got.position, "record 1000 of subtask 0");
    }

    /// Emits 0 to 99 in bursts; where `marks` says so, behind a position.
    fn counting(marks: bool) -> impl Source<Item = u64> {
        let mut next = None;
        let function = move |ctx: &mut SourceContext<u64>| {
            let from = match next {
                Some(next) => next,
                None => ctx.restored_position::<u64>()?.unwrap_or(0),
            };
            if marks {
                ctx.set_position(&from)?;
            }
            let end = (from + 7).min(100);
            (from..end).for_each(|n| ctx.collect(n));
            next = Some(end);
            Ok(if end == 100 {
                SourceStatus::Done
            } else {
                SourceStatus::More
            })
        };
        FunctionSource::new(function).replayable()
    }

    #[test]
    fn what_a_checkpoint_covers_does_not_come_again() {
        for marks in [false, true] {
            let cuts = [(1, 10, 4), (1, 3, 20), (1, 0, 1), (1, 25, 0)];
            let got = read_in_attempts(&counting(marks), &cuts, 2, 1).unwrap();
            assert_eq!(got, (0..100).collect::<Vec<_>>(), "{marks}");
            let other = read_in_attempts(&counting(marks), &cuts, 2, 2);
            let fault = other.unwrap_err().to_string();
            assert!(fault.contains("had a parallelism of 1"), "{fault}");
        }
    }

    #[test]
    fn one_that_is_done_stays_so() {
        let source = counting(true);
        let attempt = Attempt::after(1, vec![vec![]]);
        let mut reading = Reading::begin(&source, 0, 1, &attempt).unwrap();
        assert!(reading.until(|_| false).unwrap());
        assert_eq!(reading.kept(), 0);
    }

    #[test]
    fn its_error_is_the_sources() {
        let source = FunctionSource::new(|_: &mut SourceContext<()>| Err(Fault::user("no more")));
        assert_eq!(read_all(&source, 1).fault.unwrap().to_string(), "no more");
    }
}
