//! The rows that a seal starts from, and how many bytes rows and columns of them have: what a piece, a batch and an
//! encoder are cut and counted by.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RunArray};
use arrow::datatypes::{DataType, Int32Type, SchemaRef};

use crate::record::schema;
use crate::segment;

/// What a value takes at least in a batch.
pub const CELL_BYTES: u32 = 8;

/// Rows of one writer that stand together.
#[derive(Clone, Debug)]
pub struct Input {
    /// The rows, as they were logged.
    pub batch: RecordBatch,
    /// The log that acknowledged them.
    pub writer: Arc<str>,
    /// The first row's number there.
    pub first_seq: u64,
    /// The last day that is sealed already, where only later rows are asked for.
    pub after_day: Option<i64>,
}

impl Input {
    /// The number of a row in its log.
    pub fn seq(&self, row: usize) -> i64 {
        i64::try_from(self.first_seq + row as u64).expect("fewer than 2^63 rows")
    }
}

/// Where a column's values stand in one input.
#[derive(Debug)]
pub enum Values<'a> {
    /// Nowhere: the input lacks the column.
    None,
    /// One for each row.
    Plain(&'a ArrayRef),
    /// One for each run of rows.
    Runs(&'a RunArray<Int32Type>),
}

impl<'a> Values<'a> {
    /// Where they stand in a column.
    pub fn of(column: Option<&'a ArrayRef>) -> Self {
        match column {
            None => Self::None,
            Some(column) => column.as_run_opt::<Int32Type>().map_or(Self::Plain(column), Self::Runs),
        }
    }
}

/// Whether a column is made from the rows' coordinates and times.
pub fn is_made(name: &str) -> bool {
    matches!(name, schema::TIME | schema::OBSERVED_TIME | schema::WRITER | schema::SEQ)
}

/// Bytes of the values of each column of a table in all inputs, about; 0 where none has any.
pub fn values(schema: &SchemaRef, inputs: &[Input]) -> Vec<u64> {
    let of = |name: &str| -> u64 {
        if is_made(name) {
            // Times, numbers and a name for each row.
            let rows: usize = inputs.iter().map(|input| input.batch.num_rows()).sum();
            return rows as u64 * u64::from(CELL_BYTES);
        }
        let columns = inputs.iter().filter_map(|input| input.batch.column_by_name(name));
        columns.fold(0, |bytes, column| bytes.saturating_add(segment::value_bytes(column)))
    };
    schema.fields().iter().map(|field| of(field.name())).collect()
}

/// What each row takes in a batch, in bytes.
pub fn weights(columns: usize, inputs: &[Input], row_count: usize) -> Vec<u32> {
    let cells = u32::try_from(columns).unwrap_or(u32::MAX).saturating_mul(CELL_BYTES);
    let mut weights = vec![cells; row_count];
    let mut rest = &mut weights[..];
    for input in inputs {
        let (own, others) = rest.split_at_mut(input.batch.num_rows());
        for column in input.batch.columns() {
            match Values::of(Some(column)) {
                Values::Runs(runs) => {
                    let values = runs.values();
                    if let Some(length) = lengths(values) {
                        for (row, weight) in own.iter_mut().enumerate() {
                            *weight = weight.saturating_add(length(runs.get_physical_index(row)));
                        }
                    }
                }
                _ => {
                    if let Some(length) = lengths(column) {
                        for (row, weight) in own.iter_mut().enumerate() {
                            *weight = weight.saturating_add(length(row));
                        }
                    }
                }
            }
        }
        rest = others;
    }
    weights
}

/// The length of each value, where values have lengths of their own.
fn lengths(column: &ArrayRef) -> Option<impl Fn(usize) -> u32 + '_> {
    let offsets: &[i32] = match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value_offsets(),
        DataType::Binary => column.as_binary::<i32>().value_offsets(),
        _ => return None,
    };
    Some(move |at: usize| (offsets[at + 1] - offsets[at]).cast_unsigned())
}
