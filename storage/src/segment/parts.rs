//! Encoding some columns at a time.
//!
//! A column that is encoded or decoded holds a dictionary's table and a compressor, whatever little it is given. Hundreds
//! of them side by side are more than all their values, so they are opened one part after the other.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, compute_leaves};
use parquet::file::properties::WriterPropertiesPtr;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};

use super::statistics::Statistics;
use super::write::{Writer, Written, bug, ended};
use crate::error::Result;

/// Bytes that the encoders and decoders of columns take side by side, but for a column that takes more alone. Chosen: a
/// third of what the smallest memory for merges has; of the usual columns ten or so.
const PART_BYTES_MAX: u64 = 4 << 20;

/// Columns, one after the other, so many together as take no more than [`PART_BYTES_MAX`]; one at least.
pub fn parts(costs: &[u64]) -> Vec<Range<usize>> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (at, cost) in costs.iter().enumerate() {
        match parts.last_mut().filter(|_| bytes + cost <= PART_BYTES_MAX) {
            Some(part) => part.end = at + 1,
            None => {
                parts.push(at..at + 1);
                bytes = 0;
            }
        }
        bytes += cost;
    }
    parts
}

/// A segment that is being encoded part by part, of rows that come sorted.
pub struct PartsWriter {
    file: SerializedFileWriter<Vec<u8>>,
    schema: SchemaRef,
    statistics: Statistics,
}

impl PartsWriter {
    /// Goes on with a segment of these columns to which no row was written.
    ///
    /// # Errors
    /// `Kind::Bug`.
    pub fn of(writer: Writer, schema: SchemaRef) -> Result<Self> {
        let (file, _) = writer.arrow.into_serialized_writer().map_err(bug)?;
        Ok(Self { file, schema, statistics: writer.statistics })
    }

    /// Begins the next rows: they are in when each column was appended and the group is closed.
    ///
    /// # Errors
    /// `Kind::Bug`.
    pub fn row_group(&mut self) -> Result<RowGroup<'_>> {
        let properties = Arc::clone(self.file.properties());
        Ok(RowGroup {
            file: self.file.next_row_group().map_err(bug)?,
            schema: &self.schema,
            properties,
            statistics: &mut self.statistics,
        })
    }

    /// Ends the segment.
    ///
    /// # Errors
    /// `Kind::Bug` when it does not encode, or has no row with a time.
    pub fn finish(self) -> Result<Written> {
        ended(self.file.into_inner().map_err(bug)?, self.statistics)
    }
}

/// Rows of which some columns are in.
pub struct RowGroup<'a> {
    file: SerializedRowGroupWriter<'a, Vec<u8>>,
    schema: &'a SchemaRef,
    properties: WriterPropertiesPtr,
    statistics: &'a mut Statistics,
}

/// Columns of a row group that are being encoded.
pub struct Part {
    schema: SchemaRef,
    columns: Vec<ArrowColumnWriter>,
}

impl Part {
    /// The columns that it has.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

impl RowGroup<'_> {
    /// Opens the encoders of these columns, which must be the next ones.
    ///
    /// # Errors
    /// `Kind::Bug`.
    pub fn part(&self, columns: Range<usize>) -> Result<Part> {
        let places: Vec<usize> = columns.collect();
        let schema: SchemaRef = Arc::new(self.schema.project(&places).map_err(bug)?);
        // Encoders are made for a whole file: for one of these columns alone, to which nothing is ever written.
        let file =
            ArrowWriter::try_new(std::io::sink(), Arc::clone(&schema), Some((*self.properties).clone()));
        let (_, encoders) = file.and_then(ArrowWriter::into_serialized_writer).map_err(bug)?;
        let columns = encoders.create_column_writers(0).map_err(bug)?;
        Ok(Part { schema, columns })
    }

    /// Adds the part's columns of some rows behind those that are in.
    ///
    /// # Errors
    /// `Kind::Bug` when they do not encode.
    pub fn write(&mut self, part: &mut Part, rows: &RecordBatch) -> Result<()> {
        self.statistics.add(rows);
        for ((field, column), encoder) in
            part.schema.fields().iter().zip(rows.columns()).zip(&mut part.columns)
        {
            for leaf in compute_leaves(field, column).map_err(bug)? {
                encoder.write(&leaf).map_err(bug)?;
            }
        }
        Ok(())
    }

    /// Ends a part, and puts its columns behind those before.
    ///
    /// # Errors
    /// `Kind::Bug` when they do not encode.
    pub fn append(&mut self, part: Part) -> Result<()> {
        for encoder in part.columns {
            let chunk = encoder.close().map_err(bug)?;
            chunk.append_to_row_group(&mut self.file).map_err(bug)?;
        }
        Ok(())
    }

    /// Ends the rows.
    ///
    /// # Errors
    /// `Kind::Bug` when a column is missing, or has another number of rows.
    pub fn close(self) -> Result<()> {
        self.file.close().map(drop).map_err(bug)
    }
}

#[cfg(test)]
mod tests {
    use super::{PART_BYTES_MAX, parts};

    // B1: a table of hundreds of columns has no more of them open than one of few.
    #[test]
    fn columns_are_opened_together_up_to_a_bound() {
        let half = PART_BYTES_MAX / 2;
        assert_eq!(parts(&[half, half, 1]), [0..2, 2..3]);
        assert_eq!(parts(&[1, PART_BYTES_MAX, PART_BYTES_MAX + 1, 1]), [0..1, 1..2, 2..3, 3..4]);
        assert_eq!(parts(&[0; 600]).len(), 1);
        assert!(parts(&[]).is_empty());
        assert!(parts(&[300 << 10; 512]).iter().all(|part| part.len() <= 13));
    }
}
