//! Putting one object of any size: whole, or not at all.

use std::future::ready;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, Result as StoreResult};

use super::unavailable;
use crate::error::{Error, Kind, Result};

/// Objects above this go up in parts of this size, bytes. Chosen: above the 5 MiB that S3 asks for, and a part
/// crosses a 5 Mbit/s line within the default `store_timeout_ms`.
const PUT_PART_BYTES: usize = 16 << 20;

/// Parts of one object under way at once: bounds connections, not memory (B1).
const PARTS_AT_ONCE: usize = 4;

/// Puts an object under a name that nothing else uses, and asks the store whether it holds all of it (C1).
///
/// Above 16 MiB it goes up in parts; where one fails the upload is aborted. After an error the object may stand
/// in the store: try again under another name.
///
/// # Errors
/// `Kind::Unavailable` when the store does not take it, `Kind::Corrupt` when it holds another length than was sent.
pub async fn put_object(store: &dyn ObjectStore, path: &Path, bytes: Bytes) -> Result<()> {
    put_object_in(store, path, bytes, PUT_PART_BYTES).await
}

async fn put_object_in(store: &dyn ObjectStore, path: &Path, bytes: Bytes, part_bytes: usize) -> Result<()> {
    let length = bytes.len() as u64;
    if bytes.len() <= part_bytes {
        store.put(path, PutPayload::from(bytes)).await.map_err(unavailable)?;
    } else {
        put_parts(store, path, &bytes, part_bytes).await.map_err(unavailable)?;
    }
    let stored = store.head(path).await.map_err(unavailable)?.size;
    if stored != length {
        let context = format!("object {path} has {stored} of {length} bytes in the store");
        return Err(Error::new(Kind::Corrupt, context));
    }
    Ok(())
}

async fn put_parts(
    store: &dyn ObjectStore,
    path: &Path,
    bytes: &Bytes,
    part_bytes: usize,
) -> StoreResult<()> {
    let mut upload = store.put_multipart(path).await?;
    let parts: Vec<_> = (0..bytes.len())
        .step_by(part_bytes)
        .map(|from| upload.put_part(bytes.slice(from..bytes.len().min(from + part_bytes)).into()))
        .collect();
    let sent = stream::iter(parts).buffer_unordered(PARTS_AT_ONCE).try_for_each(|()| ready(Ok(()))).await;
    let ended = match sent {
        Ok(()) => upload.complete().await.map(drop),
        Err(error) => Err(error),
    };
    if ended.is_err() && upload.abort().await.is_err() {
        // Not seen by any listing of objects, but paid for: a lifecycle rule of the bucket ends it.
        tracing::warn!(object = %path, "an upload in parts failed and could not be aborted");
    }
    ended
}

#[cfg(test)]
mod tests;
