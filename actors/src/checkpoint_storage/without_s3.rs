//! What a place in a bucket is where S3 was left out of the build: an error that says so.

use super::{LocalStorage, Storage};
use tidegate_engine::checkpoint::{Error, Result};

/// What can't be opened.
pub enum Absent {}

impl Absent {
    /// Never called.
    pub fn below(&self, _folder: &str) -> LocalStorage {
        match *self {}
    }

    /// Never called.
    pub fn folders(&self) -> Result<Vec<String>> {
        match *self {}
    }
}

impl From<Absent> for Storage {
    fn from(absent: Absent) -> Storage {
        match absent {}
    }
}

/// Says what to do.
pub fn open(place: &str) -> Result<Absent> {
    Err(Error::Failed {
        action: "open",
        path: place.to_owned(),
        reason: "this tidegate was built without S3".to_owned(),
        advice: "build it with the feature `s3`, or name a folder",
    })
}
