//! Rows to Parquet bytes, with the statistics that the table's log keeps.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::sort;
use super::statistics::Statistics;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::record::Kind;

/// Columns of ids: random text, for which a dictionary and statistics are wasted.
const IDS: [&str; 5] = ["id", "trace_id", "span_id", "parent_span_id", "correlation_id"];

/// Ids that look-ups ask for: each has a bloom filter.
const BLOOMED: [&str; 4] = ["id", "trace_id", "correlation_id", "decision_id"];

/// Columns whose neighbours differ by little.
const DELTAS: [&str; 5] = ["time", "observed_time", "time_ns", "duration_ns", "seq"];

/// Values that the encoder takes between two looks at the size of a page, and bytes that they should have together at
/// most: a reader decodes a page as a whole, so one of a thousand long texts would be more than it may hold.
const PAGE_VALUES: u64 = 1_024;
const PAGE_BYTES: u64 = 1 << 20;

/// Bytes of values up to which a column has neither a dictionary nor a compressor. Chosen: what they save are some hundred
/// bytes until the segment is merged, and they are most of what it costs to write a column of a few values.
const PLAIN_BYTES: u64 = 2 << 10;

/// What a column holds while it is encoded, beside its pages: encoder and statistics.
const ENCODER_BYTES: u64 = 8 << 10;

/// The same for a dictionary's table, a compressor and the decompressor that is made with it: from so many bytes on, and up
/// to so many. Both grow with what they are given: of different numbers, 2.4 KB were seen to take 95 KB in all, 6.4 KB
/// 103, and 24 KB 149.
const CODED_BYTES: u64 = 96 << 10;
const CODED_BYTES_FULL: u64 = 272 << 10;

/// A segment's bytes and what is known of them.
#[derive(Debug)]
pub struct Written {
    /// The Parquet file.
    pub bytes: Bytes,
    /// Counts and bounds of its rows.
    pub statistics: Statistics,
}

/// Encodes the rows of one date, sorted, as one Parquet file.
///
/// # Errors
/// `Kind::Bug` when they do not encode: nothing was written anywhere.
pub fn write(kind: Kind, rows: &RecordBatch, row_group_rows: usize) -> Result<Written> {
    let sorted = sort::sort(kind, rows).map_err(bug)?;
    let values = |name: &str| sorted.column_by_name(name).map_or(0, |column| value_bytes(column));
    let rows_max = sorted.num_rows() as u64;
    let mut writer = Writer::new(kind, sorted.schema(), rows_max, 0, values, row_group_rows)?;
    writer.write(&sorted)?;
    writer.finish()
}

/// Bytes of a column's values, about; 0 where it has none.
pub fn value_bytes(column: &dyn Array) -> u64 {
    match column.len() - column.logical_null_count() {
        0 => 0,
        _ => column.to_data().get_slice_memory_size().map_or(u64::MAX, |bytes| bytes.max(1) as u64),
    }
}

/// What a column of so many bytes of values holds while it is encoded, beside its pages.
pub fn encoder_bytes(values: u64) -> u64 {
    match values > PLAIN_BYTES {
        true => {
            let coded = CODED_BYTES.saturating_add(values.saturating_mul(4));
            ENCODER_BYTES + coded.min(CODED_BYTES_FULL)
        }
        false => ENCODER_BYTES,
    }
}

/// A segment that is being encoded, batch by batch, of rows that come sorted.
#[derive(Debug)]
pub struct Writer {
    pub(super) arrow: ArrowWriter<Vec<u8>>,
    pub(super) statistics: Statistics,
}

impl Writer {
    /// Begins a segment of up to `rows_max` rows and about `bytes` of them, 0 where that is not known; `values` tells how
    /// many bytes the values of a column take, about, and 0 where no row has any.
    ///
    /// The bytes are reserved at once: a buffer that grows by doubling holds up to three times what it needs.
    ///
    /// # Errors
    /// `Kind::Bug` when the schema is not one that Parquet holds.
    pub fn new(
        kind: Kind,
        schema: SchemaRef,
        rows_max: u64,
        bytes: u64,
        values: impl Fn(&str) -> u64,
        row_group_rows: usize,
    ) -> Result<Self> {
        let properties = properties(kind, &schema, rows_max, bytes, values, row_group_rows);
        let buffer = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        let arrow = ArrowWriter::try_new(buffer, schema, Some(properties)).map_err(bug)?;
        Ok(Self { arrow, statistics: Statistics::default() })
    }

    /// Adds rows behind those that are in.
    ///
    /// # Errors
    /// `Kind::Bug` when they do not encode.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.statistics.add(rows);
        self.arrow.write(rows).map_err(bug)
    }

    /// Ends the segment.
    ///
    /// # Errors
    /// `Kind::Bug` when it does not encode, or has no row with a time.
    pub fn finish(self) -> Result<Written> {
        ended(self.arrow.into_inner().map_err(bug)?, self.statistics)
    }
}

/// What was encoded, unless it has no row with a time.
pub(super) fn ended(bytes: Vec<u8>, statistics: Statistics) -> Result<Written> {
    if statistics.time_ns().is_none() {
        return Err(Error::new(ErrorKind::Bug, "segment has no row with a time"));
    }
    Ok(Written { bytes: bytes.into(), statistics })
}

pub(super) fn bug(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Bug, "segment does not encode").with_source(error)
}

fn properties(
    kind: Kind,
    schema: &SchemaRef,
    rows_max: u64,
    bytes: u64,
    values: impl Fn(&str) -> u64,
    row_group_rows: usize,
) -> WriterProperties {
    let row_bytes = (bytes / rows_max.max(1)).max(1);
    let page_values = (PAGE_BYTES / row_bytes).clamp(1, PAGE_VALUES);
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(row_group_rows))
        .set_write_batch_size(usize::try_from(page_values).expect("a thousand at most"))
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_created_by(concat!("floodmark ", env!("CARGO_PKG_VERSION")).to_owned());
    let in_group = rows_max.min(row_group_rows as u64);
    for field in schema.fields() {
        let name = field.name().as_str();
        let path = ColumnPath::new(vec![name.to_owned()]);
        let values = values(name);
        if values <= PLAIN_BYTES {
            builder = builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_compression(path.clone(), Compression::UNCOMPRESSED);
        }
        if IDS.contains(&name) {
            builder = builder.set_column_dictionary_enabled(path.clone(), false);
            // A sorted id's page index is what a look-up skips by; of a random one it tells nothing.
            if sort::order(kind).first() != Some(&name) {
                builder = builder.set_column_statistics_enabled(path.clone(), EnabledStatistics::None);
            }
        }
        if BLOOMED.contains(&name) && values > 0 {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::file::metadata::ParquetMetaDataReader;

    use super::{PLAIN_BYTES, Writer, encoder_bytes};
    use crate::record::fit::{Columns, Coordinates, to_rows};
    use crate::record::{Clean, Draft, Field, Kind};

    /// Whether a column of so many bytes of values is compressed, and whether it has a dictionary.
    fn is_compressed(values: u64) -> (bool, bool) {
        let mut draft = Draft::new(Kind::Events);
        draft.begin_row();
        draft.set_int(Field::TimeNs, 1);
        draft.set_int(Field::ObservedNs, 1);
        draft.set_text(Field::Source, "s");
        draft.end_row();
        let chunk = Clean::attest(&mut draft, 1).batch().clone();
        let columns = Columns::new(Kind::Events);
        let rows = to_rows(&chunk, columns.schema(), Coordinates { writer: "w", first_seq: 0 });
        let of = |name: &str| if name == "source" { values } else { 0 };
        let mut writer = Writer::new(Kind::Events, Arc::clone(columns.schema()), 1, 0, of, 64).unwrap();
        writer.write(&rows).unwrap();
        let metadata =
            ParquetMetaDataReader::new().parse_and_finish(&writer.finish().unwrap().bytes).unwrap();
        let group = metadata.row_group(0);
        let source = group.columns().iter().find(|column| column.column_path().string() == "source").unwrap();
        let is_compressed = source.compression() != Compression::UNCOMPRESSED;
        (is_compressed, source.dictionary_page_offset().is_some())
    }

    // B1: a thousand columns of a few values each are a thousand dictionaries and compressors otherwise.
    #[test]
    fn a_column_of_few_bytes_is_written_as_it_is() {
        let all = [0, 1, PLAIN_BYTES, PLAIN_BYTES + 1, u64::MAX].map(is_compressed);
        assert_eq!(all, [(false, false), (false, false), (false, false), (true, true), (true, true)]);
        assert!(encoder_bytes(PLAIN_BYTES) < encoder_bytes(PLAIN_BYTES + 1) / 10);
        let kib = |values: u64| encoder_bytes(values) >> 10;
        assert_eq!([0, 6 << 10, 24 << 10, 44 << 10, u64::MAX].map(kib), [8, 128, 200, 280, 280]);
    }
}
