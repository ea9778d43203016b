//! Several sorted segments to one, without holding more than a batch of each.
//!
//! Inputs are sorted by the order of their kind, then by writer and seq, which no two rows share: so the order
//! of the result is one, whatever files the rows came in (M1).

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::row::{RowConverter, Rows as Keys, SortField};
use bytes::Bytes;

use crate::error::{Error, Kind as ErrorKind, Result};
use crate::reader::DataFile;
use crate::record::Kind;
use crate::record::schema::is_fixed;
use crate::segment::{self, Cost, Fingerprint, Writer, Written};

/// Rows decoded at a time, of all inputs together.
const ROWS: usize = 64 * 1024;

/// Rows decoded at a time of one input, and written at a time.
const BATCH_ROWS: usize = 8 * 1024;

/// Bytes of rows decoded at a time, of all inputs together, and again as keys, as what is written, and as what was taken
/// of batches that are read to their ends.
const BATCH_BYTES: u64 = 1 << 20;

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

/// Memory that a merge takes, in bytes: files in and out, open pages, a batch of rows in four forms, and encoders.
pub fn merge_bytes(kind: Kind, inputs: &[Input], schema: &SchemaRef) -> u64 {
    let of_input = |input: &Input| 2 * input.file.bytes + input.cost.open_bytes + input.cost.row_bytes;
    let of_all: u64 = inputs.iter().map(of_input).sum();
    let names = columns(kind, inputs, schema).into_iter().map(|at| schema.field(at).name());
    let encoders: u64 = names.map(|name| segment::encoder_bytes(value_bytes(inputs, name))).sum();
    of_all + 4 * BATCH_BYTES + encoders
}

/// The table's columns that the merged file has: those of every row of its kind, and those in which an input has a value.
/// One of hundreds of attributes that none of them has would be an encoder now and a decoder at each read.
fn columns(kind: Kind, inputs: &[Input], schema: &SchemaRef) -> Vec<usize> {
    let is_wanted = |name: &String| {
        is_fixed(kind, name) || inputs.iter().any(|input| input.cost.values.contains_key(name))
    };
    let fields = schema.fields().iter().enumerate();
    fields.filter_map(|(at, field)| is_wanted(field.name()).then_some(at)).collect()
}

/// Bytes of a column's values in all inputs, about; 0 where none has any.
fn value_bytes(inputs: &[Input], name: &str) -> u64 {
    inputs.iter().map(|input| input.cost.values.get(name).copied().unwrap_or(0)).sum()
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
/// of all inputs together, but for rows that are larger alone. `goes_on` is asked once a batch.
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
    let rows_max = inputs.iter().map(|input| input.file.rows).sum();
    let values = |name: &str| value_bytes(&inputs, name);
    let bytes = inputs.iter().map(|input| input.file.bytes).sum();
    let columns = columns(kind, &inputs, schema);
    let narrow: SchemaRef = Arc::new(schema.project(&columns).map_err(bug).map_err(Failed::Merge)?);
    let mut writer = Writer::new(kind, Arc::clone(&narrow), rows_max, bytes, values, row_group_rows)
        .map_err(Failed::Merge)?;
    let of_one = (ROWS / inputs.len().max(1)).clamp(1, BATCH_ROWS);
    let bytes_of_one = BATCH_BYTES / inputs.len().max(1) as u64;
    let batch_rows =
        |row_bytes: u64, bytes: u64| usize::try_from(bytes / row_bytes.max(1)).unwrap_or(of_one).max(1);
    let largest = inputs.iter().map(|input| input.cost.row_bytes).max().unwrap_or(1);
    let written_rows = batch_rows(largest, BATCH_BYTES).min(BATCH_ROWS);
    let order = Order::new(kind, &narrow).map_err(Failed::Merge)?;
    let known = schema.fields().iter().map(|field| (field.name().as_str(), field.data_type())).collect();
    let mut fingerprint = Fingerprint::default();
    let mut cursors = Vec::with_capacity(inputs.len());
    for (at, input) in inputs.into_iter().enumerate() {
        let rows = batch_rows(input.cost.row_bytes, bytes_of_one).min(of_one);
        let mut cursor =
            Cursor::open(input, &known, &narrow, rows).map_err(|error| Failed::Input(at, error))?;
        cursor.advance(&order, &mut fingerprint).map_err(|error| Failed::Input(at, error))?;
        cursors.push(cursor);
    }
    let mut batches = current(&mut cursors);
    let mut heap = Heap::new((0..cursors.len()).filter(|at| !cursors[*at].is_done()).collect(), &cursors);
    let mut taken: Vec<(usize, usize)> = Vec::with_capacity(written_rows);
    while let Some(lowest) = heap.lowest() {
        let cursor = &mut cursors[lowest];
        taken.push((cursor.place, cursor.row));
        let is_last = cursor.row + 1 == cursor.batch.num_rows();
        cursor.advance(&order, &mut fingerprint).map_err(|error| Failed::Input(lowest, error))?;
        if is_last {
            // The batch before stays until its rows, which were all taken, are copied out.
            cursor.place = batches.len();
            batches.push(cursor.batch.clone());
        }
        heap.settle(&cursors);
        if taken.len() == written_rows || heap.lowest().is_none() {
            if !goes_on() {
                return Err(Failed::Stopped);
            }
            write(&mut writer, &batches, &taken).map_err(Failed::Merge)?;
            taken.clear();
            batches = current(&mut cursors);
        }
    }
    let written = writer.finish().map_err(Failed::Merge)?;
    Ok(Merged { written, schema: narrow, fingerprint })
}

/// The batches that cursors are in; each cursor's place among them.
fn current(cursors: &mut [Cursor]) -> Vec<RecordBatch> {
    let mut batches = Vec::with_capacity(cursors.len());
    for cursor in cursors.iter_mut().filter(|cursor| !cursor.is_done()) {
        cursor.place = batches.len();
        batches.push(cursor.batch.clone());
    }
    batches
}

/// Writes the rows taken from batches.
fn write(writer: &mut Writer, batches: &[RecordBatch], taken: &[(usize, usize)]) -> Result<()> {
    let batches: Vec<&RecordBatch> = batches.iter().collect();
    writer.write(&interleave_record_batch(&batches, taken).map_err(bug)?)
}

fn bug(error: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Bug, "segments do not merge").with_source(error)
}

/// Rows as byte strings that compare as the rows do.
struct Order {
    converter: RowConverter,
    columns: Vec<usize>,
}

impl Order {
    fn new(kind: Kind, schema: &SchemaRef) -> Result<Self> {
        let names = segment::order(kind).iter().chain(&segment::KEYS);
        let columns: Vec<usize> =
            names.map(|name| schema.index_of(name)).collect::<Result<_, _>>().map_err(bug)?;
        let fields = columns
            .iter()
            .map(|at| SortField::new_with_options(schema.field(*at).data_type().clone(), segment::OPTIONS));
        Ok(Self { converter: RowConverter::new(fields.collect()).map_err(bug)?, columns })
    }

    fn keys(&self, batch: &RecordBatch) -> Result<Keys> {
        let columns: Vec<ArrayRef> = self.columns.iter().map(|at| Arc::clone(batch.column(*at))).collect();
        self.converter.convert_columns(&columns).map_err(bug)
    }
}

/// A place in one input.
struct Cursor {
    rows: segment::Rows,
    path: String,
    batch: RecordBatch,
    /// Of `batch`, among those that rows are taken from.
    place: usize,
    keys: Option<Keys>,
    row: usize,
}

impl Cursor {
    /// Opens an input whose columns are all `known`, with those of `narrow`: of hundreds that a table has, few have values.
    fn open(
        input: Input,
        known: &HashMap<&str, &DataType>,
        narrow: &SchemaRef,
        batch_rows: usize,
    ) -> Result<Self> {
        let rows = segment::read(&input.file, input.bytes, narrow, batch_rows)?;
        let path = input.file.path.clone();
        let is_known = |field: &Arc<Field>| known.get(field.name().as_str()) == Some(&field.data_type());
        if !rows.file_schema().fields().iter().all(is_known) {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("segment {path} has a column that its table does not have, or has as another type"),
            ));
        }
        let batch = RecordBatch::new_empty(SchemaRef::clone(narrow));
        Ok(Self { rows, path, batch, place: 0, keys: None, row: 0 })
    }

    fn is_done(&self) -> bool {
        self.keys.is_none()
    }

    fn key(&self) -> arrow::row::Row<'_> {
        self.keys.as_ref().expect("a cursor that is done is in no heap").row(self.row)
    }

    /// Steps to the next row, which must not come before this one.
    fn advance(&mut self, order: &Order, fingerprint: &mut Fingerprint) -> Result<()> {
        let unsorted = |path: &str| {
            Error::new(ErrorKind::Conflict, format!("segment {path} is not sorted as its table's are"))
        };
        if self.row + 1 < self.batch.num_rows() {
            let keys = self.keys.as_ref().expect("a batch with rows has keys");
            if keys.row(self.row + 1) < keys.row(self.row) {
                return Err(unsorted(&self.path));
            }
            self.row += 1;
            return Ok(());
        }
        let last = self.keys.take().map(|keys| keys.row(self.row).owned());
        self.batch = RecordBatch::new_empty(self.batch.schema());
        for batch in self.rows.by_ref() {
            let batch = batch?;
            if batch.num_rows() == 0 {
                continue;
            }
            fingerprint.add(&batch);
            let keys = order.keys(&batch)?;
            if last.as_ref().is_some_and(|last| keys.row(0) < last.row()) {
                return Err(unsorted(&self.path));
            }
            (self.batch, self.keys, self.row) = (batch, Some(keys), 0);
            break;
        }
        Ok(())
    }
}

/// The places of cursors that have rows, the one with the lowest first: a binary heap whose order is not its
/// own.
struct Heap(Vec<usize>);

impl Heap {
    fn new(places: Vec<usize>, cursors: &[Cursor]) -> Self {
        let mut heap = Self(places);
        for at in (0..heap.0.len() / 2).rev() {
            heap.sink(at, cursors);
        }
        heap
    }

    fn lowest(&self) -> Option<usize> {
        self.0.first().copied()
    }

    /// Finds the first one's place again after it moved on.
    fn settle(&mut self, cursors: &[Cursor]) {
        if cursors[self.0[0]].is_done() {
            self.0.swap_remove(0);
        }
        self.sink(0, cursors);
    }

    fn sink(&mut self, mut at: usize, cursors: &[Cursor]) {
        let order = |a: usize, b: usize| -> Ordering {
            // Only a foreign file can hold a row that another holds too: then the earlier input's comes first.
            cursors[a].key().cmp(&cursors[b].key()).then(a.cmp(&b))
        };
        loop {
            let children = (2 * at + 1)..(2 * at + 3).min(self.0.len());
            let Some(lowest) = children.min_by(|a, b| order(self.0[*a], self.0[*b])) else { return };
            if order(self.0[at], self.0[lowest]) == Ordering::Less {
                return;
            }
            self.0.swap(at, lowest);
            at = lowest;
        }
    }
}
