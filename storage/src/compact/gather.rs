//! Copying columns of the rows of a merge, in their order.

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;

use super::merge::{Failed, bug};
use crate::error::{Error, Kind as ErrorKind};
use crate::segment::{Cells, Opened, Rows};

/// The next rows of a merge: from which input each comes, and where they begin in each.
pub struct Span<'a> {
    pub inputs: &'a [Opened],
    pub order: &'a [u8],
    pub starts: &'a [usize],
    pub counts: &'a [usize],
}

/// Reads columns of the rows of a span and writes them in their order, `written_rows` at a time; `cells` takes in what was
/// read of each input.
///
/// # Errors
/// As an input or `write` says.
pub fn gather(
    span: &Span<'_>,
    columns: &SchemaRef,
    batch_rows: impl Fn(usize) -> usize,
    written_rows: usize,
    cells: &mut [Cells],
    mut write: impl FnMut(&RecordBatch) -> Result<(), Failed>,
) -> Result<(), Failed> {
    let mut cursors = Vec::with_capacity(span.inputs.len());
    for (at, input) in span.inputs.iter().enumerate() {
        let rows = match span.counts[at] {
            0 => None,
            count => {
                let some = span.starts[at]..span.starts[at] + count;
                let rows = input.rows(columns, Some(some), batch_rows(at));
                Some(rows.map_err(|error| Failed::Input(at, error))?)
            }
        };
        cursors.push(Cursor {
            rows,
            batch: RecordBatch::new_empty(SchemaRef::clone(columns)),
            row: 0,
            read: 0,
            place: 0,
        });
    }
    for some in span.order.chunks(written_rows) {
        let mut batches: Vec<RecordBatch> = Vec::with_capacity(cursors.len());
        for cursor in cursors.iter_mut().filter(|cursor| cursor.row < cursor.batch.num_rows()) {
            cursor.place = batches.len();
            batches.push(cursor.batch.clone());
        }
        let mut taken = Vec::with_capacity(some.len());
        for at in some.iter().map(|at| usize::from(*at)) {
            let cursor = &mut cursors[at];
            if cursor.row == cursor.batch.num_rows() {
                cursor.advance(&mut cells[at]).map_err(|error| Failed::Input(at, error))?;
                // The batch before stays until its rows, which were all taken, are copied out.
                cursor.place = batches.len();
                batches.push(cursor.batch.clone());
            }
            taken.push((cursor.place, cursor.row));
            cursor.row += 1;
        }
        let batches: Vec<&RecordBatch> = batches.iter().collect();
        let rows = interleave_record_batch(&batches, &taken).map_err(|error| Failed::Merge(bug(error)))?;
        write(&rows)?;
    }
    Ok(())
}

/// A place in columns of one input.
struct Cursor {
    rows: Option<Rows>,
    batch: RecordBatch,
    /// Of `batch`.
    row: usize,
    /// Rows of the batches so far.
    read: usize,
    /// Of `batch`, among those that rows are taken from.
    place: usize,
}

impl Cursor {
    /// Goes on to the next batch, which must be there: as many rows are read as keys were.
    fn advance(&mut self, cells: &mut Cells) -> Result<(), Error> {
        self.row = 0;
        self.batch = RecordBatch::new_empty(self.batch.schema());
        while self.batch.num_rows() == 0 {
            let batch = self.rows.as_mut().and_then(Iterator::next).transpose()?;
            let missing =
                || Error::new(ErrorKind::Corrupt, "a column of a segment has fewer rows than another");
            self.batch = batch.ok_or_else(missing)?;
        }
        cells.add(self.read, &self.batch);
        self.read += self.batch.num_rows();
        Ok(())
    }
}
