//! The events and the answer as CSV files, so that any other program can check a run.
//!
//! `persons.csv`, `auctions.csv` and `bids.csv` hold the input in the order of generation, `results.csv` the rows in
//! the order in which they came: sort them before you compare.

use crate::digest::Row;
use crate::events::Event;
use crate::generator::Generator;
use anyhow::{Context, Result};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A CSV file of result rows. Clones share it: each subtask's sink may hold one.
#[derive(Clone)]
pub struct RowFile(Arc<Mutex<Rows>>);

struct Rows {
    writer: Box<dyn Write + Send>,
    headed: bool,
    error: Option<io::Error>,
}

impl RowFile {
    /// Rows written to `writer`, below a line that names the columns.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        RowFile(Arc::new(Mutex::new(Rows {
            writer: Box::new(writer),
            headed: false,
            error: None,
        })))
    }

    /// The file `results.csv` in `folder`, which is made if it is missing.
    pub fn results_in(folder: &Path) -> Result<Self> {
        Ok(RowFile::new(create(folder, "results.csv")?))
    }

    /// Appends a row. A failure is kept for [`RowFile::finish`], and what comes after it is dropped.
    #[cold]
    pub fn write<R: Row>(&self, row: &R) {
        let mut rows = self.lock();
        if rows.error.is_some() {
            return;
        }
        if let Err(error) = rows.append(row) {
            rows.error = Some(error);
        }
    }

    /// Flushes the file, and tells of the first failure since it was made.
    pub fn finish(&self) -> Result<()> {
        let mut rows = self.lock();
        let failed = rows.error.take();
        failed
            .map_or_else(|| rows.writer.flush(), Err)
            .context("cannot write results.csv")
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    fn append<R: Row>(&mut self, row: &R) -> io::Result<()> {
        if !self.headed {
            self.headed = true;
            writeln!(self.writer, "{}", R::header())?;
        }
        writeln!(self.writer, "{}", row.csv())
    }
}

impl fmt::Debug for RowFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("RowFile")
    }
}

/// Writes the first `events` events to `folder`.
pub fn write_events<E: Event>(folder: &Path, generator: &Generator, events: u64) -> Result<()> {
    let [mut persons, mut auctions, mut bids] = [
        create(folder, "persons.csv")?,
        create(folder, "auctions.csv")?,
        create(folder, "bids.csv")?,
    ];
    let mut write = || -> io::Result<()> {
        let mut files = [&mut persons, &mut auctions, &mut bids];
        for (file, header) in files.iter_mut().zip(E::table_headers()) {
            writeln!(file, "{header}")?;
        }
        for n in 0..events {
            let (table, line) = generator.event::<E>(n).table();
            writeln!(files[table as usize], "{line}")?;
        }
        files.into_iter().try_for_each(|file| file.flush())
    };
    write().with_context(|| format!("cannot write events to {}", folder.display()))
}

fn create(folder: &Path, name: &str) -> Result<BufWriter<File>> {
    let path = folder.join(name);
    fs::create_dir_all(folder)
        .and_then(|()| File::create(&path))
        .map(BufWriter::new)
        .with_context(|| format!("cannot create {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{FullEvent, LeanEvent};

    #[test]
    fn events_go_to_their_tables() {
        let folder = tempfile::tempdir().expect("a folder");
        write_events::<LeanEvent>(folder.path(), &Generator::new(0), 100).expect("written");
        let lines = |name| {
            fs::read_to_string(folder.path().join(name))
                .expect("a file")
                .lines()
                .count()
        };
        assert_eq!(
            [
                lines("persons.csv"),
                lines("auctions.csv"),
                lines("bids.csv")
            ],
            [1 + 2, 1 + 6, 1 + 92]
        );
        write_events::<FullEvent>(folder.path(), &Generator::new(0), 50).expect("written");
        assert_eq!(lines("bids.csv"), 1 + 46);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_that_names_it() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = RowFile::results_in(&file.path().join("sub")).expect_err("a file is no folder");
        assert!(error.to_string().contains("results.csv"), "{error}");
    }
}
