//! Several sorted segments to one, without holding more than a batch of each.
//!
//! Inputs are sorted by the order of their kind, then by writer and seq, which no two rows share: so the order
//! of the result is one, whatever files the rows came in (M1).

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};
use bytes::Bytes;

use super::gather::{Span, gather};
use super::order::{Order, keys};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::reader::DataFile;
use crate::record::Kind;
use crate::record::schema::is_fixed;
use crate::segment::{
    self, Cells, ColumnCost, Cost, Fingerprint, Opened, PartsWriter, Writer, Written, parts,
};

/// Rows decoded at a time, of all inputs together.
const ROWS: usize = 64 * 1024;

/// Rows decoded at a time of one input, and written at a time.
const BATCH_ROWS: usize = 8 * 1024;

/// Bytes of rows decoded at a time, of all inputs together, and again as keys, as what is written, and as what was taken
/// of batches that are read to their ends.
const BATCH_BYTES: u64 = 1 << 20;

/// What a row of a row group takes while its columns are merged: from which input it comes, and its fingerprint.
const ORDER_BYTES: u64 = 24;

/// A file to merge, and its bytes as the store gave them.
#[derive(Debug)]
pub struct Input {
    /// The file as the table's log has it.
    pub file: Arc<DataFile>,
    /// What the store holds.
    pub bytes: Bytes,
    /// What reading it takes.
    pub cost: Cost,
}

/// Memory that a merge takes, in bytes: files in and out and their footers, the order of a row group, a batch of rows in
/// four forms, and what is open side by side: the keys of all inputs, and the largest part of the columns.
pub fn merge_bytes(kind: Kind, inputs: &[Input], schema: &SchemaRef, row_group_rows: usize) -> u64 {
    let of_input = |input: &Input| 2 * input.file.bytes + input.cost.footer_bytes;
    let files: u64 = inputs.iter().map(of_input).sum();
    let rows: u64 = inputs.iter().map(|input| input.file.rows).sum();
    let order = rows.min(row_group_rows as u64) * ORDER_BYTES;
    let keys: u64 = keys(kind).map(|name| of_all(inputs, name, |column| column.open_bytes)).sum();
    let costs = costs(inputs, schema, &columns(kind, inputs, schema));
    let part = parts(&costs).into_iter().map(|part| costs[part].iter().sum::<u64>()).max().unwrap_or(0);
    files + order + 5 * BATCH_BYTES + keys + part
}

/// What each of these columns takes while it is merged: decoders of the inputs that have a value of it, and the encoder.
fn costs(inputs: &[Input], schema: &SchemaRef, columns: &[usize]) -> Vec<u64> {
    let cost = |at: &usize| {
        let name = schema.field(*at).name();
        let encoder = segment::encoder_bytes(of_all(inputs, name, |column| column.values));
        encoder + of_all(inputs, name, |column| column.open_bytes)
    };
    columns.iter().map(cost).collect()
}

/// What a column takes of something in all inputs together.
fn of_all(inputs: &[Input], name: &str, of: impl Fn(ColumnCost) -> u64) -> u64 {
    inputs.iter().map(|input| of(input.cost.column(name))).sum()
}

/// The table's columns that the merged file has: those of every row of its kind, and those in which an input has a value.
/// One of hundreds of attributes that none of them has would be an encoder now and a decoder at each read.
fn columns(kind: Kind, inputs: &[Input], schema: &SchemaRef) -> Vec<usize> {
    let is_wanted = |name: &String| {
        is_fixed(kind, name) || inputs.iter().any(|input| input.cost.columns.contains_key(name))
    };
    let fields = schema.fields().iter().enumerate();
    fields.filter_map(|(at, field)| is_wanted(field.name()).then_some(at)).collect()
}

/// One file of several.
#[derive(Debug)]
pub struct Merged {
    /// Its bytes, and what is known of them.
    pub written: Written,
    /// The columns that it has, of the table's.
    pub schema: SchemaRef,
    /// Of the rows of all inputs, as they were read.
    pub fingerprint: Fingerprint,
}

/// Why there is no merged file.
#[derive(Debug)]
pub enum Failed {
    /// The input at this place cannot be merged: damaged, not sorted, or with columns that its table lacks.
    Input(usize, Error),
    /// The merge itself failed.
    Merge(Error),
    /// It was told to stop.
    Stopped,
}

/// Merges sorted segments of one table and date into one of those of the table's present columns that have a value.
///
/// Holds what [`merge_bytes`] says: the inputs' and the result's encoded bytes, and decoded at most 64 Ki rows or 1 MiB
/// of all inputs together, but for rows that are larger alone. The order of a row group comes first, from the columns that
/// the inputs are sorted by; then its columns, part by part. `goes_on` is asked once a batch.
///
/// # Errors
/// As [`Failed`] tells; nothing was written anywhere.
pub fn merge(
    kind: Kind,
    schema: &SchemaRef,
    inputs: Vec<Input>,
    row_group_rows: usize,
    goes_on: impl Fn() -> bool,
) -> Result<Merged, Failed> {
    let narrow = columns(kind, &inputs, schema);
    let costs = costs(&inputs, schema, &narrow);
    let narrow: SchemaRef = Arc::new(schema.project(&narrow).map_err(bug).map_err(Failed::Merge)?);
    let rows_max = inputs.iter().map(|input| input.file.rows).sum();
    let bytes = inputs.iter().map(|input| input.file.bytes).sum();
    let values = |name: &str| of_all(&inputs, name, |column| column.values);
    let mut writer = Writer::new(kind, Arc::clone(&narrow), rows_max, bytes, values, row_group_rows)
        .and_then(|writer| PartsWriter::of(writer, Arc::clone(&narrow)))
        .map_err(Failed::Merge)?;
    let keys = of_names(&narrow, keys(kind)).map_err(Failed::Merge)?;
    let (inputs, sizes) = open(schema, inputs)?;
    let of_input = |error: (usize, Error)| Failed::Input(error.0, error.1);
    let mut order = Order::open(&keys, &inputs, |at| sizes.batch_rows(at, &keys)).map_err(of_input)?;
    let mut fingerprint = Fingerprint::default();
    let mut starts = vec![0; inputs.len()];
    loop {
        let next = order.next(row_group_rows).map_err(of_input)?;
        if next.is_empty() {
            break;
        }
        let mut counts = vec![0; inputs.len()];
        next.iter().for_each(|at| counts[usize::from(*at)] += 1);
        let mut cells: Vec<Cells> = counts.iter().map(|count| Cells::of_rows(*count)).collect();
        let span = Span { inputs: &inputs, order: &next, starts: &starts, counts: &counts };
        let mut group = writer.row_group().map_err(Failed::Merge)?;
        for columns in parts(&costs) {
            let mut part = group.part(columns.clone()).map_err(Failed::Merge)?;
            let columns = Arc::clone(part.schema());
            let batch_rows = |at| sizes.batch_rows(at, &columns);
            gather(&span, &columns, batch_rows, sizes.written_rows(&columns), &mut cells, |rows| {
                if !goes_on() {
                    return Err(Failed::Stopped);
                }
                group.write(&mut part, rows).map_err(Failed::Merge)
            })?;
            group.append(part).map_err(Failed::Merge)?;
        }
        group.close().map_err(Failed::Merge)?;
        cells.iter().for_each(|cells| fingerprint.add_cells(cells));
        starts.iter_mut().zip(counts).for_each(|(start, count)| *start += count);
    }
    let written = writer.finish().map_err(Failed::Merge)?;
    Ok(Merged { written, schema: narrow, fingerprint })
}

/// Opens the inputs, whose columns must all be the table's.
fn open(schema: &SchemaRef, inputs: Vec<Input>) -> Result<(Vec<Opened>, Sizes), Failed> {
    let known: HashMap<&str, &DataType> =
        schema.fields().iter().map(|field| (field.name().as_str(), field.data_type())).collect();
    let is_known = |field: &Arc<Field>| known.get(field.name().as_str()) == Some(&field.data_type());
    let (mut opened, mut costs) = (Vec::with_capacity(inputs.len()), Vec::with_capacity(inputs.len()));
    for (at, Input { file, bytes, cost }) in inputs.into_iter().enumerate() {
        let input = Opened::committed(&file, bytes).map_err(|error| Failed::Input(at, error))?;
        if !input.schema().fields().iter().all(is_known) {
            let text = format!(
                "segment {} has a column that its table does not have, or has as another type",
                file.path
            );
            return Err(Failed::Input(at, Error::new(ErrorKind::Conflict, text)));
        }
        opened.push(input);
        costs.push(cost);
    }
    Ok((opened, Sizes(costs)))
}

/// The columns of these names.
fn of_names<'a>(schema: &SchemaRef, names: impl Iterator<Item = &'a str>) -> Result<SchemaRef> {
    let places: Vec<usize> =
        names.map(|name| schema.index_of(name)).collect::<Result<_, _>>().map_err(bug)?;
    Ok(Arc::new(schema.project(&places).map_err(bug)?))
}

/// How many rows of some columns go into a batch.
struct Sizes(Vec<Cost>);

impl Sizes {
    fn row_bytes(&self, at: usize, columns: &SchemaRef) -> u64 {
        columns.fields().iter().map(|field| self.0[at].column(field.name()).row_bytes).sum()
    }

    /// Of the input at this place, decoded at a time.
    fn batch_rows(&self, at: usize, columns: &SchemaRef) -> usize {
        let inputs = self.0.len().max(1);
        let fitting = BATCH_BYTES / inputs as u64 / self.row_bytes(at, columns).max(1);
        usize::try_from(fitting).unwrap_or(BATCH_ROWS).min(ROWS / inputs).clamp(1, BATCH_ROWS)
    }

    /// Of all inputs, written at a time.
    fn written_rows(&self, columns: &SchemaRef) -> usize {
        let largest = (0..self.0.len()).map(|at| self.row_bytes(at, columns)).max().unwrap_or(0);
        usize::try_from(BATCH_BYTES / largest.max(1)).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS)
    }
}

pub(super) fn bug(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Bug, "segments do not merge").with_source(error)
}
