//! Reading a segment back before anything is committed (F22).

use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;

use super::fingerprint::Fingerprint;
use super::read::open;
use super::statistics::Statistics;
use super::write::Written;
use crate::error::{Error, Kind as ErrorKind, Result};

/// Rows decoded at a time.
const BATCH_ROWS: usize = 8 * 1024;

/// Decodes what was encoded and compares it with the rows that went in: every value of every row, and the
/// statistics that readers will skip by. A segment that does not hold them is counted in `mismatches` and named
/// in the log, and must not be committed.
///
/// # Errors
/// `Kind::Bug` naming the file: the rows are where they were, and the next attempt encodes them again.
pub fn check(
    path: &str,
    written: &Written,
    schema: &SchemaRef,
    expected: Fingerprint,
    mismatches: &AtomicU64,
) -> Result<()> {
    let found = decode(path, written, schema);
    let why = match &found {
        Ok((found, _)) if *found != expected => "its rows are not those that went in".to_owned(),
        Ok((_, statistics)) if *statistics != written.statistics => "its statistics are wrong".to_owned(),
        Ok(_) => return Ok(()),
        Err(error) => error.to_string(),
    };
    mismatches.fetch_add(1, Ordering::Relaxed);
    tracing::error!(segment = path, why, "an encoded segment does not read back and is not committed");
    Err(Error::new(ErrorKind::Bug, format!("segment {path} does not read back: {why}")))
}

fn decode(path: &str, written: &Written, schema: &SchemaRef) -> Result<(Fingerprint, Statistics)> {
    let mut fingerprint = Fingerprint::default();
    let mut statistics = Statistics::default();
    for batch in open(path, written.bytes.clone(), schema, BATCH_ROWS)? {
        let batch = batch?;
        fingerprint.add(&batch);
        statistics.add(&batch);
    }
    Ok((fingerprint, statistics))
}
