//! Checkpoints in an object store, such as S3 and what speaks its protocol.
//!
//! An object appears whole or not at all, and there is no rename: files are put under their random names, and the
//! metadata last, on the condition that there is none. Whoever puts it first has published the checkpoint.

use fail::fail_point;
use futures_util::TryStreamExt;
use object_store::path::Path as ObjectPath;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutPayload, WriteMultipart,
};
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use tidegate_engine::checkpoint::storage::{Make, Stored, join};
use tidegate_engine::checkpoint::{CheckpointStorage, Error, Result};
use tidegate_engine::time::Timestamp;
use tokio::runtime::{Builder, Runtime};

/// What is larger goes up in parts of this size, some at a time.
const PART: usize = 16 << 20;
/// How many parts of one file are under way at a time.
const PARTS_AHEAD: usize = 4;

/// A failpoint whose `return(text)` becomes an error of the store, as if an answer was bad or never came.
macro_rules! may_fail {
    ($name:literal, $storage:expr, $action:literal, $path:expr) => {
        fail_point!($name, |text| {
            let error = injected(text);
            Err($storage.failed($action, $path, &error))
        })
    };
}

#[cfg_attr(not(feature = "failpoints"), expect(dead_code))]
fn injected(text: Option<String>) -> StoreError {
    StoreError::Generic {
        store: "failpoint",
        source: text.unwrap_or_default().into(),
    }
}

/// A folder in an object store. Clones share the connections.
#[derive(Clone)]
pub struct ObjectStorage {
    shared: Arc<Shared>,
    /// Of the folder; empty for the whole store.
    prefix: String,
}

struct Shared {
    store: Box<dyn ObjectStore>,
    /// How messages call the whole store, such as `s3://bucket`.
    name: String,
    /// Drives the connections, beside the thread that waits for an answer.
    runtime: Option<Runtime>,
}

/// It may be dropped in an actor, where nothing may wait.
impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl ObjectStorage {
    /// Of a store, which messages call `name`.
    pub fn new(store: impl ObjectStore, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tidegate-store")
            .enable_all()
            .build()
            .map_err(|error| Error::Failed {
                action: "start a thread for",
                path: name.clone(),
                reason: error.to_string(),
                advice: "let this user have more threads",
            })?;
        let shared = Shared {
            store: Box::new(store),
            name,
            runtime: Some(runtime),
        };
        Ok(ObjectStorage {
            shared: Arc::new(shared),
            prefix: String::new(),
        })
    }

    /// A folder below this one.
    pub fn below(&self, folder: &str) -> Self {
        ObjectStorage {
            shared: self.shared.clone(),
            prefix: join(&self.prefix, folder.trim_matches('/')),
        }
    }

    /// The folders directly below this one.
    pub fn folders(&self) -> Result<Vec<String>> {
        let prefix = self.folder("")?;
        let listed = self.shared.store.list_with_delimiter(prefix.as_ref());
        let listed = self.wait("list", "", listed)?;
        let name = |path: &ObjectPath| path.filename().map(str::to_owned);
        Ok(listed.common_prefixes.iter().filter_map(name).collect())
    }

    fn runtime(&self) -> &Runtime {
        let runtime = self.shared.runtime.as_ref();
        runtime.expect("it is taken when this is dropped")
    }

    /// Waits for the store. Not to be called in an actor's turn.
    fn wait<T>(
        &self,
        action: &'static str,
        path: &str,
        answer: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T> {
        self.runtime()
            .block_on(answer)
            .map_err(|error| self.failed(action, path, &error))
    }

    fn failed(&self, action: &'static str, path: &str, error: &StoreError) -> Error {
        let path = self.place(path);
        match error {
            StoreError::NotFound { .. } => Error::Missing { path },
            StoreError::AlreadyExists { .. } => Error::Exists { path },
            _ => Error::Failed {
                action,
                path,
                reason: chain(error),
                advice: advice(error),
            },
        }
    }

    /// The object of a path.
    fn object(&self, path: &str) -> Result<ObjectPath> {
        let bad = |reason| Error::BadPath {
            path: path.to_owned(),
            reason,
        };
        let inside = path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']));
        if !inside {
            return Err(bad("it leads out of the storage's folder"));
        }
        ObjectPath::parse(join(&self.prefix, path)).map_err(|_| bad("no object can have that name"))
    }

    /// The folder of a path; none for the whole store.
    fn folder(&self, folder: &str) -> Result<Option<ObjectPath>> {
        match (folder, self.prefix.as_str()) {
            ("", "") => Ok(None),
            ("", prefix) => ObjectPath::parse(prefix)
                .map(Some)
                .map_err(|_| Error::BadPath {
                    path: prefix.to_owned(),
                    reason: "no object can have that name",
                }),
            (folder, _) => self.object(folder).map(Some),
        }
    }

    /// The path of an object in this folder.
    fn path_of(&self, object: &ObjectPath) -> String {
        let path = object.as_ref();
        let inside = path.strip_prefix(self.prefix.as_str()).unwrap_or(path);
        inside.trim_start_matches('/').to_owned()
    }
}

/// A file on its way into the store: by one request where it is small, else in parts that are sent while it is made.
struct Upload<'a> {
    storage: &'a ObjectStorage,
    path: &'a str,
    object: ObjectPath,
    /// What there is of it while that is little.
    gathered: Vec<u8>,
    parts: Option<WriteMultipart>,
}

impl Upload<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result {
        if self.parts.is_none() {
            if self.gathered.len() + bytes.len() <= PART {
                self.gathered.extend_from_slice(bytes);
                return Ok(());
            }
            let store = &self.storage.shared.store;
            let parts = store.put_multipart(&self.object);
            let parts = self.storage.wait("write", self.path, parts)?;
            self.parts = Some(WriteMultipart::new_with_chunk_size(parts, PART));
            let gathered = std::mem::take(&mut self.gathered);
            self.send(&gathered)?;
        }
        self.send(bytes)
    }

    fn send(&mut self, bytes: &[u8]) -> Result {
        let Upload { storage, path, .. } = *self;
        let Some(parts) = &mut self.parts else {
            return Ok(());
        };
        for piece in bytes.chunks(PART) {
            may_fail!("object_store::before_part", storage, "write", path);
            storage.wait("write", path, parts.wait_for_capacity(PARTS_AHEAD))?;
            // It begins to send parts at once.
            let _within = storage.runtime().enter();
            parts.write(piece);
            may_fail!("object_store::after_part", storage, "write", path);
        }
        Ok(())
    }

    /// All has been put: it becomes a file. What was sent of it goes where that fails.
    fn finish(mut self) -> Result {
        let Upload { storage, path, .. } = self;
        let Some(parts) = self.parts.take() else {
            let payload = PutPayload::from(self.gathered);
            let put = storage.shared.store.put(&self.object, payload);
            return storage.wait("write", path, put).map(drop);
        };
        let before = || {
            may_fail!("object_store::before_finish", storage, "write", path);
            Ok(())
        };
        if let Err(error) = before() {
            self.parts = Some(parts);
            self.abort();
            return Err(error);
        }
        storage.wait("write", path, parts.finish())?;
        may_fail!("object_store::after_finish", storage, "write", path);
        Ok(())
    }

    /// Takes back what was sent.
    fn abort(self) {
        if let Some(parts) = self.parts {
            // If this fails too, the store's own rules for what was never finished take it.
            drop(self.storage.wait("write", self.path, parts.abort()));
        }
    }
}

impl From<ObjectStorage> for super::Storage {
    fn from(storage: ObjectStorage) -> Self {
        Arc::new(storage)
    }
}

impl fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place(""))
    }
}

impl CheckpointStorage for ObjectStorage {
    fn place(&self, path: &str) -> String {
        join(&self.shared.name, &join(&self.prefix, path))
            .trim_end_matches('/')
            .to_owned()
    }

    fn elsewhere(&self, place: &str) -> Result<(Arc<dyn CheckpointStorage>, String)> {
        let name = format!("{}/", self.shared.name);
        match place.strip_prefix(&name) {
            Some(path) => {
                let (parent, folder) = path.rsplit_once('/').unwrap_or(("", path));
                let whole = ObjectStorage {
                    shared: self.shared.clone(),
                    prefix: parent.to_owned(),
                };
                Ok((Arc::new(whole), folder.to_owned()))
            }
            None => super::of_checkpoint(Path::new(place)),
        }
    }

    fn write_stream(&self, path: &str, make: &mut Make<'_>) -> Result {
        let object = self.object(path)?;
        may_fail!("object_store::before_put", self, "write", path);
        let mut upload = Upload {
            storage: self,
            path,
            object,
            gathered: Vec::new(),
            parts: None,
        };
        match make(&mut |part| upload.put(part)) {
            Ok(()) => upload.finish()?,
            Err(error) => {
                upload.abort();
                return Err(error);
            }
        }
        may_fail!("object_store::after_put", self, "write", path);
        Ok(())
    }

    fn publish(&self, path: &str, bytes: &[u8]) -> Result {
        let object = self.object(path)?;
        let payload = PutPayload::from(bytes.to_vec());
        may_fail!("object_store::before_publish", self, "write", path);
        let put = self
            .shared
            .store
            .put_opts(&object, payload, PutMode::Create.into());
        let published = self.wait("write", path, put);
        may_fail!("object_store::after_publish", self, "write", path);
        match published {
            // An answer may have been lost, and what is there then is this very file: it names files that
            // nobody else knows.
            Err(Error::Exists { path: place }) => match self.read(path, bytes.len() as u64) {
                Ok(found) if found == bytes => Ok(()),
                _ => Err(Error::Exists { path: place }),
            },
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn read(&self, path: &str, at_most: u64) -> Result<Vec<u8>> {
        let object = self.object(path)?;
        let found = self.wait("read", path, self.shared.store.get(&object))?;
        if found.meta.size > at_most {
            return Err(Error::Damaged {
                path: self.place(path),
                section: "the whole file".to_owned(),
                reason: format!(
                    "it has {} bytes where at most {at_most} can be right",
                    found.meta.size
                ),
            });
        }
        Ok(self.wait("read", path, found.bytes())?.to_vec())
    }

    fn read_range(&self, path: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let object = self.object(path)?;
        // A range that begins at the end is refused.
        let head = self.wait("look at", path, self.shared.store.head(&object))?;
        let end = offset.saturating_add(length).min(head.size);
        if offset >= end {
            return Ok(Vec::new());
        }
        let range = self.shared.store.get_range(&object, offset..end);
        Ok(self.wait("read", path, range)?.to_vec())
    }

    fn list(&self, folder: &str) -> Result<Vec<Stored>> {
        let folder_object = self.folder(folder)?;
        let listed = self.shared.store.list(folder_object.as_ref());
        let listed: Vec<_> = self.wait("list", folder, listed.try_collect())?;
        let stored = listed.iter().map(|object| Stored {
            path: self.path_of(&object.location),
            length: object.size,
            modified: Timestamp(object.last_modified.timestamp_millis()),
        });
        let mut all: Vec<_> = stored.collect();
        all.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(all)
    }

    fn delete(&self, path: &str) -> Result {
        let object = self.object(path)?;
        may_fail!("object_store::before_delete", self, "delete", path);
        let deleted = self.wait("delete", path, self.shared.store.delete(&object));
        may_fail!("object_store::after_delete", self, "delete", path);
        match deleted {
            Err(Error::Missing { .. }) => Ok(()),
            deleted => deleted,
        }
    }
}

/// What went wrong, with its causes, in one line.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.replace(char::is_control, " ")
}

/// What a person can do about a failure.
fn advice(error: &StoreError) -> &'static str {
    match error {
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what that user may do in the bucket"
        }
        _ => "check AWS_ENDPOINT and AWS_REGION, the bucket and the network",
    }
}

#[cfg(test)]
#[path = "object_tests.rs"]
mod tests;
