//! Parquet bytes back to rows of a table's schema.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::reader::DataFile;

/// The rows of one segment, batch by batch, in the order they stand there.
pub struct Rows {
    reader: ParquetRecordBatchReader,
    schema: SchemaRef,
    path: String,
}

/// Opens a segment whose bytes are what was committed: length and digest are checked before anything is decoded.
///
/// Columns that the file lacks read as null; columns that `schema` lacks are left out.
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
    let reader = guarded(path, || {
        ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(batch_rows).build()
    })?;
    Ok(Rows { reader, schema: Arc::clone(schema), path: path.to_owned() })
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
        let columns = self.schema.fields().iter().map(|field| -> ArrayRef {
            match batch.column_by_name(field.name()) {
                Some(column) if column.data_type() == field.data_type() => Arc::clone(column),
                _ => new_null_array(field.data_type(), batch.num_rows()),
            }
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
