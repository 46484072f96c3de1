//! A folder of a storage as a storage of its own: what is written for a savepoint lies in its folder, shared
//! files too, so that it stands alone wherever it is moved.

use super::error::Result;
use super::storage::{CheckpointStorage, Make, Stored, join};
use std::sync::Arc;

/// A folder of a storage.
pub struct Below {
    storage: Arc<dyn CheckpointStorage>,
    folder: String,
}

impl Below {
    /// The folder of this path; the empty one is the storage itself.
    pub fn new(storage: Arc<dyn CheckpointStorage>, folder: impl Into<String>) -> Self {
        let folder = folder.into();
        Below { storage, folder }
    }

    fn full(&self, path: &str) -> String {
        match path {
            "" => self.folder.clone(),
            path => join(&self.folder, path),
        }
    }
}

impl CheckpointStorage for Below {
    fn place(&self, path: &str) -> String {
        self.storage.place(&self.full(path))
    }

    fn lasting_place(&self, path: &str) -> String {
        self.storage.lasting_place(&self.full(path))
    }

    fn write_stream(&self, path: &str, make: &mut Make<'_>) -> Result {
        self.storage.write_stream(&self.full(path), make)
    }

    fn publish(&self, path: &str, bytes: &[u8]) -> Result {
        self.storage.publish(&self.full(path), bytes)
    }

    fn read(&self, path: &str, at_most: u64) -> Result<Vec<u8>> {
        self.storage.read(&self.full(path), at_most)
    }

    fn list(&self, folder: &str) -> Result<Vec<Stored>> {
        let all = self.storage.list(&self.full(folder))?;
        let mut from = self.full("").len();
        if from > 0 {
            from += 1;
        }
        let here = all.into_iter().map(|stored| Stored {
            path: stored.path.get(from..).unwrap_or_default().to_owned(),
            ..stored
        });
        Ok(here.collect())
    }

    fn delete(&self, path: &str) -> Result {
        self.storage.delete(&self.full(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryStorage;

    #[test]
    fn what_is_below_is_the_storages_own() {
        let all: Arc<dyn CheckpointStorage> = Arc::new(MemoryStorage::default());
        for (folder, full) in [
            ("savepoint-1-a", "savepoint-1-a/shared/x"),
            ("", "shared/x"),
        ] {
            let below = Below::new(all.clone(), folder);
            below.write("shared/x", &[b"by", b"tes"]).expect("writes");
            assert_eq!(all.read(full, 9).expect("is there"), b"bytes");
            assert_eq!(below.read("shared/x", 9).expect("reads"), b"bytes");
            let listed = below.list("shared").expect("lists");
            assert_eq!(listed[0].path, "shared/x");
            assert_eq!(below.place(""), all.place(folder));
            below.delete("shared/x").expect("deletes");
            assert!(all.list("").expect("lists").is_empty());
        }
    }
}
