//! A state out of files that a checkpoint holds, whatever the parallelism it was saved at.
//!
//! The files of one old subtask become the new database as they are, and what is in them of others'
//! key groups is deleted in one step; from those of further old subtasks the entries are copied.

use super::batch::Batch;
use super::database::{Database, Db, failed, read_layout};
use super::export::{FORMATS, MANIFEST, TABLE_FILE};
use super::layout::{BEHIND_ALL, Layout, first_key};
use crate::failpoints::failpoint;
use rocksdb::{IteratorMode, WriteOptions};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tidegate_engine::checkpoint::{FilesImage, RestoredFiles};
use tidegate_engine::fault::{Fault, Flow};

/// Bytes that are copied at once.
const AT_ONCE: usize = 1 << 20;

/// What takes the place of a database that is empty, and of its layout.
pub(super) fn import(
    (empty, layout): (&Arc<Database>, &Layout),
    files: &RestoredFiles<'_>,
    write: &WriteOptions,
) -> Flow<(Arc<Database>, Layout)> {
    let largest = |n: &usize| files.images[*n].index.bytes();
    let Some(first) = (0..files.images.len()).max_by_key(largest) else {
        return Ok((empty.clone(), layout.clone()));
    };
    let image = files.images[first];
    let backend = &empty.backend;
    let folder = backend.fresh_folder("database");
    failpoint!("state_backend::before_fetch");
    fetch(files, image, &folder)?;
    failpoint!("state_backend::after_fetch");
    let database = Database::open(backend.clone(), folder, empty.state())?;
    let layout = database.layout(layout.groups)?;
    failpoint!("state_backend::before_clip");
    clip(&database, &layout, files, image, write)?;
    failpoint!("state_backend::after_clip");
    if files.own() {
        database.stored.begin_with(&image.index.files);
    }
    for (n, image) in files.images.iter().enumerate() {
        if n != first {
            failpoint!("state_backend::before_copy");
            copy(&database, &layout, files, image, write)?;
            failpoint!("state_backend::after_copy");
        }
    }
    Ok((database, layout))
}

/// Brings the files of an image into a folder as those of a database.
fn fetch(files: &RestoredFiles<'_>, image: &FilesImage, folder: &Path) -> Flow {
    let index = &image.index;
    if !FORMATS.contains(&index.format.as_str()) {
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
    layout: &Layout,
    files: &RestoredFiles<'_>,
    image: &FilesImage,
    write: &WriteOptions,
) -> Flow {
    let mine = &files.groups;
    let (first, last) = image.index.groups.unwrap_or((mine.start, mine.start));
    if first < mine.start {
        delete(database, layout, first_key(0), first_key(mine.start), write)?;
    }
    if last >= mine.end {
        delete(database, layout, first_key(mine.end), BEHIND_ALL, write)?;
    }
    Ok(())
}

/// Deletes what is in a range of keys.
fn delete(
    database: &Database,
    layout: &Layout,
    from: [u8; 2],
    until: [u8; 2],
    write: &WriteOptions,
) -> Flow {
    let db = &database.db;
    for piece in layout.pieces(&from, &until) {
        let Some(family) = database.family_to_read(piece.family) else {
            continue;
        };
        if piece.complete && piece.family != layout.whole {
            database.drop_family(piece.family)?;
            continue;
        }
        db.delete_file_in_range_cf(&family, &piece.from, &piece.until)
            .and_then(|()| db.delete_range_cf_opt(&family, &piece.from, &piece.until, write))
            .map_err(|error| failed("delete a range", database.path(), error))?;
    }
    Ok(())
}

/// Copies what is this subtask's out of files.
fn copy(
    database: &Database,
    layout: &Layout,
    files: &RestoredFiles<'_>,
    image: &FilesImage,
    write: &WriteOptions,
) -> Flow {
    let folder = database.backend.fresh_folder("import");
    let _removed = RemovedAtEnd(&folder);
    fetch(files, image, &folder)?;
    let error = |error: rocksdb::Error| failed("read what was saved", &folder, error);
    let options = database.backend.common.family_options(None);
    let families = Db::list_cf(&options, &folder).map_err(error)?;
    let old = Db::open_cf_for_read_only(&options, &folder, families, false).map_err(error)?;
    let old_layout = read_layout(&old, Layout::new(database.state(), layout.groups))
        .map_err(|error| failed("read what was saved", &folder, error))?;
    let mine = (first_key(files.groups.start), first_key(files.groups.end));
    let mut batch = Batch::new(database);
    for piece in old_layout.pieces(&mine.0, &mine.1) {
        let Some(from) = old.cf_handle(piece.family) else {
            continue;
        };
        for entry in old.iterator_cf_opt(&from, piece.range(), IteratorMode::Start) {
            let (key, value) = entry.map_err(error)?;
            batch.put(layout.family_of(&key), &key, &value)?;
            if batch.bytes() >= AT_ONCE {
                std::mem::replace(&mut batch, Batch::new(database)).write(write)?;
            }
        }
    }
    batch.write(write)
}

/// A folder that is only used on the way.
struct RemovedAtEnd<'a>(&'a Path);

impl Drop for RemovedAtEnd<'_> {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(self.0));
    }
}
