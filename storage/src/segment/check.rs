//! Reading a segment back before anything is committed (F22).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;

use super::cost::Cost;
use super::fingerprint::{Cells, Fingerprint};
use super::parts::parts;
use super::read::Opened;
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

/// Reads all columns, some at a time: a thousand decoders side by side are more than what they read.
fn decode(path: &str, written: &Written, schema: &SchemaRef) -> Result<(Fingerprint, Statistics)> {
    let opened = Opened::encoded(path, written.bytes.clone())?;
    let cost = Cost::of_metadata(opened.metadata());
    let costs: Vec<u64> = schema.fields().iter().map(|field| cost.column(field.name()).open_bytes).collect();
    let parts = parts(&costs);
    let mut fingerprint = Fingerprint::default();
    let mut statistics = Statistics::default();
    let mut start = 0;
    for group in opened.metadata().row_groups() {
        let end = start + usize::try_from(group.num_rows()).unwrap_or(0);
        let mut cells = Cells::of_rows(end - start);
        for part in &parts {
            let places: Vec<usize> = part.clone().collect();
            let columns = Arc::new(schema.project(&places).expect("its own columns"));
            let mut first = 0;
            for batch in opened.rows(&columns, Some(start..end), BATCH_ROWS)? {
                let batch = batch?;
                cells.add(first, &batch);
                statistics.add(&batch);
                first += batch.num_rows();
            }
        }
        fingerprint.add_cells(&cells);
        start = end;
    }
    Ok((fingerprint, statistics))
}
