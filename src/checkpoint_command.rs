//! `tidegate checkpoint`: what is in a folder of checkpoints, and whether it is undamaged.

use crate::inspect::{self, kind_name};
use crate::sweep::{self, Sweep};
use crate::table::{Table, bytes};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tidegate::actors::checkpoint_storage::{Storage, folders, is_checkpoint, of_checkpoint, open};
use tidegate::engine::checkpoint::load::read_image;
use tidegate::engine::checkpoint::shared::verify_shared;
use tidegate::engine::checkpoint::storage::{
    Listed, METADATA, checkpoints, join, parse_folder, read_metadata,
};
use tidegate::engine::checkpoint::{
    BarrierKind, CheckpointId, CheckpointMetadata, Error, Result, Stopped, stopped,
};
use tidegate::engine::time::Timestamp;

/// What can be asked of stored checkpoints.
#[derive(Subcommand)]
pub enum CheckpointCommand {
    /// List the checkpoints and savepoints
    List(Place),
    /// Show what a checkpoint holds; of a job's folder the newest complete one
    Inspect(Place),
    /// Read every file and check its length and checksums
    Verify(Place),
    /// Delete files that belong to no checkpoint: what processes that died have left behind. A job does
    /// so too when it starts; savepoints are never touched
    Sweep(Sweep),
}

/// Where to look.
#[derive(Args)]
pub struct Place {
    /// The folder of a checkpoint or savepoint, of a job, or of all jobs; or s3://BUCKET/FOLDER
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a command prints, and whether it is content.
pub struct Report {
    /// The text.
    pub text: String,
    /// Whether nothing is wrong.
    pub good: bool,
}

/// A checkpoint's folder and the storage that it lies in.
pub struct Found {
    /// The job's folder, as a storage.
    pub storage: Storage,
    /// The checkpoint's folder there.
    pub listed: Listed,
}

impl Found {
    /// The checkpoint's folder, as a person would write it.
    pub fn place(&self) -> String {
        self.storage.place(&self.listed.folder)
    }

    /// What it says of itself.
    pub fn metadata(&self) -> Result<CheckpointMetadata> {
        read_metadata(&*self.storage, &self.listed.folder)
    }
}

/// Carries a command out.
pub fn run(command: &CheckpointCommand) -> Result<Report> {
    match command {
        CheckpointCommand::List(place) => list(&find(&place.folder)?, place.json),
        CheckpointCommand::Inspect(place) => inspect(find(&place.folder)?, place),
        CheckpointCommand::Verify(place) => verify(&find(&place.folder)?, place.json),
        CheckpointCommand::Sweep(order) => sweep::run(order),
    }
}

/// The checkpoints below a folder, by job and number.
fn find(folder: &Path) -> Result<Vec<Found>> {
    let (parent, name) = of_checkpoint(folder)?;
    if is_checkpoint(&*parent, &name)? {
        return Ok(vec![complete(parent, name)?]);
    }
    // Only then is the folder above that of a job: anything may lie in another.
    if name.starts_with("chk-") || name.starts_with("savepoint-") {
        let one = of_storage(&parent)?
            .into_iter()
            .find(|found| found.listed.folder == name);
        if let Some(found) = one {
            return Ok(vec![found]);
        }
    }
    let mut all = of_storage(&open(folder)?)?;
    if all.is_empty() {
        for job in folders(folder)? {
            all.extend(of_storage(&job)?);
        }
    }
    if all.is_empty() {
        return Err(Error::NoCheckpoint {
            place: folder.display().to_string(),
        });
    }
    Ok(all)
}

fn of_storage(storage: &Storage) -> Result<Vec<Found>> {
    let found = checkpoints(&**storage)?.into_iter().map(|listed| Found {
        storage: storage.clone(),
        listed,
    });
    let mut found: Vec<Found> = found.collect();
    // Where a job was stopped may be elsewhere. What is gone there is for `verify` to tell.
    for id in stopped::recorded(&**storage)? {
        let stopped = Stopped::read(&**storage, id)?;
        let (other, folder) = match (stopped.folder, stopped.place) {
            (Some(folder), _) => (storage.clone(), folder),
            (None, place) => storage.elsewhere(&place.unwrap_or_default())?,
        };
        let home = other.lasting_place("");
        let listed = |f: &Found| f.storage.lasting_place("") == home && f.listed.folder == folder;
        if !found.iter().any(listed) {
            found.push(stored(other, folder, id, BarrierKind::Stop)?);
        }
    }
    found.sort_by_key(|found| found.listed.id);
    Ok(found)
}

/// What is stored of a checkpoint that is complete.
fn stored(storage: Storage, folder: String, id: CheckpointId, kind: BarrierKind) -> Result<Found> {
    let stored = storage.list(&folder)?;
    let files = stored.iter().filter(|f| f.path != join(&folder, METADATA));
    let listed = Listed {
        id,
        kind,
        complete: true,
        files: files.clone().count(),
        bytes: files.map(|file| file.length).sum(),
        modified: stored
            .iter()
            .map(|f| f.modified)
            .max()
            .unwrap_or(Timestamp(0)),
        folder,
    };
    Ok(Found { storage, listed })
}

/// The checkpoint or savepoint in a folder that has metadata, whatever the folder's name.
fn complete(storage: Storage, folder: String) -> Result<Found> {
    let of_name = parse_folder(&folder);
    // Its number may be what is damaged: then the folder's name tells which it was.
    let (id, kind) = match (read_metadata(&*storage, &folder), of_name) {
        (Ok(metadata), _) => (metadata.id, metadata.kind),
        (Err(_), Some(named)) => named,
        (Err(error), None) => return Err(error),
    };
    stored(storage, folder, id, kind)
}

/// Text of a JSON value, with a line's end.
pub fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn list(all: &[Found], as_json: bool) -> Result<Report> {
    let mut table = Table::new(&[
        ">id", "kind", "time", ">size", ">files", "complete", "folder",
    ]);
    let mut values = Vec::new();
    for found in all {
        let listed = &found.listed;
        // A list is of use even where some metadata is damaged: `verify` tells which.
        let metadata = found.metadata().ok();
        let kind = metadata.as_ref().map_or(listed.kind, |m| m.kind);
        let time = metadata.as_ref().map_or(listed.modified, |m| m.created);
        let complete = match (listed.complete, &metadata) {
            (false, _) => "no",
            (true, None) => "unreadable",
            (true, Some(_)) => "yes",
        };
        table.row([
            listed.id.to_string(),
            kind_name(kind).to_owned(),
            time.to_string(),
            bytes(listed.bytes),
            listed.files.to_string(),
            complete.to_owned(),
            found.place(),
        ]);
        values.push(json!({
            "id": listed.id, "kind": kind_name(kind), "time": time, "bytes": listed.bytes,
            "files": listed.files, "complete": complete == "yes", "folder": found.place(),
            "job": metadata.map(|m| m.job),
        }));
    }
    let text = match as_json {
        true => pretty(&Value::Array(values)),
        false => table.render(),
    };
    Ok(Report { text, good: true })
}

fn inspect(all: Vec<Found>, place: &Place) -> Result<Report> {
    let newest = all.into_iter().rfind(|found| found.listed.complete);
    let Some(found) = newest else {
        return Err(Error::NoCheckpoint {
            place: place.folder.display().to_string(),
        });
    };
    let metadata = found.metadata()?;
    let text = match place.json {
        true => pretty(&json!({ "folder": found.place(), "metadata": metadata })),
        false => inspect::render(&found.place(), &metadata),
    };
    Ok(Report { text, good: true })
}

/// What became of the check of one file.
struct Verified {
    place: String,
    length: u64,
    problem: Option<Error>,
}

fn verify(all: &[Found], as_json: bool) -> Result<Report> {
    let mut files = Vec::new();
    let mut incomplete = Vec::new();
    for found in all {
        if found.listed.complete {
            verify_checkpoint(found, &mut files);
        } else {
            incomplete.push(found.place());
        }
    }
    let damaged: Vec<&Verified> = files.iter().filter(|f| f.problem.is_some()).collect();
    let good = damaged.is_empty();
    let complete = all.len() - incomplete.len();
    let text = if as_json {
        let file = |f: &Verified| {
            let problem = f.problem.as_ref().map(ToString::to_string);
            json!({ "file": f.place, "bytes": f.length, "problem": problem })
        };
        let files: Vec<Value> = files.iter().map(file).collect();
        pretty(&json!({
            "good": good, "complete": complete, "incomplete": incomplete, "files": files,
        }))
    } else {
        let mut text = String::new();
        for file in &files {
            match &file.problem {
                None => text += &format!("ok       {} ({})\n", file.place, bytes(file.length)),
                Some(problem) => text += &format!("DAMAGED  {}: {problem}\n", file.place),
            }
        }
        for place in &incomplete {
            text += &format!("ignored  {place}: it was never completed, no job goes on from it\n");
        }
        let names: Vec<&str> = damaged.iter().map(|f| f.place.as_str()).collect();
        let (count, sum) = (files.len(), files.iter().map(|f| f.length).sum());
        text += &match names.as_slice() {
            [] => format!(
                "intact: {complete} checkpoints, {count} files, {}\n",
                bytes(sum)
            ),
            names => format!(
                "damaged: {} of {count} files: {}\n",
                names.len(),
                names.join(", ")
            ),
        };
        text
    };
    Ok(Report { text, good })
}

fn verify_checkpoint(found: &Found, into: &mut Vec<Verified>) {
    let (storage, folder) = (&found.storage, &found.listed.folder);
    let path = join(folder, METADATA);
    let stored = storage.list(folder).unwrap_or_default();
    let length = stored.iter().find(|file| file.path == path);
    let length = length.map_or(0, |file| file.length);
    let metadata = found.metadata();
    let (metadata, problem) = match metadata {
        Ok(metadata) => (Some(metadata), None),
        Err(error) => (None, Some(error)),
    };
    into.push(Verified {
        place: storage.place(&path),
        length,
        problem,
    });
    let Some(metadata) = metadata else { return };
    for subtask in &metadata.subtasks {
        into.push(Verified {
            place: storage.place(&join(folder, &subtask.file.path)),
            length: subtask.file.length,
            problem: read_image(&**storage, folder, subtask).err(),
        });
    }
    for file in &metadata.shared {
        let path = metadata.shared_path(folder, file);
        let place = storage.place(&path);
        // Several checkpoints name it.
        if into.iter().any(|known| known.place == place) {
            continue;
        }
        into.push(Verified {
            place,
            length: file.length,
            problem: verify_shared(&**storage, &path, file).err(),
        });
    }
}
