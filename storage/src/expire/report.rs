//! What a run removes, written down before it is removed (E2).

use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use serde::Serialize;

use crate::error::Result;
use crate::record::TableId;
use crate::store::unavailable;

/// One file that leaves a table's version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leaving {
    /// Its path below the table.
    pub path: String,
    /// Rows that go with it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// Whether all its rows go; the others come back in a file of their own.
    pub is_whole: bool,
}

/// A report as it is kept: `tenant/{tenant}/reports/{YYYY-MM}/{id}-retention.json`.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    pub id: &'a str,
    pub kind: &'static str,
    pub tenant: &'a str,
    pub dataset: &'a str,
    /// The policy that was in force.
    pub days: u32,
    /// Rows whose event time lies before this go, RFC 3339.
    pub before: String,
    /// When it was written, RFC 3339.
    pub at: String,
    pub rows: u64,
    pub files: u64,
    pub bytes: u64,
    /// Every file that leaves.
    pub leaving: &'a [Leaving],
}

/// A time as RFC 3339 text.
pub fn rfc3339(ns: i64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns))
        .expect("nanoseconds in 64 bits lie between 1677 and 2262")
        .to_string()
}

/// The object that the report `id` is kept in, written at `now_ns`.
pub fn path(table: &TableId, id: &str, now_ns: i64) -> String {
    let month = rfc3339(now_ns)[..7].to_owned();
    format!("tenant/{}/reports/{month}/{id}-retention.json", table.tenant)
}

/// Puts a report, in the place of an earlier one of the same id.
///
/// # Errors
/// `Kind::Unavailable` when the store does not take it: then nothing may be removed.
pub async fn put(store: &dyn ObjectStore, path: &str, report: &Report<'_>) -> Result<()> {
    let bytes = serde_json::to_vec(report).expect("plain data becomes JSON");
    store.put(&Path::from(path), PutPayload::from(bytes)).await.map_err(unavailable)?;
    Ok(())
}
