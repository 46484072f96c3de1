//! Writing without blocking a turn: a thread that writes what a subtask hands it over a bounded channel.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use tidegate_engine::fault::{Fault, Flow, catch};
use tidegate_engine::source::Waker;

/// Buffers that may wait for the thread.
const AHEAD: usize = 4;

/// What the thread does. It may block.
pub(crate) trait Write<T = u8>: Send + 'static {
    /// Writes these bytes, or other items; what is left of them is thrown away.
    fn write(&mut self, items: &mut Vec<T>) -> Flow;

    /// Goes on in a new file.
    fn roll(&mut self) -> Flow {
        Ok(())
    }

    /// Has what was written outlive this process, and the machine where that is promised.
    fn flush(&mut self) -> Flow {
        Ok(())
    }

    /// Makes durable what was written since the last time, and returns what it takes to show it.
    fn prepare(&mut self) -> Flow<Vec<u8>> {
        Ok(Vec::new())
    }

    /// Shows what was prepared.
    fn commit(&mut self, _committable: Vec<u8>, _last: bool) -> Flow {
        Ok(())
    }

    /// Everything was written: makes it last.
    fn end(&mut self) -> Flow;
}

#[derive(Debug)]
enum Order<T> {
    Write(Vec<T>),
    #[cfg_attr(not(feature = "files"), allow(dead_code, reason = "only files roll"))]
    Roll,
    Flush,
    Prepare,
    Commit(Vec<u8>, bool),
    End,
}

#[derive(Debug, Default)]
struct Shared {
    failed: AtomicBool,
    fault: Mutex<Option<Fault>>,
    done: AtomicBool,
    /// How many flushes and commits are done.
    flushed: AtomicU64,
    committed: AtomicU64,
    prepared: Mutex<VecDeque<Vec<u8>>>,
    /// The subtask waits for room, or for the end.
    awaited: AtomicBool,
}

/// A subtask's end of a writing thread. Dropping it ends the thread; without [`Background::end`] the
/// writer is dropped without its end.
#[derive(Debug)]
pub(crate) struct Background<T = u8> {
    orders: Option<Sender<Order<T>>>,
    emptied: Receiver<Vec<T>>,
    waiting: VecDeque<Order<T>>,
    /// How many flushes and commits were asked for.
    flushes: u64,
    commits: u64,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Writing may stall for ever, as on a pipe that nobody reads.
    detached: bool,
}

impl<T: Send + 'static> Background<T> {
    /// Starts the thread; it calls `waker` when it has room again, has done what was asked or has failed.
    pub(crate) fn start(writer: impl Write<T>, waker: Waker) -> Flow<Self> {
        let (orders, orders_out) = bounded(AHEAD);
        let (emptied_in, emptied) = bounded(AHEAD + 2);
        let shared = Arc::new(Shared::default());
        let seen = shared.clone();
        let spawned = thread::Builder::new().name("tidegate-write".into());
        let spawned = spawned.spawn(move || {
            let mut writer = writer;
            if let Err(fault) = catch(|| run(&mut writer, &orders_out, &emptied_in, &seen, &waker))
            {
                *seen.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(fault);
                seen.failed.store(true, SeqCst);
            }
            // What the writer does in the end is its own affair.
            let _ = catch(|| {
                drop(writer);
                Ok(())
            });
            waker.wake();
        });
        let thread = spawned.map_err(|error| {
            Fault::external(format_args!("can't start a thread to write: {error}"))
        })?;
        let (orders, waiting) = (Some(orders), VecDeque::new());
        Ok(Background {
            orders,
            emptied,
            waiting,
            flushes: 0,
            commits: 0,
            shared,
            thread: Some(thread),
            detached: false,
        })
    }
    /// Does not wait for the thread when this is dropped.
    pub(crate) fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// A buffer to fill.
    pub(crate) fn buffer(&self) -> Vec<T> {
        self.emptied.try_recv().unwrap_or_default()
    }

    /// Hands over bytes, or other items.
    pub(crate) fn write(&mut self, items: Vec<T>) -> Flow {
        self.order(Order::Write(items))
    }

    /// What was handed over is to leave this process.
    pub(crate) fn flush(&mut self) -> Flow {
        self.flushes += 1;
        self.order(Order::Flush)
    }

    /// Whether all flushes are done.
    pub(crate) fn flushed(&mut self) -> Flow<bool> {
        self.flushed_upto(self.flushes)
    }

    /// Whether so many flushes are done, which several owners may have asked for.
    pub(crate) fn flushed_upto(&mut self, flushes: u64) -> Flow<bool> {
        self.pump()?;
        Ok(self.shared.flushed.load(SeqCst) >= flushes)
    }

    /// How many flushes were asked for.
    #[cfg(any(feature = "files", feature = "socket"))]
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes
    }

    /// What was handed over is to be made durable.
    pub(crate) fn prepare(&mut self) -> Flow {
        self.order(Order::Prepare)
    }

    /// What the oldest preparation that was not asked for led to.
    pub(crate) fn prepared(&mut self) -> Flow<Option<Vec<u8>>> {
        self.pump()?;
        Ok(lock(&self.shared.prepared).pop_front())
    }

    /// Something that was prepared is to be shown.
    pub(crate) fn commit(&mut self, committable: Vec<u8>, last: bool) -> Flow {
        self.commits += 1;
        self.order(Order::Commit(committable, last))
    }

    /// Whether all commits are done.
    pub(crate) fn committed(&mut self) -> Flow<bool> {
        self.pump()?;
        Ok(self.shared.committed.load(SeqCst) == self.commits)
    }

    /// What follows goes to a new file.
    #[cfg_attr(not(feature = "files"), allow(dead_code, reason = "only files roll"))]
    pub(crate) fn roll(&mut self) -> Flow {
        self.order(Order::Roll)
    }

    /// Nothing follows: [`Background::done`] tells when all is written.
    pub(crate) fn end(&mut self) -> Flow {
        self.order(Order::End)
    }

    fn order(&mut self, order: Order<T>) -> Flow {
        self.waiting.push_back(order);
        self.pump()
    }

    /// Hands on what waits, as far as there is room; fails if the thread did.
    pub(crate) fn pump(&mut self) -> Flow {
        if self.shared.failed.load(SeqCst) {
            let fault = self
                .shared
                .fault
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            return Err(fault.unwrap_or_else(|| Fault::internal("the writing thread is gone")));
        }
        let Some(orders) = &self.orders else {
            return Ok(());
        };
        let mut retried = false;
        while let Some(order) = self.waiting.pop_front() {
            match orders.try_send(order) {
                Ok(()) => retried = false,
                Err(TrySendError::Disconnected(_)) => return Ok(()),
                Err(TrySendError::Full(order)) => {
                    self.waiting.push_front(order);
                    if retried {
                        return Ok(());
                    }
                    self.shared.awaited.store(true, SeqCst);
                    retried = true;
                }
            }
        }
        Ok(())
    }

    /// Whether what is handed over goes on at once.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether everything is written, after [`Background::end`].
    pub(crate) fn done(&self) -> bool {
        self.shared.done.load(SeqCst)
    }

    /// Waits until everything is written; for places that may block.
    #[cfg_attr(
        not(any(feature = "files", feature = "socket")),
        allow(dead_code, reason = "only dead letters are finished so")
    )]
    pub(crate) fn finish(&mut self) -> Flow {
        if let Some(orders) = self.orders.take() {
            let all = self.waiting.drain(..).chain([Order::End]);
            let _ = all.into_iter().try_for_each(|order| orders.send(order));
        }
        self.join();
        self.pump()
    }
}

impl<T> Background<T> {
    fn join(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T> Drop for Background<T> {
    fn drop(&mut self) {
        self.orders = None;
        if !self.detached {
            self.join();
        }
    }
}

fn run<T>(
    writer: &mut impl Write<T>,
    orders: &Receiver<Order<T>>,
    emptied: &Sender<Vec<T>>,
    shared: &Shared,
    waker: &Waker,
) -> Flow {
    for order in orders {
        if shared.awaited.swap(false, SeqCst) {
            waker.wake();
        }
        match order {
            Order::Write(mut items) => {
                writer.write(&mut items)?;
                items.clear();
                let _ = emptied.try_send(items);
                continue;
            }
            Order::Roll => {
                writer.roll()?;
                continue;
            }
            Order::Flush => {
                writer.flush()?;
                shared.flushed.fetch_add(1, SeqCst);
            }
            Order::Prepare => {
                let committable = writer.prepare()?;
                lock(&shared.prepared).push_back(committable);
            }
            Order::Commit(committable, last) => {
                writer.commit(committable, last)?;
                shared.committed.fetch_add(1, SeqCst);
            }
            Order::End => {
                writer.end()?;
                shared.done.store(true, SeqCst);
            }
        }
        waker.wake();
    }
    Ok(())
}
