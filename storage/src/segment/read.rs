//! Parquet bytes back to rows of a table's schema.

use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::metadata::ParquetMetaData;

use super::cost::has_values;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::reader::DataFile;
use crate::record::Nulls;

/// Bytes of text in one decoded batch, as far as a row group's average tells. Chosen: far below what the offsets
/// of one text column can count (2 GiB), and many times what a batch of usual rows takes.
const BATCH_BYTES: u64 = 16 << 20;

/// A segment whose footer was read: its rows may be read several times, some columns at a time.
#[derive(Debug)]
pub struct Opened {
    path: String,
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    /// Which columns have a value, by the footer.
    filled: Vec<bool>,
    /// Rows of a batch at most.
    batch_rows_max: usize,
}

/// Rows of one segment, batch by batch, in the order they stand there.
pub struct Rows {
    reader: ParquetRecordBatchReader,
    schema: SchemaRef,
    /// Where the reader has each column of the schema, if it has it.
    places: Vec<Option<usize>>,
    path: String,
}

/// Opens a segment whose bytes are what was committed: length and digest are checked before anything is decoded.
///
/// Columns that the file lacks read as null; columns that `schema` lacks are left out. A batch has `batch_rows`
/// rows, or fewer where rows are large.
///
/// # Errors
/// `Kind::Corrupt` naming the file.
pub fn read(file: &DataFile, bytes: Bytes, schema: &SchemaRef, batch_rows: usize) -> Result<Rows> {
    Opened::committed(file, bytes)?.rows(schema, None, batch_rows)
}

impl Opened {
    /// Opens a segment whose bytes are what was committed: length and digest are checked before anything is decoded.
    ///
    /// # Errors
    /// `Kind::Corrupt` naming the file.
    pub fn committed(file: &DataFile, bytes: Bytes) -> Result<Self> {
        let is_whole = bytes.len() as u64 == file.bytes
            && file.digest.is_none_or(|digest| digest == *blake3::hash(&bytes).as_bytes());
        if !is_whole {
            return Err(corrupt(&file.path, "its bytes are not what was committed"));
        }
        Self::encoded(&file.path, bytes)
    }

    /// Opens a segment without a digest to check: bytes that were just encoded.
    ///
    /// # Errors
    /// `Kind::Corrupt` when the footer does not read.
    pub fn encoded(path: &str, bytes: Bytes) -> Result<Self> {
        let (metadata, filled) = guarded(path, || {
            let metadata = ArrowReaderMetadata::load(&bytes, ArrowReaderOptions::default())?;
            let filled = filled(&metadata);
            Ok((metadata, filled))
        })?;
        let row_bytes = row_bytes(metadata.metadata()).max(1);
        let batch_rows_max = usize::try_from(BATCH_BYTES / row_bytes).unwrap_or(usize::MAX).max(1);
        Ok(Self { path: path.to_owned(), bytes, metadata, filled, batch_rows_max })
    }

    /// Its path below the table's root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The columns that the file has.
    pub fn schema(&self) -> &SchemaRef {
        self.metadata.schema()
    }

    /// What the footer says.
    pub fn metadata(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// Reads columns of all rows, or of some: columns that the file lacks, or has no value of by its footer, read as null,
    /// and others than those of `schema` are not decoded. A batch has `batch_rows` rows, or fewer where rows are large.
    ///
    /// # Errors
    /// `Kind::Corrupt` naming the file.
    pub fn rows(&self, schema: &SchemaRef, some: Option<Range<usize>>, batch_rows: usize) -> Result<Rows> {
        let mut places = places(schema, self.schema());
        places.iter_mut().for_each(|place| *place = place.filter(|at| self.filled[*at]));
        let mut wanted: Vec<usize> = places.iter().flatten().copied().collect();
        wanted.sort_unstable();
        // A reader gives the columns in the order of the file.
        let of_reader = |at: usize| wanted.binary_search(&at).expect("it is wanted");
        let places = places.into_iter().map(|place| place.map(of_reader)).collect();
        let reader = guarded(&self.path, || {
            let mask = ProjectionMask::roots(self.metadata.parquet_schema(), wanted.iter().copied());
            let builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(self.bytes.clone(), self.metadata.clone())
                    .with_projection(mask)
                    .with_batch_size(batch_rows.min(self.batch_rows_max));
            match some {
                Some(rows) => builder.with_offset(rows.start).with_limit(rows.len()).build(),
                None => builder.build(),
            }
        })?;
        Ok(Rows { reader, schema: Arc::clone(schema), places, path: self.path.clone() })
    }
}

/// Opens a segment without a digest to check, and reads all its rows.
#[cfg(test)]
pub fn open(path: &str, bytes: Bytes, schema: &SchemaRef, batch_rows: usize) -> Result<Rows> {
    Opened::encoded(path, bytes)?.rows(schema, None, batch_rows)
}

/// Which columns of a file have a value, by its footer.
fn filled(file: &ArrowReaderMetadata) -> Vec<bool> {
    let (groups, leaves) = (file.metadata().row_groups(), file.parquet_schema());
    let mut filled = vec![false; file.schema().fields().len()];
    for at in 0..leaves.num_columns() {
        filled[leaves.get_column_root_idx(at)] |= groups.iter().any(|group| has_values(group.column(at)));
    }
    filled
}

/// Where a file has each column of a schema, of the same type; at a cost of both, however many columns there are.
fn places(schema: &Schema, file: &Schema) -> Vec<Option<usize>> {
    let names = file.fields().iter().enumerate().map(|(at, field)| (field.name().as_str(), at));
    let by_name: HashMap<&str, usize> = names.collect();
    let place = |field: &Arc<Field>| {
        let at = *by_name.get(field.name().as_str())?;
        (file.field(at).data_type() == field.data_type()).then_some(at)
    };
    schema.fields().iter().map(place).collect()
}

/// Bytes of a decoded row, by the average of the row group with the largest. What a column takes encoded says
/// nothing: a dictionary holds a repeated value once.
fn row_bytes(metadata: &ParquetMetaData) -> u64 {
    let of_group = |group: &parquet::file::metadata::RowGroupMetaData| {
        let columns = group.columns().iter();
        let bytes: i64 = columns
            .map(|column| column.unencoded_byte_array_data_bytes().unwrap_or(column.uncompressed_size()))
            .sum();
        u64::try_from(bytes).unwrap_or(0) / u64::try_from(group.num_rows()).unwrap_or(0).max(1)
    };
    metadata.row_groups().iter().map(of_group).max().unwrap_or(0)
}

impl Iterator for Rows {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let reader = AssertUnwindSafe(&mut self.reader);
        let next = guarded(&self.path, || {
            let reader = reader;
            reader.0.next().transpose().map_err(parquet::errors::ParquetError::from)
        });
        next.map(|batch| batch.map(|batch| self.fit(&batch))).transpose()
    }
}

impl Rows {
    fn fit(&self, batch: &RecordBatch) -> RecordBatch {
        let mut nulls = Nulls::new(batch.num_rows());
        let columns = self.schema.fields().iter().zip(&self.places).map(|(field, place)| match place {
            Some(at) => Arc::clone(batch.column(*at)),
            None => nulls.of(field.data_type()),
        });
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns.collect(), &options)
            .expect("columns of one batch are of one length and of the schema's types")
    }
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A decoder that panics on damaged bytes is an error like any other (F40).
fn guarded<T>(path: &str, read: impl FnOnce() -> parquet::errors::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(corrupt(path, &error.to_string())),
        Err(_) => Err(corrupt(path, "decoding it panicked")),
    }
}

fn corrupt(path: &str, why: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("segment {path} is damaged: {why}"))
}
