//! What a segment takes in memory while it is read, by what its footer says: known before anything is decoded.

use std::collections::HashMap;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};

use crate::error::{Error, Kind as ErrorKind, Result};

/// Rows of a column in one page, by Parquet's default.
const PAGE_ROWS: u64 = 20_000;

/// Bytes of a dictionary at most, by Parquet's default.
const DICTIONARY_BYTES_MAX: u64 = 1 << 20;

/// What a column's decoder holds beside its page, and what a decompressor is.
const COLUMN_BYTES: u64 = 8 << 10;
const DECOMPRESSOR_BYTES: u64 = 96 << 10;

/// What is known of a column in the footer, parsed: its places, sizes and bounds.
const FOOTER_BYTES: u64 = 1 << 10;

/// What reading a segment takes.
#[derive(Clone, Debug, Default)]
pub struct Cost {
    /// What its footer takes, parsed.
    pub footer_bytes: u64,
    /// What each column takes that has a value: others are not read.
    pub columns: HashMap<String, ColumnCost>,
}

/// What reading a column takes, by the row group in which it takes the most.
#[derive(Clone, Copy, Debug, Default)]
pub struct ColumnCost {
    /// Bytes of its values in all row groups, about.
    pub values: u64,
    /// Bytes that its decoder takes as long as it is open: a page and a dictionary.
    pub open_bytes: u64,
    /// Bytes of a decoded row, on average.
    pub row_bytes: u64,
}

impl Cost {
    /// Of the segment at `path`, whose bytes these are.
    ///
    /// # Errors
    /// `Kind::Corrupt` when its footer does not read.
    pub fn of(path: &str, bytes: &Bytes) -> Result<Self> {
        let corrupt = |why: &str| Error::new(ErrorKind::Corrupt, format!("segment {path} is damaged: {why}"));
        let read = || ParquetMetaDataReader::new().parse_and_finish(bytes);
        let metadata = std::panic::catch_unwind(std::panic::AssertUnwindSafe(read))
            .map_err(|_| corrupt("decoding its footer panicked"))?
            .map_err(|error| corrupt(&error.to_string()))?;
        Ok(Self::of_metadata(&metadata))
    }

    /// Of a segment whose footer this is.
    pub fn of_metadata(metadata: &ParquetMetaData) -> Self {
        let mut cost = Self::default();
        for group in metadata.row_groups() {
            let rows = u64::try_from(group.num_rows()).unwrap_or(0).max(1);
            cost.footer_bytes += group.num_columns() as u64 * FOOTER_BYTES;
            for column in group.columns().iter().filter(|column| has_values(column)) {
                let of_all = cost.columns.entry(column.column_path().string()).or_default();
                of_all.values += value_bytes(column);
                of_all.open_bytes = of_all.open_bytes.max(open_bytes(column, rows));
                of_all.row_bytes = of_all.row_bytes.max((value_bytes(column) / rows).max(8));
            }
        }
        cost
    }

    /// What a column takes; nothing where it has no value.
    pub fn column(&self, name: &str) -> ColumnCost {
        self.columns.get(name).copied().unwrap_or_default()
    }

    /// Bytes that it takes as long as it is open with all its columns.
    pub fn open_bytes(&self) -> u64 {
        self.footer_bytes + self.columns.values().map(|column| column.open_bytes).sum::<u64>()
    }

    /// Bytes of a decoded row of all its columns.
    pub fn row_bytes(&self) -> u64 {
        self.columns.values().map(|column| column.row_bytes).sum()
    }
}

/// Whether a column may have a value, by what the footer says of its nulls.
pub fn has_values(column: &ColumnChunkMetaData) -> bool {
    let nulls = column.statistics().and_then(|statistics| statistics.null_count_opt());
    nulls.is_none_or(|nulls| i64::try_from(nulls) != Ok(column.num_values()))
}

fn open_bytes(column: &ColumnChunkMetaData, rows: u64) -> u64 {
    let size = u64::try_from(column.uncompressed_size()).unwrap_or(0);
    let dictionary = if column.dictionary_page_offset().is_some() { DICTIONARY_BYTES_MAX } else { 0 };
    let decompressor = if column.compression() == Compression::UNCOMPRESSED { 0 } else { DECOMPRESSOR_BYTES };
    size.min(size / rows.div_ceil(PAGE_ROWS) + dictionary) + COLUMN_BYTES + decompressor
}

fn value_bytes(column: &ColumnChunkMetaData) -> u64 {
    let bytes = column.unencoded_byte_array_data_bytes().unwrap_or(column.uncompressed_size());
    u64::try_from(bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Cost;
    use crate::record::fit::{Columns, Coordinates, to_rows};
    use crate::record::{Clean, Draft, Field, Kind};
    use crate::segment;

    /// The cost of rows whose ids, and event types, are numbers of so many digits.
    fn cost(rows: usize, text_bytes: usize) -> Cost {
        let mut draft = Draft::new(Kind::Events);
        for n in 0..rows {
            draft.begin_row();
            draft.set_int(Field::TimeNs, n as i64);
            draft.set_int(Field::ObservedNs, 0);
            draft.set_text(Field::Source, "s");
            let number = format!("{n:0text_bytes$}");
            draft.set_text(Field::Id, &number);
            draft.set_text(Field::EventType, &number);
            draft.end_row();
        }
        let chunk = Clean::attest(&mut draft, 1).batch().clone();
        let at = Coordinates { writer: "w", first_seq: 0 };
        let rows = to_rows(&chunk, Columns::new(Kind::Events).schema(), at);
        let bytes = segment::write(Kind::Events, &rows, 100_000).unwrap().bytes;
        Cost::of("a", &bytes).unwrap()
    }

    // B1: repeated zeros are next to nothing in a file, and all there once it is decoded.
    #[test]
    fn the_footer_tells_what_rows_take_decoded() {
        let (short, long) = (cost(1_000, 10), cost(1_000, 5_000));
        assert!((10_000..11_000).contains(&long.row_bytes()), "{long:?}");
        assert!(short.row_bytes() < 1_000 && short.open_bytes() < long.open_bytes(), "{short:?}");
        assert!(Cost::of("a", &bytes::Bytes::from_static(b"PAR1")).is_err());
    }
    // B1: of a column of many pages, one and a dictionary are held.
    #[test]
    fn an_open_column_is_a_page_and_a_dictionary() {
        let column = cost(60_000, 60).column("event_type");
        assert!(column.values >= 3_600_000, "{column:?}");
        assert!(column.open_bytes < 2_700_000, "{column:?}");
    }
}
