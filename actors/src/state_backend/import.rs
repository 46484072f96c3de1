//! A state out of files that a checkpoint holds, whatever the parallelism it was saved at.
//!
//! The files of one old subtask become the new database as they are, and what is in them of others'
//! key groups is deleted in one step; from those of further old subtasks the entries are copied.

use super::database::{Database, Db, failed};
use super::export::{FORMAT, MANIFEST, TABLE_FILE};
use crate::failpoints::failpoint;
use rocksdb::{IteratorMode, ReadOptions, WriteBatch, WriteOptions};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tidegate_engine::checkpoint::{FilesImage, RestoredFiles};
use tidegate_engine::fault::{Fault, Flow};

/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;
/// Greater than every key.
const BEHIND_ALL: [u8; 2] = [0xff; 2];

/// What takes the place of a database that is empty.
pub(super) fn import(
    empty: &Arc<Database>,
    files: &RestoredFiles<'_>,
    write: &WriteOptions,
) -> Flow<Arc<Database>> {
    let largest = |n: &usize| files.images[*n].index.bytes();
    let Some(first) = (0..files.images.len()).max_by_key(largest) else {
        return Ok(empty.clone());
    };
    let image = files.images[first];
    let backend = &empty.backend;
    let folder = backend.fresh_folder("database");
    failpoint!("state_backend::before_fetch");
    fetch(files, image, &folder)?;
    failpoint!("state_backend::after_fetch");
    let database = Database::open(backend.clone(), folder, &empty.family)?;
    failpoint!("state_backend::before_clip");
    clip(&database, files, image, write)?;
    failpoint!("state_backend::after_clip");
    if files.own() {
        database.stored.begin_with(&image.index.files);
    }
    for (n, image) in files.images.iter().enumerate() {
        if n != first {
            failpoint!("state_backend::before_copy");
            copy(&database, files, image, write)?;
            failpoint!("state_backend::after_copy");
        }
    }
    Ok(database)
}

/// The keys from a group on.
fn key(group: u32) -> [u8; 2] {
    (group as u16).to_be_bytes()
}

/// Brings the files of an image into a folder as those of a database.
fn fetch(files: &RestoredFiles<'_>, image: &FilesImage, folder: &Path) -> Flow {
    let index = &image.index;
    if index.format != FORMAT {
        return Err(Fault::user(format_args!(
            "this state was saved as files of {}, which this backend can't read",
            index.format
        )));
    }
    let io = |error: std::io::Error| failed("write what was saved", folder, error);
    fs::create_dir_all(folder).map_err(io)?;
    for file in &index.files {
        let number = file.name.strip_suffix(TABLE_FILE).unwrap_or_default();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(failed("use", folder, format!("a file named {}", file.name)));
        }
        fs::write(folder.join(&file.name), files.read(&file.file)?).map_err(io)?;
    }
    let end = image.manifest.iter().position(|byte| *byte == b'\n');
    let (name, bytes) = image.manifest.split_at(end.unwrap_or_default());
    let name = std::str::from_utf8(name).unwrap_or_default();
    let number = name.strip_prefix(MANIFEST).unwrap_or_default();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(failed("use", folder, "a manifest without a name"));
    }
    fs::write(folder.join(name), &bytes[1..]).map_err(io)?;
    fs::write(folder.join("CURRENT"), format!("{name}\n")).map_err(io)
}

/// Deletes what belongs to other subtasks.
fn clip(
    database: &Database,
    files: &RestoredFiles<'_>,
    image: &FilesImage,
    write: &WriteOptions,
) -> Flow {
    let mine = &files.groups;
    let (first, last) = image.index.groups.unwrap_or((mine.start, mine.start));
    let family = database.family()?;
    let delete = |from: [u8; 2], to: [u8; 2]| {
        let db = &database.db;
        db.delete_file_in_range_cf(&family, from, to)
            .and_then(|()| db.delete_range_cf_opt(&family, from, to, write))
            .map_err(|error| failed("delete a range", database.path(), error))
    };
    if first < mine.start {
        delete(key(0), key(mine.start))?;
    }
    if last >= mine.end {
        delete(key(mine.end), BEHIND_ALL)?;
    }
    Ok(())
}

/// Copies what is this subtask's out of files.
fn copy(
    database: &Database,
    files: &RestoredFiles<'_>,
    image: &FilesImage,
    write: &WriteOptions,
) -> Flow {
    let folder = database.backend.fresh_folder("import");
    let _removed = RemovedAtEnd(&folder);
    fetch(files, image, &folder)?;
    let error = |error: rocksdb::Error| failed("read what was saved", &folder, error);
    let options = database.backend.common.options();
    let families = Db::list_cf(&options, &folder).map_err(error)?;
    let old = Db::open_cf_for_read_only(&options, &folder, families, false).map_err(error)?;
    let Some(from) = old.cf_handle(&database.family) else {
        return Err(failed("find", &folder, &database.family));
    };
    let to = database.family()?;
    let mut range = ReadOptions::default();
    range.set_iterate_lower_bound(key(files.groups.start));
    range.set_iterate_upper_bound(key(files.groups.end));
    let mut batch = WriteBatch::default();
    let put = |batch: WriteBatch| {
        let written = database.db.write_opt(batch, write);
        written.map_err(|error| failed("write", database.path(), error))
    };
    for entry in old.iterator_cf_opt(&from, range, IteratorMode::Start) {
        let (key, value) = entry.map_err(error)?;
        batch.put_cf(&to, key, value);
        if batch.size_in_bytes() >= PIECE {
            put(std::mem::take(&mut batch))?;
        }
    }
    put(batch)
}

/// A folder that is only used on the way.
struct RemovedAtEnd<'a>(&'a Path);

impl Drop for RemovedAtEnd<'_> {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(self.0));
    }
}
