//! A table in front of RocksDB against RocksDB alone: where the working set fits the table and where not,
//! and 100,000 writes a second.

use super::{BATCH, GROUPS, spilled_table};
use std::time::{Duration, Instant};
use tidegate::actors::state_backend::StateCoordinator;
use tidegate::engine::checkpoint::KeyedPart;
use tidegate::engine::checkpoint::codec::encode_into;
use tidegate::engine::fault::Flow;
use tidegate::engine::hash::{key_group, key_hash};
use tidegate::engine::state::backing::{Changes, Spill};
use tidegate::engine::state::{BackedTable, RocksDbSettings};

/// Bytes that a table takes for a key and a count, about.
const SLOT: u64 = 56;

/// A table in front of RocksDB, with memory for a quarter of the keys.
pub fn spilled(keys: u64) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let state = StateCoordinator::new(RocksDbSettings {
        state_dir: folder.path().to_owned(),
        table_memory: keys / 4 * SLOT,
        ..RocksDbSettings::default()
    });
    let (mut table, _spill) = spilled_table::<u64>(&state)?;
    println!(
        "RocksDB, {keys} keys, {} MB for tables",
        keys / 4 * SLOT / 1_000_000
    );
    let mut random = 1u64;
    let mut key_below = |below: u64| {
        random = key_hash(&random);
        (random >> 8) % below
    };
    let mut run =
        |title: &str, count: u64, mut next: Box<dyn FnMut(u64) -> u64 + '_>| -> Flow<f64> {
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
            let rate = count as f64 / began.elapsed().as_secs_f64() / 1e6;
            println!(
                "  {title:24} {rate:.2} M/s; a batch of {BATCH}: p50 {:?}, p99 {:?}, longest {:?}",
                slow[slow.len() / 2],
                slow[slow.len() * 99 / 100],
                slow[slow.len() - 1],
            );
            Ok(rate)
        };
    run("each key once", keys, Box::new(|n| n))?;
    calm();
    let hot = keys / 8;
    run("an eighth, first time", hot, Box::new(|n| n))?;
    run("an eighth, at random", keys, Box::new(|_| key_below(hot)))?;
    calm();
    let with = run("all, at random", keys / 10, Box::new(|_| key_below(keys)))?;
    calm();
    paced(&mut table, keys)?;
    drop(table);
    let without = raw(&state, keys)?;
    println!("  with a table over without {:.2}", with / without);
    Ok(())
}

/// Lets compactions come to their end, as they do where records come at a rate that can be sustained.
fn calm() {
    std::thread::park_timeout(Duration::from_secs(8));
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

/// The same read and write of all keys at random, without a table in front: the same entries, written in as
/// random an order as a table writes them back.
fn raw(state: &StateCoordinator, keys: u64) -> anyhow::Result<f64> {
    let (_, spill) = state.create("figures", "raw");
    let mut backing = spill.open("raw", "values", GROUPS)?;
    let mut changes = Changes::default();
    let encode = |key: u64, bytes: &mut Vec<u8>| -> Flow {
        bytes.extend((key_group(key_hash(&key), GROUPS) as u16).to_be_bytes());
        encode_into(&key, bytes)
    };
    let put = |changes: &mut Changes, key: u64, value: u64| {
        changes.put(|bytes| {
            encode(key, bytes)?;
            let key_end = bytes.len();
            encode_into(&value, bytes)?;
            Ok(key_end)
        })
    };
    // A permutation: the factor is prime and not one of the keys' number.
    for n in 0..keys {
        put(&mut changes, (n * 1_000_000_007) % keys, 1)?;
        if changes.len() == 4096 {
            backing.write(&changes)?;
            changes.clear();
        }
    }
    backing.write(&changes)?;
    calm();
    let (began, count, mut random) = (Instant::now(), keys / 10, 1u64);
    let (mut encoded, mut value) = (Vec::new(), Vec::new());
    for _ in 0..count {
        random = key_hash(&random);
        let key = (random >> 8) % keys;
        encoded.clear();
        encode(key, &mut encoded)?;
        backing.get(&encoded, &mut value)?;
        changes.clear();
        put(&mut changes, key, 2)?;
        backing.write(&changes)?;
    }
    let rate = count as f64 / began.elapsed().as_secs_f64() / 1e6;
    println!("  all, without a table     {rate:.2} M/s");
    Ok(rate)
}
