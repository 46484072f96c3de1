//! Figures of keyed state: what a snapshot costs the stream that goes on changing the state, and what
//! state costs that is larger than its memory.
//!
//! `cargo run --release --example state_figures [KEYS [snapshot|spilled|incremental]]` (10 million keys, and
//! all of it, where nothing is said).

use std::hint::black_box;
use std::time::{Duration, Instant};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::state_backend::StateCoordinator;
use tidegate::engine::checkpoint::shared::store_files;
use tidegate::engine::checkpoint::visitor::Capture;
use tidegate::engine::checkpoint::{
    Barrier, CheckpointId, KeyedPart, KeyedSection, Notice, OperatorImage, StateVisitor,
    SubtaskImage, Timing, write_image,
};
use tidegate::engine::fault::Flow;
use tidegate::engine::hash::key_hash;
use tidegate::engine::state::backing::{Changes, Spill};
use tidegate::engine::state::{BackedTable, KeyTable, RocksDbSettings};
use tidegate::engine::time::Timestamp;

/// What a node saves in one turn.
const BUDGET: usize = 4096;
/// Records between two turns.
const BATCH: u64 = 1024;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> anyhow::Result<()> {
    let keys = std::env::args().nth(1).and_then(|keys| keys.parse().ok());
    let keys = keys.unwrap_or(10_000_000);
    let part = std::env::args().nth(2);
    let asked = |name: &str| part.as_deref().is_none_or(|part| part == name);
    if asked("snapshot") {
        snapshot("u64 to u64", keys, |n: &mut u64| *n += 1);
        snapshot("u64 to 96 bytes", keys, |n: &mut [u64; 12]| n[0] += 1);
    }
    if asked("spilled") {
        spilled(keys / 5)?;
    }
    if asked("incremental") {
        incremental(keys / 2)?;
    }
    Ok(())
}

/// What a checkpoint stores after one percent of the entries has changed, and whether the next do too.
fn incremental(keys: u64) -> anyhow::Result<()> {
    let (folder, stored) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let storage = LocalStorage::new(stored.path());
    let state = StateCoordinator::new(RocksDbSettings {
        state_dir: folder.path().to_owned(),
        table_memory: 64 << 20,
        ..RocksDbSettings::default()
    });
    let (_, spill) = state.create("figures", "figures");
    let mut table: BackedTable<u64, [u64; 12]> = BackedTable::default();
    table.spill(&mut || Ok((128, spill.open("count", "values")?, spill.memory().claim())))?;
    println!("incremental checkpoints, {keys} keys of 104 bytes");
    let mut random = 1u64;
    for id in 1..=8 {
        // All of them, then one of a hundred at random.
        let count = if id == 1 { keys } else { keys / 100 };
        for n in 0..count {
            random = key_hash(&random);
            let key = if id == 1 { n } else { (random >> 8) % keys };
            table.set(
                key_hash(&key),
                key,
                std::array::from_fn(|n| random ^ n as u64),
            )?;
            if n % BATCH == 0 {
                table.maintain()?;
            }
        }
        // A long calm, as between checkpoints that are minutes apart.
        std::thread::park_timeout(Duration::from_secs(if id == 1 { 20 } else { 1 }));
        let mut capture = Capture::new(128).sharing_files(true);
        let began = Instant::now();
        StateVisitor::freeze(&mut capture).keyed("values", &mut table)?;
        let mut longest = began.elapsed();
        while !capture.complete() {
            let turn = Instant::now();
            StateVisitor::save(&mut capture, BUDGET).keyed("values", &mut table)?;
            longest = longest.max(turn.elapsed());
            std::thread::yield_now();
        }
        let took = began.elapsed();
        let (bytes, whole) = store(&storage, id, capture)?;
        println!(
            "  checkpoint {id}: stored {:.1} MB of {:.1} MB, {:.2} %; {took:?}, longest turn {longest:?}",
            bytes as f64 / 1e6,
            whole as f64 / 1e6,
            100.0 * bytes as f64 / whole as f64,
        );
        let id = CheckpointId(id);
        spill.settled(Notice::Completed { id, last: false });
    }
    Ok(())
}

/// Stores what was saved; its bytes, and those of all that it names.
fn store(storage: &LocalStorage, id: u64, capture: Capture) -> anyhow::Result<(u64, u64)> {
    let mut image = SubtaskImage {
        barrier: Barrier::checkpoint(id),
        task: 0,
        subtask: 0,
        operators: vec![OperatorImage {
            uid: "count".to_owned(),
            name: "count".to_owned(),
            max_parallelism: 128,
            parallelism: 1,
            watermark: Timestamp::MIN,
            states: capture.into_states(),
        }],
        timing: Timing::default(),
    };
    let fresh = store_files(storage, CheckpointId(id), &mut image)?;
    let file = write_image(storage, CheckpointId(id), &image)?;
    let bytes = fresh.iter().map(|file| file.length).sum::<u64>() + file.file.length;
    Ok((bytes, image.operators[0].states[0].data.bytes()))
}

/// Bytes that a table takes for a key and a count, about.
const SLOT: u64 = 56;

/// A table in front of RocksDB, with memory for a quarter of the keys.
fn spilled(keys: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let state = StateCoordinator::new(RocksDbSettings {
        state_dir: folder.path().to_owned(),
        table_memory: keys / 4 * SLOT,
        ..RocksDbSettings::default()
    });
    let (_, spill) = state.create("figures", "figures");
    let mut table: BackedTable<u64, u64> = BackedTable::default();
    table.spill(&mut || Ok((128, spill.open("count", "values")?, spill.memory().claim())))?;
    println!(
        "RocksDB, {keys} keys, {} MB for tables",
        keys / 4 * SLOT / 1_000_000
    );
    let mut random = 1u64;
    let mut key_below = |below: u64| {
        random = key_hash(&random);
        (random >> 8) % below
    };
    let mut run = |title: &str, count: u64, mut next: Box<dyn FnMut(u64) -> u64 + '_>| -> Flow {
        let (began, mut slow) = (Instant::now(), Vec::new());
        for batch in 0..count / BATCH {
            let started = Instant::now();
            for n in 0..BATCH {
                let key = next(batch * BATCH + n);
                *table.get_or_insert_with(key_hash(&key), key, || 0)? += 1;
            }
            table.maintain()?;
            slow.push(started.elapsed());
        }
        slow.sort();
        println!(
            "  {title:24} {:.2} M/s; a batch of {BATCH}: p50 {:?}, p99 {:?}, longest {:?}",
            count as f64 / began.elapsed().as_secs_f64() / 1e6,
            slow[slow.len() / 2],
            slow[slow.len() * 99 / 100],
            slow[slow.len() - 1],
        );
        Ok(())
    };
    run("each key once", keys, Box::new(|n| n))?;
    let hot = keys / 8;
    run("an eighth, first time", hot, Box::new(|n| n))?;
    run("an eighth, at random", keys, Box::new(|_| key_below(hot)))?;
    run("all, at random", keys / 10, Box::new(|_| key_below(keys)))?;
    paced(&mut table, keys)?;
    drop(table);
    raw(&state, keys)
}

/// 100,000 writes per second of keys at random, and how long each takes from the moment when it was due.
fn paced(table: &mut BackedTable<u64, u64>, keys: u64) -> Flow {
    const EACH: u64 = 100;
    let (began, mut late) = (Instant::now(), Vec::new());
    let mut random = 7u64;
    for round in 0..3000 {
        let due = began + Duration::from_millis(round);
        std::thread::park_timeout(due.saturating_duration_since(Instant::now()));
        for _ in 0..EACH {
            random = key_hash(&random);
            let key = (random >> 8) % keys;
            table.set(key_hash(&key), key, round)?;
        }
        table.maintain()?;
        late.push(due.elapsed());
    }
    late.sort();
    println!(
        "  100,000 writes/s         p50 {:?}, p99 {:?}, longest {:?}",
        late[late.len() / 2],
        late[late.len() * 99 / 100],
        late[late.len() - 1],
    );
    Ok(())
}

/// The same read and write of all keys at random, without a table in front.
fn raw(state: &StateCoordinator, keys: u64) -> anyhow::Result<()> {
    let (_, spill) = state.create("figures", "raw");
    let mut backing = spill.open("raw", "values")?;
    let mut changes = Changes::default();
    let mut value = Vec::new();
    let put = |changes: &mut Changes, key: u64, value: u64| {
        changes.put(|bytes| {
            bytes.extend(key.to_be_bytes());
            bytes.extend(value.to_le_bytes());
            Ok(bytes.len() - 8)
        })
    };
    for key in 0..keys {
        put(&mut changes, key, 1)?;
        if changes.len() == 4096 {
            backing.write(&changes)?;
            changes.clear();
        }
    }
    let (began, count, mut random) = (Instant::now(), keys / 20, 1u64);
    for _ in 0..count {
        random = key_hash(&random);
        let key = (random >> 8) % keys;
        backing.get(&key.to_be_bytes(), &mut value)?;
        changes.clear();
        put(&mut changes, key, 2)?;
        backing.write(&changes)?;
    }
    let rate = count as f64 / began.elapsed().as_secs_f64() / 1e6;
    println!("  all, without a table     {rate:.2} M/s");
    Ok(())
}

fn snapshot<V>(title: &str, keys: u64, change: impl Fn(&mut V))
where
    V: Default + serde::Serialize + serde::de::DeserializeOwned + 'static,
{
    let mut table: KeyTable<u64, V> = KeyTable::default();
    for key in 0..keys {
        table.insert_new(key_hash(&key), key, V::default());
    }
    let size = table.capacity() * size_of::<(u64, V)>() / 1_000_000;
    println!("{title}, {keys} keys, {size} MB");
    let mut records = Records { next: 1, keys };
    let alone = (0..2000).map(|_| records.batch(&mut table, &change));
    println!("  alone          {}", rate(alone.sum(), 2000));

    let began = Instant::now();
    table.freeze().expect("freezes");
    println!("  freeze         {:?}", began.elapsed());
    let mut section = KeyedSection::new(128);
    let (mut steps, mut changing) = (Vec::new(), Duration::ZERO);
    loop {
        let began = Instant::now();
        let complete = table.save(&mut section, BUDGET).expect("saves");
        steps.push(began.elapsed());
        if complete {
            break;
        }
        changing += records.batch(&mut table, &change);
    }
    let turns = steps.len() as u32;
    let saving: Duration = steps.iter().sum();
    steps.sort();
    println!("  while saving   {}", rate(changing, turns));
    println!(
        "  save({BUDGET})     {:?} on average, p99 {:?}, longest {:?}, {turns} times",
        saving / turns,
        steps[steps.len() * 99 / 100],
        steps[steps.len() - 1],
    );
    println!("  saved          {} bytes", section.into_data().bytes());
    let after = (0..2000).map(|_| records.batch(&mut table, &change));
    println!("  alone again    {}", rate(after.sum(), 2000));
}

fn rate(time: Duration, batches: u32) -> String {
    let records = f64::from(batches) * BATCH as f64;
    format!(
        "{:.1} M changes per second",
        records / time.as_secs_f64() / 1e6
    )
}

/// Keys at random, each as likely as any other: the worst for caches and for a snapshot.
struct Records {
    next: u64,
    keys: u64,
}

impl Records {
    fn batch<V>(&mut self, table: &mut KeyTable<u64, V>, change: &impl Fn(&mut V)) -> Duration {
        let began = Instant::now();
        for _ in 0..BATCH {
            self.next = key_hash(&self.next);
            let key = self.next % self.keys;
            if let Some(value) = table.get_mut(key_hash(&key), black_box(&key)) {
                change(value);
            }
        }
        began.elapsed()
    }
}
