//! Parquet bytes back to rows of a table's schema.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions, RecordBatchReader};
use arrow::datatypes::{Field, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::ParquetMetaData;

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::reader::DataFile;
use crate::record::Nulls;

/// Bytes of text in one decoded batch, as far as a row group's average tells. Chosen: far below what the offsets
/// of one text column can count (2 GiB), and many times what a batch of usual rows takes.
const BATCH_BYTES: u64 = 16 << 20;

/// The rows of one segment, batch by batch, in the order they stand there.
pub struct Rows {
    reader: ParquetRecordBatchReader,
    schema: SchemaRef,
    /// Where the file has each column of the schema, if it has it.
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
    let is_whole = bytes.len() as u64 == file.bytes
        && file.digest.is_none_or(|digest| digest == *blake3::hash(&bytes).as_bytes());
    if !is_whole {
        return Err(corrupt(&file.path, "its bytes are not what was committed"));
    }
    open(&file.path, bytes, schema, batch_rows)
}

/// Opens a segment without a digest to check: bytes that were just encoded.
///
/// # Errors
/// `Kind::Corrupt` when they do not read.
pub fn open(path: &str, bytes: Bytes, schema: &SchemaRef, batch_rows: usize) -> Result<Rows> {
    let (reader, places) = guarded(path, || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
        let places = places(schema, builder.schema());
        let row_bytes = row_bytes(builder.metadata()).max(1);
        let fitting = usize::try_from(BATCH_BYTES / row_bytes).unwrap_or(usize::MAX).max(1);
        Ok((builder.with_batch_size(batch_rows.min(fitting)).build()?, places))
    })?;
    Ok(Rows { reader, schema: Arc::clone(schema), places, path: path.to_owned() })
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
    /// The columns that the file has, those that its rows come without as well.
    pub fn file_schema(&self) -> SchemaRef {
        self.reader.schema()
    }

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
