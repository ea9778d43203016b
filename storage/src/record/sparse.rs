//! Columns that few rows of a chunk fill, in memory and in the log: run-end encoded, so that a column costs what
//! its values cost and not what the chunk's rows would.
//!
//! Only attribute columns of chunks are ever encoded so, with run ends of 32 bits; rows of a table are plain.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, RecordBatch, RecordBatchOptions, RunArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, Int32Type};

/// The values of an encoded column; `None` for a plain one.
#[must_use]
pub fn values_type(r#type: &DataType) -> Option<&DataType> {
    match r#type {
        DataType::RunEndEncoded(ends, values) if ends.data_type() == &DataType::Int32 => {
            Some(values.data_type())
        }
        _ => None,
    }
}

/// The encoded column of `len` rows whose `rows`, rising, hold `values`, and the others nothing.
pub(super) fn encode(rows: &[u32], values: &ArrayRef, len: usize) -> ArrayRef {
    let end = |row: usize| i32::try_from(row).expect("rows of a chunk are bounded far below 2^31");
    let mut ends = Vec::with_capacity(2 * rows.len() + 1);
    let mut picks: Vec<Option<u32>> = Vec::with_capacity(2 * rows.len() + 1);
    let mut next = 0;
    for (entry, row) in (0..).zip(rows) {
        let row = *row as usize;
        if row > next {
            ends.push(end(row));
            picks.push(None);
        }
        ends.push(end(row + 1));
        picks.push(Some(entry));
        next = row + 1;
    }
    if next < len {
        ends.push(end(len));
        picks.push(None);
    }
    let ends = Int32Array::from(ends);
    let values = pick(values, picks);
    // By its own constructor the run ends must rise and the values be as many: both are made above.
    Arc::new(RunArray::<Int32Type>::try_new(&ends, &values).expect("each run has an end and a value"))
}

/// The plain column of `len` rows whose `rows`, rising, hold `values`.
pub(super) fn spread(rows: &[u32], values: &ArrayRef, len: usize) -> ArrayRef {
    let mut picks = vec![None; len];
    for (entry, row) in (0..).zip(rows) {
        picks[*row as usize] = Some(entry);
    }
    pick(values, picks)
}

/// The plain column that an array says row by row; a plain one as it is.
#[must_use]
pub fn plain(array: &ArrayRef) -> ArrayRef {
    let Some(runs) = array.as_run_opt::<Int32Type>() else { return Arc::clone(array) };
    let mut picks = Vec::with_capacity(runs.len());
    for (value, count) in runs_of(runs) {
        picks.resize(picks.len() + count, Some(value));
    }
    picks.resize(runs.len(), None);
    pick(runs.values(), picks)
}

/// One batch of the rows of several of one schema, in order; `None` of none.
pub(crate) fn join(batches: &[RecordBatch]) -> Option<RecordBatch> {
    let [first, rest @ ..] = batches else { return None };
    if rest.is_empty() {
        return Some(first.clone());
    }
    let arrays = (0..first.num_columns())
        .map(|at| {
            let arrays: Vec<&ArrayRef> = batches.iter().map(|batch| batch.column(at)).collect();
            join_column(&arrays)
        })
        .collect();
    let len = batches.iter().map(RecordBatch::num_rows).sum();
    let options = RecordBatchOptions::new().with_row_count(Some(len));
    Some(
        RecordBatch::try_new_with_options(first.schema(), arrays, &options)
            .expect("each column is joined of every batch"),
    )
}

fn join_column(arrays: &[&ArrayRef]) -> ArrayRef {
    let concat = |arrays: &[&dyn Array]| {
        arrow::compute::concat(arrays).expect("batches of one stream have one type a column")
    };
    if values_type(arrays[0].data_type()).is_none() {
        return concat(&arrays.iter().map(|array| &***array).collect::<Vec<_>>());
    }
    let (mut rows, mut picks, mut all) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rows_before, mut values_before) = (0, 0);
    for array in arrays {
        each_value(array, |row, _, at| {
            rows.push(u32::try_from(rows_before + row).expect("rows of a chunk are bounded far below 2^32"));
            picks.push(u32::try_from(values_before + at).ok());
        });
        let values = array.as_run::<Int32Type>().values();
        rows_before += array.len();
        values_before += values.len();
        all.push(&**values);
    }
    encode(&rows, &pick(&concat(&all), picks), rows_before)
}

/// Calls for each row that holds a value, with the array to read it from and its place there.
pub(super) fn each_value(array: &ArrayRef, mut each: impl FnMut(usize, &ArrayRef, usize)) {
    let Some(runs) = array.as_run_opt::<Int32Type>() else {
        for row in (0..array.len()).filter(|row| array.is_valid(*row)) {
            each(row, array, row);
        }
        return;
    };
    let mut row = 0;
    for (value, count) in runs_of(runs) {
        let at = value as usize;
        if runs.values().is_valid(at) {
            (row..row + count).for_each(|row| each(row, runs.values(), at));
        }
        row += count;
    }
}

/// The place of each run's value and how many rows the run has.
fn runs_of(runs: &RunArray<Int32Type>) -> impl Iterator<Item = (u32, usize)> {
    let (offset, len) = (runs.offset(), runs.len());
    let mut row = offset;
    let ends = runs.run_ends().values().iter().map(|end| usize::try_from(*end).unwrap_or(0));
    (0..).zip(ends).filter_map(move |(value, end)| {
        let end = end.min(offset + len);
        let count = end.saturating_sub(row);
        row = row.max(end);
        (count > 0).then_some((value, count))
    })
}

/// How many rows hold a value.
#[must_use]
pub fn value_count(array: &ArrayRef) -> usize {
    let mut count = 0;
    each_value(array, |_, _, _| count += 1);
    count
}

/// The type of a column that holds values of `values`, encoded.
#[must_use]
pub fn encoded_type(values: &DataType) -> DataType {
    let ends = Field::new("run_ends", DataType::Int32, false);
    DataType::RunEndEncoded(Arc::new(ends), Arc::new(Field::new("values", values.clone(), true)))
}

fn pick(values: &ArrayRef, picks: Vec<Option<u32>>) -> ArrayRef {
    arrow::compute::take(values, &UInt32Array::from(picks), None).expect("every place is one of the values")
}
