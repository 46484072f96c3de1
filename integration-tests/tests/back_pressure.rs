//! A sink that takes nothing more stops its source after an exact number of records, and memory
//! stays where it is; a job that is merely busy is never held back.

use integration_tests::until;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tidegate::actors::memory_use::resident_bytes;
use tidegate::engine::flow::PressureLevel;
use tidegate::engine::memory::MemoryManager;
use tidegate::prelude::*;

/// Long enough for tens of thousands of turns, if there were any.
const A_WHILE: Duration = Duration::from_millis(500);

/// What one measures, of memory and of rates, another would spoil.
fn alone() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock();
    guard.unwrap_or_else(PoisonError::into_inner)
}

fn wait_a_while() {
    let began = Instant::now();
    while began.elapsed() < A_WHILE {
        thread::park_timeout(A_WHILE);
    }
}

/// Takes what it is given until it has `room_for` records, and then says that it is full, until it
/// is opened again.
#[derive(Clone)]
struct Gated {
    room_for: u64,
    taken: Arc<AtomicU64>,
    open: Arc<AtomicBool>,
}

impl Gated {
    fn new(room_for: u64) -> Self {
        Gated {
            room_for,
            taken: Arc::default(),
            open: Arc::default(),
        }
    }
}

/// The writer of subtask 0 always has room; it is given nothing.
struct GatedWriter(Gated, bool);

impl Sink<u64> for Gated {
    type Writer = GatedWriter;
    fn open(&self, context: &mut OpenContext<'_>) -> Flow<GatedWriter> {
        Ok(GatedWriter(self.clone(), context.subtask() == 1))
    }
}

impl SinkWriter<u64> for GatedWriter {
    fn write(&mut self, _: Timestamp, _: u64) -> Flow {
        self.0.taken.fetch_add(1, SeqCst);
        Ok(())
    }

    fn has_room(&self) -> bool {
        let Gated {
            room_for,
            taken,
            open,
        } = &self.0;
        !self.1 || open.load(SeqCst) || taken.load(SeqCst) < *room_for
    }

    fn turn(&mut self, now: Timestamp) -> Flow<Timestamp> {
        // Looks now and then whether it was opened.
        Ok(now.plus(Duration::from_millis(5)))
    }
}

/// One source subtask sends all records over one channel to subtask 1 of the sink.
fn blocked(count: u64, slice: usize, sink: &Gated) -> StreamEnv {
    let mut env = StreamEnv::with_parallelism(1);
    env.run_settings_mut().cores = 2;
    // Exact numbers need slices of one length, however long one takes.
    env.settings_mut().slice = slice;
    env.settings_mut().slice_micros = 0;
    env.run_settings_mut().pressure.interval = Duration::from_millis(20);
    // No batch leaves because of its age: so every number below is exact.
    env.settings_mut().channels.flush_interval_ms = 3_600_000;
    env.source("numbers", Generator::new(count, |n| n))
        .partition_custom(|_, _| 1)
        .map(|n| n)
        .parallelism(2)
        .sink("gated", sink.clone());
    env
}

#[test]
fn a_blocked_sink_lets_an_exact_number_through() {
    let _alone = alone();
    // A batch has half of the first credits, so that one is on its way while another fills.
    const CREDITS: u64 = 1_000;
    const BATCH: u64 = CREDITS / 2;
    for (slice, room_for) in [(256, 0), (256, 1), (4096, 0), (4096, 1), (100, 1)] {
        let sink = Gated::new(room_for);
        let job = blocked(u64::MAX, slice, &sink)
            .start("blocked")
            .expect("it starts");
        // The sink refuses between batches, not within one: it takes the whole batch that fills it,
        // and with that returns as many credits, which is half of the window.
        let taken = if room_for > 0 { BATCH } else { 0 };
        let sent = CREDITS + taken;
        // One more batch is sealed and waits for credit. The slice in which that happens is read to
        // its end; then there is no room, and nothing more is read.
        let slice = slice as u64;
        let read = (sent + BATCH).div_ceil(slice) * slice;
        let of = |job: &RunningJob| {
            let subtasks = job.stats().snapshot();
            let source = &subtasks[0];
            (
                source.records_in,
                source.records_out,
                sink.taken.load(SeqCst),
            )
        };
        until("the source stands still", || {
            of(&job) == (read, sent, taken)
        });
        let resident = resident_bytes().expect("Linux says it");
        wait_a_while();
        assert_eq!(
            of(&job),
            (read, sent, taken),
            "slice {slice}, room for {room_for}"
        );
        let grown = resident_bytes()
            .expect("Linux says it")
            .saturating_sub(resident);
        assert!(grown < 16 << 20, "{grown} bytes more while nothing moved");
        let stuck = job.pressure();
        assert!(
            stuck.iter().any(|r| r.level >= PressureLevel::High),
            "{stuck:?}"
        );
        assert!(stuck.iter().all(|r| !r.held), "credits suffice");
        job.cancel();
        job.wait().expect_err("it was cancelled");
    }
}

#[test]
fn a_sink_that_opens_again_gets_every_record() {
    let _alone = alone();
    let sink = Gated::new(1);
    let job = blocked(200_000, 4096, &sink)
        .start("opens again")
        .expect("it starts");
    until("it is full", || sink.taken.load(SeqCst) > 0);
    wait_a_while();
    sink.open.store(true, SeqCst);
    job.wait().expect("the job ends");
    assert_eq!(sink.taken.load(SeqCst), 200_000);
}

fn busy(configure: impl FnOnce(&mut StreamEnv)) -> (u64, bool, Duration) {
    let mut env = StreamEnv::with_parallelism(2);
    env.run_settings_mut().cores = 2;
    configure(&mut env);
    let sum = Arc::new(AtomicU64::new(0));
    let add = sum.clone();
    env.source("numbers", Generator::new(300_000, |n| n))
        .key_by(|n| n % 1_000)
        .fold(0u64, |total, _, n| {
            // Enough work that the sources are far ahead if nothing stops them.
            for i in 0..400u64 {
                *total = std::hint::black_box(total.wrapping_add(i));
            }
            n
        })
        .inspect(move |n| {
            add.fetch_add(*n, SeqCst);
        })
        .sink("out", BlackHole);
    let began = Instant::now();
    let job = env.start("busy").expect("it starts");
    let mut held = false;
    while !job.ended() {
        held |= job.pressure().iter().any(|r| r.held);
        thread::park_timeout(Duration::from_millis(5));
    }
    job.wait().expect("the job ends");
    (sum.load(SeqCst), held, began.elapsed())
}

#[test]
fn a_busy_job_is_not_held_and_a_held_one_is_not_starved() {
    let _alone = alone();
    let wanted = 300_000 * 299_999 / 2;
    let (sum, held, _) = busy(|_| ());
    assert_eq!((sum, held), (wanted, false));

    // The whole budget is taken: as pressed as memory can be, from the first interval to the last.
    let budget = MemoryManager::new(1 << 20);
    let _all = budget.allocate(1 << 20).expect("the budget is free");
    let (sum, held, took) = busy(|env| {
        env.run_settings_mut().memory.budget = budget.clone();
        env.run_settings_mut().pressure.interval = Duration::from_millis(5);
    });
    assert_eq!((sum, held), (wanted, true));
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn a_held_source_keeps_its_rate_until_memory_is_free_again() {
    let _alone = alone();
    let slow = Arc::new(AtomicBool::new(true));
    let is_slow = slow.clone();
    let budget = MemoryManager::new(1 << 20);
    let mut env = StreamEnv::with_parallelism(1);
    env.run_settings_mut().memory.budget = budget.clone();
    env.run_settings_mut().pressure.interval = Duration::from_millis(20);
    // Short turns: a slice of slow work must not be longer than an interval.
    env.settings_mut().slice = 64;
    env.source("numbers", Generator::unbounded(|n| n))
        .inspect(move |_| {
            let began = Instant::now();
            while is_slow.load(SeqCst) && began.elapsed() < Duration::from_micros(50) {
                std::hint::spin_loop();
            }
        })
        .sink("out", BlackHole);
    let job = env.start("held").expect("it starts");
    let read = || job.stats().snapshot()[0].records_in;
    let rate = || {
        let (began, before) = (Instant::now(), read());
        wait_a_while();
        (read() - before) as f64 / began.elapsed().as_secs_f64()
    };
    let held = || job.pressure().iter().any(|report| report.held);
    until("it reads", || read() > 0);
    // A machine that stands still while a rate is taken makes it a wrong one: it is taken again.
    let kept_and_free = || {
        slow.store(true, SeqCst);
        let sustained = rate();
        let all = budget.allocate(1 << 20).expect("the budget is free");
        until("it is held", held);
        // Nothing but the hold keeps it slow from now on.
        slow.store(false, SeqCst);
        let kept = rate();
        drop(all);
        until("it is released", || !held());
        [kept, rate()].map(|rate| rate / sustained)
    };
    let as_wanted = |[kept, free]: &[f64; 2]| (0.5..1.5).contains(kept) && *free > 5.0;
    let (mut tries, mut good) = (Vec::new(), 0);
    while good < 2 && tries.len() < 6 {
        tries.push(kept_and_free());
        good = tries.iter().filter(|tried| as_wanted(tried)).count();
    }
    assert!(
        good == 2,
        "held, and then free, in parts of the rate before: {tries:?}"
    );
    job.cancel();
    job.wait().expect_err("it was cancelled");
}
