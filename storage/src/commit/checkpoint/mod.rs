//! Checkpoints: a table's state in one Parquet file, in the layout of the Delta protocol.
//!
//! An open reads what is live, which is small; tombstones, of which a day has thousands, are read by the first
//! commit or sweep (`codec` says how they are kept apart).

mod codec;
mod tail;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutPayload};
use serde_json::{Value, json};

use self::tail::Tail;
use super::state::State;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::faults;
use crate::store::unavailable;

/// The tag of `_last_checkpoint` that says where in the file the tombstones end. Other readers of the format pass
/// over tags that they do not know.
const LIVE_AT: &str = "floodmark.liveAt";

/// What `_last_checkpoint` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The version that has a checkpoint.
    pub version: i64,
    /// The part of it that an open needs, up to its last byte; `None` where that is all of it.
    live: Option<Range<u64>>,
}

impl Pointer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let parsed = serde_json::from_slice::<Value>(bytes).ok()?;
        let live_at = parsed["tags"][LIVE_AT].as_str().and_then(|text| text.parse().ok());
        let size = parsed["sizeInBytes"].as_u64();
        let live = live_at.zip(size).map(|(from, to)| from..to).filter(|live| !live.is_empty());
        Some(Self { version: parsed["version"].as_i64()?, live })
    }
}

/// What `_last_checkpoint` points at.
///
/// The pointer is a hint: where it is missing or damaged the answer is `None`, and the listing tells instead.
pub async fn read_last(store: &dyn ObjectStore, path: &Path) -> Result<Option<Pointer>> {
    let bytes = match store.get(path).await {
        Ok(result) => result.bytes().await.map_err(unavailable)?,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(unavailable(error)),
    };
    let pointer = Pointer::parse(&bytes);
    if pointer.is_none() {
        tracing::warn!(object = %path, "the pointer to the last checkpoint is damaged and not believed");
    }
    Ok(pointer)
}

/// The table as checkpoint `version` says.
///
/// # Errors
/// `Kind::Corrupt` when it is gone or is not what was written, `Kind::Unavailable` when the store does not
/// answer.
pub async fn read(store: &dyn ObjectStore, path: &Path, version: i64) -> Result<State> {
    state(path, version, Tail::whole(get(store, path).await?))
}

/// The table as the pointer's checkpoint says, without the tombstones in it: the state says that they are missing.
///
/// # Errors
/// As [`read`].
pub async fn read_live(store: &dyn ObjectStore, path: &Path, pointer: &Pointer) -> Result<State> {
    if let Some(live) = &pointer.live
        && let Some(bytes) = part(store, path, live).await
        && let Ok(mut state) = state(path, pointer.version, Tail::new(live.start, bytes))
    {
        state.tombstones_in = Some(pointer.version);
        return Ok(state);
    }
    // The part is a hint as the pointer is: whatever was wrong with it, the whole says.
    read(store, path, pointer.version).await
}

async fn get(store: &dyn ObjectStore, path: &Path) -> Result<Bytes> {
    match store.get(path).await {
        Ok(result) => result.bytes().await.map_err(unavailable),
        Err(object_store::Error::NotFound { .. }) => {
            Err(Error::new(ErrorKind::Corrupt, format!("checkpoint {path} is gone")))
        }
        Err(error) => Err(unavailable(error)),
    }
}

/// A part of an object that ends where the object does; `None` where that is not so or the store does not answer.
async fn part(store: &dyn ObjectStore, path: &Path, range: &Range<u64>) -> Option<Bytes> {
    let options = GetOptions { range: Some(range.clone().into()), ..GetOptions::default() };
    let found = store.get_opts(path, options).await.ok()?;
    let is_end = found.meta.size == range.end && found.range == *range;
    if is_end { found.bytes().await.ok() } else { None }
}

fn state(path: &Path, version: i64, tail: Tail) -> Result<State> {
    let mut state = State::empty();
    state.apply(version, codec::decode(path, tail)?)?;
    if state.metadata.is_none() {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("checkpoint {path} does not say what the table is"),
        ));
    }
    state.checkpoint = Some(version);
    Ok(state)
}

/// Writes a checkpoint, reads it back, and only then points `_last_checkpoint` at it (F24): what the pointer
/// names has been read once.
///
/// # Errors
/// `Kind::Corrupt` when it does not read back as `state`, as a whole or as an open reads it: the pointer stays
/// where it was.
pub async fn write(
    store: &dyn ObjectStore,
    path: &Path,
    last: &Path,
    version: i64,
    state: &State,
) -> Result<()> {
    let encoded = codec::encode(state)?;
    let size = encoded.bytes.len();
    faults::reach("checkpoint.before_put").await?;
    store.put(path, PutPayload::from(encoded.bytes)).await.map_err(unavailable)?;
    faults::reach("checkpoint.before_check").await?;
    let bytes = get(store, path).await?;
    let mut is_whole = bytes.len() == size;
    if is_whole && let Some(from) = encoded.live_at {
        let live = self::state(path, version, Tail::new(from, bytes.slice(from as usize..)))?;
        is_whole = live.holds_the_same(state) && live.tombstones.is_empty();
    }
    let found = self::state(path, version, Tail::whole(bytes))?;
    if !is_whole || !found.holds_the_same(state) || !found.buries_the_same(state) {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("checkpoint {path} does not read back as written"),
        ));
    }
    // The pointer never goes back: behind a later one commits may be cleaned up already.
    if read_last(store, last).await?.is_some_and(|at| at.version >= version) {
        return Ok(());
    }
    let mut pointer = json!({
        "version": version,
        "size": encoded.lines,
        "sizeInBytes": size,
        "numOfAddFiles": state.files.len(),
    });
    if let Some(from) = encoded.live_at {
        pointer["tags"] = json!({LIVE_AT: from.to_string()});
    }
    faults::reach("checkpoint.before_pointer").await?;
    store.put(last, PutPayload::from(pointer.to_string())).await.map_err(unavailable)?;
    Ok(())
}
