//! Writing without blocking a turn: a thread that writes what a subtask hands it over a bounded channel.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use tidegate_engine::fault::{Fault, Flow, catch};
use tidegate_engine::source::Waker;

/// Buffers that may wait for the thread.
const AHEAD: usize = 4;

/// What the thread does. It may block.
pub(crate) trait Write: Send + 'static {
    /// Writes these bytes.
    fn write(&mut self, bytes: &[u8]) -> Flow;

    /// Goes on in a new file.
    fn roll(&mut self) -> Flow {
        Ok(())
    }

    /// Everything was written: makes it last.
    fn end(&mut self) -> Flow;
}

#[derive(Debug)]
enum Order {
    Write(Vec<u8>),
    #[cfg_attr(not(feature = "files"), allow(dead_code, reason = "only files roll"))]
    Roll,
    End,
}

#[derive(Debug, Default)]
struct Shared {
    failed: AtomicBool,
    fault: Mutex<Option<Fault>>,
    done: AtomicBool,
    /// The subtask waits for room, or for the end.
    awaited: AtomicBool,
}

/// A subtask's end of a writing thread. Dropping it ends the thread; without [`Background::end`] the
/// writer is dropped without its end.
#[derive(Debug)]
pub(crate) struct Background {
    orders: Option<Sender<Order>>,
    emptied: Receiver<Vec<u8>>,
    waiting: VecDeque<Order>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Writing may stall for ever, as on a pipe that nobody reads.
    detached: bool,
}

impl Background {
    /// Starts the thread; it calls `waker` when it has room again, has ended or has failed.
    pub(crate) fn start(writer: impl Write, waker: Waker) -> Flow<Self> {
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
            drop(writer);
            waker.wake();
        });
        let thread = spawned.map_err(|error| {
            Fault::external(format_args!("can't start a thread to write files: {error}"))
        })?;
        let (orders, waiting) = (Some(orders), VecDeque::new());
        Ok(Background {
            orders,
            emptied,
            waiting,
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
    pub(crate) fn buffer(&self) -> Vec<u8> {
        self.emptied.try_recv().unwrap_or_default()
    }

    /// Hands over bytes.
    pub(crate) fn write(&mut self, bytes: Vec<u8>) -> Flow {
        self.order(Order::Write(bytes))
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

    fn order(&mut self, order: Order) -> Flow {
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

    fn join(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.orders = None;
        if !self.detached {
            self.join();
        }
    }
}

fn run(
    writer: &mut impl Write,
    orders: &Receiver<Order>,
    emptied: &Sender<Vec<u8>>,
    shared: &Shared,
    waker: &Waker,
) -> Flow {
    for order in orders {
        if shared.awaited.swap(false, SeqCst) {
            waker.wake();
        }
        match order {
            Order::Write(mut bytes) => {
                writer.write(&bytes)?;
                bytes.clear();
                let _ = emptied.try_send(bytes);
            }
            Order::Roll => writer.roll()?,
            Order::End => {
                writer.end()?;
                shared.done.store(true, SeqCst);
                return Ok(());
            }
        }
    }
    Ok(())
}
