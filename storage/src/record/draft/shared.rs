//! Columns that many rows in a row share a value of, such as a resource that is sent once for all its records: the
//! value is kept once, beside the rows that have it.

use arrow::array::ArrayRef;

use super::Draft;
use crate::record::column::{Column, TextColumn};
use crate::record::kind::Field;
use crate::record::sparse::{self, Run};

/// Bytes that such a column may take row by row whatever its values are. Chosen: small chunks stay plain.
const PLAIN_BYTES_FREE: usize = 64 << 10;

/// Bytes a row that it may take row by row beyond twice its values'. Chosen: names of services and libraries stay
/// plain, resources do not.
const PLAIN_BYTES_PER_ROW: usize = 32;

impl Draft {
    /// Writes a text field of the open row, once, whose value is mostly that of the row before: it is kept once for
    /// both. The column's entries are such values then, each of one row or more, until the draft is closed.
    pub fn set_shared(&mut self, field: Field, value: &[u8]) {
        debug_assert!(self.in_row, "a row is open");
        let at = usize::from(self.positions[field as usize]);
        let row = u32::try_from(self.row_count).expect("rows of a chunk are bounded far below 2^32");
        let runs = &mut self.runs[at];
        let Column::Text(column) = &mut self.fixed[at] else { unreachable!("shared values are text") };
        debug_assert_eq!(column.len(), runs.len(), "a column is written in one way");
        match runs.last_mut() {
            Some(last) if last.end == row && column.get(column.len() - 1) == Some(value) => {
                last.end = row + 1;
            }
            _ => {
                column.push(value);
                runs.push(Run { start: row, end: row + 1 });
            }
        }
    }

    /// Takes the open row's fixed columns back.
    pub(super) fn take_fixed_back(&mut self) {
        let row = self.row_count;
        for (column, runs) in self.fixed.iter_mut().zip(&mut self.runs) {
            match runs.last_mut() {
                None => column.truncate(row),
                Some(last) if last.end as usize == row + 1 => {
                    last.end -= 1;
                    if last.start == last.end {
                        runs.pop();
                        column.truncate(runs.len());
                    }
                }
                Some(_) => {}
            }
        }
    }
}

/// The Arrow array of a shared column of `len` rows: plain where that is small, else a value for each run of rows.
pub(super) fn take(column: &mut Column, field: Field, runs: &[Run], len: usize) -> ArrayRef {
    let is_plain = match column {
        Column::Text(column) => is_small(column, runs, len),
        _ => true,
    };
    let values = column.take(field.r#type(), runs.len());
    if is_plain { sparse::spread(runs, &values, len) } else { sparse::encode(runs, &values, len) }
}

fn is_small(column: &TextColumn, runs: &[Run], len: usize) -> bool {
    let rows = runs.iter().map(|run| (run.end - run.start) as usize);
    let plain: usize =
        (0..).zip(rows).map(|(entry, rows)| rows * column.get(entry).map_or(0, <[u8]>::len)).sum();
    plain <= PLAIN_BYTES_FREE || plain <= 2 * column.bytes().len() + PLAIN_BYTES_PER_ROW * len
}
