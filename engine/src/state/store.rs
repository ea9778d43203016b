//! Small JSON objects below `system/` of the object store. The store that storage hands out syncs local puts.

use std::sync::Arc;

use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;

pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
}

fn path(name: &str) -> Path {
    Path::from(format!("system/{name}.json"))
}

fn failed(error: &object_store::Error) -> Error {
    // Object stores put URLs with signatures into their errors (P2): only the kind goes on.
    Error::Unavailable(
        match error {
            object_store::Error::NotFound { .. } => "an object is gone",
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
                "access is denied"
            }
            _ => "it does not answer as expected",
        }
        .into(),
    )
}

impl Store {
    pub(crate) fn new(objects: Arc<dyn ObjectStore>) -> Self {
        Self { objects }
    }

    /// Puts a new object; [`Error::Exists`] where there is one.
    pub(crate) async fn create<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.put(name, value, PutMode::Create).await
    }

    /// Puts an object in the place of whatever was there.
    pub(crate) async fn replace<T: Serialize>(&self, name: &str, value: &T) -> Result<(), Error> {
        self.put(name, value, PutMode::Overwrite).await
    }

    async fn put<T: Serialize>(&self, name: &str, value: &T, mode: PutMode) -> Result<(), Error> {
        let bytes = serde_json::to_vec(value).expect("records are plain values with text keys");
        let options = PutOptions::from(mode);
        match self.objects.put_opts(&path(name), PutPayload::from(bytes), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Err(Error::Exists)
            }
            Err(error) => Err(failed(&error)),
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        self.read(&path(name)).await
    }

    async fn read<T: DeserializeOwned>(&self, path: &Path) -> Result<T, Error> {
        let got = self.objects.get(path).await.map_err(|error| failed(&error))?;
        let bytes = got.bytes().await.map_err(|error| failed(&error))?;
        serde_json::from_slice(&bytes).map_err(|_| Error::Corrupt(path.to_string()))
    }

    /// Deletes an object; one that is gone already is none.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        match self.objects.delete(&path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(&error)),
        }
    }

    /// Every object of a folder.
    pub(crate) async fn all<T: DeserializeOwned>(&self, folder: &str) -> Result<Vec<T>, Error> {
        Ok(self.all_named(folder).await?.into_iter().map(|(_, value)| value).collect())
    }

    /// Every object of a folder with its name.
    pub(crate) async fn all_named<T: DeserializeOwned>(
        &self,
        folder: &str,
    ) -> Result<Vec<(String, T)>, Error> {
        let prefix = Path::from(format!("system/{folder}"));
        let listed: Vec<_> =
            self.objects.list(Some(&prefix)).try_collect().await.map_err(|error| failed(&error))?;
        let mut found = Vec::with_capacity(listed.len());
        for object in listed {
            let Some(name) = object.location.filename().and_then(|name| name.strip_suffix(".json")) else {
                continue;
            };
            found.push((name.to_owned(), self.read(&object.location).await?));
        }
        Ok(found)
    }
}
