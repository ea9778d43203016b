//! Finding the log of a node in the bucket.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::keys::{KeyFiles, folder_of};
use super::{ROOT, path};
use crate::error::Result;
use crate::store::unavailable;

/// What a listing shows of a log.
#[derive(Debug, Default)]
pub struct Listed {
    /// Numbers of its objects with their bytes, rising.
    pub objects: BTreeMap<u64, u64>,
    /// The declared keys beside it.
    pub keys: KeyFiles,
}

/// The log in `folder`, as a listing shows it: that may be behind.
///
/// # Errors
/// `Kind::Unavailable` when the store does not answer.
pub async fn list(store: &dyn ObjectStore, folder: &str) -> Result<Listed> {
    let prefix = Path::from(folder);
    let mut found: Vec<_> = store.list(Some(&prefix)).try_collect().await.map_err(unavailable)?;
    found.sort_unstable_by(|a, b| a.location.cmp(&b.location));
    let keys = Path::from(folder_of(folder));
    let mut listed = Listed::default();
    for object in found {
        if object.location.prefix_matches(&keys) {
            listed.keys.note(object.location);
        } else if let Some(number) = object.location.filename().and_then(|name| name.parse().ok()) {
            listed.objects.insert(number, object.size);
        }
    }
    Ok(listed)
}

/// Nodes other than `node` that have a log in the bucket.
///
/// # Errors
/// `Kind::Unavailable` when the store does not answer.
pub async fn others(store: &dyn ObjectStore, node: &str) -> Result<Vec<String>> {
    let listed = store.list_with_delimiter(Some(&Path::from(ROOT))).await.map_err(unavailable)?;
    let names = listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned));
    Ok(names.filter(|name| name != node).collect())
}

/// The object of that number; `None` where there is none.
///
/// # Errors
/// `Kind::Unavailable` when the store does not answer.
pub async fn object(store: &dyn ObjectStore, folder: &str, number: u64) -> Result<Option<Bytes>> {
    match store.get(&path(folder, number)).await {
        Ok(found) => found.bytes().await.map(Some).map_err(unavailable),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(unavailable(error)),
    }
}
