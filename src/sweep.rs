//! `tidegate checkpoint sweep`: deletes what processes that died have left behind, or shows what that is.

use crate::checkpoint_command::{Report, pretty};
use crate::table::{Table, bytes};
use clap::Args;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tidegate::actors::checkpoint_storage::{Storage, folders, open};
use tidegate::engine::checkpoint::retention::{Retention, StorageRegistry, sweep};
use tidegate::engine::checkpoint::storage::checkpoints;
use tidegate::engine::checkpoint::{Error, Result};
use tidegate::engine::clock::Clock;

/// What to sweep, and how.
#[derive(Args)]
pub struct Sweep {
    /// The folder of a job, or of all jobs; or s3://BUCKET/FOLDER
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Spare files that are younger: a checkpoint under way has files that nothing names yet
    #[arg(long, value_name = "HOURS", default_value_t = 24)]
    older_than: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Carries it out.
pub fn run(order: &Sweep) -> Result<Report> {
    let retention = Retention {
        orphan_age: Duration::from_secs(order.older_than.saturating_mul(3600)),
        ..Retention::default()
    };
    let now = Clock::System.now();
    let mut files = Vec::new();
    for storage in jobs(&order.folder)? {
        let registry = StorageRegistry::new(storage.clone());
        let swept = sweep(&*storage, &registry, &retention, now, order.dry_run)?;
        let place = |path: &str| storage.place(path);
        files.extend(swept.files.into_iter().map(|f| (place(&f.path), f)));
    }
    let sum = files.iter().map(|(_, file)| file.length).sum();
    let text = if order.json {
        let of = |(place, file): &(String, tidegate::engine::checkpoint::storage::Stored)| json!({ "file": place, "bytes": file.length, "modified": file.modified });
        let files: Vec<_> = files.iter().map(of).collect();
        pretty(&json!({ "deleted": !order.dry_run, "bytes": sum, "files": files }))
    } else {
        let mut table = Table::new(&["modified", ">size", "file"]);
        for (place, file) in &files {
            table.row([file.modified.to_string(), bytes(file.length), place.clone()]);
        }
        let (what, count) = (
            if order.dry_run {
                "would delete"
            } else {
                "deleted"
            },
            files.len(),
        );
        let table = if count > 0 {
            table.render()
        } else {
            String::new()
        };
        let noun = if count == 1 { "file" } else { "files" };
        let older = order.older_than;
        format!(
            "{table}{what}: {count} {noun}, {}, older than {older} h and part of no checkpoint\n",
            bytes(sum)
        )
    };
    Ok(Report { text, good: true })
}

/// The storages of the jobs below a folder: itself, where there are checkpoints in it.
fn jobs(folder: &Path) -> Result<Vec<Storage>> {
    let own = open(folder)?;
    if !checkpoints(&*own)?.is_empty() {
        return Ok(vec![own]);
    }
    let mut found = Vec::new();
    for job in folders(folder)? {
        if !checkpoints(&*job)?.is_empty() {
            found.push(job);
        }
    }
    if found.is_empty() {
        return Err(Error::NoCheckpoint {
            place: folder.display().to_string(),
        });
    }
    Ok(found)
}
