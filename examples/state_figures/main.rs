//! Figures of keyed state: what a snapshot costs the stream that goes on changing the state, what state
//! costs that is larger than its memory, what checkpoints store, and how soon a job is back.
//!
//! `cargo run --release --example state_figures [KEYS [snapshot|spilled|incremental|savepoint|life]]` (10 million
//! keys, and all of it, where nothing is said).

mod incremental;
mod life;
mod savepoint;
mod snapshot;
mod spilled;

use tidegate::actors::state_backend::{RocksSpill, StateCoordinator};
use tidegate::engine::checkpoint::{KeyedPart, StateValue};
use tidegate::engine::fault::Flow;
use tidegate::engine::state::BackedTable;
use tidegate::engine::state::backing::Spill;

/// Key groups of each state.
const GROUPS: u32 = 128;
/// What a node saves in one turn.
const BUDGET: usize = 32_768;
/// Records between two turns.
const BATCH: u64 = 1024;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// An empty table in front of a new database, and what tells that of checkpoints.
fn spilled_table<V: StateValue>(
    state: &StateCoordinator,
) -> Flow<(BackedTable<u64, V>, RocksSpill)> {
    let (_, spill) = state.create("figures", "figures");
    let mut table = BackedTable::default();
    table.spill(&mut || {
        let backing = spill.open("count", "values", GROUPS)?;
        Ok((GROUPS, backing, spill.memory().claim()))
    })?;
    Ok((table, spill))
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let keys = arguments.first().and_then(|keys| keys.parse().ok());
    let keys = keys.unwrap_or(10_000_000);
    let part = arguments.get(1).map(String::as_str);
    if let (Some("job"), [_, _, backend, folder, how]) = (part, &arguments[..]) {
        return life::job(keys, backend, folder, how == "panics");
    }
    let asked = |name: &str| part.is_none_or(|part| part == name);
    if asked("snapshot") {
        snapshot::snapshot("u64 to u64", keys, |n: &mut u64| *n += 1);
        snapshot::snapshot("u64 to 96 bytes", keys, |n: &mut [u64; 12]| n[0] += 1);
    }
    if asked("spilled") {
        spilled::spilled(keys / 5)?;
    }
    if asked("incremental") {
        incremental::incremental(keys / 2)?;
    }
    if asked("savepoint") {
        savepoint::savepoint(keys)?;
    }
    if asked("life") {
        life::life(keys / 10)?;
    }
    Ok(())
}
