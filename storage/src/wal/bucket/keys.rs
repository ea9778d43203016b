//! Declared keys beside a log in the bucket: they outlive the objects of their frames (F19).
//!
//! Files of a level are merged into one of the next where there are too many: what a start reads stays few, and what
//! is written again stays little.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutPayload};

use crate::error::Result;
use crate::idempotency::beside::{decode_lines, encode_lines};
use crate::store::unavailable;
use crate::wal::log::Remembered;

/// Files of a level before they become one of the next. Chosen.
const FANOUT: usize = 8;

/// The files of keys beside a log, by level, oldest first in each.
#[derive(Debug, Default)]
pub struct KeyFiles {
    levels: BTreeMap<u32, Vec<Path>>,
}

impl KeyFiles {
    /// Notes a file that stands; false where the name is none of theirs. Files of a level come in the order of names.
    pub fn note(&mut self, path: Path) -> bool {
        let level = path.filename().and_then(|name| name.split_once('-')?.0.parse().ok());
        level.map(|level: u32| self.levels.entry(level).or_default().push(path)).is_some()
    }

    /// What the files hold, in the order it was acknowledged in.
    ///
    /// # Errors
    /// `Kind::Unavailable` when one cannot be read.
    pub async fn read(&self, store: &dyn ObjectStore) -> Result<Vec<Remembered>> {
        // A file of a higher level was merged from older ones.
        read(store, self.levels.values().rev().flatten()).await
    }

    /// Puts keys in a file named after the last object they were in; returns the files that a merge made superfluous.
    ///
    /// # Errors
    /// `Kind::Unavailable`; the keys are still in their objects then, or in both.
    pub async fn keep(
        &mut self,
        store: &dyn ObjectStore,
        folder: &str,
        last: u64,
        keys: &[Remembered],
    ) -> Result<Vec<Path>> {
        let mut replaced = Vec::new();
        if keys.is_empty() || crate::faults::has(crate::faults::Bug::ForgetKeys) {
            return Ok(replaced);
        }
        let path = put(store, folder, 0, last, keys).await?;
        self.levels.entry(0).or_default().push(path);
        let mut level = 0;
        while let Some(files) = self.levels.get(&level).filter(|files| files.len() >= FANOUT) {
            let merged = read(store, files.iter()).await?;
            let path = put(store, folder, level + 1, last, &merged).await?;
            replaced.append(&mut self.levels.remove(&level).unwrap_or_default());
            level += 1;
            self.levels.entry(level).or_default().push(path);
        }
        Ok(replaced)
    }
}

/// Where the files of keys of a log lie.
pub fn folder_of(folder: &str) -> String {
    format!("{folder}/keys")
}

async fn put(
    store: &dyn ObjectStore,
    folder: &str,
    level: u32,
    last: u64,
    keys: &[Remembered],
) -> Result<Path> {
    let id = uuid::Uuid::new_v4().simple();
    let path = Path::from(format!("{}/{level}-{last:020}-{id}", folder_of(folder)));
    let bytes = Bytes::from(encode_lines(keys));
    // The name is new: a condition costs nothing, and makes the put whole or none.
    store.put_opts(&path, PutPayload::from(bytes), PutMode::Create.into()).await.map_err(unavailable)?;
    Ok(path)
}

async fn read(store: &dyn ObjectStore, files: impl Iterator<Item = &Path>) -> Result<Vec<Remembered>> {
    let read = stream::iter(files.cloned().collect::<Vec<_>>()).map(|path| async move {
        let bytes = async { store.get(&path).await?.bytes().await };
        let bytes = match bytes.await {
            // Merged meanwhile, by the process that had the log before: what was merged is listed, too.
            Err(object_store::Error::NotFound { .. }) => return Ok(Vec::new()),
            bytes => bytes.map_err(unavailable)?,
        };
        // What is no key is named, and costs no more than that.
        Ok(decode_lines(path.as_ref(), &bytes).0)
    });
    Ok(read.buffered(FANOUT).try_collect::<Vec<_>>().await?.concat())
}
