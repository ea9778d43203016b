//! The order of rows in a segment.
//!
//! Spans stand by trace, so that a trace look-up reads one page of each column; everything else stands by
//! source, operation and time, which queries filter by and which compresses best.

use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{SortColumn, SortOptions, lexsort_to_indices, take_record_batch};
use arrow::error::ArrowError;

use crate::record::Kind;

/// Rising, nulls last.
pub const OPTIONS: SortOptions = SortOptions { descending: false, nulls_first: false };

/// What rows that are equal by [`order`] are sorted by: together they name one row of a table.
pub const KEYS: [&str; 2] = ["writer", "seq"];

/// The columns that a segment of this kind is sorted by.
pub fn order(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Spans => &["trace_id", "time_ns"],
        Kind::Logs => &["source", "time_ns"],
        Kind::Audit | Kind::Events | Kind::System => &["source", "event_type", "time_ns"],
        Kind::Latency => &["source", "operation", "time_ns"],
    }
}

/// Sorts rows for a segment; rows that compare equal keep their order (writer, then seq).
pub fn sort(kind: Kind, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns: Vec<SortColumn> = order(kind)
        .iter()
        .chain(&KEYS)
        .map(|name| SortColumn {
            values: ArrayRef::clone(rows.column_by_name(name).expect("tables have their sort columns")),
            options: Some(OPTIONS),
        })
        .collect();
    let indices: UInt32Array = lexsort_to_indices(&columns, None)?;
    take_record_batch(rows, &indices)
}
