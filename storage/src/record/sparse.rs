//! Columns that few rows of a chunk fill, in memory and in the log: run-end encoded, so that a column costs what
//! its values cost and not what the chunk's rows would.
//!
//! Only columns of attributes, and those that a resource's or scope's records share, are ever encoded so, with run
//! ends of 32 bits; rows of a table are plain.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, RecordBatch, RecordBatchOptions, RunArray, UInt32Array,
};
use arrow::datatypes::{DataType, Int32Type};

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

/// Rows that hold the same value: from `start` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub start: u32,
    pub end: u32,
}

/// The encoded column of `len` rows in which each of `runs`, rising, holds its value of `values`, and other rows
/// nothing.
pub(super) fn encode(runs: &[Run], values: &ArrayRef, len: usize) -> ArrayRef {
    let short = |row: u32| i32::try_from(row).expect("rows of a chunk are bounded far below 2^31");
    let len = u32::try_from(len).expect("rows of a chunk are bounded far below 2^31");
    let mut ends = Vec::with_capacity(2 * runs.len() + 1);
    let mut picks: Vec<Option<u32>> = Vec::with_capacity(2 * runs.len() + 1);
    let mut next = 0;
    for (entry, run) in (0..).zip(runs) {
        if run.start > next {
            ends.push(short(run.start));
            picks.push(None);
        }
        ends.push(short(run.end));
        picks.push(Some(entry));
        next = run.end;
    }
    if next < len {
        ends.push(short(len));
        picks.push(None);
    }
    let ends = Int32Array::from(ends);
    let values = pick(values, picks);
    // By its own constructor the run ends must rise and the values be as many: both are made above.
    Arc::new(RunArray::<Int32Type>::try_new(&ends, &values).expect("each run has an end and a value"))
}

/// As [`encode`], row by row.
pub(super) fn spread(runs: &[Run], values: &ArrayRef, len: usize) -> ArrayRef {
    let mut picks = vec![None; len];
    for (entry, run) in (0..).zip(runs) {
        picks[run.start as usize..run.end as usize].fill(Some(entry));
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
    let short = |at: usize| u32::try_from(at).expect("rows of a chunk are bounded far below 2^32");
    let (mut runs, mut picks, mut all) = (Vec::new(), Vec::new(), Vec::new());
    let (mut row, mut values_before) = (0, 0);
    for array in arrays {
        let encoded = array.as_run::<Int32Type>();
        for (value, count) in runs_of(encoded) {
            if encoded.values().is_valid(value as usize) {
                runs.push(Run { start: short(row), end: short(row + count) });
                picks.push(Some(short(values_before) + value));
            }
            row += count;
        }
        values_before += encoded.values().len();
        all.push(&**encoded.values());
    }
    encode(&runs, &pick(&concat(&all), picks), row)
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

/// Bytes that [`plain`] makes of an encoded column; 0 of a plain one.
#[must_use]
pub fn plain_bytes(array: &ArrayRef) -> usize {
    // A cell of eight bytes and its bit; of text, an offset.
    const CELL_BYTES: usize = 9;
    let Some(runs) = array.as_run_opt::<Int32Type>() else { return 0 };
    let values = runs.values();
    let text_bytes = |at: usize| match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().value(at).len(),
        DataType::Binary => values.as_binary::<i32>().value(at).len(),
        _ => 0,
    };
    let text: usize = runs_of(runs).map(|(value, count)| count * text_bytes(value as usize)).sum();
    runs.len() * CELL_BYTES + text
}

fn pick(values: &ArrayRef, picks: Vec<Option<u32>>) -> ArrayRef {
    arrow::compute::take(values, &UInt32Array::from(picks), None).expect("every place is one of the values")
}
