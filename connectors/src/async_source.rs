//! A source that is a future: it waits where it has to, and is made to wait where the job is pressed
//! back.

use crate::emitted::{Begin, Emitted, Emitter, position_of};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll as Ready;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tidegate_engine::build::OpenContext;
use tidegate_engine::checkpoint::codec;
use tidegate_engine::clock::Clock;
use tidegate_engine::fault::{Fault, Flow, catch};
use tidegate_engine::source::{Poll, Source, SourceReader, Waker};
use tidegate_engine::stage::Collector;
use tidegate_engine::time::Timestamp;
use tokio::sync::{Notify, oneshot};

/// Records that may wait for the subtask.
const AHEAD: usize = 4096;
/// How long a reader rests that is going to be woken anyway.
const UNTIL_WOKEN: Duration = Duration::from_secs(60);
/// How long the end of a job waits for a future that blocks its thread.
const PATIENCE: Duration = Duration::from_secs(2);

struct Shared<T> {
    state: Mutex<State<T>>,
    room: Notify,
    waker: Waker,
}

struct State<T> {
    waiting: Vec<Emitted<T>>,
    hungry: bool,
    ended: Option<Flow>,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes the subtask if it waits for that.
    fn change<R>(&self, change: impl FnOnce(&mut State<T>) -> R) -> R {
        let (result, hungry) = {
            let mut state = self.lock();
            (change(&mut state), std::mem::take(&mut state.hungry))
        };
        if hungry {
            self.waker.wake();
        }
        result
    }
}

/// What an async source emits with.
pub struct AsyncSourceContext<T> {
    shared: Arc<Shared<T>>,
    clock: Clock,
    subtask: u32,
    parallelism: u32,
    restored: Option<Vec<u8>>,
}

impl<T> AsyncSourceContext<T> {
    /// Emits a record without event time; a watermark strategy behind the source can give it one.
    pub async fn collect(&mut self, record: T) {
        self.emit(Emitted::Record(Timestamp::MIN, record)).await;
    }

    /// Emits a record with its event time. Waits while the job is pressed back.
    pub async fn collect_with_timestamp(&mut self, record: T, at: impl Into<Timestamp>) {
        self.emit(Emitted::Record(at.into(), record)).await;
    }

    /// Says that no record with this or a smaller timestamp follows. One that goes back has no effect.
    pub async fn emit_watermark(&mut self, watermark: impl Into<Timestamp>) {
        self.emit(Emitted::Watermark(watermark.into())).await;
    }

    /// Says that nothing flows here for now: others need not wait for this subtask's watermark.
    pub async fn mark_idle(&mut self) {
        self.emit(Emitted::Idle).await;
    }

    /// Says that the future can go on from here: of a source that is replayable, a later attempt finds this
    /// in [`AsyncSourceContext::restored_position`].
    pub async fn set_position<P: Serialize>(&mut self, position: &P) -> Flow {
        let position = codec::encode(position)?;
        self.emit(Emitted::Position(position)).await;
        Ok(())
    }

    /// The position that was set last before the checkpoint which this attempt goes on from. `None` in the
    /// beginning, and where none was set.
    pub fn restored_position<P: DeserializeOwned>(&self) -> Flow<Option<P>> {
        position_of(self.restored.as_ref())
    }

    async fn emit(&mut self, emitted: Emitted<T>) {
        while self.shared.lock().waiting.len() >= AHEAD {
            self.shared.room.notified().await;
        }
        self.shared.change(|state| state.waiting.push(emitted));
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
}

/// A source that runs a future for its records, one per subtask, on a thread of its own with tokio's
/// timers. It is complete when the future is. An error or a panic ends the job with its message.
///
/// ```
/// use std::time::Duration;
/// use tidegate_connectors::{AsyncSource, AsyncSourceContext};
///
/// let ticks = AsyncSource::new(|mut ctx: AsyncSourceContext<u64>| async move {
///     for n in 0..10 {
///         tokio::time::sleep(Duration::from_millis(5)).await;
///         let now = ctx.processing_time();
///         ctx.collect_with_timestamp(n, now).await;
///     }
///     Ok::<(), std::io::Error>(())
/// });
/// ```
pub struct AsyncSource<T, F> {
    function: Arc<F>,
    bounded: bool,
    replayable: bool,
    item: PhantomData<fn() -> T>,
}

impl<T, E, F, Fut> AsyncSource<T, F>
where
    T: Send + 'static,
    E: Display,
    F: Fn(AsyncSourceContext<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>>,
{
    /// Runs the future that `function` makes.
    pub fn new(function: F) -> Self {
        AsyncSource {
            function: Arc::new(function),
            bounded: true,
            replayable: false,
            item: PhantomData,
        }
    }

    /// Says that the future is never done.
    pub fn unbounded(mut self) -> Self {
        self.bounded = false;
        self
    }

    /// Says that it can go back: made anew, it emits the same records in the same order, from the
    /// position that it set last, or from the beginning if it set none. Those that a checkpoint covers are
    /// then passed over. The parallelism can't change. What is not replayable begins anew after a recovery.
    pub fn replayable(mut self) -> Self {
        self.replayable = true;
        self
    }
}

impl<T, E, F, Fut> Source for AsyncSource<T, F>
where
    T: Send + 'static,
    E: Display,
    F: Fn(AsyncSourceContext<T>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>>,
{
    type Item = T;
    type Reader = AsyncReader<T>;

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<AsyncReader<T>> {
        let begin = Begin::find(context, self.replayable)?;
        let (restored, done) = (begin.position.clone(), begin.done);
        let state = State {
            waiting: Vec::new(),
            hungry: false,
            ended: done.then_some(Ok(())),
        };
        let (room, waker) = (Notify::new(), context.waker());
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            room,
            waker,
        });
        let (subtask, parallelism) = (context.subtask(), context.parallelism());
        let clock = context.clock();
        let given = AsyncSourceContext {
            shared: shared.clone(),
            clock,
            subtask,
            parallelism,
            restored,
        };
        let (stop, stopped) = oneshot::channel();
        let (ending, ended) = bounded::<()>(0);
        let (function, told) = (self.function.clone(), shared.clone());
        let spawned = thread::Builder::new()
            .name("tidegate-async".into())
            .spawn(move || {
                if done {
                    return;
                }
                let result = catch(|| run(|| function(given), stopped));
                told.change(|state| {
                    state.ended = Some(result);
                    state.hungry = true;
                });
                drop(ending);
            });
        let thread = spawned.map_err(|error| {
            Fault::external(format_args!(
                "can't start a thread for an async source: {error}"
            ))
        })?;
        let (stop, thread) = (Some(stop), Some(thread));
        Ok(AsyncReader {
            shared,
            stop,
            thread,
            ended,
            emitter: Emitter::begin(begin),
            emitted: 0,
            subtask,
            parallelism,
            replayable: self.replayable,
        })
    }

    fn bounded(&self) -> bool {
        self.bounded
    }

    fn replayable(&self) -> bool {
        self.replayable
    }
}

/// Runs the future until it is done or the subtask is gone.
fn run<E: Display, Fut: Future<Output = Result<(), E>>>(
    make: impl FnOnce() -> Fut,
    mut stopped: oneshot::Receiver<()>,
) -> Flow {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        Fault::external(format_args!(
            "can't start the runtime of an async source: {error}"
        ))
    })?;
    let future = async {
        let mut future = pin!(make());
        poll_fn(|cx| match pin!(&mut stopped).poll(cx) {
            Ready::Ready(_) => Ready::Ready(Ok(())),
            Ready::Pending => future.as_mut().poll(cx),
        })
        .await
    };
    runtime.block_on(future).map_err(Fault::user)
}

/// Takes over what the future of one subtask emits.
pub struct AsyncReader<T> {
    shared: Arc<Shared<T>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    ended: Receiver<()>,
    emitter: Emitter<T>,
    emitted: u64,
    subtask: u32,
    parallelism: u32,
    replayable: bool,
}

impl<T: Send + 'static> SourceReader for AsyncReader<T> {
    type Item = T;

    fn poll<C: Collector<T>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        if self.emitter.queue.is_empty() {
            let mut state = self.shared.lock();
            if state.waiting.is_empty() {
                if let Some(ended) = state.ended.clone() {
                    return ended.map(|()| Poll::End);
                }
                state.hungry = true;
                return Ok(Poll::Wait(UNTIL_WOKEN));
            }
            self.emitter.queue.extend(state.waiting.drain(..));
            drop(state);
            self.shared.room.notify_one();
        }
        let records = self.emitter.emit(budget, out)?;
        self.emitted += records as u64;
        Ok(Poll::Read(records))
    }

    fn position(&self) -> String {
        format!("record {} of subtask {}", self.emitted, self.subtask)
    }

    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        if !self.replayable {
            return Ok(Vec::new());
        }
        let saved = self.emitter.save(self.subtask, self.parallelism)?;
        Ok(vec![saved])
    }

    fn positions(&self) -> Vec<String> {
        let known = self.replayable.then(|| self.emitter.position());
        known.into_iter().collect()
    }
}

impl<T> Drop for AsyncReader<T> {
    fn drop(&mut self) {
        self.stop = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        // Nothing is ever sent: it is closed when the future is gone.
        if self.ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
            let _ = thread.join();
        } else {
            tracing::warn!("an async source blocks its thread, which is left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Reading, read_all, read_in_attempts};
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
    use tidegate_engine::stage::Signal;

    #[test]
    fn it_awaits_and_emits_in_order() {
        let source = AsyncSource::new(|mut ctx: AsyncSourceContext<i64>| async move {
            for n in 0..20 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                ctx.collect_with_timestamp(n, n * 10).await;
                ctx.emit_watermark(n * 10).await;
            }
            Ok::<(), Infallible>(())
        });
        let mut reading = Reading::open(&source, 0, 1).unwrap();
        assert!(reading.until(|_| false).unwrap());
        let want: Vec<_> = (0..20).map(|n| (Timestamp(n * 10), n)).collect();
        assert_eq!(reading.take(), want);
        assert_eq!(
            reading.signals().last(),
            Some(&Signal::Watermark(Timestamp(190)))
        );
    }

    #[test]
    fn it_waits_while_nobody_takes_its_records_and_ends_with_its_reader() {
        let emitted = Arc::new(AtomicU64::new(0));
        let counter = emitted.clone();
        let source = AsyncSource::new(move |mut ctx: AsyncSourceContext<u64>| {
            let counter = counter.clone();
            async move {
                loop {
                    ctx.collect(0).await;
                    counter.fetch_add(1, SeqCst);
                }
                #[allow(unreachable_code)]
                Ok::<(), Infallible>(())
            }
        });
        let mut reading = Reading::open(&source, 0, 1).unwrap();
        reading.until(|records| records.len() >= 10_000).unwrap();
        let taken = reading.take().len() as u64;
        drop(reading);
        let after = emitted.load(SeqCst);
        // Taken over, but not yet emitted, is at most what once waited.
        assert!(
            after <= taken + 2 * AHEAD as u64,
            "{after} emitted, {taken} taken"
        );
        assert_eq!(Arc::strong_count(&emitted), 2, "its thread is gone");
    }

    #[test]
    fn what_a_checkpoint_covers_does_not_come_again() {
        let source = AsyncSource::new(|mut ctx: AsyncSourceContext<u64>| async move {
            let from = ctx.restored_position::<u64>()?.unwrap_or(0);
            for n in from..100 {
                if n % 9 == 0 {
                    ctx.set_position(&n).await?;
                }
                ctx.collect(n).await;
            }
            Ok::<(), Fault>(())
        });
        let cuts = [(1, 10, 4), (1, 3, 20), (1, 0, 1), (1, 25, 0)];
        let got = read_in_attempts(&source.replayable(), &cuts, 2, 1).unwrap();
        assert_eq!(got, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn errors_and_panics_end_the_job_with_their_message() {
        let source = AsyncSource::new(|mut ctx: AsyncSourceContext<u64>| async move {
            ctx.collect(1).await;
            Err("the well is dry")
        });
        let got = read_all(&source, 1);
        assert_eq!(got.values, [1], "what came before counts");
        assert_eq!(got.fault.unwrap().to_string(), "the well is dry");
        let source = AsyncSource::new(|ctx: AsyncSourceContext<u64>| async move {
            assert!(ctx.parallelism() == 7, "not seven");
            Ok::<(), Infallible>(())
        });
        let fault = read_all(&source, 1).fault.unwrap().to_string();
        assert!(
            fault.contains("panicked at ") && fault.ends_with(": not seven"),
            "{fault}"
        );
    }
}
