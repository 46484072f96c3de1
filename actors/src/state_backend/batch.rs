//! Changes of a state that are written together, each to the family that has its key.

use super::database::{Database, failed};
use super::layout::{Layout, RECORD};
use rocksdb::{BoundColumnFamily, WriteBatch, WriteOptions};
use std::sync::Arc;
use tidegate_engine::fault::Flow;

/// See the module.
pub(super) struct Batch<'a> {
    database: &'a Database,
    batch: WriteBatch,
    /// The family of the last change, as the next is often of the same.
    last: Option<(&'a str, Arc<BoundColumnFamily<'a>>)>,
}

impl<'a> Batch<'a> {
    pub fn new(database: &'a Database) -> Self {
        Batch {
            database,
            batch: WriteBatch::default(),
            last: None,
        }
    }

    fn family(&mut self, name: &'a str) -> Flow<Arc<BoundColumnFamily<'a>>> {
        if let Some((last, family)) = &self.last
            && *last == name
        {
            return Ok(family.clone());
        }
        let family = self.database.family_to_write(name)?;
        self.last = Some((name, family.clone()));
        Ok(family)
    }

    /// Bytes of what is in it.
    pub fn bytes(&self) -> usize {
        self.batch.size_in_bytes()
    }

    pub fn put(&mut self, family: &'a str, key: &[u8], value: &[u8]) -> Flow {
        let family = self.family(family)?;
        self.batch.put_cf(&family, key, value);
        Ok(())
    }

    pub fn delete(&mut self, family: &'a str, key: &[u8]) -> Flow {
        let family = self.family(family)?;
        self.batch.delete_cf(&family, key);
        Ok(())
    }

    pub fn delete_range(&mut self, layout: &Layout, from: &[u8], until: &[u8]) {
        for piece in layout.pieces(from, until) {
            if let Some(family) = self.database.family_to_read(piece.family) {
                self.batch.delete_range_cf(&family, piece.from, piece.until);
            }
        }
    }

    /// Keeps how far the division is.
    pub fn record(&mut self, layout: &Layout) -> Flow {
        self.put(RECORD.0, RECORD.1, &layout.record())
    }

    pub fn write(self, options: &WriteOptions) -> Flow {
        let written = self.database.db.write_opt(self.batch, options);
        written.map_err(|error| failed("write", self.database.path(), error))
    }
}
