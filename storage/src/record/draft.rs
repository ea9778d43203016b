//! The chunk while it is being written: decoders append, scrubbing rewrites, [`super::Clean`] closes.
//!
//! ```text
//!   decoder ── begin_row, set, attribute, end_row | abort_row ──► Draft ── correlate, scrub ──► Clean ── measure
//! ```
//! There is no per-row object: a value goes from the body's bytes into its column. A key is resolved by
//! position first (the same source sends the same order), by hash only when that misses (`keys`). A column
//! that few rows fill holds its values and their rows, and is never padded to the chunk's length (`sparse.rs`).
//! What has no column of its own (another type for a known key, a name Delta forbids, an integer above
//! `i64::MAX`, more keys or more cells than the bounds) goes to `_overflow`, one JSON object a row.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::array::RecordBatchOptions;
use arrow::datatypes::Schema;

use super::column::{Column, Scalar, TextColumn};
use super::kind::{Field, Kind, Type};
use super::schema;
use super::sparse::Run;
use overflow::Overflow;

pub use attribute::AttributeColumn;

/// Attribute columns in one chunk at most; further keys overflow. The same bound holds per dataset
/// (`fit.rs`), so a chunk cannot usefully have more.
pub const ATTRIBUTE_COLUMNS_MAX: usize = 512;

/// Cells (rows times columns) that the sparse attribute columns of one chunk may span. Sealing and reading write
/// such a column out row by row, so what it spans costs there what its values did not cost here; columns beyond
/// this go to `_overflow`, those with the fewest values first. Chosen: 20 columns of the longest chunk, and every
/// column of a chunk of 4,096 rows; written out at most 18 MiB of numbers.
pub const SPARSE_CELLS_MAX: usize = 2 << 20;

/// What a key that is new in a chunk takes: its entries in the two maps, its column while it is empty. Measured.
const KEY_BYTES: usize = 448;

/// The value of an attribute, borrowed from the body.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text.
    Text(&'a str),
    /// A signed integer.
    Int(i64),
    /// An unsigned integer; above `i64::MAX` it overflows.
    Uint(u64),
    /// A double, bit-exact (one NaN).
    Double(f64),
    /// A boolean.
    Bool(bool),
    /// Bytes.
    Bytes(&'a [u8]),
    /// One JSON value as text: arrays and maps that are kept whole.
    Json(&'a str),
}

impl Value<'_> {
    fn r#type(&self) -> Type {
        match self {
            Value::Text(_) => Type::Text,
            Value::Int(_) | Value::Uint(_) => Type::Int,
            Value::Double(_) => Type::Double,
            Value::Bool(_) => Type::Bool,
            Value::Bytes(_) => Type::Bytes,
            Value::Json(_) => Type::Json,
        }
    }

    fn scalar(&self) -> Option<Scalar<'_>> {
        Some(match *self {
            Value::Text(text) | Value::Json(text) => Scalar::Text(text.as_bytes()),
            Value::Int(int) => Scalar::Int(int),
            Value::Uint(uint) => Scalar::Int(i64::try_from(uint).ok()?),
            Value::Double(double) => Scalar::Double(double),
            Value::Bool(bool) => Scalar::Bool(bool),
            Value::Bytes(bytes) => Scalar::Text(bytes),
        })
    }
}

/// How an attribute was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// It is new in this row.
    New,
    /// The row had that key already; the last value stands (C25).
    Duplicate,
}

/// A chunk of one kind of records, growing.
#[derive(Debug)]
pub struct Draft {
    kind: Kind,
    row_count: usize,
    in_row: bool,
    fixed: Vec<Column>,
    /// The rows of each entry of a fixed column whose entries are shared by rows; empty of every other.
    runs: Vec<Vec<Run>>,
    positions: [u8; Field::ALL.len()],
    attributes: Vec<AttributeColumn>,
    by_key: HashMap<Box<str>, u32>,
    folded: HashMap<String, u32>,
    /// Which attributes have a column in this chunk.
    used: Vec<u32>,
    next: usize,
    /// Keys that were remembered when this chunk began.
    keys_before: usize,
    /// Numbers the rows that were opened, those that were taken back included.
    opened: u64,
    overflow: Overflow,
}

const ABSENT: u8 = u8::MAX;

impl Draft {
    /// An empty draft for records of `kind`.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let mut positions = [ABSENT; Field::ALL.len()];
        for (position, field) in kind.fields().iter().enumerate() {
            positions[*field as usize] = u8::try_from(position).expect("a kind has fewer than 255 fields");
        }
        Self {
            kind,
            row_count: 0,
            in_row: false,
            fixed: kind.fields().iter().map(|field| Column::new(field.r#type())).collect(),
            runs: kind.fields().iter().map(|_| Vec::new()).collect(),
            positions,
            attributes: Vec::new(),
            by_key: HashMap::new(),
            folded: HashMap::new(),
            used: Vec::new(),
            next: 0,
            keys_before: 0,
            opened: 0,
            overflow: Overflow::default(),
        }
    }

    /// The kind of the records.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Rows that are ended.
    #[must_use]
    pub fn row_count(&self) -> usize {
        self.row_count
    }

    /// Whether this kind has the field.
    #[must_use]
    pub fn has(&self, field: Field) -> bool {
        self.positions[field as usize] != ABSENT
    }

    /// Opens a row.
    pub fn begin_row(&mut self) {
        debug_assert!(!self.in_row, "rows do not nest");
        self.in_row = true;
        self.next = 0;
        self.opened += 1;
    }

    /// Closes the row: it is part of the chunk from here on.
    pub fn end_row(&mut self) {
        debug_assert!(self.in_row, "a row is open");
        self.overflow.end_row(self.row_count);
        self.row_count += 1;
        self.in_row = false;
    }

    /// Takes the open row back: nothing of it stays.
    pub fn abort_row(&mut self) {
        let row = self.row_count;
        self.take_fixed_back();
        // Only columns of this chunk: a body of rejected records must not pay for keys of others.
        for index in &self.used {
            self.attributes[*index as usize].take_back(row);
        }
        self.overflow.abort_row();
        self.in_row = false;
    }

    /// Writes a text field of the open row; the last write stands.
    pub fn set_text(&mut self, field: Field, value: &str) {
        self.set(field, Scalar::Text(value.as_bytes()));
    }

    /// Writes an integer field of the open row; the last write stands.
    pub fn set_int(&mut self, field: Field, value: i64) {
        self.set(field, Scalar::Int(value));
    }

    /// Writes a double field of the open row; the last write stands.
    pub fn set_double(&mut self, field: Field, value: f64) {
        self.set(field, Scalar::Double(value));
    }

    /// Writes a bytes field of the open row; the last write stands.
    pub fn set_bytes(&mut self, field: Field, value: &[u8]) {
        self.set(field, Scalar::Text(value));
    }

    fn set(&mut self, field: Field, value: Scalar<'_>) {
        debug_assert!(self.in_row, "a row is open");
        let row = self.row_count;
        self.column_mut(field).set(row, value);
    }

    /// Whether the open row has that field.
    #[must_use]
    pub fn is_set(&self, field: Field) -> bool {
        self.column(field).is_set(self.row_count)
    }

    /// A field's column.
    ///
    /// # Panics
    /// When this kind of record has no such field: ask [`Self::has`].
    #[must_use]
    pub fn column(&self, field: Field) -> &Column {
        &self.fixed[usize::from(self.positions[field as usize])]
    }

    /// A field's column, to be rewritten by correlation and scrubbing.
    ///
    /// # Panics
    /// When this kind of record has no such field: ask [`Self::has`].
    pub fn column_mut(&mut self, field: Field) -> &mut Column {
        &mut self.fixed[usize::from(self.positions[field as usize])]
    }

    /// The attribute columns that this chunk uses, in order of first appearance.
    pub fn attributes(&self) -> impl Iterator<Item = &AttributeColumn> {
        self.attributes.iter().filter(|attribute| attribute.used)
    }

    /// As [`Self::attributes`], to be rewritten by scrubbing.
    pub fn attributes_mut(&mut self) -> impl Iterator<Item = &mut AttributeColumn> {
        self.attributes.iter_mut().filter(|attribute| attribute.used)
    }

    /// The overflow column: one JSON object a row where a row needs it.
    ///
    /// What scrubbing moved there is in it once [`Self::overflow_mut`] was called.
    #[must_use]
    pub fn overflow(&self) -> &TextColumn {
        self.overflow.column()
    }

    /// As [`Self::overflow`], to be rewritten by scrubbing, with everything that was moved there.
    pub fn overflow_mut(&mut self) -> &mut TextColumn {
        self.overflow.settled(self.row_count)
    }

    /// Writes an attribute of the open row; the last value of a key stands.
    pub fn attribute(&mut self, key: &str, value: Value<'_>) -> Taken {
        debug_assert!(self.in_row, "a row is open");
        let Some(index) = self.resolve(key) else { return self.overflow.put_new_key(key, &value) };
        let fits_bound = self.used.len() < ATTRIBUTE_COLUMNS_MAX;
        let attribute = &mut self.attributes[index];
        if !attribute.used && attribute.nameable && fits_bound {
            attribute.begin(value.r#type());
            self.used.push(u32::try_from(index).expect("remembered keys are bounded"));
        }
        let row = self.row_count;
        let mut taken = Taken::New;
        if attribute.used && attribute.take_back(row) {
            taken = Taken::Duplicate;
        }
        if attribute.overflowed == self.opened {
            self.overflow.take_back(attribute.overflow_entry);
            attribute.overflowed = 0;
            taken = Taken::Duplicate;
        }
        match value.scalar() {
            Some(scalar) if attribute.used && attribute.r#type == value.r#type() => {
                attribute.write(row, scalar);
            }
            _ => {
                attribute.overflow_entry = self.overflow.put(key, &value);
                attribute.overflowed = self.opened;
            }
        }
        taken
    }

    /// Memory that the draft's rows hold, in bytes: what columns and `_overflow` have allocated.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let fixed: usize = self.fixed.iter().map(Column::held_bytes).sum();
        let used = self.used.iter().map(|index| self.attributes[*index as usize].held_bytes());
        let keys = self.attributes.len().saturating_sub(self.keys_before) * KEY_BYTES;
        let runs: usize = self.runs.iter().map(|runs| runs.capacity() * size_of::<Run>()).sum();
        fixed + runs + used.sum::<usize>() + keys + self.overflow.held_bytes()
    }

    /// Closes the draft: its columns become a batch, and the draft is empty, ready for the next chunk.
    ///
    /// The keys stay remembered, so that the same source's next chunk resolves them by position.
    pub(crate) fn take(&mut self) -> RecordBatch {
        debug_assert!(!self.in_row, "the last row is ended or aborted");
        let len = self.row_count;
        self.move_rare_columns();
        let mut fields = Vec::new();
        let mut arrays = Vec::new();
        for ((field, column), runs) in self.kind.fields().iter().zip(&mut self.fixed).zip(&mut self.runs) {
            if column.is_empty() {
                continue;
            }
            let array = match std::mem::take(runs) {
                runs if runs.is_empty() => column.take(field.r#type(), len),
                runs => shared::take(column, *field, &runs, len),
            };
            fields.push(schema::chunk_field(field.name(), field.r#type(), &*array));
            arrays.push(array);
        }
        for attribute in self.attributes.iter_mut().filter(|attribute| attribute.used) {
            let name = schema::attribute_column_name(self.kind, &attribute.key);
            let array = attribute.take(len);
            fields.push(schema::chunk_field(&name, attribute.r#type, &*array));
            arrays.push(array);
        }
        let overflow = self.overflow.settled(len);
        if !overflow.is_empty() {
            fields.push(schema::arrow_field(schema::OVERFLOW, Type::Json));
            arrays.push(Column::Text(std::mem::take(overflow)).take(Type::Json, len));
        }
        self.reset();
        let options = RecordBatchOptions::new().with_row_count(Some(len));
        RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
            .expect("every column was padded to the same number of rows")
    }

    /// Forgets all rows; keys stay remembered up to a bound.
    pub fn reset(&mut self) {
        self.row_count = 0;
        self.in_row = false;
        self.next = 0;
        for (column, runs) in self.fixed.iter_mut().zip(&mut self.runs) {
            column.truncate(0);
            runs.clear();
        }
        for index in self.used.drain(..) {
            self.attributes[index as usize].end();
        }
        self.overflow.clear();
        self.forget_keys();
    }
}

fn utf8(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text columns hold text: decoders check UTF-8")
}

mod attribute;
mod keys;
mod moves;
mod overflow;
mod shared;
#[cfg(test)]
mod tests;
