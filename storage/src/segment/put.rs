//! Names of segments, and their way into the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use object_store::ObjectStore;
use object_store::path::Path;
use uuid::{NoContext, Timestamp, Uuid};

use super::blocks::Blocks;
use super::write::Written;
use crate::error::{Kind as ErrorKind, Result};
use crate::reader::DataFile;
use crate::record::schema;
use crate::store::put_object;

/// A new name for a segment of `date`, below its table's root. It tells when it was made.
pub fn path(date: &str, now_ns: i64) -> String {
    let ns = u64::try_from(now_ns).unwrap_or(0);
    let nanoseconds = u32::try_from(ns % 1_000_000_000).expect("less than a second");
    let id = Uuid::new_v7(Timestamp::from_unix(NoContext, ns / 1_000_000_000, nanoseconds));
    format!("{}={date}/{id}.parquet", schema::DATE)
}

/// When a segment was made, by its name, milliseconds since 1970 UTC; `None` where another program named it.
pub fn made_ms(path: &str) -> Option<i64> {
    let name = path.rsplit('/').next()?.strip_suffix(".parquet")?;
    let (seconds, nanoseconds) = Uuid::try_parse(name).ok()?.get_timestamp()?.to_unix();
    i64::try_from(seconds).ok()?.checked_mul(1_000)?.checked_add(i64::from(nanoseconds / 1_000_000))
}

/// Puts a segment at `path` below `root` and asks the store what it holds there: a commit may name the file when
/// this returns (C1).
///
/// # Errors
/// `Kind::Unavailable` when the store does not take it, `Kind::Corrupt` when it took only a part (F23; counted in
/// `mismatches` and named in the log). What is there then is an orphan that no version names; the next attempt takes a new name.
pub async fn put(
    store: &dyn ObjectStore,
    root: &str,
    path: String,
    written: Written,
    mismatches: &AtomicU64,
) -> Result<DataFile> {
    let bytes = written.bytes.len() as u64;
    let blocks = Some(Arc::new(Blocks::of(&written.bytes)));
    let digest = Some(*blake3::hash(&written.bytes).as_bytes());
    let location = Path::from(format!("{root}/{path}"));
    if let Err(error) = put_object(store, &location, written.bytes).await {
        if error.kind() == ErrorKind::Corrupt {
            mismatches.fetch_add(1, Ordering::Relaxed);
            tracing::error!(segment = %location, %error, "the store holds a part of a segment: not committed");
        }
        return Err(error);
    }
    let statistics = written.statistics;
    Ok(DataFile {
        path,
        bytes,
        rows: statistics.rows(),
        time_ns: statistics.time_ns().expect("a segment is not ended without a time"),
        source: statistics.source().cloned(),
        digest,
        blocks,
        stats: None,
    })
}
