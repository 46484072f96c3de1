//! What a checkpoint stores after one percent of the entries has changed.

use super::{BATCH, BUDGET, GROUPS, spilled_table};
use std::time::{Duration, Instant};
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::state_backend::StateCoordinator;
use tidegate::engine::checkpoint::shared::store_files;
use tidegate::engine::checkpoint::visitor::Capture;
use tidegate::engine::checkpoint::{
    Barrier, CheckpointId, KeyedPart, Notice, OperatorImage, StateVisitor, SubtaskImage, Timing,
    write_image,
};
use tidegate::engine::hash::key_hash;
use tidegate::engine::state::RocksDbSettings;
use tidegate::engine::state::backing::Spill;
use tidegate::engine::time::Timestamp;

/// How often one percent of the entries changes.
const ROUNDS: u64 = 16;

/// What a checkpoint stores after one percent of the entries has changed, and whether the next do too.
pub fn incremental(keys: u64) -> anyhow::Result<()> {
    let (folder, stored) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let storage = LocalStorage::new(stored.path());
    let state = StateCoordinator::new(RocksDbSettings {
        state_dir: folder.path().to_owned(),
        table_memory: 64 << 20,
        ..RocksDbSettings::default()
    });
    let (mut table, spill) = spilled_table::<[u64; 12]>(&state)?;
    println!("incremental checkpoints, {keys} keys of 104 bytes");
    let mut random = 1u64;
    let mut shares = Vec::new();
    for id in 1..=1 + ROUNDS {
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
        let mut capture = Capture::new(GROUPS).sharing_files(true);
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
            "  checkpoint {id}: stored {:.1} MB of {:.1} MB, {:.2} %, {:.2} % of the entries; {took:?}, longest turn \
             {longest:?}",
            bytes as f64 / 1e6,
            whole as f64 / 1e6,
            100.0 * bytes as f64 / whole as f64,
            100.0 * bytes as f64 / (104 * keys) as f64,
        );
        if id > 1 {
            shares.push(100.0 * bytes as f64 / (104 * keys) as f64);
        }
        let id = CheckpointId(id);
        spill.settled(Notice::Completed { id, last: false });
    }
    shares.sort_by(f64::total_cmp);
    println!(
        "  {ROUNDS} times one percent: {:.2} % of the entries on average, median {:.2} %, most {:.2} % (where RocksDB has \
         merged runs of files, these are stored again)",
        shares.iter().sum::<f64>() / ROUNDS as f64,
        (shares[(shares.len() - 1) / 2] + shares[shares.len() / 2]) / 2.0,
        shares[shares.len() - 1],
    );
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
            max_parallelism: GROUPS,
            parallelism: 1,
            watermark: Timestamp::MIN,
            states: capture.into_states(),
        }],
        timing: Timing::default(),
        positions: Vec::new(),
    };
    let fresh = store_files(storage, CheckpointId(id), &mut image)?;
    let file = write_image(storage, CheckpointId(id), &image)?;
    let bytes = fresh.iter().map(|file| file.length).sum::<u64>() + file.file.length;
    Ok((bytes, image.operators[0].states[0].data.bytes()))
}
