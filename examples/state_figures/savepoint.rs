//! A savepoint of state in RocksDB, written by two subtasks and restored into one and into four: how long it
//! takes and how much memory.

use super::{BATCH, BUDGET, GROUPS, spilled_table};
use std::sync::Arc;
use std::time::Instant;
use tidegate::actors::checkpoint_storage::LocalStorage;
use tidegate::actors::state_backend::StateCoordinator;
use tidegate::engine::checkpoint::visitor::Capture;
use tidegate::engine::checkpoint::{
    Barrier, BarrierKind, CheckpointId, CheckpointMetadata, FilesOrigin, KeyedPart, OperatorImage,
    StateVisitor, SubtaskImage, Timing, Which, load, publish_to, write_image_to,
};
use tidegate::engine::hash::{key_group, key_hash, owner_of_group};
use tidegate::engine::state::RocksDbSettings;
use tidegate::engine::time::Timestamp;

/// The bytes of this process that are in memory now.
fn resident() -> f64 {
    tidegate::actors::memory_use::resident_bytes().unwrap_or_default() as f64 / 1e6
}

/// Of so many keys with 104 bytes each.
pub fn savepoint(keys: u64) -> anyhow::Result<()> {
    let (folder, stored) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let state = StateCoordinator::new(RocksDbSettings {
        state_dir: folder.path().to_owned(),
        table_memory: 64 << 20,
        ..RocksDbSettings::default()
    });
    println!("savepoint, {keys} keys of 104 bytes, 64 MiB for tables");
    let storage = Arc::new(LocalStorage::new(stored.path()));
    let id = CheckpointId(1);
    let mut metadata = CheckpointMetadata::new(id, BarrierKind::Savepoint, "figures");
    for me in 0..2 {
        let (mut table, _spill) = spilled_table::<[u64; 12]>(&state)?;
        let owner = |key: &u64| owner_of_group(key_group(key_hash(key), GROUPS), GROUPS, 2);
        for key in (0..keys).filter(|key| owner(key) == me) {
            let value = std::array::from_fn(|n| key_hash(&(key, n as u64)));
            table.set(key_hash(&key), key, value)?;
            if key % BATCH == 0 {
                table.maintain()?;
            }
        }
        let (began, before) = (Instant::now(), resident());
        let mut capture = Capture::new(GROUPS).streaming(true);
        StateVisitor::freeze(&mut capture).keyed("values", &mut table)?;
        let mut longest = began.elapsed();
        while !capture.complete() {
            let turn = Instant::now();
            StateVisitor::save(&mut capture, BUDGET).keyed("values", &mut table)?;
            longest = longest.max(turn.elapsed());
        }
        let image = SubtaskImage {
            barrier: Barrier {
                kind: BarrierKind::Savepoint,
                ..Barrier::checkpoint(id.0)
            },
            task: 0,
            subtask: me,
            operators: vec![OperatorImage {
                uid: "count".to_owned(),
                name: "count".to_owned(),
                max_parallelism: GROUPS,
                parallelism: 2,
                watermark: Timestamp::MIN,
                states: capture.into_states(),
            }],
            timing: Timing::default(),
            positions: Vec::new(),
        };
        let file = write_image_to(&*storage, "savepoint-1-figures", &image)?;
        println!(
            "  subtask {me}: {:.0} MB written in {:?}, longest turn {longest:?}, resident {before:.0} MB before, {:.0} MB after",
            file.file.length as f64 / 1e6,
            began.elapsed(),
            resident(),
        );
        metadata.subtasks.push(file);
    }
    publish_to(&*storage, "savepoint-1-figures", &metadata)?;
    for parallelism in [1, 4] {
        restore(&state, &storage, keys, parallelism)?;
    }
    Ok(())
}

fn restore(
    state: &StateCoordinator,
    storage: &Arc<LocalStorage>,
    keys: u64,
    parallelism: u32,
) -> anyhow::Result<()> {
    let (began, before) = (Instant::now(), resident());
    let loaded = load(&**storage, Which::Folder("savepoint-1-figures"))?;
    let verified = began.elapsed();
    let origin = FilesOrigin {
        storage: storage.clone(),
        own: false,
    };
    let job = loaded.job.with_files(origin);
    let mut tables = Vec::new();
    let mut most = resident();
    for me in 0..parallelism {
        let (mut table, _spill) = spilled_table::<[u64; 12]>(state)?;
        if let Some(mut mine) = job.operator("count", me, parallelism, GROUPS)? {
            StateVisitor::load(&mut mine).keyed("values", &mut table)?;
        }
        most = most.max(resident());
        tables.push(table);
    }
    let took = began.elapsed();
    let mut seen = 0;
    for table in &mut tables {
        table.each(|_, _| {
            seen += 1;
            Ok(())
        })?;
    }
    anyhow::ensure!(seen == keys, "{seen} of {keys} keys came back");
    println!(
        "  restored into {parallelism}: {took:?}, of which {verified:?} to verify it; resident {before:.0} MB before, {most:.0} MB at most between subtasks",
    );
    Ok(())
}
