//! Jobs that fail in the middle go on from their checkpoints, and what they put out is what a run
//! without a failure puts out.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::checkpointing::Checkpointing;
use tidegate::engine::checkpoint::{CheckpointId, CheckpointSettings, RestartStrategy};
use tidegate::engine::sink::TwoPhase;
use tidegate::engine::state::{RocksDbSettings, StateBackend};
use tidegate::prelude::*;

/// The numbers below `count`, dealt out to the subtasks; each split is a subtask's share.
#[derive(Clone)]
struct Numbers {
    count: u64,
}

struct NumbersReader {
    /// `(next, step)` of each share.
    shares: Vec<(u64, u64)>,
    count: u64,
    last: u64,
}

impl Source for Numbers {
    type Item = u64;
    type Reader = NumbersReader;

    fn replayable(&self) -> bool {
        true
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<NumbersReader> {
        let shares = match context.restored_splits()? {
            None => vec![(
                u64::from(context.subtask()),
                u64::from(context.parallelism()),
            )],
            Some(splits) => splits
                .iter()
                .map(|s| tidegate::engine::checkpoint::codec::decode(s))
                .collect::<Flow<_>>()?,
        };
        Ok(NumbersReader {
            shares,
            count: self.count,
            last: 0,
        })
    }
}

impl SourceReader for NumbersReader {
    type Item = u64;

    fn poll<C: Collector<u64>>(&mut self, budget: usize, out: &mut C) -> Flow<Poll> {
        let mut read = 0;
        for (next, step) in &mut self.shares {
            for _ in 0..budget.min(50) {
                if *next >= self.count {
                    break;
                }
                out.collect(Timestamp(*next as i64), *next)?;
                self.last = *next;
                *next += *step;
                read += 1;
            }
        }
        self.shares.retain(|(next, _)| *next < self.count);
        Ok(if self.shares.is_empty() {
            Poll::End
        } else {
            Poll::Read(read)
        })
    }

    fn position(&self) -> String {
        format!("number {}", self.last)
    }

    fn splits(&mut self) -> Flow<Vec<Vec<u8>>> {
        let shares = self.shares.iter();
        shares
            .map(tidegate::engine::checkpoint::codec::encode)
            .collect()
    }
}

/// What is visible outside, and what is prepared, by the name of the committable.
#[derive(Clone, Default)]
struct Outside(Arc<Mutex<Epochs>>);

/// By the name of their committable: whether it is visible, and its records.
type Epochs = BTreeMap<Vec<u8>, (bool, Vec<(u64, u64)>)>;

impl Outside {
    fn edit<R>(&self, edit: impl FnOnce(&mut Epochs) -> R) -> R {
        edit(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn visible(&self) -> Vec<(u64, u64)> {
        self.edit(|all| {
            let visible = all.values().filter(|(visible, _)| *visible);
            let mut records: Vec<_> = visible.flat_map(|(_, r)| r.iter().copied()).collect();
            records.sort_unstable();
            records
        })
    }
}

struct OutsideWriter {
    outside: Outside,
    name: String,
    epoch: Vec<(u64, u64)>,
    prepared: std::collections::VecDeque<Vec<u8>>,
}

impl Sink<(u64, u64)> for Outside {
    type Writer = OutsideWriter;

    fn recover(&self, committables: Option<Vec<Vec<u8>>>) -> Flow {
        self.edit(|all| {
            for name in committables.into_iter().flatten() {
                let entry = all.get_mut(&name);
                entry.ok_or_else(|| Fault::user("a committable is gone"))?.0 = true;
            }
            all.retain(|_, (visible, _)| *visible);
            Ok(())
        })
    }

    fn open(&self, context: &mut OpenContext<'_>) -> Flow<OutsideWriter> {
        Ok(OutsideWriter {
            outside: self.clone(),
            name: format!("{}-{}", context.restored_from(), context.subtask()),
            epoch: Vec::new(),
            prepared: Default::default(),
        })
    }
}

impl SinkWriter<(u64, u64)> for OutsideWriter {
    fn write(&mut self, _: Timestamp, value: (u64, u64)) -> Flow {
        self.epoch.push(value);
        Ok(())
    }

    fn two_phase(&mut self) -> Option<&mut dyn TwoPhase> {
        Some(self)
    }
}

impl TwoPhase for OutsideWriter {
    fn prepare(&mut self, checkpoint: CheckpointId) -> Flow {
        let name = format!("{}-{checkpoint}", self.name).into_bytes();
        let epoch = std::mem::take(&mut self.epoch);
        self.outside
            .edit(|all| all.insert(name.clone(), (false, epoch)));
        self.prepared.push_back(name);
        Ok(())
    }

    fn prepared(&mut self) -> Flow<Option<Vec<u8>>> {
        Ok(self.prepared.pop_front())
    }

    fn commit(&mut self, committable: Vec<u8>, _last: bool) -> Flow {
        self.outside.edit(|all| match all.get_mut(&committable) {
            Some((visible, _)) => {
                *visible = true;
                Ok(())
            }
            None => Err(Fault::user("a committable is gone")),
        })
    }

    fn committed(&mut self) -> Flow<bool> {
        Ok(true)
    }
}

const COUNT: u64 = 60_000;
const KEYS: u64 = 97;

/// Sums by key, with a panic after every `each` records that an attempt sees, `panics` times in all.
fn sums(parallelism: u32, each: u64, panics: u32) -> (Vec<(u64, u64)>, u32) {
    sums_in(StateBackend::Memory, parallelism, each, panics)
}

fn sums_in(
    state: StateBackend,
    parallelism: u32,
    each: u64,
    panics: u32,
) -> (Vec<(u64, u64)>, u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut env = StreamEnv::with_parallelism(parallelism);
    env.settings_mut().channels.check_grammar = true;
    env.settings_mut().slice = 64;
    env.settings_mut().state = state;
    env.settings_mut().checkpoints = Some(CheckpointSettings {
        min_pause: Some(Duration::ZERO),
        ..CheckpointSettings::every(Duration::from_millis(5))
    });
    let storage = Arc::new(LocalStorage::new(folder.path()));
    let mut checkpointing = Checkpointing::new(storage);
    checkpointing.restart = RestartStrategy::FixedDelay {
        attempts: 100,
        delay: Duration::from_millis(1),
    };
    env.run_settings_mut().checkpointing = Some(checkpointing);
    let (seen, left) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicU32::new(panics)),
    );
    let outside = Outside::default();
    env.source("numbers", Numbers { count: COUNT })
        .map(move |n: u64| {
            if seen.fetch_add(1, SeqCst) % each == each - 1 {
                let more = left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1));
                assert!(more.is_err(), "as planned");
            }
            (n % KEYS, n)
        })
        .key_by(|(key, _)| *key)
        .reduce(|a, b| (a.0, a.1 + b.1))
        .sink("outside", outside.clone());
    let job = env.start("sums").expect("starts");
    while !job.ended() {
        std::thread::yield_now();
    }
    let attempts = job.attempt();
    job.wait().expect("comes to a good end");
    (outside.visible(), attempts)
}

/// What the sums of each key have to be at the end, and how many there have to be.
fn last_sums(records: &[(u64, u64)]) -> BTreeMap<u64, (u64, usize)> {
    let mut last = BTreeMap::new();
    for (key, sum) in records {
        let entry: &mut (u64, usize) = last.entry(*key).or_default();
        entry.0 = entry.0.max(*sum);
        entry.1 += 1;
    }
    last
}

#[test]
fn a_job_without_failures_commits_everything_at_its_last_checkpoint() {
    for parallelism in [1, 2, 3] {
        let (records, attempts) = sums(parallelism, u64::MAX, 0);
        assert_eq!(records.len() as u64, COUNT, "parallelism {parallelism}");
        assert_eq!(attempts, 1);
    }
}

#[test]
fn panics_lose_nothing_and_double_nothing() {
    let (whole, _) = sums(1, u64::MAX, 0);
    for parallelism in [1, 2, 3] {
        let (records, attempts) = sums(parallelism, 17_001, 5);
        // In one attempt each subtask may panic.
        let least = 1 + 5u32.div_ceil(parallelism);
        assert!(attempts >= least, "{attempts} attempts");
        assert_eq!(records.len() as u64, COUNT, "parallelism {parallelism}");
        assert_eq!(last_sums(&records), last_sums(&whole));
    }
}

#[test]
fn panics_lose_nothing_where_state_is_larger_than_its_memory() {
    let (whole, _) = sums(1, u64::MAX, 0);
    for parallelism in [1, 3] {
        let folder = tempfile::tempdir().expect("a folder");
        let rocksdb = StateBackend::RocksDb(RocksDbSettings {
            state_dir: folder.path().to_owned(),
            table_memory: 1024,
            ..RocksDbSettings::default()
        });
        let (records, attempts) = sums_in(rocksdb, parallelism, 17_001, 5);
        assert!(attempts > 3, "{attempts} attempts");
        assert_eq!(records.len() as u64, COUNT, "parallelism {parallelism}");
        assert_eq!(last_sums(&records), last_sums(&whole));
        let left = std::fs::read_dir(folder.path()).expect("lists").count();
        assert_eq!(left, 0, "each attempt's databases went with it");
    }
}
