//! The stores that checkpoints can be kept in.
//!
//! They do the reading and writing for [`tidegate_engine::checkpoint::CheckpointStorage`]; what is
//! written, and when it may be deleted, is decided there.

mod local;

pub use local::LocalStorage;

use std::path::Path;
use tidegate_engine::checkpoint::storage::METADATA;
use tidegate_engine::checkpoint::{Loaded, Result, Which, latest, load};

/// Reads and verifies what a person named: the folder of one checkpoint or savepoint, or a job's
/// folder, of which the newest complete checkpoint is meant.
pub fn load_path(path: &Path) -> Result<Loaded> {
    if path.join(METADATA).exists() {
        let (storage, folder) = LocalStorage::of_checkpoint(path);
        return load(&storage, Which::Folder(&folder));
    }
    latest(&LocalStorage::new(path))
}
