//! Small JSON objects below `system/` of the object store, each proven to be of this deployment. The store that storage
//! hands out syncs local puts.
//!
//! What does not prove is never believed: it is named, and the start ends. A record that proves and that this build
//! cannot read is of a newer one: it is left where it is, named and counted.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Error;
use super::proof::{Proof, Prover};
use crate::clock::Clock;

/// Bytes of one record. Chosen: a thousand times an ordinary one; nobody makes a start read more.
pub(super) const RECORD_BYTES_MAX: u64 = 1 << 20;

/// Records that are asked for at once. Chosen: hides a bucket's latency.
const AT_ONCE: usize = 32;

/// The records below `system/`.
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    prover: Prover,
    /// Paths of records that are of a newer build.
    newer: Mutex<HashSet<String>>,
}

/// The records of a folder.
#[derive(Debug)]
pub(crate) struct Folder<T> {
    /// Those that this build reads, by name.
    pub(crate) known: Vec<(String, T)>,
    /// Those of a newer form, by name.
    pub(crate) newer: Vec<(String, Value)>,
}

pub(super) fn path(name: &str) -> Path {
    Path::from(format!("system/{name}.json"))
}

pub(super) fn failed(error: &object_store::Error) -> Error {
    // Object stores put URLs with signatures into their errors (P2): only the kind goes on.
    Error::Unavailable(
        match error {
            object_store::Error::NotFound { .. } => "an object is gone",
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                "access is denied"
            }
            error if storage::is_untrusted(error) => storage::UNTRUSTED,
            _ => "it does not answer as expected",
        }
        .into(),
    )
}

/// The bytes of an object, where there is one.
///
/// # Errors
/// [`Error::Corrupt`] for one that is larger than any record.
pub(super) async fn bytes(objects: &dyn ObjectStore, path: &Path) -> Result<Option<bytes::Bytes>, Error> {
    let got = match objects.get(path).await {
        Ok(got) => got,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(failed(&error)),
    };
    if got.meta.size > RECORD_BYTES_MAX {
        return Err(Error::Corrupt(path.to_string()));
    }
    got.bytes().await.map(Some).map_err(|error| failed(&error))
}

/// The records of a folder, by path. What has another name is none.
pub(super) async fn list(objects: &dyn ObjectStore, folder: &str) -> Result<Vec<(String, Path)>, Error> {
    let prefix = Path::from(format!("system/{folder}"));
    let listed: Vec<_> = objects.list(Some(&prefix)).try_collect().await.map_err(|error| failed(&error))?;
    let mut found = Vec::with_capacity(listed.len());
    for object in listed {
        let name = object.location.filename().and_then(|name| name.strip_suffix(".json")).map(str::to_owned);
        match name.filter(|name| path(&format!("{folder}/{name}")) == object.location) {
            Some(name) => found.push((name, object.location)),
            None => {
                tracing::warn!(object = %object.location, "no record lies under such a name: it is left alone");
            }
        }
    }
    Ok(found)
}

impl Store {
    /// Records that are proven by `prover`. Whether those that are there are is for [`super::origin::check`] to see first.
    pub(crate) fn new(objects: Arc<dyn ObjectStore>, prover: Prover) -> Self {
        Self { objects, prover, newer: Mutex::default() }
    }

    /// Puts a new object; [`Error::Exists`] where there is one.
    pub(crate) async fn create<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.put(name, value, PutMode::Create).await
    }

    /// Puts an object in the place of whatever was there.
    ///
    /// # Errors
    /// [`Error::Newer`] where a record of a newer build is: nothing changed.
    pub(crate) async fn replace<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.put(name, value, PutMode::Overwrite).await
    }

    async fn put<T: Serialize>(&self, name: &str, value: &T, mode: PutMode) -> Result<(), Error> {
        let path = path(name);
        if self.newer().contains(path.as_ref()) {
            return Err(Error::Newer(path.to_string()));
        }
        let body = serde_json::to_vec(value).expect("records are plain values with text keys");
        let bytes = self.prover.prove(path.as_ref(), &body, Clock::now_ns());
        let options = PutOptions::from(mode);
        match self.objects.put_opts(&path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Err(Error::Exists)
            }
            Err(error) => Err(failed(&error)),
        }
    }

    fn newer(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.newer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records were left alone because a newer build wrote them.
    pub(crate) fn newer_count(&self) -> usize {
        self.newer().len()
    }

    /// A record as JSON, once it is proven; `None` where it is gone meanwhile.
    async fn read(&self, path: &Path) -> Result<Option<Value>, Error> {
        let Some(bytes) = bytes(&*self.objects, path).await? else { return Ok(None) };
        match self.prover.check(path.as_ref(), &bytes) {
            Proof::Holds => {}
            Proof::Absent | Proof::Broken => return Err(Error::Forged(path.to_string())),
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|_| Error::Corrupt(path.to_string()))
    }

    /// Deletes an object; one that is gone already is none.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        match self.objects.delete(&path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Every record of a folder.
    ///
    /// # Errors
    /// [`Error::Forged`] naming the first that does not prove.
    pub(crate) async fn all<T: DeserializeOwned>(&self, folder: &str) -> Result<Folder<T>, Error> {
        let (found, forged) = self.proven(folder).await?;
        match forged.into_iter().next() {
            Some(path) => Err(Error::Forged(path)),
            None => Ok(found),
        }
    }

    /// Every record of a folder that proves, and the paths of those that do not: for records that give no right.
    pub(crate) async fn proven<T: DeserializeOwned>(
        &self,
        folder: &str,
    ) -> Result<(Folder<T>, Vec<String>), Error> {
        let listed = list(&*self.objects, folder).await?;
        let mut read = stream::iter(listed)
            .map(|(name, path)| async move {
                let read = self.read(&path).await;
                (name, path, read)
            })
            .buffered(AT_ONCE);
        let (mut found, mut forged) = (Folder { known: Vec::new(), newer: Vec::new() }, Vec::new());
        while let Some((name, path, read)) = read.next().await {
            let value = match read {
                Ok(Some(value)) => value,
                Ok(None) => continue,
                Err(Error::Forged(path) | Error::Corrupt(path)) => {
                    forged.push(path);
                    continue;
                }
                Err(error) => return Err(error),
            };
            match T::deserialize(&value) {
                Ok(record) => found.known.push((name, record)),
                Err(_) => {
                    tracing::error!(object = %path, "a newer build wrote this record: it is left alone");
                    self.newer().insert(path.to_string());
                    found.newer.push((name, value));
                }
            }
        }
        Ok((found, forged))
    }
}
