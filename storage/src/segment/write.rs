//! Rows to Parquet bytes, with the statistics that the table's log keeps.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use serde_json::{Map, Value, json};

use super::sort;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::record::{Kind, schema};

/// Columns of ids: random text, for which a dictionary and statistics are wasted.
const IDS: [&str; 5] = ["id", "trace_id", "span_id", "parent_span_id", "correlation_id"];

/// Ids that look-ups ask for: each has a bloom filter.
const BLOOMED: [&str; 4] = ["id", "trace_id", "correlation_id", "decision_id"];

/// Columns whose neighbours differ by little.
const DELTAS: [&str; 5] = ["time", "observed_time", "time_ns", "duration_ns", "seq"];

/// A segment's bytes and what is known of them.
#[derive(Debug)]
pub struct Written {
    /// The Parquet file.
    pub bytes: Bytes,
    /// Rows in it.
    pub rows: u64,
    /// Lowest and highest `time_ns`.
    pub time_ns: (i64, i64),
    /// Lowest and highest `source`.
    pub source: Option<(String, String)>,
    /// Delta statistics as JSON.
    pub stats: String,
}

/// Encodes the rows of one date, sorted, as one Parquet file.
///
/// # Errors
/// `Kind::Bug` when they do not encode: nothing was written anywhere.
pub fn write(kind: Kind, rows: &RecordBatch, row_group_rows: usize) -> Result<Written> {
    let bug = |error: Box<dyn std::error::Error + Send + Sync>| {
        Error::new(ErrorKind::Bug, "segment does not encode").with_source(error)
    };
    let sorted = sort::sort(kind, rows).map_err(|error| bug(error.into()))?;
    let mut bytes = Vec::new();
    let properties = properties(kind, &sorted, row_group_rows);
    let mut writer = ArrowWriter::try_new(&mut bytes, sorted.schema(), Some(properties))
        .map_err(|error| bug(error.into()))?;
    writer.write(&sorted).map_err(|error| bug(error.into()))?;
    writer.close().map_err(|error| bug(error.into()))?;
    let time_ns =
        range(&sorted).ok_or_else(|| Error::new(ErrorKind::Bug, "segment has no row with a time"))?;
    let source = text_range(&sorted, "source");
    let stats = stats(&sorted, time_ns, source.as_ref());
    Ok(Written { bytes: bytes.into(), rows: sorted.num_rows() as u64, time_ns, source, stats })
}

fn properties(kind: Kind, rows: &RecordBatch, row_group_rows: usize) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(row_group_rows))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(concat!("floodmark ", env!("CARGO_PKG_VERSION")).to_owned());
    let in_group = rows.num_rows().min(row_group_rows) as u64;
    for field in rows.schema_ref().fields() {
        let name = field.name().as_str();
        let path = ColumnPath::new(vec![name.to_owned()]);
        if IDS.contains(&name) {
            builder = builder.set_column_dictionary_enabled(path.clone(), false);
            // A sorted id's page index is what a look-up skips by; of a random one it tells nothing.
            if sort::order(kind).first() != Some(&name) {
                builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
            }
        }
        if BLOOMED.contains(&name) && rows.column_by_name(name).is_some_and(|c| c.null_count() < c.len()) {
            builder = builder
                .set_column_bloom_filter_enabled(path.clone(), true)
                .set_column_bloom_filter_fpp(path.clone(), 0.01)
                .set_column_bloom_filter_max_ndv(path.clone(), in_group);
        }
        if DELTAS.contains(&name) {
            builder = builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    builder.build()
}

fn range(rows: &RecordBatch) -> Option<(i64, i64)> {
    let times = rows.column_by_name("time_ns")?.as_primitive::<Int64Type>();
    Some((arrow::compute::min(times)?, arrow::compute::max(times)?))
}

fn text_range(rows: &RecordBatch, name: &str) -> Option<(String, String)> {
    let column = rows.column_by_name(name)?.as_string::<i32>();
    let low = arrow::compute::min_string(column)?;
    let high = arrow::compute::max_string(column)?;
    // A bound is worth its bytes only while it is short.
    (low.len() + high.len() <= 256).then_some(())?;
    (column.null_count() == 0).then_some(())?;
    Some((low.to_owned(), high.to_owned()))
}

fn stats(rows: &RecordBatch, time_ns: (i64, i64), source: Option<&(String, String)>) -> String {
    let mut low = Map::new();
    let mut high = Map::new();
    low.insert("time_ns".into(), time_ns.0.into());
    high.insert("time_ns".into(), time_ns.1.into());
    // Delta keeps timestamps in statistics at millisecond precision: the maximum is rounded up, so that a
    // reader that skips by it never skips a row.
    let timestamp = |ns: i64| {
        let at = jiff::Timestamp::from_millisecond(ns.div_euclid(1_000_000))
            .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        format!("{at:.3}")
    };
    low.insert(schema::TIME.into(), timestamp(time_ns.0).into());
    high.insert(schema::TIME.into(), timestamp(time_ns.1.saturating_add(999_999)).into());
    if let Some((lowest, highest)) = source {
        low.insert("source".into(), lowest.clone().into());
        high.insert("source".into(), highest.clone().into());
    }
    let nulls: Map<String, Value> = rows
        .schema_ref()
        .fields()
        .iter()
        .zip(rows.columns())
        .map(|(field, column)| (field.name().clone(), column.null_count().into()))
        .collect();
    json!({"numRecords": rows.num_rows(), "minValues": low, "maxValues": high, "nullCount": nulls})
        .to_string()
}
